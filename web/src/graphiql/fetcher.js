// Carries GraphiQL's operations to the server: HTTP for queries and mutations, a WebSocket for subscriptions.
//
// The session's token goes with each of them unless the headers editor has an `Authorization` of its own; an empty one
// there means: as nobody.

import { parse } from "graphql";
import { createClient } from "graphql-ws";
import { post } from "../lib/api.js";
import * as session from "./session.js";

const SOCKET = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/graphql/ws`;
const FORBIDDEN = 4403;

/** GraphiQL's `fetcher`. */
export function fetcher(params, { headers = {} } = {}) {
  const explicit = Object.keys(headers).find((name) => name.toLowerCase() === "authorization");
  const { [explicit]: authorization, ...rest } = headers;
  const operation = chosenOperation(params);
  if (operation) params = { ...params, operationName: operation.name?.value };
  return operation?.operation === "subscription" ? subscription(params, authorization) : request(params, authorization, rest).catch(failure);
}

const failure = (error) => ({ errors: [{ message: error.message }] });

/**
 * The operation to run, from the text itself: what GraphiQL passes along lags behind for a moment after a change of tabs.
 * Undefined when the text is not clear; the server says why.
 */
function chosenOperation({ query, operationName }) {
  try {
    const operations = parse(query).definitions.filter((definition) => definition.kind === "OperationDefinition");
    return operations.length === 1 ? operations[0] : operations.find((operation) => operation.name?.value === operationName);
  } catch {
    return undefined;
  }
}

async function request(params, explicit, headers) {
  if (explicit !== undefined) return (await post(params, { authorization: explicit, headers })).result;
  let token = await session.accessToken();
  let reply = await post(params, { authorization: bearer(token), headers });
  // Refused before anything ran, as after a log-out elsewhere: once more with a new token, or as nobody.
  if (token && isRefused(reply.result) && session.reject(token)) {
    token = await session.accessToken();
    reply = await post(params, { authorization: bearer(token), headers });
  }
  takeOverTokens(reply);
  return reply.result;
}

function isRefused({ data, errors = [] }) {
  return !data && errors.some((error) => error.extensions?.code === "UNAUTHENTICATED");
}

function takeOverTokens({ result, serverNow }) {
  const tokens = Object.values(result.data ?? {}).map((payload) => payload?.tokens).find(Boolean);
  if (tokens?.accessToken && tokens.refreshToken) session.adopt(tokens, serverNow);
}

/** An observable over a socket of its own. It comes back after a broken connection, and as somebody else after signing in or out. */
function subscription(params, explicit) {
  return {
    subscribe(sink) {
      let token = null;
      const client = createClient({
        url: SOCKET,
        lazy: true,
        async connectionParams() {
          token = explicit === undefined ? await session.accessToken() : null;
          const authorization = explicit ?? bearer(token);
          return authorization ? { Authorization: authorization } : {};
        },
        // Close events only, as by default; a token that was refused is worth another try only if there is a new one.
        shouldRetry: (event) => "code" in event && (event.code !== FORBIDDEN || (token !== null && session.reject(token))),
        retryWait: (retries) => new Promise((resolve) => setTimeout(resolve, (0.5 + Math.random()) * 250 * 2 ** retries)),
        retryAttempts: 8,
      });
      const stopWatching = session.watchIdentity(() => explicit === undefined && client.terminate());
      const stop = client.subscribe(params, {
        next: (result) => sink.next(result),
        error(reason) {
          sink.next({ errors: Array.isArray(reason) ? reason : [{ message: describe(reason) }] });
          finish();
        },
        complete: finish,
      });
      function finish() {
        stopWatching();
        sink.complete();
      }
      return {
        unsubscribe() {
          stopWatching();
          stop();
        },
      };
    },
  };
}

function describe(reason) {
  if (reason && "code" in reason) return `The connection was closed: ${reason.code} ${reason.reason ?? ""}`.trim();
  return reason instanceof Error ? reason.message : "The connection failed.";
}

const bearer = (token) => (token ? `Bearer ${token}` : undefined);
