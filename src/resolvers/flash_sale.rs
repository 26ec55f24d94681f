//! Flash sales: the listing, the purchase, the live numbers; what staff do with them is in `flash_sale/mutation.rs`.

mod mutation;

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, SimpleObject, Subscription, Union, connection::Connection};
use futures_util::{Stream, StreamExt};
use tokio_stream::wrappers::WatchStream;
use uuid::Uuid;

pub use self::mutation::SaleMutation;
use super::{
    connection::{PageArguments, PageRequest, connection, page_cost},
    context::ContextExt,
    errors::{ApiError, UserError, UserErrorCode},
    loaders::UnitsOf,
    order::{self, Order},
    product::Product,
    scalars::{DateTime, Money},
};
use crate::{
    domain::{
        self,
        flash_sale::discount_percent,
        ids::{AddressId, FlashSaleId},
        page::PageTagKind,
    },
    services::{
        self,
        purchase::{Bought, BuyNow},
    },
    store::{self, StoreError, flash_sale::FlashSalePosition, purchase::PurchaseOutcome},
};

pub struct FlashSale(pub store::flash_sale::FlashSale);

/// A product at a price, for a while, as long as the units last. First come, first served.
#[Object]
impl FlashSale {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn product(&self, ctx: &Context<'_>) -> Result<Product> {
        let product = ctx.loader().load_one(self.0.product_id).await?;
        Ok(Product(product.ok_or(StoreError::Missing("product of a sale"))?))
    }

    /// The price of one unit in this sale.
    async fn price(&self) -> Money {
        self.0.price().into()
    }

    /// Whole percent off the product's ordinary price, rounded down.
    async fn discount_percent(&self, ctx: &Context<'_>) -> Result<i32> {
        let product = ctx.loader().load_one(self.0.product_id).await?.ok_or(StoreError::Missing("product of a sale"))?;
        Ok(discount_percent(product.price_minor, self.0.price_minor))
    }

    /// From then on units can be bought, by the server's clock.
    async fn opens_at(&self) -> DateTime {
        self.0.opens_at.into()
    }

    /// From then on they cannot.
    async fn closes_at(&self) -> DateTime {
        self.0.closes_at.into()
    }

    /// Where the sale stands now, at most a quarter of a second late.
    async fn phase(&self, ctx: &Context<'_>) -> FlashSalePhase {
        self.0.phase(ctx.app().clock.now()).into()
    }

    /// Units that the sale began with.
    async fn total_units(&self) -> i32 {
        self.0.total_units
    }

    /// Units that nobody holds or has bought.
    async fn remaining_units(&self) -> i32 {
        self.0.units().remaining()
    }

    /// Units that one customer may hold or buy, over all orders.
    async fn per_customer_limit(&self) -> i32 {
        self.0.per_customer_limit
    }

    /// Units that the signed-in customer holds or has bought in this sale; null when nobody is signed in.
    async fn viewer_units(&self, ctx: &Context<'_>) -> Result<Option<i32>> {
        match ctx.viewer() {
            Some(viewer) => Ok(Some(ctx.loader().load_one(UnitsOf(viewer.customer, self.0.id)).await?.unwrap_or(0))),
            None => Ok(None),
        }
    }

    /// Seconds that an unpaid order keeps its units.
    async fn hold_seconds(&self) -> i32 {
        self.0.hold_seconds
    }

    /// The server's time: count down by it.
    async fn server_time(&self, ctx: &Context<'_>) -> DateTime {
        ctx.app().clock.now().into()
    }
}

/// Where a sale stands.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::flash_sale::FlashSalePhase")]
pub enum FlashSalePhase {
    /// Not yet open.
    Scheduled,
    /// Units can be bought.
    Open,
    /// No unit is free, but unpaid ones may come back.
    SoldOutHoldsPending,
    /// Every unit is paid for.
    SoldOut,
    /// Over.
    Closed,
    /// Called off.
    Cancelled,
}

/// Counts the whole listing, only when it is asked for.
pub struct FlashSaleTotal(Vec<domain::flash_sale::FlashSalePhase>);

#[Object]
impl FlashSaleTotal {
    /// How many there are in all. Counted when asked for: leave it out where you do not show it.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        let count = store::flash_sale::count(&mut db, &self.0, ctx.app().clock.now()).await?;
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

/// The sale of a global id.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<FlashSale>> {
    match FlashSaleId::parse(id) {
        Some(id) => Ok(ctx.loader().load_one(id).await?.map(FlashSale)),
        None => Ok(None),
    }
}

async fn get(ctx: &Context<'_>, id: FlashSaleId) -> Result<FlashSale> {
    Ok(FlashSale(ctx.loader().load_one(id).await?.ok_or(StoreError::Missing("sale of a purchase"))?))
}

#[derive(Default)]
pub struct FlashSaleQuery;

#[Object]
impl FlashSaleQuery {
    /// A sale by its id; null when there is none.
    async fn flash_sale(&self, ctx: &Context<'_>, id: ID) -> Result<Option<FlashSale>> {
        find(ctx, &id).await
    }

    /// Sales by their opening, then id; all of them, or those in one of `phases`.
    #[graphql(complexity = "page_cost(first, child_complexity)")]
    async fn flash_sales(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "1 to 100; 20 when left out.")] first: Option<i32>,
        after: Option<String>,
        phases: Option<Vec<FlashSalePhase>>,
    ) -> Result<Option<Connection<String, FlashSale, FlashSaleTotal>>> {
        let request: PageRequest<(i64, Uuid)> = PageArguments { first, after, ..PageArguments::default() }.read()?;
        let position = |(micros, id): (i64, Uuid)| {
            let opens_at =
                chrono::DateTime::from_timestamp_micros(micros).ok_or(ApiError::BadRequest("This cursor is not one of ours."))?;
            Ok::<_, ApiError>(FlashSalePosition { opens_at, id: FlashSaleId(id) })
        };
        let from = request.from.map(position).transpose()?;
        let phases: Vec<_> = phases.unwrap_or_default().into_iter().map(Into::into).collect();
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        let now = ctx.app().clock.now();
        let page = store::flash_sale::list(&mut db, &phases, now, from, request.size).await?;
        ctx.sources().read_all(PageTagKind::FlashSales);
        ctx.sources().read_sales(&page.rows, now);
        if !phases.is_empty() {
            ctx.sources().depend_on_the_moment();
        }
        Ok(Some(connection(page, &request, FlashSaleTotal(phases), |row| (row.opens_at.timestamp_micros(), row.id.0), FlashSale)))
    }
}

#[derive(InputObject)]
pub struct BuyNowInput {
    /// The sale to buy in.
    flash_sale_id: ID,
    /// 1 to 999; more than the sale's limit is `PurchaseLimitReached`.
    quantity: i32,
    /// The payment provider's token for a card or wallet, as its client library returns it.
    #[graphql(secret)]
    payment_method: String,
    /// The default address when left out; without one the order has no address yet.
    address_id: Option<ID>,
    /// One line for whoever delivers.
    #[graphql(secret)]
    delivery_note: Option<String>,
    /// Made by the client, one per intended purchase: repeating the call with the same key is safe.
    idempotency_key: Uuid,
}

/// Either `result` or `userErrors`.
#[derive(SimpleObject, Default)]
pub struct BuyNowPayload {
    result: Option<BuyNowResult>,
    user_errors: Vec<UserError>,
}

/// What became of a purchase. More members may come: keep a default branch.
#[derive(Union)]
pub enum BuyNowResult {
    OrderAccepted(OrderAccepted),
    SoldOut(SoldOut),
    NotEnoughLeft(NotEnoughLeft),
    PurchaseLimitReached(PurchaseLimitReached),
    SaleNotOpen(SaleNotOpen),
    Busy(Busy),
}

/// The units are the customer's until `holdExpiresAt`, and for good once the payment has gone through: follow
/// `orderUpdates`.
#[derive(SimpleObject)]
pub struct OrderAccepted {
    order: Order,
    /// True when the same key was used before: the order is the first one's, as it is now.
    replayed: bool,
    /// The end of the hold as first given.
    hold_expires_at: DateTime,
}

/// No unit is free.
#[derive(SimpleObject)]
pub struct SoldOut {
    flash_sale: FlashSale,
    /// Unpaid holds may still come back.
    holds_pending: bool,
}

/// Fewer units are left than were asked for; the sale goes on for smaller requests.
#[derive(SimpleObject)]
pub struct NotEnoughLeft {
    flash_sale: FlashSale,
    remaining: i32,
}

/// The customer would hold more units of this sale than one may.
#[derive(SimpleObject)]
pub struct PurchaseLimitReached {
    limit: i32,
    /// Units that the customer holds or has bought already.
    held: i32,
}

/// Before the opening or after the end.
#[derive(SimpleObject)]
pub struct SaleNotOpen {
    opens_at: DateTime,
    closes_at: DateTime,
    server_time: DateTime,
}

/// Too many at once: nothing was taken; try again with the same key.
#[derive(SimpleObject)]
pub struct Busy {
    retry_after_ms: i32,
}

#[derive(Default)]
pub struct FlashSaleMutation;

#[Object]
impl FlashSaleMutation {
    /// The flash-sale purchase: one call, safe to repeat with the same key.
    async fn buy_now(&self, ctx: &Context<'_>, input: BuyNowInput) -> Result<BuyNowPayload> {
        let viewer = ctx.signed_in()?;
        let Some(sale) = FlashSaleId::parse(&input.flash_sale_id) else {
            return Ok(UserError::new(UserErrorCode::NotFound, &["flashSaleId"], NO_SUCH_SALE).into());
        };
        let address = input.address_id.map(|id| AddressId::parse(&id));
        if address == Some(None) {
            return Ok(UserError::new(UserErrorCode::NotFound, &["addressId"], NO_SUCH_ADDRESS).into());
        }
        let wanted = BuyNow {
            sale,
            quantity: input.quantity,
            payment_method: input.payment_method,
            address: address.flatten(),
            delivery_note: input.delivery_note,
            idempotency_key: input.idempotency_key,
        };
        match services::purchase::buy_now(ctx.app(), viewer.customer, wanted).await? {
            Bought::Outcome(outcome) => payload(ctx, sale, outcome).await,
            Bought::Invalid(invalid) => Ok(UserError::from(invalid).into()),
            Bought::SoldOut(sale) => {
                let units = sale.units();
                let sold_out = SoldOut { holds_pending: units.claimed > units.sold, flash_sale: FlashSale(*sale) };
                Ok(BuyNowResult::SoldOut(sold_out).into())
            }
            Bought::RateLimited { retry_after } => Err(ApiError::RateLimited { retry_after }.into()),
            Bought::Busy { retry_after } => {
                let retry_after_ms = i32::try_from(retry_after.as_millis()).unwrap_or(i32::MAX);
                Ok(BuyNowResult::Busy(Busy { retry_after_ms }).into())
            }
        }
    }
}

const NO_SUCH_SALE: &str = "No such sale.";
const NO_SUCH_ADDRESS: &str = "No such address in your book.";

async fn payload(ctx: &Context<'_>, sale: FlashSaleId, outcome: PurchaseOutcome) -> Result<BuyNowPayload> {
    let accepted = |order, replayed, hold_expires_at: chrono::DateTime<chrono::Utc>| {
        BuyNowResult::OrderAccepted(OrderAccepted { order, replayed, hold_expires_at: hold_expires_at.into() })
    };
    let result = match outcome {
        PurchaseOutcome::Accepted { order, hold_expires_at, .. } => accepted(Order(*order), false, hold_expires_at),
        PurchaseOutcome::Known { order, hold_expires_at, replayed } => accepted(order::get(ctx, order).await?, replayed, hold_expires_at),
        PurchaseOutcome::NotEnoughLeft { remaining } => {
            BuyNowResult::NotEnoughLeft(NotEnoughLeft { flash_sale: get(ctx, sale).await?, remaining })
        }
        PurchaseOutcome::LimitReached { limit, held } => BuyNowResult::PurchaseLimitReached(PurchaseLimitReached { limit, held }),
        PurchaseOutcome::NotOpen => {
            let sale = get(ctx, sale).await?.0;
            BuyNowResult::SaleNotOpen(SaleNotOpen {
                opens_at: sale.opens_at.into(),
                closes_at: sale.closes_at.into(),
                server_time: ctx.app().clock.now().into(),
            })
        }
        // Answered by the service already, as `Busy` and `SoldOut`.
        PurchaseOutcome::Contended | PurchaseOutcome::SoldOut => BuyNowResult::Busy(Busy { retry_after_ms: 200 }),
        PurchaseOutcome::KeyReused => {
            let message = "This key was used for another purchase: make a new one.";
            return Ok(UserError::new(UserErrorCode::IdempotencyKeyReused, &["idempotencyKey"], message).into());
        }
        PurchaseOutcome::SaleNotFound => return Ok(UserError::new(UserErrorCode::NotFound, &["flashSaleId"], NO_SUCH_SALE).into()),
        PurchaseOutcome::AddressNotFound => {
            return Ok(UserError::new(UserErrorCode::NotFound, &["addressId"], NO_SUCH_ADDRESS).into());
        }
        PurchaseOutcome::EmailNotVerified => {
            return Ok(UserError::new(UserErrorCode::EmailNotVerified, &[], "Confirm your e-mail address first.").into());
        }
    };
    Ok(result.into())
}

impl From<BuyNowResult> for BuyNowPayload {
    fn from(result: BuyNowResult) -> Self {
        Self { result: Some(result), user_errors: Vec::new() }
    }
}

impl From<UserError> for BuyNowPayload {
    fn from(error: UserError) -> Self {
        Self { result: None, user_errors: vec![error] }
    }
}

#[derive(Default)]
pub struct FlashSaleSubscription;

#[Subscription]
impl FlashSaleSubscription {
    /// Phase and remaining units: the present state at once, then the newest at most four times a second. Ends at once
    /// when there is no such sale.
    async fn flash_sale_updates(&self, ctx: &Context<'_>, flash_sale_id: ID) -> Result<impl Stream<Item = FlashSale> + use<>> {
        let watched = match FlashSaleId::parse(&flash_sale_id) {
            Some(id) => services::sale_feed::watch_sale(ctx.app(), id).await?,
            None => None,
        };
        Ok(futures_util::stream::iter(watched).flat_map(WatchStream::from_changes).map(|state| FlashSale(state.sale)))
    }
}
