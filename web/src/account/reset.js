// /reset?token=… sets a new password.

import { el } from "../lib/dom.js";
import RequestPasswordReset from "./RequestPasswordReset.graphql";
import ResetPassword from "./ResetPassword.graphql";
import { forgetToken, offerNewLink, say, send, show, token } from "./page.js";
import { texts } from "./texts.js";

const text = texts.reset;

if (token) {
  const password = el("input", {
    id: "new-password", type: "password", name: "new-password", autocomplete: "new-password",
    "aria-describedby": "hint result", required: true,
  });
  const reveal = el("input", { id: "show-password", type: "checkbox" });
  reveal.addEventListener("change", () => { password.type = reveal.checked ? "text" : "password"; });
  const button = el("button", { id: "save" }, text.button);
  const form = el("form", { id: "reset", novalidate: true },
    el("label", { for: "new-password" }, text.label),
    password,
    el("p", { id: "hint", class: "hint" }, text.hint),
    el("label", { class: "check" }, reveal, text.show),
    button,
  );
  form.addEventListener("submit", save);
  show(text.title, form);

  async function save(event) {
    event.preventDefault();
    if (!hasRightLength(password.value)) return mend();
    password.removeAttribute("aria-invalid");
    const payload = await send(button, ResetPassword, { token, newPassword: password.value });
    if (!payload) return;
    const codes = payload.userErrors.map((error) => error.code);
    if (codes.includes("TOKEN_INVALID")) {
      form.remove();
      say(text.invalid, "bad");
      offerNewLink(text.again, RequestPasswordReset);
    } else if (codes.length > 0) {
      mend();
    } else {
      form.remove();
      forgetToken();
      say(text.done(), "good");
    }
  }

  function mend() {
    password.setAttribute("aria-invalid", "true");
    password.focus();
    say(text.length, "bad");
  }
} else {
  show(text.title);
  say(texts.incomplete, "bad");
}

/** The server's rule, so that most mistakes need no round trip; the server judges. */
function hasRightLength(password) {
  const { length } = [...password.normalize("NFC")];
  return length >= 10 && length <= 128;
}
