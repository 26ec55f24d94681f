// Drives the program's own pages in a real browser: a first purchase in GraphiQL, the mailbox, the link of a mail.
//
//   node web/test/pages.mjs <base URL> <e-mail> <password> <flash sale's id> [folder for screenshots]
//
// The e-mail and password are of a customer who may buy: verified, with an address and without orders. The sale must be
// open, and the mailbox must hold a mail with a verification link that nobody has used.
//
// Prints a line per step. When one fails it says why, leaves a screenshot of each page and ends with 1.

import assert from "node:assert/strict";
import { accessSync, constants, existsSync, mkdirSync, mkdtempSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";

const PATIENCE_MS = 20_000;
const BROWSERS = ["chromium", "chromium-browser", "google-chrome"];
// As on a laptop: what a visitor sees first has to fit there.
const VIEWPORT = { width: 1360, height: 820 };
// GraphiQL's editors.
const QUERY = ".graphiql-query-editor .CodeMirror";
const VARIABLES = 'section[aria-label="Variables"] .graphiql-editor:not(.hidden) .CodeMirror';
const RESPONSE = ".result-window .CodeMirror";

const [base, email, password, sale, folder] = process.argv.slice(2);
if (!sale) fail("usage: node web/test/pages.mjs <base URL> <e-mail> <password> <flash sale's id> [folder for screenshots]");
const origin = new URL(base).origin;
const screenshots = folder ?? mkdtempSync(join(tmpdir(), "pages-"));
mkdirSync(screenshots, { recursive: true });

const { chromium } = await import("playwright-core").catch((error) => {
  if (error.code !== "ERR_MODULE_NOT_FOUND") throw error;
  fail("web/node_modules has no playwright-core: `make test` installs it");
});
const { buildClientSchema, parse, validate } = await import("graphql");

const browser = await chromium.launch({
  executablePath: findBrowser(),
  args: [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
  ],
});
const context = await browser.newContext({ viewport: VIEWPORT, locale: "en-US", colorScheme: "light", serviceWorkers: "block" });
context.setDefaultTimeout(PATIENCE_MS);

// What no page may do, whatever the step.
const faults = [];
const strangers = [];
await context.route((url) => url.origin !== origin, (route) => {
  strangers.push(route.request().url());
  return route.abort();
});
context.on("page", (page) => {
  page.on("console", (message) => message.type() === "error" && faults.push(`${page.url()}: ${message.text()}`));
  page.on("pageerror", (error) => faults.push(`${page.url()}: ${error.stack ?? error}`));
  page.on("websocket", (socket) => new URL(socket.url()).host !== new URL(origin).host && strangers.push(socket.url()));
});

let pictures = 0;
let current = "the start";
try {
  await run();
} catch (error) {
  const saved = [];
  for (const [index, page] of context.pages().entries()) {
    const path = join(screenshots, `failed-${index + 1}.png`);
    const taken = await page.screenshot({ path, timeout: 5_000 }).then(() => true, () => false);
    if (taken) saved.push(`${path} (${page.url()})`);
  }
  console.error(`FAILED at "${current}": ${error.stack ?? error}`);
  for (const fault of faults) console.error(`console: ${fault}`);
  for (const url of strangers) console.error(`request to another host: ${url}`);
  console.error(`screenshots:\n  ${saved.join("\n  ") || "none could be taken"}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function run() {
  const watcher = await context.newPage();

  await step("GraphiQL comes up with the schema, and its examples are valid", watcher, "graphiql", async () => {
    const [introspection] = await Promise.all([
      watcher.waitForResponse((response) => response.request().postData()?.includes("IntrospectionQuery") ?? false),
      watcher.goto(`${origin}/`),
    ]);
    const { data } = await introspection.json();
    const schema = buildClientSchema(data);
    await watcher.getByRole("tab", { name: "FlashSales" }).waitFor();
    await watcher.getByRole("button", { name: "Show Documentation Explorer" }).click();
    const docs = watcher.locator(".graphiql-doc-explorer");
    for (const root of ["Query", "Mutation", "Subscription"]) await docs.getByRole("link", { name: root, exact: true }).waitFor();
    await docs.getByRole("link", { name: "Mutation", exact: true }).click();
    await docs.getByRole("link", { name: "buyNow", exact: true }).waitFor();

    // GraphiQL stores its tabs a moment after it has shown them.
    const stored = await until("the tabs to be stored", () => watcher.evaluate(() => sessionStorage.getItem("graphiql:tabState")));
    const { tabs } = JSON.parse(stored);
    assert.equal(tabs.length, 10, "the number of tabs");
    for (const tab of tabs) {
      JSON.parse(tab.variables || "{}");
      const errors = validate(schema, parse(tab.query)).map((error) => error.message);
      assert.deepEqual(errors, [], `the example "${tab.title}"`);
    }
  });

  await step("FlashSales lists the open sale", watcher, "flash-sales", async () => {
    await watcher.getByRole("button", { name: "Hide Documentation Explorer" }).click();
    await openTab(watcher, "FlashSales", "query FlashSales");
    await execute(watcher);
    const { data } = await response(watcher, ({ data, errors }) => data || errors);
    const found = data?.flashSales.nodes.find((node) => node.id === sale);
    assert.equal(found?.phase, "OPEN", `sale ${sale} in ${JSON.stringify(data)}`);
    assert.ok(found.remainingUnits > 0 && found.price.amount, JSON.stringify(found));
  });

  await step("a wrong password is refused, the right one signs in", watcher, "signed-in", async () => {
    await fillSignIn(watcher, email, `not ${password}`);
    await watcher.locator("#session.bad").waitFor();
    await signIn(watcher);
  });

  const statuses = [];
  await step("OrderUpdates waits for orders", watcher, "order-updates", async () => {
    await openTab(watcher, "OrderUpdates", "subscription OrderUpdates");
    let subscribed = false;
    watcher.once("websocket", (socket) => {
      socket.on("framesent", ({ payload }) => { subscribed ||= JSON.parse(payload).type === "subscribe"; });
      socket.on("framereceived", ({ payload }) => {
        const status = JSON.parse(payload).payload?.data?.orderUpdates?.status;
        if (status) statuses.push(status);
      });
    });
    await execute(watcher);
    await watcher.getByRole("button", { name: "Stop query" }).waitFor();
    await until("the subscription to be sent", () => subscribed);
  });

  // Changing tabs inside GraphiQL ends a subscription, so the purchase is made in a second window, as its example says.
  const buyer = await context.newPage();
  let order;
  await step("BuyNow in a second window is accepted", buyer, "buy-now", async () => {
    await buyer.goto(`${origin}/`);
    await signIn(buyer);
    await openTab(buyer, "BuyNow", "mutation BuyNow");
    const variables = JSON.parse(await value(buyer, VARIABLES));
    variables.input.flashSaleId = sale;
    await setValue(buyer, VARIABLES, JSON.stringify(variables, null, 2));
    await execute(buyer);
    const { data, errors } = await response(buyer, ({ data, errors }) => data || errors);
    const result = data?.buyNow.result;
    assert.equal(result?.__typename, "OrderAccepted", JSON.stringify(data ?? errors));
    assert.equal(result.replayed, false);
    order = result.order;
  });

  await step("the same key gives the same order, a new key is made by the button", buyer, "replayed", async () => {
    await execute(buyer);
    const { data } = await response(buyer, ({ data }) => data?.buyNow.result?.replayed);
    assert.equal(data.buyNow.result.order.id, order.id);
    const key = async () => JSON.parse(await value(buyer, VARIABLES)).input.idempotencyKey;
    const before = await key();
    await buyer.getByRole("button", { name: "New idempotency key" }).click();
    assert.notEqual(await key(), before);
    assert.equal(JSON.parse(await value(buyer, VARIABLES)).input.flashSaleId, sale, "the other variables stay");
  });

  await step("OrderUpdates shows the order PAID", watcher, "paid", async () => {
    await watcher.bringToFront();
    const { data } = await response(watcher, ({ data }) => data?.orderUpdates.status === "PAID");
    assert.equal(data.orderUpdates.id, order.id);
    assert.equal(statuses.at(-1), "PAID");
    await watcher.getByRole("button", { name: "Stop query" }).click();
    await watcher.getByRole("button", { name: "Execute query" }).waitFor();
  });

  let link;
  await step("the mailbox has the mail with the link", watcher, null, async () => {
    const opener = watcher.getByRole("link", { name: "Mailbox" });
    const [mailbox] = await Promise.all([watcher.waitForEvent("popup"), opener.click()]);
    const links = mailbox.locator('article a[href*="/verify?token="]');
    await links.first().waitFor();
    link = new URL(await links.first().getAttribute("href"));
    assert.equal(link.pathname, "/verify");
    await picture(mailbox, "mailbox");
  });

  // The link names the program's public address, which need not be the one that it is tested at.
  const address = `${origin}${link.pathname}${link.search}`;
  const confirming = await context.newPage();
  await step("the link's page sends nothing before the click, and verifies on it", confirming, null, async () => {
    const sent = countPosts(confirming);
    await confirming.goto(address, { waitUntil: "networkidle" });
    assert.equal(sent(), 0, "the number of requests that were sent before the click");
    const button = confirming.getByRole("button", { name: "Confirm address" });
    await button.waitFor();
    await picture(confirming, "verify");
    await button.click();
    await confirming.locator("#result.good").waitFor();
    assert.equal(sent(), 1, "the number of requests that were sent after it");
    assert.equal(new URL(confirming.url()).search, "", "the spent token leaves the address");
    await picture(confirming, "verified");
  });

  await step("a link that was used before says so, and offers another", confirming, "used-link", async () => {
    await confirming.goto(address);
    await confirming.getByRole("button", { name: "Confirm address" }).click();
    await confirming.locator("#result.bad").waitFor();
    await confirming.getByRole("button", { name: "Get a new link" }).waitFor();
  });

  await step("signing out", watcher, "signed-out", async () => {
    await watcher.bringToFront();
    await watcher.getByRole("button", { name: "Sign out" }).click();
    await watcher.locator("#sign-in").waitFor();
  });
}

/** Runs one step, takes its picture, and fails it when a page has reported an error or asked another host meanwhile. */
async function step(name, page, pictureName, body) {
  current = name;
  await body();
  if (pictureName) await picture(page, pictureName);
  assert.deepEqual(faults, [], "errors on the console");
  assert.deepEqual(strangers, [], "requests to other hosts");
  console.log(`ok  ${name}`);
}

async function picture(page, name) {
  pictures += 1;
  await page.screenshot({ path: join(screenshots, `${String(pictures).padStart(2, "0")}-${name}.png`) });
}

/** The text of one of GraphiQL's editors. CodeMirror renders only what is in view, so its object is asked. */
function value(page, editor) {
  return page.locator(editor).evaluate((element) => element.CodeMirror.getValue());
}

function setValue(page, editor, text) {
  return page.locator(editor).evaluate((element, text) => element.CodeMirror.setValue(text), text);
}

async function openTab(page, name, operation) {
  await page.getByRole("tab", { name }).locator("button").first().click();
  await until(`the tab ${name}`, async () => (await value(page, QUERY)).includes(operation));
}

async function execute(page) {
  await page.getByRole("button", { name: "Execute query" }).click();
}

/** The response on the screen, once there is one that is `wanted`. */
async function response(page, wanted) {
  let text = "";
  return until(() => `a response that is wanted; the last one was ${text || "empty"}`, async () => {
    text = await value(page, RESPONSE);
    if (text && !text.startsWith("{")) throw new Error(`GraphiQL says: ${text}`);
    const result = JSON.parse(text || "{}");
    return wanted(result) ? result : null;
  });
}

async function fillSignIn(page, email, password) {
  await page.getByLabel("E-mail").fill(email);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
}

async function signIn(page) {
  await fillSignIn(page, email, password);
  await page.locator("#session", { hasText: `Signed in as ${email}` }).waitFor();
}

function countPosts(page) {
  let count = 0;
  page.on("request", (request) => { if (request.method() !== "GET") count += 1; });
  return () => count;
}

/** Asks until the answer is neither null nor false. */
async function until(what, ask) {
  const end = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`waited in vain for ${typeof what === "function" ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}

function findBrowser() {
  if (process.env.CHROMIUM) {
    if (!existsSync(process.env.CHROMIUM)) fail(`CHROMIUM is ${process.env.CHROMIUM}, where nothing is`);
    return process.env.CHROMIUM;
  }
  for (const name of BROWSERS) {
    for (const directory of (process.env.PATH ?? "").split(delimiter)) {
      if (isExecutable(join(directory, name))) return join(directory, name);
    }
  }
  return fail(`none of ${BROWSERS.join(", ")} is in PATH: \`make test\` installs one; CHROMIUM may name another`);
}

function isExecutable(path) {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

function fail(message) {
  console.error(message);
  process.exit(1);
}
