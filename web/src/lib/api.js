// One call to POST /graphql. Knows HTTP and the error shape, nothing of sessions.

const ENDPOINT = "/graphql";

/**
 * Sends an operation; `authorization` is a whole header value.
 *
 * Always answers with a GraphQL result: a reply that is none (a proxy's 503, an empty body) is put into `errors`.
 * `serverNow` is the server's clock, for the ages of tokens. Throws only when there was no reply at all.
 */
export async function post(operation, { authorization, headers = {} } = {}) {
  const response = await fetch(ENDPOINT, {
    method: "POST",
    credentials: "omit",
    cache: "no-store",
    headers: {
      Accept: "application/graphql-response+json, application/json",
      "Content-Type": "application/json",
      ...headers,
      ...(authorization ? { Authorization: authorization } : {}),
    },
    body: JSON.stringify(operation),
  });
  const serverNow = Date.parse(response.headers.get("Date") ?? "") || Date.now();
  const text = await response.text();
  return { result: parse(text) ?? noResult(response, text), serverNow };
}

function parse(text) {
  try {
    const result = JSON.parse(text);
    return result && typeof result === "object" && ("data" in result || "errors" in result) ? result : null;
  } catch {
    return null;
  }
}

function noResult(response, text) {
  const wait = response.headers.get("Retry-After");
  const message = [`HTTP ${response.status}`, response.statusText, wait && `(retry after ${wait} s)`, text.slice(0, 500)];
  const code = response.status === 429 ? "RATE_LIMITED" : response.status >= 500 ? "UNAVAILABLE" : "BAD_REQUEST";
  return { errors: [{ message: message.filter(Boolean).join(" "), extensions: { code } }] };
}

/** A top-level error of the API: a fault, a missing right or a limit. */
export class ApiError extends Error {
  constructor({ message, extensions = {} }) {
    super(message);
    this.code = extensions.code;
    this.requestId = extensions.requestId;
  }
}

/** Sends an operation and returns its `data`; throws `ApiError` for top-level errors. */
export async function call(operation, options) {
  const { result, serverNow } = await post(operation, options);
  if (result.errors?.length) throw new ApiError(result.errors[0]);
  return { ...result.data, serverNow };
}
