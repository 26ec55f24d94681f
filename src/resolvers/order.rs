//! Orders as their owner (and staff) see them, and their live status.

pub mod list;
mod mutation;

use std::{collections::HashMap, time::Duration};

use async_graphql::{Context, Enum, ID, Object, Result, SimpleObject, Subscription};
use futures_util::{Stream, StreamExt, stream};

use super::{
    address::{self, ShippingAddress},
    connection::page_cost,
    context::ContextExt,
    customer::Customer,
    flash_sale::FlashSale,
    loaders::{EventsOf, LinesOf, PaymentsOf, Visible},
    payment::Payment,
    product::Product,
    scalars::{DateTime, Money},
};
use crate::{
    app::App,
    domain::{self, ids::OrderId, money},
    sealing::SealedColumn,
    services::order_feed::{ORDERS_PER_CUSTOMER, Topic},
    store::{self, StoreError},
};

pub use self::mutation::OrderMutation;

#[derive(Clone)]
pub struct Order(pub store::order::Order);

/// What a customer has bought, or tried to.
#[Object]
impl Order {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// What a person reads out on the phone; unguessable.
    async fn number(&self) -> &str {
        &self.0.number
    }

    /// Rises with every change: drop what is older than what you have.
    async fn version(&self) -> i32 {
        self.0.version
    }

    async fn status(&self) -> OrderStatus {
        self.0.status.into()
    }

    /// For its owner and for staff; null when the customer has deleted the account since.
    async fn customer(&self, ctx: &Context<'_>) -> Result<Option<Customer>> {
        Ok(ctx.loader().load_one(self.0.customer_id).await?.map(Customer))
    }

    /// Why it is `IN_REVIEW`; for staff.
    async fn review_reason(&self, ctx: &Context<'_>) -> Option<&str> {
        self.0.review_reason.as_deref().filter(|_| ctx.is_staff())
    }

    async fn lines(&self, ctx: &Context<'_>) -> Result<Vec<OrderLine>> {
        let lines = ctx.loader().load_one(LinesOf(self.0.id)).await?.unwrap_or_default();
        Ok(lines.into_iter().map(|row| OrderLine { row, currency: self.0.currency }).collect())
    }

    async fn total(&self) -> Money {
        self.0.total().into()
    }

    /// What has been paid back so far.
    async fn refunded(&self, ctx: &Context<'_>) -> Result<Money> {
        let payments = ctx.loader().load_one(PaymentsOf(self.0.id)).await?.unwrap_or_default();
        let minor = payments.iter().map(|payment| payment.refunded_minor).sum();
        Ok(money::Money::new(minor, self.0.currency).into())
    }

    /// The address as it was when the order was made; null when the customer has deleted the account since.
    async fn shipping_address(&self, ctx: &Context<'_>) -> Result<Option<ShippingAddress>> {
        let Some(id) = self.0.address_id else { return Ok(None) };
        let Some(address) = ctx.loader().load_one(id).await? else { return Ok(None) };
        Ok(Some(ShippingAddress(address::open(ctx, &address)?)))
    }

    async fn delivery_note(&self, ctx: &Context<'_>) -> Result<Option<String>> {
        let open = |sealed: &Vec<u8>| ctx.open(SealedColumn::OrderDeliveryNote, self.0.id.0, sealed);
        self.0.delivery_note_sealed.as_ref().map(open).transpose()
    }

    /// One entry per try with a payment method, oldest first.
    async fn payments(&self, ctx: &Context<'_>) -> Result<Vec<Payment>> {
        let payments = ctx.loader().load_one(PaymentsOf(self.0.id)).await?.unwrap_or_default();
        Ok(payments.into_iter().map(Payment).collect())
    }

    /// Oldest first.
    async fn history(&self, ctx: &Context<'_>) -> Result<Vec<OrderEvent>> {
        let events = ctx.loader().load_one(EventsOf(self.0.id)).await?.unwrap_or_default();
        Ok(events.into_iter().map(Into::into).collect())
    }

    /// Until when the order keeps its units while it is unpaid. It moves on while payments cannot be taken, for 30 minutes at
    /// most. It stays as it was afterwards: look at `status` first.
    async fn hold_expires_at(&self) -> Option<DateTime> {
        self.0.hold_ends_at.map(Into::into)
    }

    /// The parcel's, once it is shipped.
    async fn tracking_number(&self) -> Option<&str> {
        self.0.tracking_number.as_deref()
    }

    /// True when `cancelOrder` would be accepted now.
    async fn cancellable(&self) -> bool {
        self.0.status.is_cancellable()
    }

    /// True when `requestReturn` would be accepted now.
    async fn returnable(&self) -> bool {
        self.0.state().may_become(domain::order::OrderStatus::ReturnRequested)
    }

    async fn created_at(&self) -> DateTime {
        self.0.created_at.into()
    }

    async fn updated_at(&self) -> DateTime {
        self.0.updated_at.into()
    }
}

/// What leads from a line to the catalogue costs as that many, as an order may have a hundred lines; most have a few.
const LINES: i32 = 10;

pub struct OrderLine {
    row: store::order::OrderLine,
    currency: money::Currency,
}

/// So many of a product, at the price of the moment of the order.
#[Object]
impl OrderLine {
    #[graphql(complexity = "page_cost(Some(LINES), child_complexity)")]
    async fn product(&self, ctx: &Context<'_>) -> Result<Product> {
        let product = ctx.loader().load_one(self.row.product_id).await?;
        Ok(Product(product.ok_or(StoreError::Missing("product of an order line"))?))
    }

    /// The sale it was bought in.
    #[graphql(complexity = "page_cost(Some(LINES), child_complexity)")]
    async fn flash_sale(&self, ctx: &Context<'_>) -> Result<Option<FlashSale>> {
        match self.row.flash_sale_id {
            Some(id) => Ok(ctx.loader().load_one(id).await?.map(FlashSale)),
            None => Ok(None),
        }
    }

    /// The product's title as it was.
    async fn title(&self) -> &str {
        &self.row.title
    }

    async fn quantity(&self) -> i32 {
        self.row.quantity
    }

    async fn unit_price(&self) -> Money {
        self.price().into()
    }

    async fn line_total(&self) -> Result<Money> {
        let total = self.price().times(self.row.quantity).ok_or(StoreError::Missing("order line that fits an amount"))?;
        Ok(total.into())
    }
}

impl OrderLine {
    const fn price(&self) -> money::Money {
        money::Money::new(self.row.unit_price_minor, self.currency)
    }
}

/// One step of an order.
#[derive(SimpleObject)]
pub struct OrderEvent {
    status: OrderStatus,
    /// Why, for you to translate.
    reason_code: Option<OrderEventReason>,
    /// Why, in words for people.
    reason: Option<String>,
    at: DateTime,
}

impl From<store::order::OrderEvent> for OrderEvent {
    fn from(event: store::order::OrderEvent) -> Self {
        Self { status: event.status.into(), reason_code: event.reason_code.map(Into::into), reason: event.reason, at: event.at.into() }
    }
}

/// Where an order stands. More may come: keep a default branch.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::order::OrderStatus")]
pub enum OrderStatus {
    /// The units are held; the payment is under way.
    AwaitingPayment,
    /// The money is there.
    Paid,
    /// It is being packed.
    Preparing,
    /// It is on its way.
    Shipped,
    /// It has arrived.
    Delivered,
    /// The provider declined; the units are free again.
    PaymentFailed,
    /// Called off; money that was paid is on its way back.
    Cancelling,
    /// Called off for good.
    Cancelled,
    /// The hold has ended; a payment under way still decides.
    Expiring,
    /// The hold ended unpaid; the units are free again.
    Expired,
    /// The customer wants to send it back.
    ReturnRequested,
    /// The money is on its way back.
    Refunding,
    /// All of the money is back.
    Refunded,
    /// A part of the money is back.
    PartlyRefunded,
    /// Staff are looking at it.
    InReview,
}

/// Why an order changed.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::order::OrderEventReason")]
pub enum OrderEventReason {
    /// The customer wanted it.
    Customer,
    /// Somebody of the shop did it.
    Staff,
    /// The provider declined.
    PaymentDeclined,
    /// It was not paid in time.
    HoldExpired,
    /// The sale was called off.
    SaleCancelled,
    /// The money came after the order had ended.
    LateCapture,
    /// The provider speaks of another amount.
    Mismatch,
    /// A step of it failed too often.
    DeadLetter,
    /// A time that was set for it had come.
    Schedule,
}

/// The order of a global id, if it is the caller's or the caller is staff.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Order>> {
    let Some(id) = OrderId::parse(id) else { return Ok(None) };
    Ok(ctx.loader().load_one(Visible(id)).await?.map(Order))
}

/// An order that was just made or found for the caller.
pub async fn get(ctx: &Context<'_>, id: OrderId) -> Result<Order> {
    Ok(Order(ctx.loader().load_one(id).await?.ok_or(StoreError::Missing("order"))?))
}

#[derive(Default)]
pub struct OrderQuery;

#[Object]
impl OrderQuery {
    /// An order of the signed-in customer; staff see every order. Null otherwise.
    async fn order(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Order>> {
        find(ctx, &id).await
    }
}

#[derive(Default)]
pub struct OrderSubscription;

#[Subscription]
impl OrderSubscription {
    /// The present state at once, then the newest state after every change: quick changes may arrive as one, `version`
    /// always rises, `history` has each step. Without `orderId`: all orders of the signed-in customer (the newest 100),
    /// later ones too, so that a client can listen before it buys. An order that is not yours ends the stream at once.
    async fn order_updates(&self, ctx: &Context<'_>, order_id: Option<ID>) -> Result<impl Stream<Item = Result<Order>> + use<>> {
        let viewer = ctx.signed_in()?;
        let topic = match &order_id {
            None => Some(Topic::Customer(viewer.customer)),
            Some(id) => find(ctx, id).await?.map(|order| Topic::Order(order.0.id)),
        };
        let app = ctx.app().clone();
        Ok(stream::iter(topic).flat_map(move |topic| updates(app.clone(), topic)))
    }
}

/// A subscription whose database does not answer asks again after this.
const RETRY: Duration = Duration::from_secs(1);

/// The orders of a topic, each time their version is higher than the last one sent.
fn updates(app: App, topic: Topic) -> impl Stream<Item = Result<Order>> {
    struct State {
        app: App,
        topic: Topic,
        listener: crate::services::order_feed::Listener,
        sent: HashMap<OrderId, i32>,
        reads_at_once: bool,
    }
    let listener = app.order_feed.listen(topic);
    let state = State { app, topic, listener, sent: HashMap::new(), reads_at_once: true };
    stream::unfold(state, |mut state| async move {
        if !state.reads_at_once && !state.listener.changed().await {
            return None;
        }
        state.reads_at_once = false;
        let news = match newer_than(&state.app, state.topic, &state.sent).await {
            Ok(orders) => {
                state.sent.extend(orders.iter().map(|order| (order.id, order.version)));
                orders.into_iter().map(|order| Ok(Order(order))).collect()
            }
            Err(error) => {
                // The stream goes on: whatever was missed is read as soon as the database answers again.
                state.reads_at_once = true;
                tokio::time::sleep(RETRY).await;
                vec![Err(error.into())]
            }
        };
        Some((stream::iter(news), state))
    })
    .flatten()
}

async fn newer_than(app: &App, topic: Topic, sent: &HashMap<OrderId, i32>) -> Result<Vec<store::order::Order>, StoreError> {
    let mut db = app.db.acquire().await?;
    let versions = match topic {
        Topic::Customer(customer) => store::order::list_versions_for_customers(&mut db, &[customer], ORDERS_PER_CUSTOMER).await?,
        Topic::Order(order) => store::order::list_versions(&mut db, &[order]).await?,
    };
    let is_news = |id: OrderId, version: i32| sent.get(&id).is_none_or(|known| *known < version);
    let changed: Vec<OrderId> = versions.into_iter().filter(|(id, _, version)| is_news(*id, *version)).map(|(id, ..)| id).collect();
    let mut orders = store::order::list_by_ids(&mut db, &changed).await?;
    orders.sort_by_key(|order| (order.created_at, order.id));
    Ok(orders)
}
