// /confirm-email?token=… moves an account to the address that the link was mailed to.
// Mail scanners follow links, so nothing is sent before the button is pressed.

import { el } from "../lib/dom.js";
import ConfirmEmailChange from "./ConfirmEmailChange.graphql";
import { forgetToken, say, send, show, token } from "./page.js";
import { texts } from "./texts.js";

const text = texts.confirmEmail;

if (token) {
  const lead = el("p", {}, text.lead);
  const button = el("button", { id: "confirm", type: "button", onclick: confirm }, text.button);
  show(text.title, lead, button);

  async function confirm() {
    const payload = await send(button, ConfirmEmailChange, { token });
    if (!payload) return;
    lead.remove();
    button.remove();
    if (payload.userErrors.length === 0) {
      forgetToken();
      say(text.done(payload.customer?.email), "good");
    } else {
      say(text.invalid, "bad");
    }
  }
} else {
  show(text.title);
  say(texts.incomplete, "bad");
}
