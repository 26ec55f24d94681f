//! What staff do with a paid order: pack it, ship it, note that it arrived. Called by resolvers/order/mutation.rs.
//!
//! Each is a step of the state table, and idempotent by it: an order that is there already stays as it is.

use super::{Actor, Change, Changed};
use crate::{
    app::App,
    domain::{customer::single_line, ids::OrderId, order::OrderStatus},
    services::{InvalidInput, ServiceError},
    store,
};

const MAX_TRACKING_CHARACTERS: usize = 64;

pub async fn mark_preparing(app: &App, actor: Actor, id: OrderId) -> Result<Changed, ServiceError> {
    step(app, actor, id, OrderStatus::Preparing).await
}

pub async fn mark_delivered(app: &App, actor: Actor, id: OrderId) -> Result<Changed, ServiceError> {
    step(app, actor, id, OrderStatus::Delivered).await
}

/// Needs an address: an order may lack one until here.
pub async fn mark_shipped(app: &App, actor: Actor, id: OrderId, tracking_number: &str) -> Result<Changed, ServiceError> {
    let Some(tracking_number) = single_line(tracking_number, MAX_TRACKING_CHARACTERS) else {
        return Ok(Changed::Invalid(InvalidInput::new(&["trackingNumber"], "1 to 64 characters.")));
    };
    let mut change = match Change::begin(app, actor, id, None).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    let order = change.order();
    if order.status == OrderStatus::Shipped && order.tracking_number.as_deref() == Some(tracking_number.as_str()) {
        return Ok(Changed::Done(id));
    }
    if order.address_id.is_none() || !change.transition(app, OrderStatus::Shipped, actor.because(None)).await? {
        return Ok(Changed::WrongState);
    }
    store::order::update_tracking_number(&mut change.tx, id, &tracking_number).await?;
    change.finish(app).await
}

async fn step(app: &App, actor: Actor, id: OrderId, to: OrderStatus) -> Result<Changed, ServiceError> {
    let mut change = match Change::begin(app, actor, id, None).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    if change.order().status == to {
        return Ok(Changed::Done(id));
    }
    if !change.transition(app, to, actor.because(None)).await? {
        return Ok(Changed::WrongState);
    }
    change.finish(app).await
}
