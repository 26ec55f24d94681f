//! The SQL function of the purchase with many requests at once: each is answered right, and none harms another.

use serde_json::json;
use uuid::Uuid;
use whitemonday::{
    domain::{
        ids::{CustomerId, FlashSaleId, OrderId},
        order::order_number,
        quantity::Quantity,
    },
    store::purchase::{Purchase, PurchaseOutcome, buy_now},
};

use crate::support::{Client, TestApp, customer_id};

pub fn purchase(client: &Client, sale: FlashSaleId, quantity: i32) -> Purchase {
    of(customer_id(&json!(client.customer_id)), sale, quantity)
}

fn of(customer: CustomerId, sale: FlashSaleId, quantity: i32) -> Purchase {
    Purchase {
        order: OrderId::new(),
        number: order_number(rand::random()),
        customer,
        sale,
        quantity: Quantity::new(quantity).unwrap(),
        idempotency_key: Uuid::new_v4(),
        request_hash: vec![7; 32],
        payment_method: "pm_card_visa".to_owned(),
        address: None,
        delivery_note_sealed: None,
        trace: None,
    }
}

async fn place(test: &TestApp, purchases: &[Purchase]) -> Vec<PurchaseOutcome> {
    let marked: Vec<_> = purchases.iter().map(|purchase| (purchase, 0)).collect();
    buy_now(&mut test.app.db.acquire().await.unwrap(), 0, &marked).await.unwrap()
}

const fn name(outcome: &PurchaseOutcome) -> &'static str {
    match outcome {
        PurchaseOutcome::Accepted { .. } => "accepted",
        PurchaseOutcome::Known { .. } => "known",
        PurchaseOutcome::SoldOut => "sold out",
        PurchaseOutcome::NotEnoughLeft { .. } => "not enough left",
        PurchaseOutcome::LimitReached { .. } => "limit reached",
        PurchaseOutcome::NotOpen => "not open",
        PurchaseOutcome::KeyReused => "key reused",
        PurchaseOutcome::SaleNotFound => "no such sale",
        PurchaseOutcome::Contended | PurchaseOutcome::AddressNotFound | PurchaseOutcome::EmailNotVerified => "other",
    }
}

#[tokio::test]
async fn a_batch_answers_each_request_by_itself_and_in_order_of_arrival() {
    let test = TestApp::start().await;
    let sale = test.open_sale(6, 3).await;
    let other = test.open_sale(2, 2).await;
    let closed = test.sale_opening_in(chrono::TimeDelta::hours(1)).await;
    let buyers = test.customers(9).await;
    let earlier = purchase(&buyers[0], sale, 1);
    place(&test, std::slice::from_ref(&earlier)).await;

    let same_key = Purchase { order: OrderId::new(), ..earlier.clone() };
    let other_request = Purchase { order: OrderId::new(), request_hash: vec![8; 32], ..earlier.clone() };
    let batch = [
        purchase(&buyers[1], sale, 3),
        purchase(&buyers[2], other, 2),
        same_key,
        purchase(&buyers[3], sale, 4),
        purchase(&buyers[4], sale, 3),
        purchase(&buyers[5], closed, 1),
        purchase(&buyers[6], FlashSaleId::new(), 1),
        purchase(&buyers[7], sale, 2),
        purchase(&buyers[8], other, 1),
    ];
    let outcomes = place(&test, &batch).await;

    // Five units were left: three, then not three more, then two; the smaller request is not kept waiting by the larger one.
    let expected =
        ["accepted", "accepted", "known", "limit reached", "not enough left", "not open", "no such sale", "accepted", "sold out"];
    assert_eq!(outcomes.iter().map(name).collect::<Vec<_>>(), expected);
    assert_eq!(name(&place(&test, &[other_request]).await[0]), "key reused");
    assert_eq!(test.free_units(sale).await, 0);
    test.finish().await;
}

#[tokio::test]
async fn a_claim_above_the_mark_falls_back_to_units_that_came_back_below_it() {
    let test = TestApp::start().await;
    let sale = test.open_sale(10, 10).await;
    let buyers = test.customers(4).await;
    let outcomes = place(&test, &[purchase(&buyers[0], sale, 3), purchase(&buyers[1], sale, 4)]).await;
    let PurchaseOutcome::Accepted { last_seq, .. } = outcomes[1] else { panic!("{outcomes:?}") };
    assert_eq!(last_seq, 7);
    test.execute("UPDATE orders SET hold_expires_at = now() - interval '1 second' WHERE id = (SELECT min(id::text)::uuid FROM orders)")
        .await;
    assert_eq!(test.expire_due().await, 1);

    let with_mark = purchase(&buyers[2], sale, 5);
    let mut db = test.app.db.acquire().await.unwrap();
    let outcome = buy_now(&mut db, 0, &[(&with_mark, 7)]).await.unwrap().remove(0);
    let PurchaseOutcome::Accepted { last_seq, .. } = outcome else { panic!("{outcome:?}") };
    assert!(last_seq > 7, "three above the mark, and two that came back");
    drop(db);
    assert_eq!(test.free_units(sale).await, 1);
    test.finish().await;
}

/// Two processes with crossing customers and sales: both wait for the same quotas, in the same order.
#[tokio::test]
async fn crossing_batches_of_two_connections_deadlock_neither() {
    let test = TestApp::start().await;
    let sales = [test.open_sale(500, 50).await, test.open_sale(500, 50).await];
    let buyers = test.customers(20).await;
    let customers: Vec<CustomerId> = buyers.iter().map(|buyer| customer_id(&json!(buyer.customer_id))).collect();
    for _ in 0..10 {
        let forwards: Vec<_> = customers.iter().map(|customer| of(*customer, sales[0], 1)).collect();
        let backwards: Vec<_> = customers.iter().rev().map(|customer| of(*customer, sales[1], 1)).collect();
        let crossing: Vec<_> = customers.iter().rev().map(|customer| of(*customer, sales[0], 1)).collect();
        let (a, b, c) = tokio::join!(place(&test, &forwards), place(&test, &backwards), place(&test, &crossing));
        assert!(a.iter().chain(&b).chain(&c).all(|outcome| name(outcome) == "accepted"));
    }
    assert_eq!(test.free_units(sales[0]).await, 100);
    test.finish().await;
}

/// A request that the database cannot take fails alone, whoever is in its batch.
#[tokio::test]
async fn a_poisoned_request_fails_alone() {
    let test = TestApp::start().await;
    let sale = test.open_sale(50, 5).await;
    let buyers = test.customers(20).await;
    test.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.payment_method = 'pm_poison' THEN RAISE EXCEPTION 'poison'; END IF; RETURN NEW; END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .await;

    // Both workers' connections are kept busy, so that all twenty come in one batch.
    let mut lock = test.app.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE purchase_quota IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let buy = |(number, buyer): (usize, Client)| async move {
        let method = if number == 7 { "pm_poison" } else { "pm_card_visa" };
        let input = json!({
            "flashSaleId": sale.to_string(), "quantity": 1, "paymentMethod": method, "idempotencyKey": crate::support::new_key(),
        });
        buyer.answer(crate::support::client::BUY_NOW, json!({ "input": input })).await
    };
    let all = futures_util::future::join_all(buyers.into_iter().enumerate().map(buy));
    let (answers, ()) = tokio::join!(all, async { lock.rollback().await.unwrap() });

    for (number, answer) in answers.iter().enumerate() {
        if number == 7 {
            assert_eq!(answer["errors"][0]["extensions"]["code"], "INTERNAL", "{answer:#}");
        } else {
            assert_eq!(answer["data"]["buyNow"]["result"]["__typename"], "OrderAccepted", "{answer:#}");
        }
    }
    assert_eq!(test.free_units(sale).await, 31);
    test.finish().await;
}

/// The connection dies while a batch is being committed: nobody is told anything before the database is asked again.
#[tokio::test]
async fn a_lost_connection_is_asked_again_before_anybody_is_answered() {
    let test = TestApp::start().await;
    let sale = test.open_sale(50, 5).await;
    let buyers = test.customers(10).await;
    buyers[0].must_buy(sale, 1, json!({})).await;

    let mut lock = test.app.db.begin().await.unwrap();
    sqlx::query("LOCK TABLE order_event IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await.unwrap();
    let buy = futures_util::future::join_all(buyers[1..].iter().map(|buyer| buyer.must_buy(sale, 1, json!({}))));
    let cut = async {
        // Until the claims wait for the lock: then their backends are ended, in the middle of the transaction.
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                          AND application_name = 'whitemonday claims' AND wait_event_type = 'Lock'";
        crate::support::until(async || (test.scalar(waiting).await > 0).then_some(())).await;
        test.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()
                AND application_name = 'whitemonday claims' AND wait_event_type = 'Lock'",
        )
        .await;
        lock.rollback().await.unwrap();
    };
    let (orders, ()) = tokio::join!(buy, cut);

    assert_eq!(orders.len(), 9);
    assert_eq!(test.free_units(sale).await, 40);
    assert_eq!(test.scalar("SELECT count(*) FROM orders").await, 10);
    test.finish().await;
}
