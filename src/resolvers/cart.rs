//! The cart, its mutations, and its checkout.

use async_graphql::{Context, Enum, ID, InputObject, Object, Result, SimpleObject};
use uuid::Uuid;

use super::{
    connection::page_cost,
    context::ContextExt,
    errors::{ApiError, UserError, UserErrorCode},
    flash_sale::FlashSale,
    loaders::CartOf,
    order::{self, Order},
    product::Product,
    scalars::{Decimal, Money},
};
use crate::{
    domain::{
        self,
        cart::CartProblem as Problem,
        ids::{AddressId, CartId, CartLineId, CustomerId, ProductId},
        money,
    },
    services::{
        cart::{self, CartChange},
        order::{CheckOut, CheckedOut, check_out},
    },
    store::{self, StoreError, stock::Claim},
};

/// As many entries a cart's lists cost: nobody says how many there may be, and most carts are shorter than the hundred.
const LINES: i32 = 20;

pub struct Cart {
    customer: CustomerId,
    lines: Vec<store::cart::CartLine>,
}

/// What a customer is about to buy. Everybody has one, and its `id` stays the same, so that clients keep one normalised cart.
#[Object]
impl Cart {
    pub(super) async fn id(&self) -> ID {
        CartId(self.customer.0).to_string().into()
    }

    /// In the order in which they were added; at most 100.
    #[graphql(complexity = "page_cost(Some(LINES), child_complexity)")]
    async fn lines(&self) -> Vec<CartLine> {
        self.lines.iter().cloned().map(CartLine).collect()
    }

    /// Pieces over all lines.
    async fn total_quantity(&self) -> i32 {
        self.lines.iter().map(|line| line.quantity).sum()
    }

    /// Of all lines, at the prices of now; what to send as `expectedTotal`.
    async fn total(&self, ctx: &Context<'_>) -> Money {
        let minor = self.lines.iter().map(minor_total).fold(0, i64::saturating_add);
        money::Money::new(minor, ctx.app().config.currency).into()
    }

    /// Lines that cannot be bought as they stand.
    #[graphql(complexity = "page_cost(Some(LINES), child_complexity)")]
    async fn problems(&self) -> Vec<CartProblem> {
        let of_lines = self.lines.iter().flat_map(|line| line.problems().into_iter().map(move |problem| (problem, line)));
        of_lines.map(|(problem, line)| CartProblem::new(problem, line.clone())).collect()
    }
}

/// The most there is when it no longer fits; such a cart cannot be checked out.
fn minor_total(line: &store::cart::CartLine) -> i64 {
    line.total().map_or(i64::MAX, |total| total.minor)
}

pub struct CartLine(store::cart::CartLine);

/// A product in a cart. While a sale of the product is open, all pieces are bought from the sale, or none.
#[Object]
impl CartLine {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    async fn product(&self, ctx: &Context<'_>) -> Result<Product> {
        let product = ctx.loader().load_one(self.0.product_id).await?;
        Ok(Product(product.ok_or(StoreError::Missing("product of a cart"))?))
    }

    async fn quantity(&self) -> i32 {
        self.0.quantity
    }

    /// What a piece costs now.
    async fn unit_price(&self) -> Money {
        self.0.offer.unit_price.into()
    }

    async fn line_total(&self) -> Money {
        money::Money::new(minor_total(&self.0), self.0.offer.unit_price.currency).into()
    }

    /// Set when the line would be bought from an open sale.
    async fn flash_sale(&self, ctx: &Context<'_>) -> Result<Option<FlashSale>> {
        match self.0.offer.sale {
            Some(id) => Ok(ctx.loader().load_one(id).await?.map(FlashSale)),
            None => Ok(None),
        }
    }
}

/// What keeps a line from being bought as it stands.
#[derive(SimpleObject)]
pub struct CartProblem {
    code: CartProblemCode,
    line: CartLine,
    /// In English, for developers; show your own text by `code`.
    message: String,
}

impl CartProblem {
    fn new(problem: Problem, line: store::cart::CartLine) -> Self {
        let message = match problem {
            Problem::OutOfStock => format!("Only {} left.", line.offer.left.max(0)),
            Problem::PriceChanged => "The price is another one than when the quantity was chosen.".to_owned(),
            Problem::ProductRemoved => "The product is no longer sold.".to_owned(),
            Problem::LimitReached => format!("The customer may have {} more in this sale.", line.offer.allowance.unwrap_or_default()),
        };
        Self { code: problem.into(), line: CartLine(line), message }
    }
}

/// What is wrong with a line. More codes may come: keep a default branch.
#[derive(Enum, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "domain::cart::CartProblem")]
pub enum CartProblemCode {
    /// Fewer pieces are left than the line is for: in the sale while one is open, otherwise in the ordinary stock.
    OutOfStock,
    /// Agree by `setCartQuantity` with the same quantity, or by `expectedTotal` of `checkOutCart`.
    PriceChanged,
    ProductRemoved,
    /// More than the customer may still have in the sale.
    LimitReached,
}

#[derive(InputObject)]
pub struct AddToCartInput {
    product_id: ID,
    /// 1 to 999 pieces, added to those that the cart has already.
    quantity: i32,
    /// Made by the client: the same request under the same key adds nothing more, for 7 days.
    idempotency_key: Option<Uuid>,
}

#[derive(InputObject)]
pub struct SetCartQuantityInput {
    line_id: ID,
    /// 1 to 999; 0 removes the line.
    quantity: i32,
}

#[derive(InputObject)]
pub struct RemoveFromCartInput {
    line_id: ID,
}

/// The cart as it is now, or why nothing was changed.
#[derive(SimpleObject)]
pub struct CartPayload {
    cart: Option<Cart>,
    user_errors: Vec<UserError>,
}

#[derive(InputObject)]
pub struct CheckOutCartInput {
    /// The payment provider's token for a card or wallet, as its client library returns it.
    #[graphql(secret)]
    payment_method: String,
    /// The default address when left out; without one the order has no address yet.
    address_id: Option<ID>,
    /// One line for whoever delivers.
    #[graphql(secret)]
    delivery_note: Option<String>,
    /// What the customer was shown as `Cart.total`: agrees to every price in it. When left out, no price may have changed since the
    /// quantities were chosen.
    expected_total: Option<Decimal>,
    /// Made by the client, one per intended purchase: repeating the call with the same key is safe.
    idempotency_key: Uuid,
}

/// The order, or why nothing was bought.
#[derive(SimpleObject)]
pub struct CheckOutCartPayload {
    /// Follow it by `orderUpdates`.
    order: Option<Order>,
    user_errors: Vec<UserError>,
}

impl From<UserError> for CheckOutCartPayload {
    fn from(error: UserError) -> Self {
        Self { order: None, user_errors: vec![error] }
    }
}

/// A customer's cart; for anybody else it is empty.
pub async fn of(ctx: &Context<'_>, customer: CustomerId) -> Result<Cart> {
    let is_own = ctx.viewer().is_some_and(|viewer| viewer.customer == customer);
    let lines = if is_own { ctx.loader().load_one(CartOf(customer)).await?.unwrap_or_default() } else { Vec::new() };
    Ok(Cart { customer, lines })
}

/// The caller's own cart, by its global id.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Cart>> {
    let Some(viewer) = ctx.viewer().filter(|viewer| CartId::parse(id) == Some(CartId(viewer.customer.0))) else { return Ok(None) };
    of(ctx, viewer.customer).await.map(Some)
}

/// A line of the caller's own cart, by its global id.
pub async fn find_line(ctx: &Context<'_>, id: &str) -> Result<Option<CartLine>> {
    let (Some(id), Some(viewer)) = (CartLineId::parse(id), ctx.viewer()) else { return Ok(None) };
    Ok(of(ctx, viewer.customer).await?.lines.into_iter().find(|line| line.id == id).map(CartLine))
}

#[derive(Default)]
pub struct CartMutation;

#[Object]
impl CartMutation {
    /// Puts pieces of a product into the cart. Stock is not held: `checkOutCart` decides.
    async fn add_to_cart(&self, ctx: &Context<'_>, input: AddToCartInput) -> Result<CartPayload> {
        let customer = ctx.signed_in()?.customer;
        let Some(product) = ProductId::parse(&input.product_id) else { return Ok(payload(customer, CartChange::NoSuchProduct)) };
        let change = cart::add(ctx.app(), customer, product, input.quantity, input.idempotency_key).await?;
        Ok(payload(customer, change))
    }

    /// Sets how many pieces a line is for, and agrees to the price of now. Fewer is possible as long as the product is sold.
    async fn set_cart_quantity(&self, ctx: &Context<'_>, input: SetCartQuantityInput) -> Result<CartPayload> {
        let customer = ctx.signed_in()?.customer;
        let Some(line) = CartLineId::parse(&input.line_id) else { return Ok(payload(customer, CartChange::NoSuchLine)) };
        Ok(payload(customer, cart::set_quantity(ctx.app(), customer, line, input.quantity).await?))
    }

    /// Takes a line out of the cart.
    async fn remove_from_cart(&self, ctx: &Context<'_>, input: RemoveFromCartInput) -> Result<CartPayload> {
        let customer = ctx.signed_in()?.customer;
        let Some(line) = CartLineId::parse(&input.line_id) else { return Ok(payload(customer, CartChange::NoSuchLine)) };
        Ok(payload(customer, cart::remove(ctx.app(), customer, line).await?))
    }

    /// Empties the cart.
    async fn clear_cart(&self, ctx: &Context<'_>) -> Result<CartPayload> {
        let customer = ctx.signed_in()?.customer;
        Ok(payload(customer, cart::clear(ctx.app(), customer).await?))
    }

    /// Buys the whole cart or nothing: units of open sales and ordinary stock together, in one order. Safe to repeat with the same key.
    /// `CART_CHANGED`: read the cart again and show what is different.
    async fn check_out_cart(&self, ctx: &Context<'_>, input: CheckOutCartInput) -> Result<CheckOutCartPayload> {
        let customer = ctx.signed_in()?.customer;
        let address = input.address_id.map(|id| AddressId::parse(&id));
        if address == Some(None) {
            return checked_out(ctx, CheckedOut::NoSuchAddress).await;
        }
        let total = input.expected_total.map(|total| money::Money::parse(&total.0, ctx.app().config.currency)).transpose();
        let expected_total = match total {
            Ok(total) => total,
            Err(error) => return Ok(UserError::new(UserErrorCode::Invalid, &["expectedTotal"], error.to_string()).into()),
        };
        let wanted = CheckOut {
            payment_method: input.payment_method,
            address: address.flatten(),
            delivery_note: input.delivery_note,
            expected_total,
            idempotency_key: input.idempotency_key,
        };
        checked_out(ctx, check_out(ctx.app(), customer, wanted).await?).await
    }
}

fn payload(customer: CustomerId, change: CartChange) -> CartPayload {
    let error = match change {
        CartChange::Done(lines) => return CartPayload { cart: Some(Cart { customer, lines }), user_errors: Vec::new() },
        CartChange::Invalid(invalid) => invalid.into(),
        CartChange::NoSuchProduct => UserError::new(UserErrorCode::NotFound, &["productId"], "No such product, or no longer sold."),
        CartChange::NoSuchLine => UserError::new(UserErrorCode::NotFound, &["lineId"], "No such line in your cart."),
        CartChange::ProductRemoved => {
            UserError::new(UserErrorCode::NotFound, &["lineId"], "The product is no longer sold: remove the line.")
        }
        CartChange::OutOfStock { left } => UserError::new(UserErrorCode::OutOfStock, &["quantity"], format!("Only {left} left.")),
        CartChange::LimitReached(limit) => UserError::new(UserErrorCode::LimitReached, limit.field, limit.rule),
        CartChange::KeyReused => UserError::new(
            UserErrorCode::IdempotencyKeyReused,
            &["idempotencyKey"],
            "This key was used for another request: make a new one.",
        ),
    };
    CartPayload { cart: None, user_errors: vec![error] }
}

async fn checked_out(ctx: &Context<'_>, outcome: CheckedOut) -> Result<CheckOutCartPayload> {
    let (code, field, message): (_, &[&str], _) = match outcome {
        CheckedOut::Done(id) => return Ok(CheckOutCartPayload { order: Some(order::get(ctx, id).await?), user_errors: Vec::new() }),
        CheckedOut::Invalid(invalid) => return Ok(UserError::from(invalid).into()),
        CheckedOut::RateLimited { retry_after } => return Err(ApiError::RateLimited { retry_after }.into()),
        CheckedOut::NotClaimed(Claim::Contended | Claim::Claimed) => {
            return Err(ApiError::Unavailable("Too many at once: try again with the same key.").into());
        }
        CheckedOut::EmailNotVerified => (UserErrorCode::EmailNotVerified, &[], "Confirm your e-mail address first."),
        CheckedOut::NoSuchAddress => (UserErrorCode::NotFound, &["addressId"], "No such address in your book."),
        CheckedOut::CartEmpty => (UserErrorCode::CartEmpty, &[], "There is nothing in the cart."),
        // A sale that ended just now: its lines have another price.
        CheckedOut::CartChanged | CheckedOut::NotClaimed(Claim::NotOpen) => {
            (UserErrorCode::CartChanged, &["expectedTotal"], "A price, a product or the total is another one than was agreed to.")
        }
        CheckedOut::KeyReused => {
            (UserErrorCode::IdempotencyKeyReused, &["idempotencyKey"], "This key was used for another purchase: make a new one.")
        }
        CheckedOut::NotClaimed(Claim::OutOfStock) => (UserErrorCode::OutOfStock, &[], "Too little is left for a line of the cart."),
        CheckedOut::NotClaimed(Claim::LimitReached) => {
            (UserErrorCode::LimitReached, &[], "A line is over the customer's limit in its sale.")
        }
    };
    Ok(UserError::new(code, field, message).into())
}
