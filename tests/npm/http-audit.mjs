// Runs the GraphQL-over-HTTP audit of graphql-http against a server and prints what each item came to, as JSON.
//
//     node http-audit.mjs URL

import { serverAudits } from "graphql-http";

const [url] = process.argv.slice(2);
const results = [];
for (const audit of serverAudits({ url, fetchFn: fetch })) {
  const result = await audit.fn();
  results.push({ id: audit.id, name: audit.name, status: result.status, reason: result.reason });
}
console.log(JSON.stringify(results));
