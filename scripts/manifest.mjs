// Adds the operations of frontend-queries/ and of our own pages to the manifest. Nothing is ever taken out: a phone sends for years what it was
// built with. The form is the one of Apollo's persisted query manifests.
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const root = new URL("../", import.meta.url);
const file = new URL("frontend-queries/manifest.json", root);
const manifest = JSON.parse(readFileSync(file, "utf8"));
const known = new Set(manifest.operations.map(({ id }) => id));

let added = 0;
for (const client of ["frontend-queries/web", "frontend-queries/mobile", "frontend-queries/admin", "web/src/account"]) {
  const names = readdirSync(new URL(`${client}/`, root)).filter((name) => name.endsWith(".graphql"));
  for (const name of names.sort()) {
    const text = readFileSync(new URL(`${client}/${name}`, root), "utf8");
    const body = text.replace(/^#.*\n/gm, "").trim();
    const id = createHash("sha256").update(body).digest("hex");
    if (known.has(id)) continue;
    const [, type, operation] = /^(query|mutation|subscription) (\w+)/.exec(body);
    manifest.operations.push({ id, name: operation, type, body });
    known.add(id);
    added += 1;
  }
}
writeFileSync(file, `${JSON.stringify(manifest, null, 2)}\n`);
console.log(`${added} added, ${manifest.operations.length} in all`);
