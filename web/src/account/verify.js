// /verify?token=… confirms the address of a new account.
// Mail scanners follow links, so nothing is sent before the button is pressed.

import { el } from "../lib/dom.js";
import ResendVerificationEmail from "./ResendVerificationEmail.graphql";
import VerifyEmail from "./VerifyEmail.graphql";
import { forgetToken, offerNewLink, say, send, show, token } from "./page.js";
import { texts } from "./texts.js";

const text = texts.verify;

if (token) {
  const lead = el("p", {}, text.lead);
  const button = el("button", { id: "confirm", type: "button", onclick: confirm }, text.button);
  show(text.title, lead, button);

  async function confirm() {
    const payload = await send(button, VerifyEmail, { token });
    if (!payload) return;
    lead.remove();
    button.remove();
    if (payload.userErrors.length === 0) {
      forgetToken();
      say(text.done(payload.customer?.email), "good");
    } else {
      say(text.invalid, "bad");
      offerNewLink(text.again, ResendVerificationEmail);
    }
  }
} else {
  show(text.title);
  say(texts.incomplete, "bad");
}
