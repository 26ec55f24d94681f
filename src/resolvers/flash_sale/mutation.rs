//! What staff do with sales.

use async_graphql::{Context, ID, InputObject, Object, Result, SimpleObject};
use chrono::TimeDelta;
use uuid::Uuid;

use super::FlashSale;
use crate::{
    domain::ids::{FlashSaleId, ProductId},
    resolvers::{
        context::ContextExt,
        errors::{UserError, UserErrorCode},
        product::read_price,
        scalars::{DateTime, Decimal},
    },
    services::{
        flash_sale::{self, CancelledSale, Schedule, Scheduled},
        idempotency::ClientKey,
    },
    store::{self, StoreError},
};

const DEFAULT_HOLD_SECONDS: i32 = 300;

#[derive(InputObject)]
pub struct ScheduleFlashSaleInput {
    product_id: ID,
    /// Of one unit, in the shop's currency.
    price: Decimal,
    /// One that is past opens the sale as soon as its units are there.
    opens_at: DateTime,
    /// After `opensAt`, and in the future.
    closes_at: DateTime,
    /// 1 to 10,000,000, out of the product's ordinary stock. What is left in the end goes back there.
    units: i32,
    /// Units that one customer may hold or buy, over all orders: 1 to 999.
    per_customer_limit: i32,
    /// Seconds that an unpaid order keeps its units: 30 to 86,400, 300 when left out.
    hold_seconds: Option<i32>,
    /// Made by the client: the same request under the same key answers the same sale, for 7 days.
    idempotency_key: Option<Uuid>,
}

#[derive(InputObject)]
pub struct CancelFlashSaleInput {
    id: ID,
    /// One line of 1 to 200 characters, shown to customers in the history of their orders.
    reason: String,
}

#[derive(SimpleObject)]
pub struct FlashSalePayload {
    flash_sale: Option<FlashSale>,
    user_errors: Vec<UserError>,
}

impl From<UserError> for FlashSalePayload {
    fn from(error: UserError) -> Self {
        Self { flash_sale: None, user_errors: vec![error] }
    }
}

#[derive(Default)]
pub struct SaleMutation;

#[Object]
impl SaleMutation {
    /// For staff: a sale of a product. Its units leave the ordinary stock at once; it is SCHEDULED until all are counted out, which takes
    /// up to half a minute for a million.
    async fn schedule_flash_sale(&self, ctx: &Context<'_>, input: ScheduleFlashSaleInput) -> Result<FlashSalePayload> {
        let customer = ctx.staff()?.customer;
        let Some(product) = ProductId::parse(&input.product_id) else { return scheduled(ctx, Scheduled::NoSuchProduct).await };
        let price = match read_price(&input.price, ctx.app().config.currency) {
            Ok(price) => price,
            Err(error) => return Ok(error.into()),
        };
        let schedule = Schedule {
            product,
            price,
            opens_at: input.opens_at.0,
            closes_at: input.closes_at.0,
            units: input.units,
            per_customer_limit: input.per_customer_limit,
            hold: TimeDelta::seconds(input.hold_seconds.unwrap_or(DEFAULT_HOLD_SECONDS).into()),
        };
        let key = input.idempotency_key.map(|key| ClientKey { customer, key });
        scheduled(ctx, flash_sale::schedule(ctx.app(), &schedule, key).await?).await
    }

    /// For staff: calls a sale off that is scheduled or open (`WRONG_STATE` otherwise). Nothing is sold in it any more. Its open orders
    /// are cancelled one after the other, what was paid goes back, their customers are told by mail, and the units go back to the
    /// ordinary stock.
    async fn cancel_flash_sale(&self, ctx: &Context<'_>, input: CancelFlashSaleInput) -> Result<FlashSalePayload> {
        ctx.staff()?;
        let cancelled = match FlashSaleId::parse(&input.id) {
            Some(id) => flash_sale::cancel(ctx.app(), id, &input.reason).await?,
            None => CancelledSale::NoSuchSale,
        };
        let (code, message) = match cancelled {
            CancelledSale::Cancelled(id) => return payload(ctx, id).await,
            CancelledSale::Invalid(invalid) => return Ok(UserError::from(invalid).into()),
            CancelledSale::NoSuchSale => (UserErrorCode::NotFound, "No such sale."),
            CancelledSale::WrongState => (UserErrorCode::WrongState, "It has closed, or is cancelled already."),
        };
        Ok(UserError::new(code, &["id"], message).into())
    }
}

async fn scheduled(ctx: &Context<'_>, scheduled: Scheduled) -> Result<FlashSalePayload> {
    let error = match scheduled {
        Scheduled::Done(id) => return payload(ctx, id).await,
        Scheduled::Invalid(invalid) => invalid.into(),
        Scheduled::NoSuchProduct => UserError::new(UserErrorCode::NotFound, &["productId"], "No such product, or it is archived."),
        Scheduled::OutOfStock { available } => {
            UserError::new(UserErrorCode::OutOfStock, &["units"], format!("The ordinary stock has {available}."))
        }
        Scheduled::Overlaps => {
            UserError::new(UserErrorCode::Invalid, &["opensAt"], "Another sale of the product is on between opensAt and closesAt.")
        }
        Scheduled::KeyReused => {
            let message = "This key was used for another sale: make a new one.";
            UserError::new(UserErrorCode::IdempotencyKeyReused, &["idempotencyKey"], message)
        }
    };
    Ok(error.into())
}

/// The sale as the database has it: memory is a quarter of a second late.
async fn payload(ctx: &Context<'_>, id: FlashSaleId) -> Result<FlashSalePayload> {
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    let sale = store::flash_sale::list_by_ids(&mut db, &[id]).await?.pop();
    Ok(FlashSalePayload { flash_sale: sale.map(FlashSale), user_errors: Vec::new() })
}
