//! Pages that servers share through Redis, and a Redis that is away, silent, late or full of garbage.

use std::time::Duration;

use deadpool_redis::redis;
use serde_json::json;
use tokio::net::TcpListener;
use whitemonday::services::seed;

use crate::{
    dependency_faults::own_services,
    page_cache::{TITLES, hear, misses},
    support::{TestApp, slow_way_to, until},
};

/// What a busy machine takes long for must not look like a Redis that is away.
const PATIENT: (&str, &str) = ("REDIS_TIMEOUT_MILLISECONDS", "10000");

#[tokio::test]
async fn servers_share_pages_through_redis_and_notice_garbage_in_it() {
    let (test, _) = TestApp::start_with_pages(&[PATIENT]).await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let shown = client.send(TITLES, json!({})).await;
    let kept = test.app.redis.clone().unwrap();
    let oid = test.scalar("SELECT oid::bigint FROM pg_database WHERE datname = current_database()").await;
    let name = until(async || names(&format!("whitemonday:page:*-{oid}:*")).await.pop()).await;

    let (second, address) = test.second_server_with(&[("PAGE_CACHE_BYTES", "10000000"), PATIENT]).await;
    assert_eq!(client.at(address).send(TITLES, json!({})).await, shown);
    assert_eq!((misses(&second), second.pages.counters.redis_hits.get()), (0, 1));

    let frame = kept.get(&name).await.unwrap().unwrap();
    for garbage in [b"garbage".to_vec(), Vec::new(), frame[..frame.len() - 1].to_vec(), [&frame[..], b"x"].concat()] {
        kept.set(&name, &garbage, Duration::from_mins(1)).await.unwrap();
        let (third, address) = test.second_server_with(&[("PAGE_CACHE_BYTES", "10000000"), PATIENT]).await;
        assert_eq!(client.at(address).send(TITLES, json!({})).await, shown);
        assert_eq!((misses(&third), third.pages.counters.redis_errors.get()), (1, 1));
        // It keeps what it has made a moment after its answer: not over the next garbage.
        until(async || (kept.get(&name).await.unwrap()? != garbage).then_some(())).await;
    }

    // What another server keeps and a change has made untrue is not shown.
    test.execute("UPDATE product SET price_minor = 4711").await;
    let (fourth, address) = test.second_server_with(&[("PAGE_CACHE_BYTES", "10000000"), PATIENT]).await;
    let now = client.at(address).send(TITLES, json!({})).await;
    assert_eq!(now["products"]["nodes"][0]["price"]["amount"], "4711");
    assert_eq!(misses(&fourth), 1);
    test.finish().await;
}

/// What the tests' Redis keeps under such names.
async fn names(pattern: &str) -> Vec<Vec<u8>> {
    let client = redis::Client::open(std::env::var("WHITEMONDAY_TEST_REDIS_URL").unwrap()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    redis::cmd("KEYS").arg(pattern).query_async(&mut connection).await.unwrap()
}

/// Asks for pages that Redis might have, until it is not asked any more.
async fn until_redis_is_skipped(test: &TestApp) {
    let (client, counters) = (test.anonymous(), &test.app.pages.counters);
    for round in 0..100 {
        client.send(&format!("# {round}\n{TITLES}"), json!({})).await;
        client.send(TITLES, json!({})).await;
        if counters.redis_skips.get() > 0 {
            assert!(counters.redis_errors.get() >= 5);
            return;
        }
    }
    panic!("the breaker opens");
}

#[tokio::test]
async fn a_redis_that_is_gone_or_never_answers_is_soon_left_alone() {
    let (mut services, _folder) = own_services().await;
    let (test, _) = TestApp::start_with_pages_on(&services).await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    hear(&test.app).await;
    test.anonymous().send(TITLES, json!({})).await;
    services.kill_redis().await.unwrap();
    until_redis_is_skipped(&test).await;
    test.finish().await;
    services.stop_and_delete().await.unwrap();

    // Takes connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("redis://{}", silent.local_addr().unwrap());
    let (test, _) = TestApp::start_with_pages(&[("REDIS_URL", &url)]).await;
    seed::catalogue(&test.app, 5, |_| ()).await.unwrap();
    hear(&test.app).await;
    until_redis_is_skipped(&test).await;
    test.finish().await;
}

#[tokio::test]
async fn a_redis_that_answers_late_keeps_nobody_waiting_and_mixes_nothing_up() {
    let (test, _) = TestApp::start_with_pages(&[PATIENT]).await;
    seed::catalogue(&test.app, 30, |_| ()).await.unwrap();
    hear(&test.app).await;
    let client = test.anonymous();
    let first = |count: usize| format!("{{ products(first: {count}) {{ nodes {{ id title }} }} }}");
    for count in 1..=20 {
        client.send(&first(count), json!({})).await;
    }
    let oid = test.scalar("SELECT oid::bigint FROM pg_database WHERE datname = current_database()").await;
    until(async || (names(&format!("whitemonday:page:*-{oid}:*")).await.len() == 20).then_some(())).await;

    // All twenty are in Redis, from which each answer comes when nobody waits for it any more.
    let url = std::env::var("WHITEMONDAY_TEST_REDIS_URL").unwrap();
    let (login, server) = url.rsplit_once('@').unwrap();
    let slow = format!("{login}@{}", slow_way_to(server.to_owned(), Duration::from_millis(200)).await);
    let (other, address) = test.second_server_with(&[("PAGE_CACHE_BYTES", "10000000"), ("REDIS_URL", &slow)]).await;
    for count in 1..=20 {
        let shown = client.at(address).send(&first(count), json!({})).await;
        assert_eq!(shown["products"]["nodes"].as_array().unwrap().len(), count);
    }
    let counters = &other.pages.counters;
    assert_eq!((misses(&other), counters.redis_hits.get()), (20, 0));
    assert!(counters.redis_errors.get() >= 5 && counters.redis_skips.get() > 0);
    test.finish().await;
}
