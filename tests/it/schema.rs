//! The schemas, of the API and of the database.

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;
use whitemonday::{
    domain::flash_sale::{FlashSalePhase, SaleUnits, SaleWindow},
    resolvers, store,
    store::schema::SchemaError,
};

use crate::support::{TestApp, TestDatabase};

#[test]
fn the_checked_in_schema_is_the_programs() {
    assert!(include_str!("../../schema/schema.graphql") == resolvers::sdl(), "run `make schema`");
}

#[tokio::test]
async fn migrations_run_twice_and_at_once_and_back_to_nothing() {
    let database = TestDatabase::create_empty().await;
    let pool = PgPool::connect(&database.url).await.unwrap();
    assert!(matches!(store::schema::check(&mut pool.acquire().await.unwrap()).await, Err(SchemaError::Older(_))));

    let (a, b) = tokio::join!(store::schema::run(&pool), store::schema::run(&pool));
    let all = store::schema::status(&pool).await.unwrap().len();
    assert_eq!(a.unwrap().len() + b.unwrap().len(), all, "each migration was applied once");
    store::schema::check(&mut pool.acquire().await.unwrap()).await.unwrap();

    for _ in 0..all {
        store::schema::revert(&pool).await.unwrap();
    }
    assert!(matches!(store::schema::revert(&pool).await, Err(SchemaError::NothingToRevert)));
    assert_eq!(store::schema::run(&pool).await.unwrap().len(), all, "what was undone can be done again");
    pool.close().await;
    database.drop().await;
}

#[tokio::test]
async fn a_schema_that_is_newer_than_the_program_is_refused() {
    let test = TestApp::start().await;
    test.execute(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (99990101000000, 'x', true, '', 0)",
    )
    .await;
    assert!(matches!(store::schema::check(&mut test.app.db.acquire().await.unwrap()).await, Err(SchemaError::Newer(_))));
    assert!(matches!(store::schema::run(&test.app.db).await, Err(SchemaError::Newer(_))));
    test.finish().await;
}

#[tokio::test]
async fn migrations_without_pgmq_say_what_to_do() {
    let database = TestDatabase::create_empty().await;
    let pool = PgPool::connect(&database.url).await.unwrap();
    let error = store::schema::MIGRATOR.run(&pool).await.unwrap_err().to_string();
    assert!(error.contains("pgmq is not installed"), "{error}");
    pool.close().await;
    database.drop().await;
}

/// The rule stands twice, in SQL for filters and in Rust for everything else.
#[tokio::test]
async fn the_phase_is_the_same_in_sql_and_in_rust() {
    let test = TestApp::start().await;
    let sale = test.open_sale(10, 10).await;
    let now: DateTime<Utc> = DateTime::from_timestamp(2_000_000_000, 0).unwrap();
    let hour = TimeDelta::hours(1);
    let mut compared = 0;
    for (opens_at, closes_at) in [(now - hour, now + hour), (now, now + hour), (now + hour, now + hour * 2), (now - hour, now)] {
        for (units_ready, cancelled) in [(true, false), (false, false), (true, true)] {
            for (claimed, sold) in [(0, 0), (9, 9), (10, 9), (10, 10)] {
                let sql = "UPDATE flash_sale SET opens_at = $1, closes_at = $2, units_ready_at = CASE WHEN $3 THEN now() END,
                                  cancelled_at = CASE WHEN $4 THEN now() END";
                sqlx::query(sql).bind(opens_at).bind(closes_at).bind(units_ready).bind(cancelled).execute(&*test.app.db).await.unwrap();
                let sql = "INSERT INTO sale_counter VALUES ($1, 0, $2, $3)
                           ON CONFLICT (sale_id, slot) DO UPDATE SET claimed = excluded.claimed, sold = excluded.sold";
                sqlx::query(sql).bind(sale.0).bind(claimed).bind(sold).execute(&*test.app.db).await.unwrap();
                let sql = "SELECT flash_sale_phase(s, $1) FROM flash_sale_live s";
                let in_sql: String = sqlx::query_scalar(sql).bind(now).fetch_one(&*test.app.db).await.unwrap();
                let window = SaleWindow { opens_at, closes_at, units_ready, cancelled };
                let units = SaleUnits { total: 10, claimed, sold };
                assert_eq!(in_sql, FlashSalePhase::at(now, window, units).as_str(), "{window:?} {units:?}");
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 48);
    test.execute("UPDATE sale_counter SET claimed = 0, sold = 0").await;
    test.finish().await;
}

#[tokio::test]
async fn every_new_connection_has_the_time_outs_of_the_database() {
    let database = TestDatabase::create_empty().await;
    let pool = PgPool::connect(&database.url).await.unwrap();
    store::schema::run(&pool).await.unwrap();
    pool.close().await;
    let pool = PgPool::connect(&database.url).await.unwrap();
    for (name, value) in [
        ("statement_timeout", "1min"),
        ("idle_in_transaction_session_timeout", "1min"),
        ("client_connection_check_interval", "2s"),
        ("tcp_keepalives_idle", "10"),
        ("jit", "off"),
        ("plan_cache_mode", "force_custom_plan"),
    ] {
        let set: String = sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&pool).await.unwrap();
        assert_eq!(set, value, "{name}");
    }
    pool.close().await;
    database.drop().await;
}
