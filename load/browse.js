// Visitors who look around: a page of the catalogue, a product of it, the sales. The page cache answers most of it.
import { sleep } from "k6";
import { operation, send } from "./shop.js";

const BROWSE = operation("BrowseProducts");
const PRODUCT = operation("ProductPage");
const SALES = operation("FlashSales");
const SORTS = ["NEWEST", "PRICE_ASC", "PRICE_DESC"];

export const options = {
  scenarios: {
    visitors: {
      executor: "ramping-vus",
      stages: [
        { duration: "20s", target: Number(__ENV.VISITORS || 50) },
        { duration: __ENV.DURATION || "1m", target: Number(__ENV.VISITORS || 50) },
        { duration: "10s", target: 0 },
      ],
    },
  },
  thresholds: {
    graphql_failures: ["count==0"],
    http_req_duration: ["p(99)<250"],
  },
};

export default function () {
  const sort = SORTS[Math.floor(Math.random() * SORTS.length)];
  const page = send(BROWSE, { first: 24, sort, withTotal: false });
  const products = page && page.products ? page.products.edges : [];
  sleep(0.2 + Math.random());
  if (products.length > 0) {
    send(PRODUCT, { id: products[Math.floor(Math.random() * products.length)].node.id });
    sleep(0.2 + Math.random());
  }
  send(SALES, { first: 10, phases: ["OPEN", "SCHEDULED"] });
  sleep(0.2 + Math.random());
}
