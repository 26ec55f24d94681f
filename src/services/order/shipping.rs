//! Where an order goes. Called by resolvers/order/mutation.rs.

use super::{Actor, Change, Changed};
use crate::{
    app::App,
    domain::{
        ids::{AddressId, OrderId},
        order::OrderStatus,
    },
    sealing::SealedColumn,
    services::{ServiceError, purchase::check_delivery_note},
    store,
};

/// Sends an order to another address of its customer's book, until it is shipped. The address as it is now: a later edit of the
/// book changes nothing. Twice is once.
pub async fn set_shipping_address(
    app: &App,
    actor: Actor,
    id: OrderId,
    address: AddressId,
    note: Option<String>,
) -> Result<Changed, ServiceError> {
    let note = match check_delivery_note(note) {
        Ok(note) => note,
        Err(invalid) => return Ok(Changed::Invalid(invalid)),
    };
    let sealed = note.map(|note| app.sealing.seal(SealedColumn::OrderDeliveryNote, id.0, &note)).transpose()?;
    let mut change = match Change::begin(app, actor, id, None).await? {
        Ok(change) => change,
        Err(outcome) => return Ok(outcome),
    };
    let order = change.order();
    let is_open = matches!(
        order.status,
        OrderStatus::AwaitingPayment | OrderStatus::PaymentFailed | OrderStatus::Paid | OrderStatus::Preparing | OrderStatus::InReview
    );
    if !is_open {
        return Ok(Changed::WrongState);
    }
    let customer = order.customer_id;
    let book = store::address::list_for_customers(&mut change.tx, &[customer]).await?;
    if !book.iter().any(|entry| entry.id == address) {
        return Ok(Changed::NoSuchAddress);
    }
    store::order::update_address(&mut change.tx, id, address, sealed.as_deref(), app.clock.now()).await?;
    change.finish(app).await
}
