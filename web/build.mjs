// Builds dist/: the HTML pages, and assets/ with hashed names that may be cached for ever.
//
// A page in pages/ names its entry point as it lies in the sources, `<script src="/src/….js">`; the build bundles it and
// puts the addresses of the results there. Nothing inline, nothing from another host: the pages run under a strict CSP.

import { build } from "esbuild";
import { createHash } from "node:crypto";
import { cp, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const root = dirname(fileURLToPath(import.meta.url));
const dist = join(root, "dist");
const ENTRY = /<script type="module" src="\/(src\/[^"]+)"><\/script>/;

const pages = [];
for (const name of (await readdir(join(root, "pages"))).sort()) {
  const html = await readFile(join(root, "pages", name), "utf8");
  const entry = ENTRY.exec(html)?.[1];
  if (!entry) throw new Error(`pages/${name} names no entry point`);
  pages.push({ name, html, entry });
}

// GraphiQL's style sheet carries 350 KB of web fonts as data; the system's fonts do as well.
const withoutFonts = {
  name: "without-fonts",
  setup({ onLoad }) {
    onLoad({ filter: /graphiql[\\/]dist[\\/]style\.css$/ }, async ({ path }) => ({
      contents: (await readFile(path, "utf8")).replace(/@font-face\s*\{[^}]*\}/g, ""),
      loader: "css",
    }));
  },
};

// A file with one operation becomes the request that sends it: text and hash, for servers that know their clients' documents.
const documents = {
  name: "documents",
  setup({ onLoad }) {
    onLoad({ filter: /\.graphql$/ }, async ({ path }) => {
      const query = (await readFile(path, "utf8")).replace(/^#.*\n/gm, "").trim();
      const sha256Hash = createHash("sha256").update(query).digest("hex");
      const operationName = basename(path, ".graphql");
      return { contents: JSON.stringify({ operationName, query, extensions: { persistedQuery: { version: 1, sha256Hash } } }), loader: "json" };
    });
  },
};

await rm(dist, { recursive: true, force: true });
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: Object.fromEntries(pages.map(({ name, entry }) => [basename(name, ".html"), entry])),
  entryNames: "[name]-[hash]",
  outdir: "dist/assets",
  bundle: true,
  minify: true,
  metafile: true,
  format: "esm",
  target: "es2021",
  jsx: "automatic",
  charset: "utf8",
  legalComments: "none", // all licences are in dist/licenses.txt
  define: { "process.env.NODE_ENV": '"production"' },
  plugins: [documents, withoutFonts],
  logLevel: "warning",
});

for (const { name, html, entry } of pages) {
  const [script, output] = Object.entries(metafile.outputs).find(([, output]) => output.entryPoint === entry);
  const address = (file) => `/assets/${basename(file)}`;
  const style = output.cssBundle ? `<link rel="stylesheet" href="${address(output.cssBundle)}">\n  ` : "";
  const tags = `${style}<script type="module" src="${address(script)}"></script>`;
  await writeFile(join(dist, name), html.replace(ENTRY, tags));
}
await cp(join(root, "static"), dist, { recursive: true });
await writeFile(join(dist, "licenses.txt"), await licences(Object.keys(metafile.inputs)));

for (const [file, { bytes }] of Object.entries(metafile.outputs)) {
  console.log(`${String(Math.ceil(bytes / 1024)).padStart(6)} KiB  ${file}`);
}

/** The licence texts of all packages of which something is in the bundles. */
async function licences(inputs) {
  const folders = inputs.map((path) => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(path)?.[0]).filter(Boolean);
  const texts = [];
  for (const folder of [...new Set(folders)].sort()) {
    const { name, version, license } = JSON.parse(await readFile(join(root, folder, "package.json"), "utf8"));
    const file = (await readdir(join(root, folder))).find((file) => /^licen[cs]e/i.test(file));
    const text = file ? (await readFile(join(root, folder, file), "utf8")).trim() : "";
    texts.push(`${name} ${version} (${license})\n\n${text}\n`);
  }
  return texts.join(`\n${"-".repeat(80)}\n\n`);
}
