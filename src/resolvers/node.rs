//! `node`: any object by its global id.

use async_graphql::{Context, ID, Interface, Object, Result};

use super::{
    address::{self, Address},
    cart::{self, Cart, CartLine},
    category::{self, Category},
    context::ContextExt,
    customer::{self, Customer},
    dead_letter::{self, DeadLetter},
    flash_sale::{self, FlashSale},
    order::{self, Order},
    payment::{self, Payment, Refund},
    product::{self, Product},
    scalars::DateTime,
    session::{self, Session},
    stock::{self, StockMovement},
    wishlist::{self, WishlistItem},
};

/// Anything with a global id. Ids are opaque, prefixed by type (`prod_…`, `sale_…`, `ord_…`) and resolve through `node`.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "Global and opaque."))]
pub enum Node {
    Address(Address),
    Cart(Cart),
    CartLine(CartLine),
    Category(Category),
    Customer(Customer),
    DeadLetter(DeadLetter),
    FlashSale(FlashSale),
    Order(Order),
    Payment(Payment),
    Product(Product),
    Refund(Refund),
    Session(Session),
    StockMovement(StockMovement),
    WishlistItem(WishlistItem),
}

#[derive(Default)]
pub struct NodeQuery;

#[Object]
impl NodeQuery {
    /// Any object by its global id; null when there is no such thing or it is not yours.
    async fn node(&self, ctx: &Context<'_>, id: ID) -> Result<Option<Node>> {
        let id = id.as_str();
        let prefix = id.split_once('_').map_or("", |(prefix, _)| prefix);
        Ok(match prefix {
            "addr" => address::find(ctx, id).await?.map(Node::Address),
            "cart" => cart::find(ctx, id).await?.map(Node::Cart),
            "line" => cart::find_line(ctx, id).await?.map(Node::CartLine),
            "cat" => category::find(ctx, id).await?.map(Node::Category),
            "cust" => customer::find(ctx, id).await?.map(Node::Customer),
            "dead" => dead_letter::find(ctx, id).await?.map(Node::DeadLetter),
            "refund" => payment::find_refund(ctx, id).await?.map(Node::Refund),
            "sale" => flash_sale::find(ctx, id).await?.map(Node::FlashSale),
            "move" => stock::find(ctx, id).await?.map(Node::StockMovement),
            "ord" => order::find(ctx, id).await?.map(Node::Order),
            "pay" => payment::find(ctx, id).await?.map(Node::Payment),
            "prod" => product::find(ctx, id).await?.map(Node::Product),
            "sess" => session::find(ctx, id).await?.map(Node::Session),
            "wish" => wishlist::find(ctx, id).await?.map(Node::WishlistItem),
            _ => None,
        })
    }

    /// The server's time, which decides when a sale opens: count down by it, not by the phone's clock.
    async fn server_time(&self, ctx: &Context<'_>) -> DateTime {
        ctx.app().clock.now().into()
    }
}
