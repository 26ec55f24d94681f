//! The ordinary stock as staff correct it, and the movements that explain it.

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, connection::Connection};
use uuid::Uuid;

use super::{
    connection::{PageArguments, PageRequest, connection},
    context::ContextExt,
    errors::{ApiError, UserError, UserErrorCode},
    flash_sale::FlashSale,
    order::Order,
    product::{Product, ProductPayload},
    scalars::DateTime,
};
use crate::{
    domain::ids::{FlashSaleId, ProductId, StockMovementId},
    services::{
        idempotency::ClientKey,
        stock::{self, AdjustStock, AdjustedStock},
    },
    store::{
        self, StoreError,
        stock::{StockMovementFilter, StockMovementPosition},
    },
};

pub struct StockMovement(store::stock::StockMovement);

/// A change of what can be bought.
#[Object]
impl StockMovement {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn kind(&self) -> StockMovementKind {
        self.0.kind.into()
    }

    /// The signed change of what can be bought: of the ordinary stock, or of the sale's free units.
    async fn quantity(&self) -> i32 {
        self.0.quantity
    }

    async fn product(&self, ctx: &Context<'_>) -> Result<Product> {
        let product = ctx.loader().load_one(self.0.product_id).await?;
        Ok(Product(product.ok_or(StoreError::Missing("product of a movement"))?))
    }

    /// The sale that it concerns.
    async fn flash_sale(&self, ctx: &Context<'_>) -> Result<Option<FlashSale>> {
        match self.0.flash_sale_id {
            Some(id) => Ok(ctx.loader().load_one(id).await?.map(FlashSale)),
            None => Ok(None),
        }
    }

    /// The order that took the pieces or gave them back.
    async fn order(&self, ctx: &Context<'_>) -> Result<Option<Order>> {
        match self.0.order_id {
            Some(id) => Ok(ctx.loader().load_one(id).await?.map(Order)),
            None => Ok(None),
        }
    }

    /// For people: why stock was adjusted, or a sale cancelled.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    async fn at(&self) -> DateTime {
        self.0.at.into()
    }
}

/// Why what can be bought changed.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "crate::domain::stock::StockMovementKind")]
pub enum StockMovementKind {
    /// Came into the ordinary stock.
    Received,
    /// Was taken out of the ordinary stock by staff.
    Adjusted,
    /// Went from the ordinary stock into a sale: the quantity is the ordinary stock's.
    Allocated,
    /// Came back from a sale that is over: the quantity is the ordinary stock's.
    Deallocated,
    /// Is held for an order.
    Reserved,
    /// Came back from an order before the goods had left.
    Released,
    /// Was paid for. What can be bought stays as it is.
    Sold,
    /// Came back after the goods had left.
    Returned,
}

/// Counts the whole list, only when it is asked for.
pub struct StockMovementTotal(StockMovementFilter);

#[Object]
impl StockMovementTotal {
    /// How many there are in all. Counted when asked for: leave it out where you do not show it.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        Ok(i32::try_from(store::stock::count_movements(&mut db, self.0).await?).unwrap_or(i32::MAX))
    }
}

pub type StockMovementConnection = Connection<String, StockMovement, StockMovementTotal>;

/// A page of movements, newest first. An id that cannot exist has none.
pub async fn page(
    ctx: &Context<'_>,
    product: Option<ID>,
    sale: Option<ID>,
    first: Option<i32>,
    after: Option<String>,
) -> Result<StockMovementConnection> {
    let request: PageRequest<(i64, Uuid)> = PageArguments { first, after, ..PageArguments::default() }.read()?;
    let position = |(micros, id): (i64, Uuid)| {
        let at = chrono::DateTime::from_timestamp_micros(micros).ok_or(ApiError::BadRequest("This cursor is not one of ours."))?;
        Ok::<_, ApiError>(StockMovementPosition { at, id: StockMovementId(id) })
    };
    let from = request.from.map(position).transpose()?;
    let filter = StockMovementFilter {
        product: product.map(|id| ProductId::parse(&id).unwrap_or(ProductId(Uuid::nil()))),
        sale: sale.map(|id| FlashSaleId::parse(&id).unwrap_or(FlashSaleId(Uuid::nil()))),
    };
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    let page = store::stock::list_movements(&mut db, filter, from, request.size).await?;
    Ok(connection(page, &request, StockMovementTotal(filter), |row| (row.at.timestamp_micros(), row.id.0), StockMovement))
}

/// The movement of a global id, for staff.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<StockMovement>> {
    let Some(id) = StockMovementId::parse(id).filter(|_| ctx.is_staff()) else { return Ok(None) };
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    Ok(store::stock::find_movement(&mut db, id).await?.map(StockMovement))
}

/// Compare-and-set: STALE when `expectedAvailable` is no longer true.
#[derive(InputObject)]
pub struct AdjustStockInput {
    product_id: ID,
    /// What comes (a movement RECEIVED) or, below 0, goes (ADJUSTED).
    delta: i32,
    /// `available` as the client knows it.
    expected_available: i32,
    /// One line of 1 to 200 characters, shown with the movement.
    reason: String,
    /// Made by the client: the same request under the same key changes the stock once, for 7 days.
    idempotency_key: Uuid,
}

#[derive(Default)]
pub struct StockMutation;

#[Object]
impl StockMutation {
    /// For staff: corrects a product's ordinary stock.
    async fn adjust_stock(&self, ctx: &Context<'_>, input: AdjustStockInput) -> Result<ProductPayload> {
        let customer = ctx.staff()?.customer;
        let Some(product) = ProductId::parse(&input.product_id) else {
            return Ok(UserError::new(UserErrorCode::NotFound, &["productId"], "No such product.").into());
        };
        let AdjustStockInput { delta, expected_available, reason, idempotency_key: key, .. } = input;
        let wanted = AdjustStock { product, delta, expected_available, reason };
        let error = match stock::adjust(ctx.app(), &wanted, ClientKey { customer, key }).await? {
            AdjustedStock::Adjusted(id) => return ProductPayload::of(ctx, id).await,
            AdjustedStock::Invalid(invalid) => invalid.into(),
            AdjustedStock::NoSuchProduct => UserError::new(UserErrorCode::NotFound, &["productId"], "No such product."),
            AdjustedStock::Stale { available } => {
                UserError::new(UserErrorCode::Stale, &["expectedAvailable"], format!("There are {available} now."))
            }
            AdjustedStock::KeyReused => {
                let message = "This key was used for another request: make a new one.";
                UserError::new(UserErrorCode::IdempotencyKeyReused, &["idempotencyKey"], message)
            }
        };
        Ok(error.into())
    }
}
