import { useEffect, useState, useSyncExternalStore } from "react";
import * as session from "./session.js";

/** The bar above GraphiQL: sign in, who is signed in, sign out. */
export function SessionBar({ onRestoreExamples }) {
  const { who, notice } = useSyncExternalStore(session.watch, session.getSnapshot);
  return (
    <header className="bar">
      <h1 className="bar-brand">
        <img src="/favicon.svg" alt="" width="20" height="20" />
        WhiteMonday
      </h1>
      <nav className="bar-links" aria-label="Tools">
        <button type="button" id="restore-examples" className="plain" onClick={onRestoreExamples}>Restore examples</button>
        <MailboxLink />
      </nav>
      {who ? <SignedIn who={who} /> : <SignInForm notice={notice} />}
    </header>
  );
}

function SignedIn({ who }) {
  const [busy, setBusy] = useState(false);
  const leave = async () => {
    setBusy(true);
    await session.signOut();
  };
  return (
    <div className="bar-session">
      <span id="session" role="status">
        Signed in as <strong>{who.email}</strong>
        {who.role && who.role !== "CUSTOMER" ? <span className="badge">{who.role.toLowerCase()}</span> : null}
      </span>
      <button type="button" id="sign-out" aria-disabled={busy} onClick={busy ? undefined : leave}>Sign out</button>
    </div>
  );
}

function SignInForm({ notice }) {
  const [busy, setBusy] = useState(false);
  const [refusal, setRefusal] = useState("");
  const submit = async (event) => {
    event.preventDefault();
    if (busy) return;
    const form = new FormData(event.currentTarget);
    setBusy(true);
    setRefusal("");
    const refusal = await session.signIn(form.get("email").trim(), form.get("password"));
    if (refusal === null) return; // this form is gone
    setBusy(false);
    setRefusal(refusal);
  };
  return (
    <form id="sign-in" className="bar-session" onSubmit={submit}>
      <span id="session" role="status" className={refusal ? "bad" : undefined}>{busy ? "Signing in…" : refusal || notice}</span>
      <label className="visually-hidden" htmlFor="sign-in-email">E-mail</label>
      <input id="sign-in-email" name="email" type="email" placeholder="E-mail" autoComplete="username" required />
      <label className="visually-hidden" htmlFor="sign-in-password">Password</label>
      <input id="sign-in-password" name="password" type="password" placeholder="Password" autoComplete="current-password" required />
      <button aria-disabled={busy}>Sign in</button>
    </form>
  );
}

/** Only where the program keeps its mail in memory. */
function MailboxLink() {
  const [exists, setExists] = useState(false);
  useEffect(() => {
    fetch("/dev/mailbox", { method: "HEAD", headers: { Accept: "application/json" }, cache: "no-store" })
      .then((response) => setExists(response.ok))
      .catch(() => {});
  }, []);
  return exists ? <a id="mailbox" href="/dev/mailbox" target="_blank" rel="noreferrer">Mailbox</a> : null;
}
