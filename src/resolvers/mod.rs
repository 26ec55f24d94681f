//! The GraphQL API: types and fields, one file per noun.
//!
//! Owns: parsing ids, who may see what, payloads. Does not own: rules (services), SQL (store), transport (http).
//! A resolver is: parse → viewer → one service call → payload.

mod address;
mod admin;
mod cart;
mod category;
mod connection;
pub mod context;
mod customer;
mod dead_letter;
pub mod documents;
pub mod errors;
mod flash_sale;
mod loaders;
mod node;
mod operation_limits;
mod order;
pub mod page_sources;
mod payment;
mod product;
pub mod public_fields;
mod scalars;
mod session;
mod stock;
pub mod trusted_documents;
mod wishlist;

use async_graphql::{MergedObject, MergedSubscription, Schema};

use self::documents::KnownDocuments;
use crate::app::App;

const MAX_DEPTH: usize = 12;
/// What a standard introspection query needs, and a little more.
const MAX_DEPTH_WITH_INTROSPECTION: usize = 20;

#[derive(MergedObject, Default)]
pub struct Query(
    node::NodeQuery,
    admin::AdminRoot,
    category::CategoryQuery,
    customer::CustomerQuery,
    flash_sale::FlashSaleQuery,
    order::OrderQuery,
    product::ProductQuery,
);

#[derive(MergedObject, Default)]
pub struct Mutation(
    customer::CustomerMutation,
    customer::OwnAccountMutation,
    session::SessionMutation,
    address::AddressMutation,
    cart::CartMutation,
    flash_sale::FlashSaleMutation,
    flash_sale::SaleMutation,
    product::ProductMutation,
    category::CategoryMutation,
    stock::StockMutation,
    order::OrderMutation,
    dead_letter::DeadLetterMutation,
    wishlist::WishlistMutation,
);

#[derive(MergedSubscription, Default)]
pub struct Subscription(order::OrderSubscription, flash_sale::FlashSaleSubscription);

pub type ApiSchema = Schema<Query, Mutation, Subscription>;

/// The schema of a server, which remembers documents in `documents`.
#[must_use]
pub fn schema(app: App, documents: KnownDocuments) -> ApiSchema {
    let introspection = app.config.http.developer_tools;
    let builder = Schema::build(Query::default(), Mutation::default(), Subscription::default())
        .data(app)
        .limit_depth(if introspection { MAX_DEPTH_WITH_INTROSPECTION } else { MAX_DEPTH })
        .limit_complexity(operation_limits::MAX_COMPLEXITY)
        .extension(documents);
    if introspection { builder } else { builder.disable_introspection().disable_suggestions() }.finish()
}

/// The schema's text, sorted: what stands in schema/schema.graphql.
#[must_use]
pub fn sdl() -> String {
    let options = async_graphql::SDLExportOptions::new().sorted_arguments().sorted_enum_items().sorted_fields().include_specified_by();
    let schema = Schema::build(Query::default(), Mutation::default(), Subscription::default()).finish();
    schema.sdl_with_options(options)
}
