// /dev/mailbox: the mails that the program keeps in memory instead of sending, newest first, refreshed every two seconds.
// The same address answers with JSON when it is asked for JSON.

import "./mailbox.css";
import { el } from "../lib/dom.js";

const REFRESH_MS = 2000;
const LINK = /https?:\/\/[^\s<>"']*[^\s<>"'.,;:!?)\]]/g;

const status = document.querySelector("#status");
const list = document.querySelector("#mails");
let shown = new Map(); // key → element: what is on the page stays, and with it focus and selection

async function refresh() {
  try {
    const response = await fetch("/dev/mailbox", { headers: { Accept: "application/json" }, cache: "no-store" });
    if (!response.ok) throw new Error(`HTTP ${response.status}`);
    render(await response.json());
  } catch (error) {
    say(`The mailbox cannot be read (${error.message}); trying again.`, "bad");
  }
  setTimeout(refresh, REFRESH_MS);
}

function render(mails) {
  const sorted = mails
    .map((mail, arrival) => ({ ...mail, arrival }))
    .sort((a, b) => Date.parse(b.sentAt) - Date.parse(a.sentAt) || a.arrival - b.arrival);
  const next = new Map();
  for (const mail of sorted) {
    const key = keyOf(mail, next);
    next.set(key, shown.get(key) ?? article(mail));
  }
  say(next.size === 0 ? "" : next.size === 1 ? "1 mail" : `${next.size} mails`);
  const changed = next.size !== shown.size || [...next.keys()].some((key) => !shown.has(key));
  if (changed || list.childElementCount === 0) show([...next.values()]);
  shown = next;
}

function keyOf(mail, taken) {
  const key = JSON.stringify([mail.sentAt, mail.to, mail.subject, mail.text]);
  let copy = 0;
  while (taken.has(`${key}${copy}`)) copy += 1;
  return `${key}${copy}`;
}

/** Brings the page to `articles` without moving those that stay. */
function show(articles) {
  const wanted = articles.length > 0 ? articles : [el("p", { class: "empty" }, "No mail yet. Sign up, and the mail with the link appears here.")];
  for (const child of [...list.children]) if (!wanted.includes(child)) child.remove();
  wanted.forEach((article, index) => {
    if (list.children[index] !== article) list.insertBefore(article, list.children[index] ?? null);
  });
}

function article({ to, subject, text, sentAt }) {
  const sent = el("time", { datetime: sentAt }, new Date(sentAt).toLocaleString());
  return el("article", {},
    el("h2", {}, subject),
    el("p", { class: "meta" }, el("span", {}, `To: ${to}`), sent),
    el("p", { class: "text" }, ...linked(text)),
  );
}

/** The text with its links made clickable. */
function linked(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(LINK)) {
    parts.push(text.slice(end, match.index), el("a", { href: match[0], target: "_blank", rel: "noreferrer" }, match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

function say(text, kind = "") {
  if (status.textContent !== text) status.textContent = text; // a live region: only changes are read out
  status.className = kind;
}

refresh();
