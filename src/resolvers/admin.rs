//! What staff see of the whole shop.

use async_graphql::{Context, Enum, ID, Object, Result, SimpleObject, connection::Connection};

use super::{
    connection::{PageArguments, page_cost},
    context::ContextExt,
    customer::Customer,
    dead_letter::{self, DeadLetterConnection},
    errors::ApiError,
    order::{
        Order,
        list::{self, OrderConnection, OrderFilter},
    },
    product::{self, Product, ProductFilterInput, ProductSort, ProductTotal},
    scalars::DateTime,
    stock::{self, StockMovementConnection},
};
use crate::{
    domain::{customer::EmailAddress, ids::CustomerId},
    services,
    store::{self, StoreError, product::Archived, queue::Queue},
};

#[derive(Default)]
pub struct AdminRoot;

#[Object]
impl AdminRoot {
    /// For staff; FORBIDDEN to everyone else. `order` and `node` answer staff for every order.
    async fn admin(&self, ctx: &Context<'_>) -> Result<Option<AdminQuery>> {
        ctx.staff()?;
        Ok(Some(AdminQuery))
    }
}

/// What staff see.
pub struct AdminQuery;

#[Object]
impl AdminQuery {
    /// Every order, newest first.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
        filter: Option<OrderFilter>,
    ) -> Result<OrderConnection> {
        list::page(ctx, None, first, after, filter).await
    }

    /// The order with the number that a person reads out on the phone.
    async fn order_by_number(&self, ctx: &Context<'_>, number: String) -> Result<Option<Order>> {
        let filter = store::order::OrderFilter { number: Some(number), ..store::order::OrderFilter::default() };
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        Ok(store::order::list(&mut db, &filter, None, 1).await?.rows.pop().map(Order))
    }

    async fn customer(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Customer>> {
        match CustomerId::parse(&id) {
            Some(id) => Ok(ctx.loader().load_one(id).await?.map(Customer)),
            None => Ok(None),
        }
    }

    /// The account of an e-mail address, as it was typed or not.
    async fn customer_by_email(&self, ctx: &Context<'_>, #[graphql(secret)] email: String) -> Result<Option<Customer>> {
        let Some(email) = EmailAddress::parse(&email) else { return Ok(None) };
        let index = ctx.app().sealing.email_index(&email);
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        Ok(store::customer::find_by_email_index(&mut db, &index).await?.map(Customer))
    }

    /// Every product, newest first.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn products(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
        filter: Option<ProductFilterInput>,
        #[graphql(desc = "Only archived ones, or none of them; all when left out.")] archived: Option<bool>,
    ) -> Result<Connection<String, Product, ProductTotal>> {
        let archived = match archived {
            Some(true) => Archived::Only,
            Some(false) => Archived::Never,
            None => Archived::Too,
        };
        let arguments = PageArguments { first, after, ..PageArguments::default() };
        product::list(ctx, arguments, filter.unwrap_or_default(), archived, ProductSort::Newest).await
    }

    /// What changed the ordinary stock and the free units of sales, newest first; of one product, of one sale, or of all.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn stock_movements(
        &self,
        ctx: &Context<'_>,
        product_id: Option<ID>,
        flash_sale_id: Option<ID>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
    ) -> Result<StockMovementConnection> {
        stock::page(ctx, product_id, flash_sale_id, first, after).await
    }

    /// Messages that no worker could use, newest first; of one queue or of all.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn dead_letters(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
        queue: Option<String>,
    ) -> Result<DeadLetterConnection> {
        dead_letter::page(ctx, queue, first, after).await
    }

    /// Counts of every queue, as they are now.
    async fn queues(&self, ctx: &Context<'_>) -> Result<Vec<QueueStats>> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        let mut queues = Vec::new();
        for queue in Queue::ALL {
            let counts = store::queue::get_counts(&mut db, queue).await?;
            let count = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
            queues.push(QueueStats {
                name: queue.as_str(),
                ready: count(counts.ready),
                in_flight: count(counts.in_flight),
                delayed: count(counts.delayed),
                dead_letters: count(counts.dead_letters),
                oldest_ready_age_seconds: counts.oldest_ready_age_seconds,
            });
        }
        Ok(queues)
    }

    /// The circuit breakers before the payment provider, one for each kind of call, as the worker has it that fares worst. None when no
    /// worker runs.
    async fn breakers(&self, ctx: &Context<'_>) -> Result<Vec<Breaker>> {
        let breakers = services::circuit_breaker::list(ctx.app()).await.map_err(|error| ApiError::from(&error))?;
        let breaker = |breaker: store::circuit_breaker::Breaker| Breaker {
            name: breaker.operation,
            state: breaker.state.into(),
            failure_rate: breaker.failure_rate,
            since: breaker.since.into(),
        };
        Ok(breakers.into_iter().map(breaker).collect())
    }

    /// Checks every invariant of the data now. It reads much: not for a page that many look at.
    #[graphql(complexity = "1_000 + child_complexity")]
    async fn audit(&self, ctx: &Context<'_>) -> Result<AuditReport> {
        let report = services::audit::run(ctx.app()).await.map_err(|error| {
            tracing::error!(%error, "an audit failed");
            ApiError::from(&error)
        })?;
        let ok = report.is_clean();
        let invariants = report.invariants.into_iter().map(|invariant| AuditInvariant {
            name: invariant.name,
            description: invariant.description,
            violations: i32::try_from(invariant.violations).unwrap_or(i32::MAX),
        });
        Ok(AuditReport { ok, checked_at: report.checked_at.into(), invariants: invariants.collect() })
    }
}

/// A circuit breaker: calls that mostly fail are not made for a while.
#[derive(SimpleObject)]
pub struct Breaker {
    name: String,
    state: BreakerState,
    /// Of the last calls, at most 128: 0 to 1.
    failure_rate: f64,
    since: DateTime,
}

/// What a circuit breaker does with calls.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "crate::domain::circuit_breaker::BreakerState")]
pub enum BreakerState {
    /// All are made.
    Closed,
    /// None is made. Payments wait, and holds with them.
    Open,
    /// A few are made to see.
    HalfOpen,
}

/// A queue of background work.
#[derive(SimpleObject)]
pub struct QueueStats {
    name: &'static str,
    /// Waiting for a worker.
    ready: i32,
    /// With a worker.
    in_flight: i32,
    /// Failed, and due again later.
    delayed: i32,
    dead_letters: i32,
    /// 0 when nothing waits.
    oldest_ready_age_seconds: f64,
}

/// Each invariant with how many rows break it: all zero, or somebody must look.
#[derive(SimpleObject)]
pub struct AuditReport {
    ok: bool,
    checked_at: DateTime,
    invariants: Vec<AuditInvariant>,
}

/// A promise about the data.
#[derive(SimpleObject)]
pub struct AuditInvariant {
    name: &'static str,
    description: &'static str,
    /// Rows that break it.
    violations: i32,
}
