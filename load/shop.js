// What the load scripts share: sending the operations of frontend-queries/ by their hash, as a real client does.
import http from "k6/http";
import { Counter } from "k6/metrics";

const SHOP = __ENV.SHOP || "http://127.0.0.1:8000";
const MANIFEST = JSON.parse(open("../frontend-queries/manifest.json"));

// Answers by what they say; a script's threshold tells which of them are failures.
export const failures = new Counter("graphql_failures");
export const overloads = new Counter("graphql_overloads");

// The manifest only grows: of several texts of one operation the last one is today's.
export function operation(name) {
  const found = MANIFEST.operations.filter((operation) => operation.name === name).pop();
  if (!found) throw new Error(`frontend-queries has no operation ${name}`);
  return found;
}

const OVERLOADED = ["UNAVAILABLE", "RATE_LIMITED"];

// Sends the operation and returns its data, or null when there is none.
export function send({ id, name }, variables, token) {
  const headers = { "content-type": "application/json" };
  if (token) headers.authorization = `Bearer ${token}`;
  const body = { variables, operationName: name, extensions: { persistedQuery: { version: 1, sha256Hash: id } } };
  const response = http.post(`${SHOP}/graphql`, JSON.stringify(body), { headers, tags: { name } });
  const answer = response.body ? response.json() : null;
  const codes = ((answer && answer.errors) || []).map(({ extensions }) => extensions && extensions.code);
  if (codes.some((code) => OVERLOADED.includes(code)) || response.status === 503) overloads.add(1, { name });
  else if (!answer || codes.length > 0) failures.add(1, { name });
  return answer && answer.data;
}

// The customers that `whitemonday seed --customers N --tokens-out FILE` has made.
export function buyers() {
  if (!__ENV.BUYERS) throw new Error("BUYERS names no file: make one with `whitemonday seed --customers N --tokens-out FILE`");
  const lines = open(__ENV.BUYERS).split("\n").filter((line) => line !== "");
  return lines.map((line) => JSON.parse(line));
}

export function sale() {
  if (!__ENV.SALE) throw new Error("SALE is no sale: make one with `whitemonday seed --sale-units N`");
  return __ENV.SALE;
}

// A purchase; the name of the answer's type, as `OrderAccepted` or `SoldOut`.
export function buy(saleId, token, key) {
  const input = { flashSaleId: saleId, quantity: 1, paymentMethod: "pm_card_visa", idempotencyKey: key };
  const data = send(operation("BuyNow"), { input }, token);
  const result = data && data.buyNow && data.buyNow.result;
  return result ? result.__typename : "none";
}
