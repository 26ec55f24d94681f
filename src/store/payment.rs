//! Payment tries: one row per order and payment method that was tried.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{StoreError, expect_one};
use crate::domain::{
    ids::{CustomerId, OrderId, PaymentId},
    money::{Currency, Money},
    payment::PaymentStatus,
};

#[derive(Clone, Debug)]
pub struct Payment {
    pub id: PaymentId,
    pub order_id: OrderId,
    pub try_number: i32,
    pub status: PaymentStatus,
    pub amount_minor: i64,
    pub currency: Currency,
    pub refunded_minor: i64,
    /// Asked for back, and not settled yet.
    pub refunding_minor: i64,
    pub provider: String,
    pub provider_reference: Option<String>,
    pub payment_method: String,
    pub method_label: Option<String>,
    pub next_action_url: Option<String>,
    pub failure_code: Option<String>,
    pub calls: i32,
    /// How often it was taken up again after its worker was gone.
    pub resumes: i32,
    pub deadline: DateTime<Utc>,
    pub created_at: DateTime<Utc>,
    pub updated_at: DateTime<Utc>,
}

impl Payment {
    #[must_use]
    pub const fn amount(&self) -> Money {
        Money::new(self.amount_minor, self.currency)
    }
}

/// All tries of these orders, oldest first. Order by order: with a table whose statistics are missing yet, the planner would
/// rather read all of it.
pub async fn list_for_orders(db: &mut PgConnection, orders: &[OrderId]) -> Result<Vec<Payment>, StoreError> {
    let rows = sqlx::query_as!(
        Payment,
        r#"SELECT p.id AS "id: PaymentId", p.order_id AS "order_id: OrderId", p.try_number, p.status AS "status: PaymentStatus",
                  p.amount_minor, p.currency AS "currency: Currency", p.refunded_minor, p.refunding_minor, p.provider, p.provider_reference, p.payment_method,
                  p.method_label, p.next_action_url, p.failure_code, p.calls, p.resumes, p.deadline, p.created_at, p.updated_at
             FROM unnest($1::uuid[]) AS x (order_id)
            CROSS JOIN LATERAL (SELECT * FROM payment WHERE order_id = x.order_id ORDER BY try_number) p
            ORDER BY p.order_id, p.try_number"#,
        orders as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Of the tries with these ids the ones for orders of `customer`; staff ask without one and get all.
pub async fn list_visible(db: &mut PgConnection, ids: &[PaymentId], customer: Option<CustomerId>) -> Result<Vec<Payment>, StoreError> {
    let rows = sqlx::query_as!(
        Payment,
        r#"SELECT id AS "id: PaymentId", order_id AS "order_id: OrderId", try_number, status AS "status: PaymentStatus", amount_minor,
                  currency AS "currency: Currency", refunded_minor, refunding_minor, provider, provider_reference, payment_method, method_label,
                  next_action_url, failure_code, calls, resumes, deadline, created_at, updated_at
             FROM payment p
            WHERE id = ANY($1)
              AND ($2::uuid IS NULL OR EXISTS (SELECT 1 FROM orders o WHERE o.id = p.order_id AND o.customer_id = $2))"#,
        ids as _,
        customer as _,
    );
    Ok(rows.fetch_all(db).await?)
}

/// Of these orders the ones with a payment under way.
pub async fn list_orders_being_paid(db: &mut PgConnection, orders: &[OrderId]) -> Result<Vec<OrderId>, StoreError> {
    let ids = sqlx::query_scalar!(
        r#"SELECT order_id AS "order_id: OrderId" FROM payment
            WHERE order_id = ANY($1) AND status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN')"#,
        orders as _,
    );
    Ok(ids.fetch_all(db).await?)
}

pub struct NewTry {
    pub id: PaymentId,
    pub order: OrderId,
    pub try_number: i32,
    pub amount: Money,
    pub payment_method: String,
}

/// Inserts tries that are under way until `deadline`; afterwards their outcome is asked for.
pub async fn insert_tries(
    db: &mut PgConnection,
    tries: &[NewTry],
    provider: &str,
    deadline: DateTime<Utc>,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    if tries.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO payment (id, order_id, try_number, status, amount_minor, currency, provider, payment_method, deadline, next_query_at, created_at, updated_at)
         SELECT t.id, t.order_id, t.try_number, 'PROCESSING', t.amount_minor, t.currency, $7, t.payment_method, $8, $8, $9, $9
           FROM unnest($1::uuid[], $2::uuid[], $3::integer[], $4::bigint[], $5::text[], $6::text[])
                AS t (id, order_id, try_number, amount_minor, currency, payment_method)",
        &tries.iter().map(|new| new.id.0).collect::<Vec<_>>(),
        &tries.iter().map(|new| new.order.0).collect::<Vec<_>>(),
        &tries.iter().map(|new| new.try_number).collect::<Vec<_>>(),
        &tries.iter().map(|new| new.amount.minor).collect::<Vec<_>>(),
        &tries.iter().map(|new| new.amount.currency.to_string()).collect::<Vec<_>>(),
        &tries.iter().map(|new| new.payment_method.clone()).collect::<Vec<_>>(),
        provider,
        deadline,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives tries whose worker is gone a new deadline, and counts that: they belong to the caller now.
pub async fn update_deadline(
    db: &mut PgConnection,
    ids: &[PaymentId],
    deadline: DateTime<Utc>,
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE payment SET deadline = $2, next_query_at = $2, resumes = resumes + 1, updated_at = $3 WHERE id = ANY($1)",
        ids as _,
        deadline,
        at
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Notes the provider's ids of these tries, before any money moves, and answers the ones that are noted now: of two
/// workers at one try the first one's id stands, and only that one may be charged.
pub async fn update_references(
    db: &mut PgConnection,
    references: &[(PaymentId, String)],
    at: DateTime<Utc>,
) -> Result<Vec<(PaymentId, String)>, StoreError> {
    let noted = sqlx::query!(
        r#"UPDATE payment p
              SET provider_reference = coalesce(p.provider_reference, r.reference), calls = p.calls + 1, updated_at = $3
             FROM unnest($1::uuid[], $2::text[]) AS r (id, reference)
            WHERE p.id = r.id
        RETURNING p.id AS "id: PaymentId", p.provider_reference AS "reference!""#,
        &references.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        &references.iter().map(|(_, reference)| reference.clone()).collect::<Vec<_>>(),
        at,
    )
    .fetch_all(db)
    .await?;
    Ok(noted.into_iter().map(|row| (row.id, row.reference)).collect())
}

/// What became of a try.
#[derive(Clone, Debug)]
pub struct TryResult {
    pub id: PaymentId,
    pub status: PaymentStatus,
    pub method_label: Option<String>,
    pub next_action_url: Option<String>,
    pub failure_code: Option<String>,
    /// When the provider is to be asked again; never, when the answer is final or for people.
    pub next_query_at: Option<DateTime<Utc>>,
}

impl TryResult {
    /// A state and nothing else to tell.
    #[must_use]
    pub const fn new(id: PaymentId, status: PaymentStatus) -> Self {
        Self { id, status, method_label: None, next_action_url: None, failure_code: None, next_query_at: None }
    }
}

/// The orders of those of these tries that have no answer of any kind yet. Call with the orders' rows locked.
pub async fn list_orders_of_processing(db: &mut PgConnection, ids: &[PaymentId]) -> Result<Vec<OrderId>, StoreError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let orders = sqlx::query_scalar!(
        r#"SELECT order_id AS "order_id: OrderId" FROM payment WHERE id = ANY($1) AND status = 'PROCESSING'"#,
        ids as _,
    );
    Ok(orders.fetch_all(db).await?)
}

/// Writes the results of tries that are still open, and tells whose orders they are; one that has ended already stays as it
/// is, and its order must stay too.
pub async fn update_results(db: &mut PgConnection, results: &[TryResult], at: DateTime<Utc>) -> Result<Vec<OrderId>, StoreError> {
    let orders = sqlx::query_scalar!(
        r#"UPDATE payment p
              SET status = r.status, method_label = coalesce(r.method_label, p.method_label), next_action_url = r.next_action_url,
                  failure_code = r.failure_code, calls = p.calls + 1, updated_at = $6,
                  next_query_at = r.next_query_at, deadline = least(p.deadline, $6)
             FROM unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $7::timestamptz[])
                  AS r (id, status, method_label, next_action_url, failure_code, next_query_at)
            WHERE p.id = r.id AND p.status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN')
        RETURNING p.order_id AS "order_id: OrderId""#,
        &results.iter().map(|result| result.id.0).collect::<Vec<_>>(),
        &results.iter().map(|result| result.status.as_str().to_owned()).collect::<Vec<_>>(),
        &results.iter().map(|result| result.method_label.clone()).collect::<Vec<_>>() as _,
        &results.iter().map(|result| result.next_action_url.clone()).collect::<Vec<_>>() as _,
        &results.iter().map(|result| result.failure_code.clone()).collect::<Vec<_>>() as _,
        at,
        &results.iter().map(|result| result.next_query_at).collect::<Vec<_>>() as _,
    );
    Ok(orders.fetch_all(db).await?)
}

/// Writes the result of a try that may have ended before, without money. Call with the order's row locked.
pub async fn update_late_result(db: &mut PgConnection, result: &TryResult, at: DateTime<Utc>) -> Result<(), StoreError> {
    let updated = sqlx::query!(
        "UPDATE payment
            SET status = $2, method_label = coalesce($3, method_label), failure_code = $4, next_action_url = NULL, next_query_at = NULL,
                deadline = least(deadline, $5), updated_at = $5
          WHERE id = $1 AND status NOT IN ('CAPTURED', 'PARTLY_REFUNDED', 'REFUNDED')",
        result.id as _,
        result.status as _,
        result.method_label,
        result.failure_code,
        at,
    );
    expect_one(updated.execute(db).await?.rows_affected(), "payment without money")
}

/// The order's payment whose money is, or was, ours. Call with the order's row locked.
pub async fn find_captured(db: &mut PgConnection, order: OrderId) -> Result<Option<Payment>, StoreError> {
    Ok(list_for_orders(db, &[order]).await?.into_iter().find(|payment| payment.status.is_captured()))
}

/// Takes open tries from a worker that only waits for the customer, or for people: whoever begins them next asks the provider at
/// once. Call with the orders' rows locked.
pub async fn update_given_up(db: &mut PgConnection, order: OrderId, at: DateTime<Utc>) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE payment SET deadline = least(deadline, $2), next_query_at = $2
          WHERE order_id = $1 AND status IN ('REQUIRES_ACTION', 'UNKNOWN')",
        order as _,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The provider has not said yet what became of these tries: whoever begins them next, from then on, asks it first; without a time,
/// whoever has their messages. Call with the orders' rows locked.
pub async fn update_next_query(
    db: &mut PgConnection,
    tries: &[(PaymentId, Option<DateTime<Utc>>)],
    at: DateTime<Utc>,
) -> Result<(), StoreError> {
    if tries.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE payment p SET next_query_at = t.next_query_at, deadline = least(p.deadline, $3), calls = p.calls + 1, updated_at = $3
           FROM unnest($1::uuid[], $2::timestamptz[]) AS t (id, next_query_at)
          WHERE p.id = t.id AND p.status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN')",
        &tries.iter().map(|(id, _)| id.0).collect::<Vec<_>>(),
        &tries.iter().map(|(_, next)| *next).collect::<Vec<_>>() as _,
        at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Nobody is to be reminded of this order's open try. Call with the order's row locked.
pub async fn forget_next_query(db: &mut PgConnection, order: OrderId) -> Result<(), StoreError> {
    sqlx::query!(
        "UPDATE payment SET next_query_at = NULL
          WHERE order_id = $1 AND status IN ('PENDING', 'PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN')",
        order as _,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Orders with a try about which the provider is to be asked now, at most `limit`. They are due again at `again`, should their
/// messages not have been handled by then.
pub async fn take_due(db: &mut PgConnection, now: DateTime<Utc>, again: DateTime<Utc>, limit: i64) -> Result<Vec<OrderId>, StoreError> {
    let orders = sqlx::query_scalar!(
        r#"UPDATE payment SET next_query_at = $2
            WHERE id IN (SELECT id FROM payment
                          WHERE next_query_at <= $1 AND status IN ('PROCESSING', 'REQUIRES_ACTION', 'UNKNOWN')
                          ORDER BY next_query_at LIMIT $3 FOR UPDATE SKIP LOCKED)
        RETURNING order_id AS "order_id: OrderId""#,
        now,
        again,
        limit,
    );
    Ok(orders.fetch_all(db).await?)
}
