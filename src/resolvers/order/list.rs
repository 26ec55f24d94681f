//! Lists of orders: a customer's own, and staff's.

use async_graphql::{Context, ID, InputObject, Object, Result, connection::Connection};
use uuid::Uuid;

use super::{Order, OrderStatus};
use crate::{
    domain::{
        ids::{CustomerId, OrderId},
        money,
    },
    resolvers::{
        connection::{PageArguments, PageRequest, connection},
        context::ContextExt,
        errors::ApiError,
        scalars::{DateTime, Decimal},
    },
    store::{
        self, StoreError,
        order::{OrderFilter as Filter, OrderPosition},
    },
};

/// All conditions hold together.
#[derive(InputObject, Default)]
pub struct OrderFilter {
    /// In one of these states; in any when left out or empty.
    statuses: Option<Vec<OrderStatus>>,
    created_from: Option<DateTime>,
    /// Not included.
    created_to: Option<DateTime>,
    min_total: Option<Decimal>,
    max_total: Option<Decimal>,
    /// Only orders with a line of a flash sale.
    flash_sale_only: Option<bool>,
    number: Option<String>,
    /// For staff; a customer's own list has no others' orders whatever is said here.
    customer_id: Option<ID>,
}

/// Counts the whole list, only when it is asked for.
pub struct OrderTotal(Filter);

#[Object]
impl OrderTotal {
    /// How many there are in all. Counted when asked for: leave it out where you do not show it.
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
        Ok(i32::try_from(store::order::count(&mut db, &self.0).await?).unwrap_or(i32::MAX))
    }
}

pub type OrderConnection = Connection<String, Order, OrderTotal>;

/// A page of the orders of one customer, or of all for staff, newest first.
pub async fn page(
    ctx: &Context<'_>,
    owner: Option<CustomerId>,
    first: Option<i32>,
    after: Option<String>,
    filter: Option<OrderFilter>,
) -> Result<OrderConnection> {
    let request: PageRequest<(i64, Uuid)> = PageArguments { first, after, ..PageArguments::default() }.read()?;
    let position = |(micros, id): (i64, Uuid)| {
        let created_at = chrono::DateTime::from_timestamp_micros(micros).ok_or(ApiError::BadRequest("This cursor is not one of ours."))?;
        Ok::<_, ApiError>(OrderPosition { created_at, id: OrderId(id) })
    };
    let from = request.from.map(position).transpose()?;
    let filter = read(ctx, owner, filter.unwrap_or_default())?;
    let mut db = ctx.app().db.acquire().await.map_err(StoreError::from)?;
    let page = store::order::list(&mut db, &filter, from, request.size).await?;
    Ok(connection(page, &request, OrderTotal(filter), |row| (row.created_at.timestamp_micros(), row.id.0), Order))
}

fn read(ctx: &Context<'_>, owner: Option<CustomerId>, filter: OrderFilter) -> Result<Filter, ApiError> {
    let amount = |amount: Option<Decimal>| {
        let parse = |amount: Decimal| money::Money::parse(&amount.0, ctx.app().config.currency);
        let read = amount.map(parse).transpose().map_err(|_| ApiError::BadRequest("An amount is a decimal of the shop's currency."));
        read.map(|money| money.map(|money| money.minor))
    };
    let customer = match (owner, filter.customer_id) {
        (Some(owner), _) => Some(owner),
        (None, Some(id)) => Some(CustomerId::parse(&id).ok_or(ApiError::BadRequest("customerId is not a customer's id."))?),
        (None, None) => None,
    };
    Ok(Filter {
        customer,
        statuses: filter.statuses.unwrap_or_default().into_iter().map(Into::into).collect(),
        created_from: filter.created_from.map(|at| at.0),
        created_to: filter.created_to.map(|at| at.0),
        min_total_minor: amount(filter.min_total)?,
        max_total_minor: amount(filter.max_total)?,
        flash_sale_only: filter.flash_sale_only.unwrap_or(false),
        number: filter.number,
    })
}
