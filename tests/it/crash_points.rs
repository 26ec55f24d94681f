//! The process is killed at a step between the claim and the acknowledgement: the next one finishes what it had begun. Every
//! order settles, each that is paid is charged once, the units and the books are right.
//!
//! A test stops a child at its step from outside, by a lock in the database or a call that the provider holds, kills it there, and
//! then lets go. What the database does with an orphaned statement is left open as it is in reality: a session may be noticed to be
//! dead and be rolled back, or go on and commit. Each test runs several seeds, which also decide cards, quantities, orders that are
//! called off, and how many get past the step before; `SEED=n` runs the one that has failed.

use std::{
    net::SocketAddr,
    panic::{AssertUnwindSafe, resume_unwind},
};

use futures_util::{FutureExt, future::join_all};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use whitemonday::{
    domain::ids::FlashSaleId,
    simulator::{Fault, FaultScript, Operation},
};

use crate::support::{Barrier, Client, PATIENCE, Process, Step, TestApp, new_key, until_or_late};

const SEEDS: usize = 5;
const GOOD: &str = "pm_card_visa";
const DECLINED: &str = "pm_card_chargeDeclined";
const ASKS: &str = "pm_card_authenticationRequired";

/// What the process is at when it is killed.
#[derive(Clone, Copy, Debug)]
enum Work {
    /// A server takes orders.
    Buying,
    /// A worker charges orders; some are called off before the next one comes.
    Paying,
    /// A worker ends orders that are called off when they are paid, or wait for their customer at the bank.
    CallingOff,
}

/// Which orders come to the step at all.
#[derive(Clone, Copy, Debug)]
enum By {
    All,
    Card(&'static str),
    CalledOff(&'static str),
}

impl By {
    fn includes(self, wish: &Wish) -> bool {
        match self {
            Self::All => true,
            Self::Card(card) => wish.card == card,
            Self::CalledOff(card) => wish.is_called_off && wish.card == card,
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Stop {
    Database(Step),
    /// The rows of unpaid orders are locked when the provider has answered.
    OrderRows,
    Provider(Operation, fn() -> Fault),
}

const BEFORE: fn() -> Fault = || Fault::HoldBefore;
const AFTER: fn() -> Fault = || Fault::HoldAfter;

const ORDER: Step = Step::insert("orders");
const TRY: Step = Step::insert("payment");
const PAID: Step = Step::update("orders", "NEW.status = 'PAID'");
const PAYMENT_FAILED: Step = Step::update("orders", "NEW.status = 'PAYMENT_FAILED'");
const CANCELLED: Step = Step::update("orders", "NEW.status = 'CANCELLED'");

#[tokio::test]
async fn killed_when_orders_are_written() {
    survive(Work::Buying, By::All, Stop::Database(ORDER)).await;
}

#[tokio::test]
async fn killed_when_messages_are_written() {
    survive(Work::Buying, By::All, Stop::Database(Step::insert("pgmq.q_payment"))).await;
}

#[tokio::test]
async fn killed_when_a_purchase_commits() {
    survive(Work::Buying, By::All, Stop::Database(ORDER.at_commit())).await;
}

#[tokio::test]
async fn killed_when_tries_are_written() {
    survive(Work::Paying, By::All, Stop::Database(TRY)).await;
}

#[tokio::test]
async fn killed_when_tries_commit() {
    survive(Work::Paying, By::All, Stop::Database(TRY.at_commit())).await;
}

#[tokio::test]
async fn killed_before_an_intent_is_made() {
    survive(Work::Paying, By::All, Stop::Provider(Operation::CreateIntent, BEFORE)).await;
}

#[tokio::test]
async fn killed_after_an_intent_is_made() {
    survive(Work::Paying, By::All, Stop::Provider(Operation::CreateIntent, AFTER)).await;
}

#[tokio::test]
async fn killed_when_the_intent_is_noted() {
    let noted = Step::update("payment", "OLD.provider_reference IS DISTINCT FROM NEW.provider_reference");
    survive(Work::Paying, By::All, Stop::Database(noted)).await;
}

#[tokio::test]
async fn killed_before_the_charge() {
    survive(Work::Paying, By::All, Stop::Provider(Operation::ConfirmIntent, BEFORE)).await;
}

#[tokio::test]
async fn killed_after_the_charge() {
    survive(Work::Paying, By::All, Stop::Provider(Operation::ConfirmIntent, AFTER)).await;
}

#[tokio::test]
async fn killed_when_a_settlement_waits_for_its_orders() {
    survive(Work::Paying, By::All, Stop::OrderRows).await;
}

#[tokio::test]
async fn killed_when_the_capture_is_written() {
    survive(Work::Paying, By::Card(GOOD), Stop::Database(Step::update("payment", "NEW.status = 'CAPTURED'"))).await;
}

#[tokio::test]
async fn killed_when_the_order_is_paid() {
    survive(Work::Paying, By::Card(GOOD), Stop::Database(PAID)).await;
}

#[tokio::test]
async fn killed_when_units_are_sold() {
    let sold = Step { when: "NEW.kind = 'SOLD'", ..Step::insert("stock_movement") };
    survive(Work::Paying, By::Card(GOOD), Stop::Database(sold)).await;
}

#[tokio::test]
async fn killed_when_the_message_is_acknowledged() {
    survive(Work::Paying, By::All, Stop::Database(Step::delete("pgmq.q_payment"))).await;
}

#[tokio::test]
async fn killed_when_a_paid_order_commits() {
    survive(Work::Paying, By::Card(GOOD), Stop::Database(PAID.at_commit())).await;
}

#[tokio::test]
async fn killed_when_units_of_a_declined_order_come_back() {
    let freed = Step::update("stock_unit", "NEW.order_id IS NULL");
    survive(Work::Paying, By::Card(DECLINED), Stop::Database(freed)).await;
}

#[tokio::test]
async fn killed_when_a_declined_order_commits() {
    survive(Work::Paying, By::Card(DECLINED), Stop::Database(PAYMENT_FAILED.at_commit())).await;
}

#[tokio::test]
async fn killed_before_a_refund() {
    survive(Work::CallingOff, By::CalledOff(GOOD), Stop::Provider(Operation::CreateRefund, BEFORE)).await;
}

#[tokio::test]
async fn killed_after_a_refund() {
    survive(Work::CallingOff, By::CalledOff(GOOD), Stop::Provider(Operation::CreateRefund, AFTER)).await;
}

#[tokio::test]
async fn killed_when_the_refund_is_written() {
    let refunded = Step::update("refund", "NEW.status = 'SUCCEEDED'");
    survive(Work::CallingOff, By::CalledOff(GOOD), Stop::Database(refunded)).await;
}

#[tokio::test]
async fn killed_when_the_order_is_cancelled() {
    survive(Work::CallingOff, By::CalledOff(GOOD), Stop::Database(CANCELLED)).await;
}

#[tokio::test]
async fn killed_when_units_of_a_refunded_order_come_back() {
    let freed = Step::update("stock_unit", "NEW.order_id IS NULL");
    survive(Work::CallingOff, By::CalledOff(GOOD), Stop::Database(freed)).await;
}

#[tokio::test]
async fn killed_when_the_refunds_message_is_acknowledged() {
    survive(Work::CallingOff, By::CalledOff(GOOD), Stop::Database(Step::delete("pgmq.q_compensation"))).await;
}

#[tokio::test]
async fn killed_when_a_cancelled_order_commits() {
    survive(Work::CallingOff, By::CalledOff(GOOD), Stop::Database(CANCELLED.at_commit())).await;
}

#[tokio::test]
async fn killed_before_the_provider_is_asked_about_an_unwanted_intent() {
    survive(Work::CallingOff, By::CalledOff(ASKS), Stop::Provider(Operation::RetrieveIntent, BEFORE)).await;
}

#[tokio::test]
async fn killed_before_an_intent_is_cancelled() {
    survive(Work::CallingOff, By::CalledOff(ASKS), Stop::Provider(Operation::CancelIntent, BEFORE)).await;
}

#[tokio::test]
async fn killed_after_an_intent_is_cancelled() {
    survive(Work::CallingOff, By::CalledOff(ASKS), Stop::Provider(Operation::CancelIntent, AFTER)).await;
}

/// Runs the seeds beside one another: most of the time they wait for messages to be visible again. Only their beginnings, which are
/// all work, come one after the other.
async fn survive(work: Work, by: By, stop: Stop) {
    let seeds = match std::env::var("SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..SEEDS).map(|_| u64::from(rand::random::<u32>())).collect(),
    };
    let turn = Mutex::new(());
    let run = async |seed| {
        if let Err(panic) = AssertUnwindSafe(survive_once(work, by, stop, seed, &turn)).catch_unwind().await {
            eprintln!("failed with SEED={seed}");
            resume_unwind(panic);
        }
    };
    join_all(seeds.into_iter().map(run)).await;
}

async fn survive_once(work: Work, by: By, stop: Stop, seed: u64, turn: &Mutex<()>) {
    let mut random = StdRng::seed_from_u64(seed);
    let beginning = turn.lock().await;
    let test = TestApp::start().await;
    let wishes = Wish::some(&test, work, by, &mut random).await;
    let units: i32 = wishes.iter().map(|wish| wish.quantity).sum();
    let sale = test.open_sale(units + random.random_range(0..5), 3).await;
    drop(beginning);
    let passing = random.random_range(0..wishes.iter().filter(|wish| by.includes(wish)).count().min(5));
    let crash = Crash { test: &test, stop, seed, passing, ends_sessions: random.random() };
    let orders = match work {
        Work::Buying => crash.buying(sale, &wishes).await,
        Work::Paying => crash.paying(sale, &wishes).await,
        Work::CallingOff => crash.calling_off(sale, &wishes).await,
    };
    judge(&test, sale, &wishes, &orders, seed).await;
    test.finish().await;
}

/// What a customer wants.
struct Wish {
    buyer: Client,
    key: Value,
    quantity: i32,
    card: &'static str,
    is_called_off: bool,
}

impl Wish {
    async fn some(test: &TestApp, work: Work, by: By, random: &mut StdRng) -> Vec<Self> {
        let count = random.random_range(8..=20);
        let buyers = test.customers(count).await;
        let mut wishes: Vec<Self> = buyers
            .into_iter()
            .map(|buyer| {
                let card = [GOOD, GOOD, GOOD, DECLINED, ASKS][random.random_range(0..5)];
                let may_be_called_off = match work {
                    Work::Buying => false,
                    Work::Paying => true,
                    Work::CallingOff => card != DECLINED,
                };
                let is_called_off = may_be_called_off && random.random_ratio(1, 3);
                Self { buyer, key: json!(new_key()), quantity: random.random_range(1..=3), card, is_called_off }
            })
            .collect();
        // One at least comes to the step.
        let place = random.random_range(0..count);
        match by {
            By::All => {}
            By::Card(card) => wishes[place].card = card,
            By::CalledOff(card) => (wishes[place].card, wishes[place].is_called_off) = (card, true),
        }
        wishes
    }

    async fn buy_once(&self, sale: FlashSaleId, at: SocketAddr) -> Option<String> {
        self.buyer.at(at).buy_once(sale, self.quantity, self.card, &self.key).await
    }

    /// The order's id, by asking with the same key until there is an answer.
    async fn buy(&self, sale: FlashSaleId, at: SocketAddr) -> String {
        let payload = self.buyer.at(at).buy_patiently(sale, self.quantity, self.card, &self.key).await;
        payload["result"]["order"]["id"].as_str().unwrap_or_else(|| panic!("{payload:#}")).to_owned()
    }

    async fn call_off(&self, order: &str) {
        let mutation = "mutation($input: CancelOrderInput!) { cancelOrder(input: $input) { order { status } userErrors { code } } }";
        let payload = self.buyer.send(mutation, json!({ "input": { "orderId": order, "idempotencyKey": new_key() } })).await;
        assert_eq!(payload["cancelOrder"]["userErrors"], json!([]), "{payload:#}");
    }

    /// The state of the order in the end, and of its payment.
    fn outcome(&self) -> (&'static str, &'static str) {
        match self.card {
            _ if self.is_called_off => ("CANCELLED", ""),
            GOOD => ("PAID", "CAPTURED"),
            DECLINED => ("PAYMENT_FAILED", "DECLINED"),
            _ => ("AWAITING_PAYMENT", "REQUIRES_ACTION"),
        }
    }
}

struct Crash<'a> {
    test: &'a TestApp,
    stop: Stop,
    seed: u64,
    /// So many get past the step before.
    passing: usize,
    /// The database notices that the killed process is gone, before its statements go on.
    ends_sessions: bool,
}

impl Crash<'_> {
    /// A server is killed; the buyers ask the next one, with their keys.
    async fn buying(&self, sale: FlashSaleId, wishes: &[Wish]) -> Vec<String> {
        let (mut server, address) = Process::server(self.test, &[]).await;
        let stop = self.prepare().await;
        let asked = join_all(wishes.iter().map(|wish| wish.buy_once(sale, address)));
        let (first_answers, ()) = tokio::join!(asked, self.kill(&mut server, stop));

        let (_next, address) = Process::server(self.test, &["--with-jobs"]).await;
        let orders = join_all(wishes.iter().map(|wish| wish.buy(sale, address))).await;
        for (first, order) in first_answers.iter().zip(&orders) {
            assert!(first.as_ref().is_none_or(|first| first == order), "SEED={}: the same key, the same order", self.seed);
        }
        self.until_settled().await;
        orders
    }

    /// A worker is killed; the next one goes on.
    async fn paying(&self, sale: FlashSaleId, wishes: &[Wish]) -> Vec<String> {
        let orders = self.buy_all(sale, wishes).await;
        if matches!(self.stop, Stop::Database(_)) {
            // Answers come in several groups.
            let late = FaultScript::always(Operation::ConfirmIntent, Fault::DelayAfter { ms: 50 });
            self.script(FaultScript { probability: Some(0.5), seed: self.seed, ..late });
        }
        let stop = self.prepare().await;
        let mut worker = self.test.worker();
        self.kill(&mut worker, stop).await;
        for (wish, order) in called_off(wishes, &orders) {
            wish.call_off(order).await;
        }

        let _next = self.test.worker();
        self.until_settled().await;
        orders
    }

    /// A worker that has charged the orders is killed when some are called off; the next one goes on.
    async fn calling_off(&self, sale: FlashSaleId, wishes: &[Wish]) -> Vec<String> {
        let orders = self.buy_all(sale, wishes).await;
        let mut worker = self.test.worker();
        self.until_settled().await;
        let stop = self.prepare().await;
        for (wish, order) in called_off(wishes, &orders) {
            wish.call_off(order).await;
        }
        self.kill(&mut worker, stop).await;

        let _next = self.test.worker();
        self.until_settled().await;
        orders
    }

    async fn buy_all(&self, sale: FlashSaleId, wishes: &[Wish]) -> Vec<String> {
        join_all(wishes.iter().map(|wish| wish.buy(sale, self.test.address))).await
    }

    fn script(&self, script: FaultScript) {
        self.test.simulator.simulator.script(script).unwrap();
    }

    async fn prepare(&self) -> Option<Barrier> {
        match self.stop {
            Stop::Database(step) => return Some(Barrier::after(self.test, step, self.passing).await),
            Stop::OrderRows => self.hold(Operation::ConfirmIntent, Fault::HoldAfter),
            Stop::Provider(operation, hold) => self.hold(operation, hold()),
        }
        None
    }

    fn hold(&self, operation: Operation, hold: Fault) {
        let pass = FaultScript::always(operation, Fault::DelayBefore { ms: 0 });
        self.script(FaultScript { times: u32::try_from(self.passing).ok(), ..pass });
        self.script(FaultScript::always(operation, hold));
    }

    /// Kills the process when it has come to the step, and only then lets go.
    async fn kill(&self, process: &mut Process, stop: Option<Barrier>) {
        let provider = &self.test.simulator.simulator;
        let mut barrier = stop;
        if barrier.is_none() {
            tokio::time::timeout(PATIENCE, provider.wait_for_held(1)).await.expect("a call of the provider is held");
        }
        if matches!(self.stop, Stop::OrderRows) {
            barrier = Some(Barrier::at_unpaid_orders(self.test).await);
            provider.clear_faults();
        }
        if let Some(barrier) = &barrier {
            barrier.reached(self.test).await;
        }
        process.kill();
        if let Some(mut barrier) = barrier {
            if self.ends_sessions {
                barrier.end_waiting().await;
            }
            barrier.lift().await;
        }
        provider.clear_faults();
    }

    async fn until_settled(&self) {
        let settled = until_or_late(async || (self.test.unsettled().await == 0).then_some(())).await;
        assert!(settled.is_some(), "SEED={}: everything settles", self.seed);
    }
}

fn called_off<'a>(wishes: &'a [Wish], orders: &'a [String]) -> impl Iterator<Item = (&'a Wish, &'a String)> {
    wishes.iter().zip(orders).filter(|(wish, _)| wish.is_called_off)
}

/// Each order is what its card and its customer made of it, and the provider's ledger and the units agree.
async fn judge(test: &TestApp, sale: FlashSaleId, wishes: &[Wish], orders: &[String], seed: u64) {
    let mut units = 0;
    let mut charges = 0;
    for (wish, id) in wishes.iter().zip(orders) {
        let order = wish.buyer.order(id).await;
        let (status, payment) = wish.outcome();
        assert_eq!(order["status"], status, "SEED={seed}: {} {order:#}", wish.card);
        if !payment.is_empty() {
            let payments = order["payments"].as_array().unwrap();
            assert_eq!(payments.iter().map(|payment| &payment["status"]).collect::<Vec<_>>(), [payment], "SEED={seed}: {order:#}");
        }
        let number = uuid::Uuid::parse_str(id.strip_prefix("ord_").unwrap()).unwrap().to_string();
        let booked = test.simulator.simulator.charges_of_order(&number);
        charges += booked.len();
        match status {
            "PAID" => assert!(booked.len() == 1 && booked[0].refunded == 0, "SEED={seed}: {booked:#?}"),
            "CANCELLED" => {
                assert!(booked.len() <= 1 && booked.iter().all(|charge| charge.refunded == charge.amount), "SEED={seed}: {booked:#?}");
            }
            _ => assert!(booked.is_empty(), "SEED={seed}: {booked:#?}"),
        }
        if ["PAID", "AWAITING_PAYMENT"].contains(&status) {
            units += i64::from(wish.quantity);
        }
    }
    assert_eq!(test.scalar("SELECT count(*) FROM orders").await, i64::try_from(orders.len()).unwrap(), "SEED={seed}: no order more");
    assert_eq!(test.simulator.simulator.ledger().charges, charges, "SEED={seed}: no charge of anything else");
    assert_eq!(test.scalar("SELECT count(*) FROM stock_unit WHERE order_id IS NOT NULL").await, units, "SEED={seed}");
    assert_eq!(test.scalar("SELECT sum(held)::bigint FROM purchase_quota").await, units, "SEED={seed}");
    assert_eq!(test.free_units(sale).await, test.scalar("SELECT sum(total_units)::bigint FROM flash_sale").await - units, "SEED={seed}");
}
