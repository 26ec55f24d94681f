// What the pages of links in mails share: the frame, the one live result line, and the form that asks for a new link.

import "./account.css";
import { ApiError, call } from "../lib/api.js";
import { el } from "../lib/dom.js";
import { texts } from "./texts.js";

/** The `token` of the link; it stays in the address until it is spent, so that a reload still works. */
export const token = new URLSearchParams(location.search).get("token")?.trim() ?? "";

const result = el("p", { id: "result", role: "status" });

/** Shows the page: a title and what belongs below it. */
export function show(title, ...content) {
  document.documentElement.lang = texts.lang;
  document.title = `${title} · WhiteMonday`;
  document.querySelector("#page").replaceChildren(
    el("p", { class: "brand" }, el("img", { src: "/favicon.svg", alt: "" }), "WhiteMonday"),
    el("h1", {}, title),
    ...content,
    result,
  );
}

/** Says how it went; screen readers hear it. `kind` is "good", "bad" or nothing while it is open. */
export function say(text, kind = "") {
  result.className = kind;
  result.textContent = text;
}

/** Like a click on a link that will never work again: takes the token out of the address and of the history. */
export function forgetToken() {
  history.replaceState(null, "", location.pathname);
}

/**
 * Sends a mutation, with the button held for the time, and returns its payload; null after a fault, which has been
 * said then.
 */
export async function send(button, mutation, input) {
  if (button.getAttribute("aria-disabled") === "true") return null;
  button.setAttribute("aria-disabled", "true"); // `disabled` would throw the focus away
  say(texts.busy);
  try {
    const data = await call({ ...mutation, variables: { input } });
    return data[Object.keys(data)[0]];
  } catch (error) {
    say(explain(error), "bad");
    return null;
  } finally {
    button.removeAttribute("aria-disabled");
  }
}

function explain(error) {
  if (!(error instanceof ApiError)) return texts.unreachable;
  if (error.code === "RATE_LIMITED") return texts.rateLimited;
  if (["UNAVAILABLE", "TIMEOUT"].includes(error.code)) return texts.unreachable;
  return texts.fault(error.requestId);
}

/** Below a dead link: a form that asks for a new one by e-mail. `mutation` answers with `accepted`. */
export function offerNewLink(label, mutation) {
  const email = el("input", { id: "email", type: "email", name: "email", autocomplete: "email", required: true });
  const button = el("button", { id: "send-link" }, label);
  const form = el("form", { id: "again" }, el("label", { for: "email" }, texts.email), email, button);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const payload = await send(button, mutation, { email: email.value.trim() });
    if (!payload) return;
    if (payload.accepted) {
      form.remove();
      say(texts.sent, "good");
    } else {
      say(texts.refused, "bad");
    }
  });
  result.after(form);
}
