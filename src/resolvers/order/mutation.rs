//! What customers and staff ask of an order.

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, SimpleObject};
use uuid::Uuid;

use super::{super::errors::ApiError, Order, get};
use crate::{
    domain::{
        ids::{AddressId, OrderId},
        money::Money,
    },
    resolvers::{
        context::ContextExt,
        errors::{UserError, UserErrorCode},
        scalars::Decimal,
    },
    services::order::{self, Actor, Changed},
    store::stock::Claim,
};

/// The order as it is now, or why nothing was done.
#[derive(SimpleObject)]
pub struct OrderPayload {
    order: Option<Order>,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct CancelOrderInput {
    order_id: ID,
    /// One line, shown in the order's history.
    #[graphql(secret)]
    reason: Option<String>,
    /// Made by the client: repeating the call with the same key is safe.
    idempotency_key: Uuid,
}

#[derive(InputObject)]
pub struct RequestReturnInput {
    order_id: ID,
    /// One line, shown in the order's history.
    #[graphql(secret)]
    reason: String,
    idempotency_key: Uuid,
}

#[derive(InputObject)]
pub struct SetShippingAddressInput {
    order_id: ID,
    /// One of the customer's address book.
    address_id: ID,
    /// One line for whoever delivers; the present one stays when left out.
    #[graphql(secret)]
    delivery_note: Option<String>,
}

#[derive(InputObject)]
pub struct RetryPaymentInput {
    order_id: ID,
    /// The payment provider's token for another card or wallet.
    #[graphql(secret)]
    payment_method: String,
    idempotency_key: Uuid,
}

#[derive(InputObject)]
pub struct MarkPreparingInput {
    order_id: ID,
}

#[derive(InputObject)]
pub struct MarkShippedInput {
    order_id: ID,
    /// The parcel's number, 1 to 64 characters.
    tracking_number: String,
}

#[derive(InputObject)]
pub struct MarkDeliveredInput {
    order_id: ID,
}

#[derive(InputObject)]
pub struct ApproveReturnInput {
    order_id: ID,
    /// The goods are back and can be sold again.
    restock: bool,
}

#[derive(InputObject)]
pub struct RejectReturnInput {
    order_id: ID,
    /// One line, shown in the order's history.
    #[graphql(secret)]
    reason: String,
}

#[derive(InputObject)]
pub struct RefundOrderInput {
    order_id: ID,
    /// In the order's currency; all that is left when left out.
    amount: Option<Decimal>,
    /// One line, shown with the refund.
    #[graphql(secret)]
    reason: String,
    idempotency_key: Uuid,
}

#[derive(InputObject)]
pub struct ResolveReviewInput {
    order_id: ID,
    resolution: ReviewResolution,
    /// One line, shown in the order's history.
    #[graphql(secret)]
    note: String,
    idempotency_key: Uuid,
}

/// How a review ends.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "crate::domain::order::ReviewResolution")]
pub enum ReviewResolution {
    /// Somebody has seen the money at the payment provider: the order is paid.
    AcceptPayment,
    /// What was captured goes back, and the order is cancelled. A payment in doubt is asked about once more first.
    RefundAndCancel,
    /// The order goes on from where it was; what was given up is tried again.
    Resume,
}

#[derive(Default)]
pub struct OrderMutation;

#[Object]
impl OrderMutation {
    /// Calls an order off, until it is shipped. Money that was paid goes back; until it has, the order is `CANCELLING`.
    async fn cancel_order(&self, ctx: &Context<'_>, input: CancelOrderInput) -> Result<OrderPayload> {
        let actor = owner_or_staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::cancel(ctx.app(), actor, id, input.reason, input.idempotency_key).await?).await
    }

    /// Asks to send a delivered order back.
    async fn request_return(&self, ctx: &Context<'_>, input: RequestReturnInput) -> Result<OrderPayload> {
        let actor = owner(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::request_return(ctx.app(), actor, id, &input.reason, input.idempotency_key).await?).await
    }

    /// Sends an order to another address, until it is shipped.
    async fn set_shipping_address(&self, ctx: &Context<'_>, input: SetShippingAddressInput) -> Result<OrderPayload> {
        let actor = owner_or_staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        let Some(address) = AddressId::parse(&input.address_id) else { return payload(ctx, Changed::NoSuchAddress).await };
        payload(ctx, order::set_shipping_address(ctx.app(), actor, id, address, input.delivery_note).await?).await
    }

    /// A new try after `PAYMENT_FAILED`, while the sale is open and the stock lasts; at the order's price.
    async fn retry_payment(&self, ctx: &Context<'_>, input: RetryPaymentInput) -> Result<OrderPayload> {
        let actor = owner(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::retry_payment(ctx.app(), actor, id, &input.payment_method, input.idempotency_key).await?).await
    }

    /// For staff: a paid order is being packed.
    async fn mark_preparing(&self, ctx: &Context<'_>, input: MarkPreparingInput) -> Result<OrderPayload> {
        let actor = staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::mark_preparing(ctx.app(), actor, id).await?).await
    }

    /// For staff: an order has left. It needs an address.
    async fn mark_shipped(&self, ctx: &Context<'_>, input: MarkShippedInput) -> Result<OrderPayload> {
        let actor = staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::mark_shipped(ctx.app(), actor, id, &input.tracking_number).await?).await
    }

    /// For staff: an order has arrived.
    async fn mark_delivered(&self, ctx: &Context<'_>, input: MarkDeliveredInput) -> Result<OrderPayload> {
        let actor = staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::mark_delivered(ctx.app(), actor, id).await?).await
    }

    /// For staff: a return is accepted; all of the money that is left goes back.
    async fn approve_return(&self, ctx: &Context<'_>, input: ApproveReturnInput) -> Result<OrderPayload> {
        let actor = staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::approve_return(ctx.app(), actor, id, input.restock).await?).await
    }

    /// For staff: a return is refused; the order stays delivered.
    async fn reject_return(&self, ctx: &Context<'_>, input: RejectReturnInput) -> Result<OrderPayload> {
        let actor = staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        payload(ctx, order::reject_return(ctx.app(), actor, id, &input.reason).await?).await
    }

    /// For staff: gives money back. A part of it moves no state; the whole makes the order `REFUNDING`.
    async fn refund_order(&self, ctx: &Context<'_>, input: RefundOrderInput) -> Result<OrderPayload> {
        let actor = staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        let amount = match input.amount.map(|amount| Money::parse(&amount.0, ctx.app().config.currency)).transpose() {
            Ok(amount) => amount,
            Err(error) => return Ok(UserError::new(UserErrorCode::Invalid, &["amount"], error.to_string()).into()),
        };
        payload(ctx, order::refund(ctx.app(), actor, id, amount, &input.reason, input.idempotency_key).await?).await
    }

    /// For staff: ends a review. The state before it must allow where the order goes, or nothing is done (`WRONG_STATE`).
    async fn resolve_review(&self, ctx: &Context<'_>, input: ResolveReviewInput) -> Result<OrderPayload> {
        let actor = staff(ctx)?;
        let Some(id) = OrderId::parse(&input.order_id) else { return payload(ctx, Changed::NotFound).await };
        let resolution = input.resolution.into();
        payload(ctx, order::resolve_review(ctx.app(), actor, id, resolution, &input.note, input.idempotency_key).await?).await
    }
}

fn owner(ctx: &Context<'_>) -> Result<Actor> {
    Ok(Actor::Customer(ctx.signed_in()?.customer))
}

fn staff(ctx: &Context<'_>) -> Result<Actor> {
    Ok(Actor::Staff(ctx.staff()?.customer))
}

fn owner_or_staff(ctx: &Context<'_>) -> Result<Actor> {
    if ctx.is_staff() { staff(ctx) } else { owner(ctx) }
}

async fn payload(ctx: &Context<'_>, changed: Changed) -> Result<OrderPayload> {
    let (code, field, message) = match changed {
        Changed::Done(id) => return Ok(OrderPayload { order: Some(get(ctx, id).await?), user_errors: Vec::new() }),
        Changed::Invalid(invalid) => return Ok(UserError::from(invalid).into()),
        Changed::NotClaimed(Claim::Contended | Claim::Claimed) => {
            return Err(ApiError::Unavailable("Too many at once: try again with the same key.").into());
        }
        Changed::NotFound => (UserErrorCode::NotFound, "orderId", "No such order."),
        Changed::NoSuchAddress => (UserErrorCode::NotFound, "addressId", "No such address in the customer's book."),
        Changed::WrongState => (UserErrorCode::WrongState, "orderId", "The order's state does not allow it now."),
        Changed::KeyReused => {
            (UserErrorCode::IdempotencyKeyReused, "idempotencyKey", "This key was used for another request: make a new one.")
        }
        Changed::NotClaimed(Claim::OutOfStock) => (UserErrorCode::OutOfStock, "orderId", "Too few units are left."),
        Changed::NotClaimed(Claim::LimitReached) => (UserErrorCode::LimitReached, "orderId", "The customer's limit is reached."),
        Changed::NotClaimed(Claim::NotOpen) => (UserErrorCode::SaleNotOpen, "orderId", "The sale is not open any more."),
    };
    Ok(UserError::new(code, &[field], message).into())
}

impl From<UserError> for OrderPayload {
    fn from(error: UserError) -> Self {
        Self { order: None, user_errors: vec![error] }
    }
}
