// Who is signed in on this page: keeps the tokens, refreshes them, tells who watches. They live in sessionStorage: gone
// with the browser tab, and a second tab is its own session.

import { ApiError, call } from "../lib/api.js";

const KEY = "whitemonday.session";
const REFRESH_BEFORE_MS = 60_000; // access tokens live ten minutes

const LOG_IN = `mutation LogIn($input: LogInInput!) {
  logIn(input: $input) {
    tokens { accessToken accessTokenExpiresAt refreshToken refreshTokenExpiresAt }
    customer { email role }
    userErrors { code message }
  }
}`;
const REFRESH = `mutation RefreshSession($input: RefreshSessionInput!) {
  refreshSession(input: $input) {
    tokens { accessToken accessTokenExpiresAt refreshToken refreshTokenExpiresAt }
    userErrors { code message }
  }
}`;
const VIEWER = "query Viewer { viewer { email role } }";
const LOG_OUT = "mutation LogOut { logOut { done } }";

// `current`: { accessToken, accessUntil, refreshToken, email, role } or null; times are of this machine's clock.
let current = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
let snapshot = { who: who(current), notice: "" };
let refreshing = null;
const watchers = new Set();
const identityWatchers = new Set();

// A duplicated browser tab starts with the same refresh token, and one that was spent long ago ends the whole session:
// so the tabs tell each other the successor.
const siblings = new BroadcastChannel(KEY);
siblings.onmessage = ({ data: { spent, successor } }) => {
  if (current?.refreshToken === spent) store({ ...current, ...successor });
};

/** For React's useSyncExternalStore: { who: { email, role } | null, notice }. */
export const getSnapshot = () => snapshot;

export function watch(watcher) {
  watchers.add(watcher);
  return () => watchers.delete(watcher);
}

/** Calls back when somebody signs in or out, not when a token is merely renewed. */
export function watchIdentity(watcher) {
  identityWatchers.add(watcher);
  return () => identityWatchers.delete(watcher);
}

/** Returns null, or why it was refused. */
export async function signIn(email, password) {
  try {
    const { logIn, serverNow } = await call({ query: LOG_IN, variables: { input: { email, password } } });
    if (!logIn.tokens) return logIn.userErrors.map((error) => error.message).join(" ") || "That was not accepted.";
    become({ ...times(logIn.tokens, serverNow), ...logIn.customer });
    return null;
  } catch (error) {
    return error instanceof ApiError ? error.message : "The server cannot be reached.";
  }
}

/** Ends the session here at once, and on the server as soon as it hears of it. */
export async function signOut() {
  const token = await accessToken().catch(() => current?.accessToken);
  become(null);
  if (!token) return;
  try {
    await call({ query: LOG_OUT }, { authorization: `Bearer ${token}` });
  } catch (error) {
    if (error.code !== "UNAUTHENTICATED") tell("Signed out on this page; the server could not be told.");
  }
}

/** Takes over tokens that an operation in the editor has brought, as `logIn` and `refreshSession` do. */
export async function adopt(tokens, serverNow) {
  const session = times(tokens, serverNow);
  try {
    const { viewer } = await call({ query: VIEWER }, { authorization: `Bearer ${tokens.accessToken}` });
    if (viewer) become({ ...session, ...viewer });
  } catch {
    // The operation's own answer is on the screen; the page simply stays as it was.
  }
}

/** A token that is still good, or null when nobody is signed in. Throws when it has ended and cannot be renewed now. */
export async function accessToken() {
  if (current && Date.now() > current.accessUntil - REFRESH_BEFORE_MS) {
    refreshing ??= refresh().finally(() => { refreshing = null; });
    await refreshing.catch((error) => {
      if (!current || Date.now() > current.accessUntil) throw error;
    });
  }
  return current?.accessToken ?? null;
}

/** Says that the server refused `token`; true when it is worth to try again with a new one. */
export function reject(token) {
  if (!current) return false;
  if (current.accessToken === token) store({ ...current, accessUntil: 0 });
  return true;
}

async function refresh() {
  const { refreshToken } = current;
  const { refreshSession, serverNow } = await call({ query: REFRESH, variables: { input: { refreshToken } } });
  if (current?.refreshToken !== refreshToken) return; // signed out or in meanwhile
  if (refreshSession.tokens) {
    const successor = times(refreshSession.tokens, serverNow);
    store({ ...current, ...successor });
    siblings.postMessage({ spent: refreshToken, successor });
  } else {
    become(null, "Your session has ended. Please sign in again.");
  }
}

/** The part of the tokens that is kept; the end in terms of this machine's clock, which may be wrong. */
function times({ accessToken, accessTokenExpiresAt, refreshToken }, serverNow) {
  const lifetime = Date.parse(accessTokenExpiresAt) - serverNow;
  return { accessToken, accessUntil: Date.now() + (lifetime || 0), refreshToken };
}

function become(session, notice = "") {
  store(session, notice);
  for (const watcher of identityWatchers) watcher();
}

function store(session, notice = "") {
  current = session;
  if (session) sessionStorage.setItem(KEY, JSON.stringify(session));
  else sessionStorage.removeItem(KEY);
  tell(notice);
}

function tell(notice) {
  snapshot = { who: who(current), notice };
  for (const watcher of watchers) watcher();
}

function who(session) {
  return session && { email: session.email, role: session.role };
}
