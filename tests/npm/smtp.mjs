// A mail server with TLS for tests: takes mail from one user and prints each as a line of JSON.
//
//   node tests/npm/smtp.mjs <port> <certificate's file> <key's file> <user> <password>
//
// Prints "ready" first. Ends when its input does, so that it never outlives the test.

import { readFileSync } from "node:fs";
import PostalMime from "postal-mime";
import { SMTPServer } from "smtp-server";

const [port, certificate, key, user, password] = process.argv.slice(2);

const server = new SMTPServer({
  cert: readFileSync(certificate),
  key: readFileSync(key),
  disableReverseLookup: true,
  onAuth({ username, password: given }, session, done) {
    const known = session.secure && username === user && given === password;
    done(known ? null : new Error("Unknown user, or no TLS"), { user });
  },
  onData(stream, session, done) {
    read(stream).then((mail) => {
      console.log(JSON.stringify({ ...mail, envelope: session.envelope.rcptTo.map(({ address }) => address), tls: session.secure }));
      done();
    }, done);
  },
});
server.on("error", (error) => console.error(error.message));
server.listen(Number(port), "127.0.0.1", () => console.log('"ready"'));
process.stdin.on("end", () => process.exit()).resume();

async function read(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const raw = Buffer.concat(chunks);
  const { from, to, subject, text, html, attachments } = await PostalMime.parse(raw);
  const contentType = /^content-type:\s*([^;\s]+)/im.exec(raw.toString("latin1"))?.[1];
  return { from: from.address, to: to.map(({ address }) => address), subject, text, html, attachments: attachments.length, contentType };
}
