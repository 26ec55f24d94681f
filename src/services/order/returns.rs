//! Goods that come back, and money that goes back. Called by resolvers/order/mutation.rs.

use uuid::Uuid;

use super::{Actor, Change, Changed, Request};
use crate::{
    app::App,
    domain::{customer::single_line, ids::OrderId, money::Money, order::OrderStatus},
    services::{
        InvalidInput, ServiceError,
        refund::{self, Wanted},
    },
};

const MAX_REASON_CHARACTERS: usize = 500;
const REASON_RULE: &str = "One line of 1 to 500 characters.";

/// The customer wants to send a delivered order back. Idempotent by the actor's key.
pub async fn request_return(app: &App, actor: Actor, id: OrderId, reason: &str, key: Uuid) -> Result<Changed, ServiceError> {
    let Some(reason) = single_line(reason, MAX_REASON_CHARACTERS) else {
        return Ok(Changed::Invalid(InvalidInput::new(&["reason"], REASON_RULE)));
    };
    let request = Request::new(app, "requestReturn", actor.key(key), &(id.0, &reason))?;
    let mut change = match Change::begin(app, actor, id, Some(request)).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    if !change.transition(app, OrderStatus::ReturnRequested, actor.because(Some(reason))).await? {
        return Ok(Changed::WrongState);
    }
    change.finish(app).await
}

/// The goods are back, or need not come: all of the money that is left goes back. With `restock` the goods can be sold again once
/// the money has gone.
pub async fn approve_return(app: &App, actor: Actor, id: OrderId, restock: bool) -> Result<Changed, ServiceError> {
    let mut change = match Change::begin(app, actor, id, None).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    if change.order().status != OrderStatus::ReturnRequested {
        return Ok(Changed::WrongState);
    }
    change.transition(app, OrderStatus::Refunding, actor.because(None)).await?;
    if !refund::request(app, &mut change.tx, &change.order[0], Wanted { restock, ..Wanted::default() }).await? {
        return Ok(Changed::WrongState);
    }
    finish_refund(app, change).await
}

/// The order stays delivered.
pub async fn reject_return(app: &App, actor: Actor, id: OrderId, reason: &str) -> Result<Changed, ServiceError> {
    let Some(reason) = single_line(reason, MAX_REASON_CHARACTERS) else {
        return Ok(Changed::Invalid(InvalidInput::new(&["reason"], REASON_RULE)));
    };
    let mut change = match Change::begin(app, actor, id, None).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    let is_requested = change.order().status == OrderStatus::ReturnRequested;
    if !is_requested || !change.transition(app, OrderStatus::Delivered, actor.because(Some(reason))).await? {
        return Ok(Changed::WrongState);
    }
    change.finish(app).await
}

/// Gives money back: a part of it, which moves no state, or all that is left, which makes the order REFUNDING. At most what was
/// captured, over all refunds. Idempotent by the actor's key.
pub async fn refund(app: &App, actor: Actor, id: OrderId, amount: Option<Money>, reason: &str, key: Uuid) -> Result<Changed, ServiceError> {
    let Some(reason) = single_line(reason, MAX_REASON_CHARACTERS) else {
        return Ok(Changed::Invalid(InvalidInput::new(&["reason"], REASON_RULE)));
    };
    let request = Request::new(app, "refundOrder", actor.key(key), &(id.0, amount.map(|amount| amount.minor), &reason))?;
    let mut change = match Change::begin(app, actor, id, Some(request)).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    let left = refund::left(&mut change.tx, id).await?;
    let wanted = amount.map_or(left, |amount| amount.minor);
    if amount.is_some() && !(1..=left).contains(&wanted) {
        return Ok(Changed::Invalid(InvalidInput::new(&["amount"], "More than nothing, and at most what is left.")));
    }
    let is_whole = wanted == left;
    if left == 0 || is_whole && !change.transition(app, OrderStatus::Refunding, actor.because(Some(reason.clone()))).await? {
        return Ok(Changed::WrongState);
    }
    refund::request(app, &mut change.tx, &change.order[0], Wanted { amount_minor: Some(wanted), reason: Some(reason), restock: false })
        .await?;
    finish_refund(app, change).await
}

async fn finish_refund(app: &App, change: Change) -> Result<Changed, ServiceError> {
    let changed = change.finish(app).await?;
    app.refunds_waiting.notify_one();
    Ok(changed)
}
