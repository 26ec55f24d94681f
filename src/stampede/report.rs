//! What a stampede has shown: rows for a table, and JSON.
//!
//! Owns: which numbers are shown, their names, what they are to reach. Does not own: how a table looks (cli/output.rs).

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use super::{
    Plan,
    buyers::ACCEPTED,
    overload::Overload,
    proof::Proof,
    rivals::{CLIENTS, CONNECTIONS, Design},
    tally::{Tally, float, per_second, ratio},
};
pub use super::{ceilings::Ceilings, claim_costs::ClaimCost, rivals::Compared};
use crate::store::stampede::SaleCount;

/// What the engine is held to: committed orders as a part of L, with payments running and without.
const PART_OF_CEILING: f64 = 0.45;
const PART_OF_CEILING_ALONE: f64 = 0.6;
/// Sold-out answers as a part of the cheapest query's.
const PART_OF_CHEAPEST: f64 = 0.8;
/// Committed orders while more are asked for than can be, as a part of those at the best rate.
const PART_UNDER_OVERLOAD: f64 = 0.8;
const LONGEST_P99_MS: f64 = 250.0;

/// How the orders were settled after the fire.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settlement {
    pub unsettled_at_the_end_of_fire: i64,
    /// None, unless it took too long.
    pub unsettled: i64,
    /// From the end of the fire.
    pub took: Duration,
}

/// Answers a second over HTTP when there is nothing to do.
#[derive(Clone, Debug, Default)]
pub struct HttpRates {
    pub cheapest_query: f64,
    pub sold_out: f64,
    /// What was answered while the sale was sold out.
    pub sold_out_kinds: BTreeMap<String, u64>,
}

pub struct Report {
    pub plan: Plan,
    pub buyers: usize,
    pub tally: Tally,
    pub count: SaleCount,
    pub proof: Proof,
    pub settlement: Option<Settlement>,
    pub ceilings: Option<Ceilings>,
    pub http: Option<HttpRates>,
    pub overload: Option<Overload>,
    pub compared: Vec<Compared>,
    pub claim_costs: Vec<ClaimCost>,
}

/// A line of the table.
#[derive(Clone)]
pub struct Row {
    pub what: String,
    pub value: String,
    /// What it is held to, and whether it gets there.
    pub goal: Option<(bool, String)>,
}

impl Row {
    pub fn new(what: impl Into<String>, value: impl Into<String>) -> Self {
        Self { what: what.into(), value: value.into(), goal: None }
    }

    #[must_use]
    pub fn held_to(mut self, is_well: bool, goal: impl Into<String>) -> Self {
        self.goal = Some((is_well, goal.into()));
        self
    }
}

impl Report {
    /// Committed orders a second, until the last one.
    #[must_use]
    pub fn orders_per_second(&self) -> f64 {
        per_second(self.tally.of_kind(ACCEPTED), self.tally.last_accepted)
    }

    fn wanted_part(&self) -> f64 {
        if self.settlement.is_some() { PART_OF_CEILING } else { PART_OF_CEILING_ALONE }
    }

    /// The table of the run, from top to bottom.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        [
            self.speed_rows(),
            self.answer_rows(),
            self.settlement_rows(),
            self.proof_rows(),
            self.ceiling_rows(),
            self.http_rows(),
            self.overload_rows(),
        ]
        .concat()
    }

    fn overload_rows(&self) -> Vec<Row> {
        let Some(overload) = &self.overload else { return Vec::new() };
        let part = ratio(overload.accepted, self.orders_per_second());
        let (accepted, refused) = (&overload.accepted_latencies, &overload.refused_latencies);
        let mut rows = vec![
            Row::new("overload: purchases asked for, a second", thousands(overload.offered)),
            Row::new("overload: committed orders a second", thousands(overload.accepted)),
            Row::new("overload: as a part of those without", format!("{part:.2}"))
                .held_to(part >= PART_UNDER_OVERLOAD, format!("{PART_UNDER_OVERLOAD:.2} at least")),
            Row::new(
                "overload: latency of orders p50, p99",
                format!("{:.1}, {:.1} ms", accepted.percentile(50.0), accepted.percentile(99.0)),
            ),
            Row::new(
                "overload: latency of refusals p50, p99",
                format!("{:.1}, {:.1} ms", refused.percentile(50.0), refused.percentile(99.0)),
            ),
        ];
        let kinds = overload.kinds.iter();
        rows.extend(kinds.map(|(kind, count)| Row::new(format!("overload: answered {kind}"), thousands(float(*count)))));
        rows
    }

    fn speed_rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::new("committed orders a second", thousands(self.orders_per_second()))];
        for (name, ms) in self.tally.latencies.summary() {
            let row = Row::new(format!("latency {name}"), format!("{ms:.1} ms"));
            let is_held = name == "p99" && self.plan.load.rate.is_none();
            rows.push(if is_held { row.held_to(ms <= LONGEST_P99_MS, format!("{LONGEST_P99_MS:.0} ms at most")) } else { row });
        }
        rows
    }

    fn answer_rows(&self) -> Vec<Row> {
        self.tally.kinds.iter().map(|(kind, count)| Row::new(format!("answered {kind}"), thousands(float(*count)))).collect()
    }

    fn settlement_rows(&self) -> Vec<Row> {
        let mut rows = vec![Row::new("orders paid", format!("{} of {}", whole(self.count.paid_orders), whole(self.count.orders)))];
        if let Some(settlement) = &self.settlement {
            let left = whole(settlement.unsettled_at_the_end_of_fire);
            let took = format!("{:.1} s, for {left} orders", settlement.took.as_secs_f64());
            let is_over = settlement.unsettled == 0;
            rows.push(Row::new("all settled after the fire in", took).held_to(is_over, format!("{} left", whole(settlement.unsettled))));
        }
        rows
    }

    fn proof_rows(&self) -> Vec<Row> {
        let proof = &self.proof;
        let sold = format!("{} of {}", whole(self.count.units_sold), whole(self.count.total_units));
        let mut rows = vec![Row::new("units sold", sold)];
        let counts = [("oversold", proof.oversold), ("lost", proof.lost), ("doubled", proof.doubled), ("over the limit", proof.over_limit)];
        rows.extend(counts.map(|(name, count)| Row::new(name, whole(count)).held_to(count == 0, "0")));
        let broken = if proof.broken_invariants.is_empty() { "clean".to_owned() } else { proof.broken_invariants.join(", ") };
        rows.push(Row::new("audit", broken).held_to(proof.broken_invariants.is_empty(), "clean"));
        rows
    }

    fn ceiling_rows(&self) -> Vec<Row> {
        let Some(ceilings) = &self.ceilings else { return Vec::new() };
        let part = ratio(self.orders_per_second(), ceilings.combined());
        let wanted = self.wanted_part();
        let is_closed = self.plan.load.rate.is_none();
        let row = Row::new("committed orders, as a part of L", format!("{part:.2}"));
        vec![
            Row::new("G: GraphQL alone, mutations a second", thousands(ceilings.graphql)),
            Row::new("S: SQL alone, purchases a second", thousands(ceilings.sql)),
            Row::new("L: both on one machine, 1/(1/G + 1/S)", thousands(ceilings.combined())),
            if is_closed { row.held_to(part >= wanted, format!("{wanted} at least")) } else { row },
        ]
    }

    fn http_rows(&self) -> Vec<Row> {
        let Some(http) = &self.http else { return Vec::new() };
        let part = ratio(http.sold_out, http.cheapest_query);
        vec![
            Row::new("HTTP: cheapest signed-in query, answers a second", thousands(http.cheapest_query)),
            Row::new("HTTP: sold-out answers a second", thousands(http.sold_out)),
            Row::new("sold-out answers, as a part of the cheapest query's", format!("{part:.2}"))
                .held_to(part >= PART_OF_CHEAPEST, format!("{PART_OF_CHEAPEST} at least")),
        ]
    }

    /// The designs: name, purchases a second, as a part of ours.
    #[must_use]
    pub fn comparison(&self) -> Vec<[String; 3]> {
        let ours = self.ours();
        let rate = |compared: &Compared| compared.purchases_per_second.map_or_else(|| "no Redis".to_owned(), thousands);
        let part = |compared: &Compared| compared.purchases_per_second.map_or_else(String::new, |rate| format!("{:.3}", ratio(rate, ours)));
        self.compared.iter().map(|compared| [compared.design.name().to_owned(), rate(compared), part(compared)]).collect()
    }

    /// What a claim costs: the moment, microseconds a claim, as a part of the first moment's, milliseconds of a new process's first
    /// batch.
    #[must_use]
    pub fn claim_costs(&self) -> Vec<[String; 4]> {
        let row = |cost: &ClaimCost| {
            let micros = format!("{:.0} µs", cost.per_claim.as_secs_f64() * 1e6);
            [cost.at.clone(), micros, format!("{:.2}", cost.part), format!("{:.1} ms", cost.first_batch.as_secs_f64() * 1e3)]
        };
        self.claim_costs.iter().map(row).collect()
    }

    /// Under what conditions the designs were compared.
    #[must_use]
    pub fn comparison_form(&self) -> String {
        format!(
            "{CLIENTS} clients, {CONNECTIONS} connections, {} s each; every purchase leaves its order, line, event, movement, quota and message.",
            self.plan.measure.as_secs_f64()
        )
    }

    fn ours(&self) -> f64 {
        let ours = self.compared.iter().find(|compared| compared.design == Design::Batched);
        ours.and_then(|compared| compared.purchases_per_second).unwrap_or_default()
    }

    /// Everything, for machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let (plan, tally, proof) = (&self.plan, &self.tally, &self.proof);
        let latencies: BTreeMap<_, _> = tally.latencies.summary().into_iter().collect();
        json!({
            "ok": proof.holds(),
            "form": {
                "buyers": self.buyers, "units": plan.units, "perCustomerLimit": plan.per_customer_limit,
                "quantity": [plan.quantity.least, plan.quantity.most], "inFlight": plan.load.in_flight,
                "durationSeconds": plan.load.duration.as_secs_f64(), "ratePerSecond": plan.load.rate, "servers": plan.servers,
            },
            "ordersPerSecond": self.orders_per_second(),
            "latencyMs": latencies,
            "answers": tally.kinds,
            "seconds": tally.seconds.iter().map(|second| json!([second.accepted, second.others])).collect::<Vec<_>>(),
            "sale": { "units": self.count.total_units, "unitsSold": self.count.units_sold, "orders": self.count.orders, "paid": self.count.paid_orders },
            "settlement": self.settlement.map(|settlement| json!({
                "unsettledAtTheEndOfFire": settlement.unsettled_at_the_end_of_fire, "unsettled": settlement.unsettled,
                "seconds": settlement.took.as_secs_f64(),
            })),
            "proof": {
                "oversold": proof.oversold, "lost": proof.lost, "doubled": proof.doubled, "overLimit": proof.over_limit,
                "brokenInvariants": proof.broken_invariants,
            },
            "ceilings": self.ceilings.map(|ceilings| json!({
                "graphql": ceilings.graphql, "sql": ceilings.sql, "combined": ceilings.combined(),
                "part": ratio(self.orders_per_second(), ceilings.combined()),
            })),
            "http": self.http.as_ref().map(|http| json!({
                "cheapestQuery": http.cheapest_query, "soldOut": http.sold_out, "part": ratio(http.sold_out, http.cheapest_query),
                "soldOutAnswers": http.sold_out_kinds,
            })),
            "overload": self.overload.as_ref().map(|overload| json!({
                "offeredPerSecond": overload.offered, "ordersPerSecond": overload.accepted,
                "part": ratio(overload.accepted, self.orders_per_second()), "answers": overload.kinds,
                "acceptedMs": overload.accepted_latencies.summary().into_iter().collect::<BTreeMap<_, _>>(),
                "refusedMs": overload.refused_latencies.summary().into_iter().collect::<BTreeMap<_, _>>(),
            })),
            "claimCosts": self.claim_costs.iter().map(|cost| json!({
                "at": cost.at, "microsecondsPerClaim": cost.per_claim.as_secs_f64() * 1e6, "part": cost.part,
                "firstBatchMs": cost.first_batch.as_secs_f64() * 1e3,
            })).collect::<Vec<_>>(),
            "comparison": self.compared.iter().map(|compared| json!({
                "design": compared.design.name(), "purchasesPerSecond": compared.purchases_per_second, "failed": compared.failed,
            })).collect::<Vec<_>>(),
        })
    }
}

/// `12,345`.
#[must_use]
pub fn thousands(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn whole(count: i64) -> String {
    thousands(float(count.unsigned_abs()))
}

#[cfg(test)]
pub mod tests {
    use super::{
        super::{buyers::QuantityMix, load::Load},
        *,
    };

    /// Ten orders in two seconds, one refusal.
    pub fn sample() -> Report {
        let mut tally = Tally::default();
        for number in 1..=10 {
            tally.add(ACCEPTED, true, Duration::from_millis(number), Duration::from_millis(200 * number));
        }
        tally.add("SoldOut", false, Duration::from_millis(1), Duration::from_millis(2_500));
        let load = Load { in_flight: 4, duration: Duration::from_secs(3), rate: None, core: None };
        Report {
            plan: Plan {
                units: 10,
                per_customer_limit: 1,
                quantity: QuantityMix { least: 1, most: 1 },
                load,
                purchases: None,
                repeat_percent: 0,
                measure: Duration::from_secs(1),
                settle_within: None,
                overload: None,
                servers: 1,
            },
            buyers: 20,
            tally,
            count: SaleCount { total_units: 10, orders: 10, paid_orders: 10, units_sold: 10, customers_over_limit: 0 },
            proof: Proof::default(),
            settlement: Some(Settlement::default()),
            ceilings: Some(Ceilings { graphql: 20.0, sql: 20.0 }),
            http: None,
            overload: None,
            compared: vec![
                Compared { design: Design::SkipLocked, purchases_per_second: Some(500.0), failed: 0 },
                Compared { design: Design::RedisLock, purchases_per_second: None, failed: 0 },
                Compared { design: Design::Batched, purchases_per_second: Some(10_000.0), failed: 0 },
            ],
            claim_costs: Vec::new(),
        }
    }

    fn value(report: &Report, what: &str) -> (String, Option<bool>) {
        let row = report.rows().into_iter().find(|row| row.what == what).unwrap();
        (row.value, row.goal.map(|(is_well, _)| is_well))
    }

    #[test]
    fn throughput_ends_with_the_last_accepted_order_and_is_held_to_its_part_of_the_ceiling() {
        let mut report = sample();
        assert_eq!(value(&report, "committed orders a second").0, "5");
        assert_eq!(value(&report, "committed orders, as a part of L"), ("0.50".to_owned(), Some(true)));
        report.settlement = None;
        assert_eq!(value(&report, "committed orders, as a part of L").1, Some(false));
        report.plan.load.rate = Some(5.0);
        assert_eq!(value(&report, "committed orders, as a part of L").1, None);
    }

    #[test]
    fn a_broken_promise_is_red_and_not_ok() {
        let mut report = sample();
        assert_eq!((value(&report, "oversold").1, &report.json()["ok"]), (Some(true), &json!(true)));
        report.proof.oversold = 1;
        assert_eq!((value(&report, "oversold"), &report.json()["ok"]), (("1".to_owned(), Some(false)), &json!(false)));
    }

    #[test]
    fn designs_are_compared_with_ours() {
        let table = sample().comparison();
        assert_eq!(table[0][1..], ["500", "0.050"]);
        assert_eq!(table[1][1..], ["no Redis", ""]);
        assert_eq!(table[2][1..], ["10,000", "1.000"]);
    }

    #[test]
    fn numbers_have_commas_between_thousands() {
        assert_eq!([0.0, 999.4, 1_000.0, 1_234_567.0].map(thousands), ["0", "999", "1,000", "1,234,567"]);
    }
}
