// The reference client of graphql-transport-ws, remote-controlled: subscribes to an order and a sale, prints what happens as lines
// of JSON, and asks for a line before it connects ("connect?") and for its token ("token?").
//
//     node subscriber.mjs SOCKET_URL ORDER SALE

import { createInterface } from "node:readline";
import { createClient } from "graphql-ws";
import WebSocket from "ws";

const [url, order, sale] = process.argv.slice(2);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const tell = (event, more = {}) => console.log(JSON.stringify({ event, ...more }));
const ask = async (question) => {
  tell(question);
  return (await lines.next()).value;
};

const client = createClient({
  webSocketImpl: WebSocket,
  url: async () => {
    await ask("connect?");
    return url;
  },
  connectionParams: async () => ({ Authorization: `Bearer ${await ask("token?")}` }),
  // As its documentation has it: try again whatever happens, but for what the client itself holds to be a mistake of its user.
  shouldRetry: () => true,
  retryAttempts: Infinity,
  retryWait: async () => {},
  on: {
    connected: () => tell("connected"),
    closed: ({ code }) => tell("closed", { code }),
  },
});

const subscribe = (name, query, variables) =>
  client.subscribe(
    { query, variables },
    {
      next: ({ data, errors }) => tell(name, { data: data?.[name], errors }),
      error: (error) => tell("failed", { name, error: String(error) }),
      complete: () => tell("complete", { name }),
    },
  );

subscribe("orderUpdates", "subscription($id: ID) { orderUpdates(orderId: $id) { status version } }", { id: order });
subscribe("flashSaleUpdates", "subscription($id: ID!) { flashSaleUpdates(flashSaleId: $id) { phase } }", { id: sale });
