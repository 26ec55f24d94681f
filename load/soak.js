// A quiet day in fast motion: visitors look, customers buy at a steady rate and look at their orders, for hours. What leaks or gathers shows in the
// dashboard of resources: memory, open files, dead rows, the age of queues.
import { sleep } from "k6";
import { SharedArray } from "k6/data";
import { uuidv4 } from "./uuid.js";
import { buy, buyers, operation, sale, send } from "./shop.js";

const BUYERS = new SharedArray("buyers", buyers);
const SALE = sale();
const BROWSE = operation("BrowseProducts");
const ORDERS = operation("Orders");
const duration = __ENV.DURATION || "2h";

export const options = {
  scenarios: {
    visitors: { executor: "constant-vus", exec: "visit", vus: Number(__ENV.VISITORS || 20), duration },
    customers: {
      executor: "constant-arrival-rate",
      exec: "shop",
      rate: Number(__ENV.RATE || 10),
      duration,
      preAllocatedVUs: 20,
      maxVUs: 200,
    },
  },
  thresholds: {
    graphql_failures: ["count==0"],
    http_req_duration: ["p(99)<500"],
  },
};

export function visit() {
  send(BROWSE, { first: 24, sort: "NEWEST", withTotal: false });
  sleep(1 + Math.random());
}

export function shop() {
  const { accessToken } = BUYERS[Math.floor(Math.random() * BUYERS.length)];
  buy(SALE, accessToken, uuidv4());
  send(ORDERS, { first: 10 }, accessToken);
}
