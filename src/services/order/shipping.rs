//! Where an order goes. Called by resolvers/order/mutation.rs.

use super::{Actor, Change, Changed};
use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::{AddressId, OrderId},
        order::OrderStatus,
    },
    sealing::SealedColumn,
    services::{InvalidInput, ServiceError, purchase::MAX_NOTE_CHARACTERS},
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
    let typed = note.filter(|note| !note.trim().is_empty());
    let note = typed.as_deref().and_then(|note| single_line(note, MAX_NOTE_CHARACTERS));
    if typed.is_some() && note.is_none() {
        return Ok(Changed::Invalid(InvalidInput::new(&["deliveryNote"], "One line of at most 500 characters.")));
    }
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
