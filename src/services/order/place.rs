//! Orders of several lines, of ordinary stock and of sales together. Called by whoever checks a cart out.

use chrono::TimeDelta;
use uuid::Uuid;

use crate::{
    app::App,
    domain::{
        customer::single_line,
        ids::{AddressId, CustomerId, FlashSaleId, OrderId, ProductId},
        money::Money,
        order::order_number,
        quantity::Quantity,
    },
    sealing::SealedColumn,
    services::{
        InvalidInput, ServiceError, payment,
        purchase::{CONTENTION_WAITS, MAX_NOTE_CHARACTERS, check_payment_method},
    },
    store::{
        self,
        order::{NewLine, NewOrder},
        queue::Queue,
        stock::Claim,
    },
};

const MUTATION: &str = "checkOutCart";
const MAX_LINES: usize = 100;
/// How long an unpaid order keeps ordinary stock; with a line of a sale, the sale's hold decides.
pub(super) const HOLD: TimeDelta = TimeDelta::minutes(15);

pub struct Line {
    pub product: ProductId,
    /// Buys from this sale, at its price, instead of the ordinary stock.
    pub flash_sale: Option<FlashSaleId>,
    pub quantity: i32,
}

/// As the client sent it.
pub struct Place {
    pub lines: Vec<Line>,
    pub payment_method: String,
    /// The default address when left out.
    pub address: Option<AddressId>,
    pub delivery_note: Option<String>,
    pub idempotency_key: Uuid,
}

/// What became of it. Only `Done` is remembered under the key.
#[derive(Debug)]
pub enum Placed {
    /// Made now, or by the same request before.
    Done(OrderId),
    Invalid(InvalidInput),
    EmailNotVerified,
    NoSuchAddress,
    /// A line's product or sale does not exist, or does not fit the other.
    NoSuchProduct,
    KeyReused,
    NotClaimed(Claim),
}

/// Makes an order that awaits payment and takes everything that its lines ask for, or nothing, in one transaction: order, lines,
/// history, stock by `claim_order`, payment message. Idempotent by (customer, key).
pub async fn place(app: &App, customer: CustomerId, input: &Place) -> Result<Placed, ServiceError> {
    for wait in CONTENTION_WAITS {
        tokio::time::sleep(wait).await;
        match place_once(app, customer, input).await {
            Ok(Placed::NotClaimed(Claim::Contended)) => {}
            // The same key at the same moment: the other one has made the order. Or others held locks for too long.
            Err(ServiceError::Store(error)) if error.violates(store::purchase::KEY_ONCE) || error.is_transient() => {}
            placed => return placed,
        }
    }
    Ok(Placed::NotClaimed(Claim::Contended))
}

async fn place_once(app: &App, customer: CustomerId, input: &Place) -> Result<Placed, ServiceError> {
    if let Err(invalid) = check(input) {
        return Ok(Placed::Invalid(invalid));
    }
    let asked: Vec<_> = input.lines.iter().map(|line| (line.product.0, line.flash_sale.map(|id| id.0), line.quantity)).collect();
    let request_hash = app.sealing.request_fingerprint(&serde_json::to_vec(&(asked, input.address.map(|id| id.0)))?);
    let note = input.delivery_note.as_deref().and_then(|note| single_line(note, MAX_NOTE_CHARACTERS));
    let (id, now) = (OrderId::new(), app.clock.now());

    let mut tx = app.db.begin().await?;
    match store::order::find_by_key(&mut tx, customer, MUTATION, input.idempotency_key).await? {
        Some((known, hash)) if hash == request_hash => return Ok(Placed::Done(known)),
        Some(_) => return Ok(Placed::KeyReused),
        None => {}
    }
    // Locked, because an order without a line of a sale has no quota that keeps a deletion of the account out.
    let account = store::customer::lock(&mut tx, customer).await?.ok_or(ServiceError::NoAccount)?;
    if account.email_verified_at.is_none() {
        return Ok(Placed::EmailNotVerified);
    }
    let book = store::address::list_for_customers(&mut tx, &[customer]).await?;
    let address = book.iter().find(|entry| input.address.map_or(entry.is_default, |wanted| entry.id == wanted)).map(|entry| entry.id);
    if input.address.is_some() && address.is_none() {
        return Ok(Placed::NoSuchAddress);
    }
    let Some((lines, hold)) = priced(&mut tx, &input.lines).await? else { return Ok(Placed::NoSuchProduct) };
    let total: Option<i64> =
        lines.iter().try_fold(0_i64, |sum, line| sum.checked_add(line.unit_price_minor.checked_mul(line.quantity.into())?));
    let Some(total) = total else { return Ok(Placed::Invalid(InvalidInput::new(&["lines"], "Too much for one order."))) };
    let order = NewOrder {
        id,
        number: order_number(rand::random()),
        customer,
        total: Money::new(total, app.config.currency),
        mutation: MUTATION,
        idempotency_key: input.idempotency_key,
        request_hash: &request_hash,
        address,
        delivery_note_sealed: note.map(|note| app.sealing.seal(SealedColumn::OrderDeliveryNote, id.0, &note)).transpose()?,
        payment_method: &input.payment_method,
        hold_expires_at: now + hold,
    };
    store::order::insert(&mut tx, &order, &lines, now).await?;
    match store::stock::claim_order(&mut tx, id, app.counter_slots.changes(), true, true, now).await? {
        Claim::Claimed => {}
        refused => return Ok(Placed::NotClaimed(refused)),
    }
    store::queue::send(&mut tx, Queue::Payment, payment::PAY, id.0, None).await?;
    tx.commit().await?;

    app.payments_waiting.notify_one();
    app.order_feed.ring(&[(id, customer)]);
    Ok(Placed::Done(id))
}

fn check(input: &Place) -> Result<(), InvalidInput> {
    check_payment_method(&input.payment_method)?;
    let note = input.delivery_note.as_deref();
    if note.is_some_and(|note| single_line(note, MAX_NOTE_CHARACTERS).is_none()) {
        return Err(InvalidInput::new(&["deliveryNote"], "One line of at most 500 characters."));
    }
    let is_sized = (1..=MAX_LINES).contains(&input.lines.len());
    if !is_sized || input.lines.iter().any(|line| Quantity::new(line.quantity).is_none()) {
        return Err(InvalidInput::new(&["lines"], "1 to 100 lines of 1 to 999 pieces each."));
    }
    Ok(())
}

/// The lines with their titles and prices of this moment, and the shortest of their holds; `None` when one of them stands for
/// nothing.
async fn priced(db: &mut sqlx::PgConnection, lines: &[Line]) -> Result<Option<(Vec<NewLine>, TimeDelta)>, ServiceError> {
    let products: Vec<ProductId> = lines.iter().map(|line| line.product).collect();
    let sales: Vec<FlashSaleId> = lines.iter().filter_map(|line| line.flash_sale).collect();
    let products = store::product::list_by_ids(db, &products).await?;
    let sales = store::flash_sale::list_by_ids(db, &sales).await?;
    let mut hold = HOLD;
    let mut new = Vec::with_capacity(lines.len());
    for line in lines {
        let Some(product) = products.iter().find(|product| product.id == line.product && product.archived_at.is_none()) else {
            return Ok(None);
        };
        let mut unit_price_minor = product.price_minor;
        if let Some(id) = line.flash_sale {
            let Some(sale) = sales.iter().find(|sale| sale.id == id && sale.product_id == product.id) else { return Ok(None) };
            unit_price_minor = sale.price_minor;
            hold = hold.min(TimeDelta::seconds(sale.hold_seconds.into()));
        }
        let (product, title) = (product.id, product.title.clone());
        new.push(NewLine { product, flash_sale: line.flash_sale, title, quantity: line.quantity, unit_price_minor });
    }
    Ok(Some((new, hold)))
}
