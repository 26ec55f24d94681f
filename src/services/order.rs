//! Orders: the one function that moves them, the frame of every change that somebody asks for, and the end of their holds.
//!
//! What customers and staff ask for is in the files below; each begins with [`Change::begin`] and ends with `finish`.

mod cancel;
mod check_out;
mod fulfil;
mod retry;
mod returns;
mod review;
mod schedule;
mod shipping;

use sqlx::{PgConnection, Postgres, Transaction};
use uuid::Uuid;

pub use self::{
    cancel::{call_off, cancel},
    check_out::{CheckOut, CheckedOut, check_out},
    fulfil::{mark_delivered, mark_preparing, mark_shipped},
    retry::retry_payment,
    returns::{approve_return, refund, reject_return, request_return},
    review::resolve_review,
    schedule::advance_due,
    shipping::set_shipping_address,
};
use super::{
    InvalidInput, ServiceError,
    idempotency::{ClientKey, Request},
    leader::Term,
};
use crate::{
    app::App,
    domain::{
        ids::{CustomerId, OrderId},
        order::{OrderEventReason, OrderStatus},
        stock::StockMovementKind,
    },
    store::{
        self,
        idempotency::Earlier,
        lease::LEADER,
        order::{Order, Step},
        stock::Claim,
    },
};

/// Orders whose hold is ended in one transaction.
pub const EXPIRY_BATCH: i64 = 100;

/// Why an order moves: a code for clients, and perhaps words for people, as somebody typed them for the order's history.
#[derive(Clone, Debug, Default)]
pub struct Reason {
    pub code: Option<OrderEventReason>,
    pub note: Option<String>,
}

impl From<OrderEventReason> for Reason {
    fn from(code: OrderEventReason) -> Self {
        Self { code: Some(code), note: None }
    }
}

/// Moves locked orders to a state, with version and history, as far as the state table allows it; the others are left
/// alone. The rows show the new state afterwards; the ids are those that moved. Every writer of an order's state calls
/// this, with the rows locked in the caller's transaction.
pub async fn transition(
    app: &App,
    db: &mut PgConnection,
    orders: &mut [Order],
    to: OrderStatus,
    reason: Reason,
) -> Result<Vec<OrderId>, ServiceError> {
    let mut movable: Vec<&mut Order> = orders.iter_mut().filter(|order| order.state().may_become(to)).collect();
    if movable.is_empty() {
        return Ok(Vec::new());
    }
    let step =
        |order: &&mut Order| Step { order: order.id, from_version: order.version, to, reason: reason.code, note: reason.note.clone() };
    let steps: Vec<Step> = movable.iter().map(step).collect();
    store::order::update_status(db, &steps, app.clock.now()).await?;
    for order in &mut movable {
        let after = order.state().after(to);
        order.status = after.status;
        order.status_before_review = after.before_review;
        order.version += 1;
    }
    Ok(steps.into_iter().map(|step| step.order).collect())
}

/// Who asks for a change.
#[derive(Clone, Copy, Debug)]
pub enum Actor {
    /// Only for orders of their own.
    Customer(CustomerId),
    Staff(CustomerId),
}

impl Actor {
    const fn key(self, key: Uuid) -> ClientKey {
        match self {
            Self::Customer(customer) | Self::Staff(customer) => ClientKey { customer, key },
        }
    }

    const fn owner(self) -> Option<CustomerId> {
        match self {
            Self::Customer(id) => Some(id),
            Self::Staff(_) => None,
        }
    }

    const fn reason(self) -> OrderEventReason {
        match self {
            Self::Customer(_) => OrderEventReason::Customer,
            Self::Staff(_) => OrderEventReason::Staff,
        }
    }

    fn because(self, note: Option<String>) -> Reason {
        Reason { code: Some(self.reason()), note }
    }
}

/// What became of a change that somebody asked for.
#[derive(Debug)]
pub enum Changed {
    /// Done now, or by the same request before.
    Done(OrderId),
    /// There is no such order, or it is not the caller's.
    NotFound,
    /// The state machine forbids it now.
    WrongState,
    KeyReused,
    Invalid(InvalidInput),
    NoSuchAddress,
    /// The units could not be claimed anew.
    NotClaimed(Claim),
}

/// A change under way: one transaction with the order's row locked. Dropped unfinished, it leaves nothing behind.
struct Change {
    tx: Transaction<'static, Postgres>,
    order: [Order; 1],
    request: Option<Request>,
}

impl Change {
    /// Locks the order; the outcome at once when there is none, or when the key was used before.
    async fn begin(app: &App, actor: Actor, id: OrderId, request: Option<Request>) -> Result<Result<Self, Changed>, ServiceError> {
        let mut tx = app.db.begin().await?;
        let Some(order) = store::order::lock(&mut tx, id, actor.owner()).await? else {
            return Ok(Err(Changed::NotFound));
        };
        // Asked with the order locked: whoever deletes an account holds its orders.
        if let Some(owner) = actor.owner()
            && store::customer::list_by_ids(&mut tx, &[owner]).await?.is_empty()
        {
            return Err(ServiceError::NoAccount);
        }
        if let Some(request) = &request {
            match store::idempotency::find(&mut tx, &request.key()).await? {
                Earlier::Same(_) => return Ok(Err(Changed::Done(id))),
                Earlier::Different => return Ok(Err(Changed::KeyReused)),
                Earlier::None => {}
            }
        }
        Ok(Ok(Self { tx, order: [order], request }))
    }

    const fn order(&self) -> &Order {
        &self.order[0]
    }

    /// Moves the order; false when the state table forbids it.
    async fn transition(&mut self, app: &App, to: OrderStatus, reason: Reason) -> Result<bool, ServiceError> {
        Ok(!transition(app, &mut self.tx, &mut self.order, to, reason).await?.is_empty())
    }

    /// Remembers the key, commits, and tells who listens.
    async fn finish(mut self, app: &App) -> Result<Changed, ServiceError> {
        let (id, customer) = (self.order().id, self.order().customer_id);
        if let Some(request) = &self.request {
            match store::idempotency::insert(&mut self.tx, &request.key(), id.0, app.clock.now()).await {
                // At the same moment, for another order: the row that is locked here was not that one's.
                Err(error) if error.violates(store::idempotency::KEY_ONCE) => return Ok(Changed::KeyReused),
                inserted => inserted?,
            }
        }
        self.tx.commit().await?;
        app.order_feed.ring(&[(id, customer)]);
        Ok(Changed::Done(id))
    }
}

/// Ends holds that have run out: the orders expire, their units are free again. An order whose payment is under way is
/// EXPIRING until that has ended. One transaction of at most [`EXPIRY_BATCH`] orders; nothing happens when the leader's term is
/// over. Returns how many holds ended.
pub async fn expire_due(app: &App, term: Term) -> Result<usize, ServiceError> {
    let now = app.clock.now();
    let mut tx = app.db.begin().await?;
    if !store::lease::lock_term(&mut tx, LEADER, term.0).await? {
        return Ok(0);
    }
    let mut due = store::order::lock_ended_holds(&mut tx, now, EXPIRY_BATCH).await?;
    if due.is_empty() {
        return Ok(0);
    }
    let ids: Vec<OrderId> = due.iter().map(|order| order.id).collect();
    // A younger look than the one that found them: a payment may have begun before their rows were locked.
    let being_paid = store::payment::list_orders_being_paid(&mut tx, &ids).await?;
    transition(app, &mut tx, &mut due, OrderStatus::Expiring, OrderEventReason::HoldExpired.into()).await?;
    let (waiting, mut over): (Vec<Order>, Vec<Order>) = due.into_iter().partition(|order| being_paid.contains(&order.id));
    let expired = transition(app, &mut tx, &mut over, OrderStatus::Expired, OrderEventReason::HoldExpired.into()).await?;
    store::stock::release_units(&mut tx, &expired, StockMovementKind::Released, app.counter_slots.changes(), now).await?;
    tx.commit().await?;
    let changed: Vec<_> = waiting.iter().chain(&over).map(|order| (order.id, order.customer_id)).collect();
    app.order_feed.ring(&changed);
    Ok(changed.len())
}
