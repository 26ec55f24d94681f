// The opening second: every buyer of the file tries once, as fast as RATE says, and goes on until there is a result. Nobody is to be left
// without one. `whitemonday audit` afterwards proves that nothing was oversold.
import { sleep } from "k6";
import exec from "k6/execution";
import { Counter } from "k6/metrics";
import { SharedArray } from "k6/data";
import { uuidv4 } from "./uuid.js";
import { buy, buyers, sale } from "./shop.js";

const BUYERS = new SharedArray("buyers", buyers);
const SALE = sale();
const TRIES = 20;
const RETRIED = ["Busy", "none"];
const outcomes = new Counter("purchases");
const undecided = new Counter("purchases_undecided");

const rate = Number(__ENV.RATE || 500);

export const options = {
  scenarios: {
    buyers: {
      executor: "shared-iterations",
      iterations: BUYERS.length,
      vus: Math.min(BUYERS.length, rate),
      maxDuration: __ENV.DURATION || "5m",
    },
  },
  thresholds: {
    purchases_undecided: ["count==0"],
    graphql_failures: ["count==0"],
  },
};

export default function () {
  const buyer = BUYERS[exec.scenario.iterationInTest];
  // One key for all tries: a repeated purchase is the same one.
  const key = uuidv4();
  for (let turn = 0; turn < TRIES; turn += 1) {
    const outcome = buy(SALE, buyer.accessToken, key);
    if (!RETRIED.includes(outcome)) {
      outcomes.add(1, { outcome });
      return;
    }
    sleep(Math.random() * Math.min(2, 0.1 * 2 ** turn));
  }
  undecided.add(1);
}
