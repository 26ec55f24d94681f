//! Nothing is oversold: many buyers, few units, cancellations of holds in between, two servers, a server that is killed.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use futures_util::{StreamExt, stream};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde_json::json;

use crate::support::{Client, Process, TestApp, new_key, until};

const ROUNDS: u64 = 20;

#[tokio::test]
async fn twenty_rounds_of_buyers_declines_and_ended_holds_on_two_servers_sell_each_unit_once() {
    let test = TestApp::start_with_jobs().await;
    let (_second, address) = test.second_server().await;
    let first_seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random);
    for round in 0..ROUNDS {
        let seed = first_seed.wrapping_add(round);
        println!("round {round}: SEED={seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let units = random.random_range(5..25);
        let sale = test.open_sale(units, 3).await;
        let buyers = test.customers(40).await;
        let plans: Vec<_> = buyers
            .into_iter()
            .map(|buyer| {
                let buyer = if random.random() { buyer.at(address) } else { buyer };
                let card = if random.random_ratio(1, 5) { "pm_card_chargeDeclined" } else { "pm_card_visa" };
                (buyer, random.random_range(1..=3), card)
            })
            .collect();
        let ended_after = random.random_range(5..35);
        let answered = AtomicUsize::new(0);
        let (test, answered) = (&test, &answered);
        let buy = |(buyer, quantity, card): (Client, i32, &'static str)| async move {
            let answer = buyer.buy_patiently(sale, quantity, card, &json!(new_key())).await;
            if answered.fetch_add(1, Ordering::SeqCst) == ended_after {
                // Holds end while others buy and pay.
                test.execute("UPDATE orders SET hold_expires_at = now() - interval '1 second' WHERE status = 'AWAITING_PAYMENT'").await;
            }
            let known = ["OrderAccepted", "SoldOut", "NotEnoughLeft"];
            assert!(known.contains(&answer["result"]["__typename"].as_str().unwrap()), "seed {seed}: {answer:#}");
        };
        stream::iter(plans).map(buy).buffer_unordered(40).collect::<Vec<()>>().await;
        assert_eq!(test.broken_invariants().await, Vec::<&str>::new(), "seed {seed}");
    }
    until(async || (test.unsettled().await == 0).then_some(())).await;
    assert!(test.simulator.simulator.ledger().orders_charged_more_than_once.is_empty());
    // A charge whose hold had ended meanwhile goes back, when somebody else has the units.
    let charged = test.scalar("SELECT count(*) FROM payment WHERE status IN ('CAPTURED', 'REFUNDED')").await;
    assert_eq!(test.simulator.simulator.ledger().charges, usize::try_from(charged).unwrap());
    let kept = "SELECT count(*) FROM payment p JOIN orders o ON o.id = p.order_id WHERE p.status = 'CAPTURED' AND o.status <> 'PAID'";
    assert_eq!(test.scalar(kept).await, 0);
    test.finish().await;
}

#[tokio::test]
async fn a_server_killed_in_mid_stampede_leaves_orders_that_their_keys_find_again() {
    let test = TestApp::start().await;
    let sale = test.open_sale(120, 1).await;
    let buyers = test.customers(200).await;
    let (mut first, address) = Process::server(&test, &["--with-jobs"]).await;
    let answered = AtomicUsize::new(0);

    // Every buyer asks once; the server dies when fifty have been answered.
    let (answered_ref, pid) = (&answered, first.id());
    let ask = |buyer: Client| async move {
        let key = json!(new_key());
        let order = buyer.at(address).buy_once(sale, 1, "pm_card_visa", &key).await;
        if answered_ref.fetch_add(1, Ordering::SeqCst) == 50 {
            Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
        }
        (buyer, key, order)
    };
    let asked: Vec<_> = stream::iter(buyers).map(ask).buffer_unordered(64).collect().await;
    first.kill();
    assert!(asked.iter().any(|(.., order)| order.is_none()), "some lost their answer");

    let (mut second, address) = Process::server(&test, &["--with-jobs"]).await;
    let mut orders = 0;
    for (buyer, key, first_answer) in &asked {
        let answer = buyer.at(address).buy_patiently(sale, 1, "pm_card_visa", key).await;
        let order = answer["result"]["order"]["id"].as_str();
        if let Some(first_answer) = first_answer {
            assert_eq!(order, Some(first_answer.as_str()), "the same key, the same order");
        }
        orders += i32::from(order.is_some());
    }
    assert_eq!(orders, 120);
    assert_eq!(test.free_units(sale).await, 0);
    until(async || (test.scalar("SELECT count(*) FROM orders WHERE status = 'PAID'").await == 120).then_some(())).await;
    assert_eq!(test.simulator.simulator.ledger().charges, 120);
    second.kill();
    test.finish().await;
}
