//! Batched reads: what the fields of one level ask for becomes one statement. One loader per request, nothing cached.

use std::{collections::HashMap, hash::Hash, sync::Arc};

use async_graphql::dataloader::Loader;
use sqlx::{Postgres, pool::PoolConnection};

use super::{errors::ApiError, page_sources::PageSources};
use crate::{
    app::App,
    auth::Viewer,
    domain::{
        ids::{AddressId, CategoryId, CustomerId, FlashSaleId, OrderId, PaymentId, ProductId, RefundId},
        page::PageTagKind,
    },
    store::{
        self, StoreError, address::Address, cart::CartLine, category::Category, customer::Customer, flash_sale::FlashSale, order::Order,
        order::OrderEvent, order::OrderLine, payment::Payment, product::Product, refund::Refund, session::OpenSession,
    },
};

/// Of a customer who logs in every day without ever logging out.
const SESSIONS_SHOWN: i64 = 100;

pub struct StoreLoader {
    app: App,
    viewer: Option<Viewer>,
    sources: PageSources,
}

impl StoreLoader {
    pub const fn new(app: App, viewer: Option<Viewer>, sources: PageSources) -> Self {
        Self { app, viewer, sources }
    }

    async fn connection(&self) -> Result<PoolConnection<Postgres>, StoreError> {
        Ok(self.app.db.acquire().await?)
    }

    /// A load is a task of its own, which does not end with the request that is cut off: it ends by itself.
    async fn in_time<T>(&self, load: impl Future<Output = Result<T, StoreError>>) -> Result<T, LoaderError> {
        match tokio::time::timeout(self.app.config.http.deadline, load).await {
            Ok(loaded) => loaded.map_err(LoaderError::from),
            Err(_) => Err(LoaderError::TimedOut),
        }
    }
}

/// Key of a thing that its owner and staff may see, and nobody else: the store looks for no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Visible<Id>(pub Id);
/// Key of a thing that its owner may see, staff no more than others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Own<Id>(pub Id);

/// Keys of relations, each a type of its own: a category's children are not its products.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChildrenOf(pub CategoryId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CurrentSaleOf(pub ProductId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct UnitsOf(pub CustomerId, pub FlashSaleId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InWishlist(pub CustomerId, pub ProductId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressesOf(pub CustomerId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CartOf(pub CustomerId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionsOf(pub CustomerId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinesOf(pub OrderId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EventsOf(pub OrderId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PaymentsOf(pub OrderId);
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RefundsOf(pub PaymentId);

/// A read that failed, shared by all fields that waited for it.
#[derive(Clone, Debug)]
pub enum LoaderError {
    /// Logged already.
    Failed(Arc<StoreError>),
    TimedOut,
}

impl From<StoreError> for LoaderError {
    fn from(error: StoreError) -> Self {
        tracing::error!(%error, "a loader failed");
        Self::Failed(Arc::new(error))
    }
}

impl From<LoaderError> for async_graphql::Error {
    fn from(error: LoaderError) -> Self {
        match error {
            LoaderError::Failed(error) => ApiError::from(&*error).into(),
            LoaderError::TimedOut => ApiError::Timeout.into(),
        }
    }
}

fn one_each<K: Eq + Hash, V>(rows: Vec<V>, key: impl Fn(&V) -> K) -> HashMap<K, V> {
    rows.into_iter().map(|row| (key(&row), row)).collect()
}

fn many_each<K: Eq + Hash, V>(rows: Vec<V>, key: impl Fn(&V) -> Option<K>) -> HashMap<K, Vec<V>> {
    let mut groups: HashMap<K, Vec<V>> = HashMap::new();
    for row in rows {
        if let Some(key) = key(&row) {
            groups.entry(key).or_default().push(row);
        }
    }
    groups
}

/// Implements a loader: key type, value type, how the store is asked, how rows are grouped.
macro_rules! loader {
    ($key:ty => $value:ty, |$self:ident, $keys:ident, $db:ident| $load:expr) => {
        impl Loader<$key> for StoreLoader {
            type Value = $value;
            type Error = LoaderError;

            async fn load(&$self, $keys: &[$key]) -> Result<HashMap<$key, $value>, LoaderError> {
                let load = async {
                    let mut connection = $self.connection().await?;
                    let $db = &mut *connection;
                    Ok($load)
                };
                $self.in_time(load).await
            }
        }
    };
}

/// Implements the loader of what the caller may see: staff all, a customer his own, anybody else nothing.
macro_rules! visible {
    ($id:ty => $value:ty, $list:path) => {
        loader!(Visible<$id> => $value, |self, keys, db| {
            let Some(viewer) = self.viewer else { return Ok(HashMap::new()) };
            let owner = (!viewer.role.is_staff()).then_some(viewer.customer);
            let ids: Vec<_> = keys.iter().map(|key| key.0).collect();
            one_each($list(db, &ids, owner).await?, |row| Visible(row.id))
        });
    };
}

loader!(CategoryId => Category, |self, keys, db| {
    self.sources.read(PageTagKind::Category, keys.iter().map(|id| id.0));
    one_each(store::category::list_by_ids(db, keys).await?, |row| row.id)
});
loader!(ProductId => Product, |self, keys, db| {
    self.sources.read(PageTagKind::Product, keys.iter().map(|id| id.0));
    one_each(store::product::list_by_ids(db, keys).await?, |row| row.id)
});
loader!(CustomerId => Customer, |self, keys, db| one_each(store::customer::list_by_ids(db, keys).await?, |row| row.id));
loader!(AddressId => Address, |self, keys, db| one_each(store::address::list_by_ids(db, keys).await?, |row| row.id));
loader!(OrderId => Order, |self, keys, db| one_each(store::order::list_by_ids(db, keys).await?, |row| row.id));
visible!(OrderId => Order, store::order::list_visible);
visible!(PaymentId => Payment, store::payment::list_visible);
visible!(RefundId => Refund, store::refund::list_visible);
loader!(Own<AddressId> => Address, |self, keys, db| {
    let Some(viewer) = self.viewer else { return Ok(HashMap::new()) };
    let ids: Vec<_> = keys.iter().map(|key| key.0).collect();
    one_each(store::address::list_by_ids_for_customer(db, &ids, viewer.customer).await?, |row| Own(row.id))
});
loader!(RefundsOf => Vec<Refund>, |self, keys, db| {
    let payments: Vec<PaymentId> = keys.iter().map(|key| key.0).collect();
    many_each(store::refund::list_for_payments(db, &payments).await?, |row| Some(RefundsOf(row.payment_id)))
});
/// Sales that are on are in memory already.
impl Loader<FlashSaleId> for StoreLoader {
    type Value = FlashSale;
    type Error = LoaderError;

    async fn load(&self, keys: &[FlashSaleId]) -> Result<HashMap<FlashSaleId, FlashSale>, LoaderError> {
        let now = self.app.clock.now();
        self.sources.read(PageTagKind::FlashSale, keys.iter().map(|id| id.0));
        // What is in memory may be older than the last change that this process has heard of.
        let in_memory = if self.sources.are_noted() { &[] } else { keys };
        let known = in_memory.iter().filter_map(|id| self.app.sale_feed.get(*id, now));
        let mut sales = one_each(known.collect(), |sale| sale.id);
        let others: Vec<FlashSaleId> = keys.iter().copied().filter(|id| !sales.contains_key(id)).collect();
        if !others.is_empty() {
            let load = async { store::flash_sale::list_by_ids(&mut *self.connection().await?, &others).await };
            sales.extend(one_each(self.in_time(load).await?, |row| row.id));
        }
        self.sources.read_sales(sales.values(), now);
        Ok(sales)
    }
}

loader!(ChildrenOf => Vec<Category>, |self, keys, db| {
    let parents: Vec<_> = keys.iter().map(|key| key.0).collect();
    let children = store::category::list_children(db, &parents).await?;
    self.sources.read(PageTagKind::Category, parents.iter().map(|id| id.0).chain(children.iter().map(|row| row.id.0)));
    many_each(children, |row| row.parent_id.map(ChildrenOf))
});
loader!(CurrentSaleOf => FlashSale, |self, keys, db| {
    let products: Vec<_> = keys.iter().map(|key| key.0).collect();
    let now = self.app.clock.now();
    let sales = store::flash_sale::list_current_for_products(db, &products, now).await?;
    // A sale that is scheduled, moved or cancelled is a change of its product.
    self.sources.read(PageTagKind::Product, products.iter().map(|id| id.0));
    self.sources.read_sales(&sales, now);
    one_each(sales, |row| CurrentSaleOf(row.product_id))
});
loader!(UnitsOf => i32, |self, keys, db| {
    let mut units = HashMap::new();
    // One caller, one customer: this is one statement.
    for (customer, keys) in many_each(keys.to_vec(), |key| Some(key.0)) {
        let sales: Vec<_> = keys.iter().map(|key| key.1).collect();
        let rows = store::flash_sale::list_viewer_units(db, customer, &sales).await?;
        units.extend(rows.into_iter().map(|(sale, held)| (UnitsOf(customer, sale), held)));
    }
    units
});
loader!(InWishlist => (), |self, keys, db| {
    let mut wished = HashMap::new();
    // One caller, one customer: this is one statement.
    for (customer, keys) in many_each(keys.to_vec(), |key| Some(key.0)) {
        let products: Vec<_> = keys.iter().map(|key| key.1).collect();
        let rows = store::wishlist::list_wished(db, customer, &products).await?;
        wished.extend(rows.into_iter().map(|product| (InWishlist(customer, product), ())));
    }
    wished
});
loader!(AddressesOf => Vec<Address>, |self, keys, db| {
    let customers: Vec<_> = keys.iter().map(|key| key.0).collect();
    many_each(store::address::list_for_customers(db, &customers).await?, |row| Some(AddressesOf(row.customer_id)))
});
loader!(CartOf => Vec<CartLine>, |self, keys, db| {
    let customers: Vec<_> = keys.iter().map(|key| key.0).collect();
    let lines = store::cart::list_for_customers(db, &customers, self.app.clock.now()).await?;
    many_each(lines, |row| Some(CartOf(row.customer_id)))
});
loader!(SessionsOf => Vec<OpenSession>, |self, keys, db| {
    let customers: Vec<_> = keys.iter().map(|key| key.0).collect();
    let sessions = store::session::list_open_for_customers(db, &customers, self.app.clock.now(), SESSIONS_SHOWN).await?;
    many_each(sessions, |row| Some(SessionsOf(row.customer_id)))
});
loader!(LinesOf => Vec<OrderLine>, |self, keys, db| {
    let orders: Vec<_> = keys.iter().map(|key| key.0).collect();
    many_each(store::order::list_lines(db, &orders).await?, |row| Some(LinesOf(row.order_id)))
});
loader!(EventsOf => Vec<OrderEvent>, |self, keys, db| {
    let orders: Vec<_> = keys.iter().map(|key| key.0).collect();
    many_each(store::order::list_events(db, &orders).await?, |row| Some(EventsOf(row.order_id)))
});
loader!(PaymentsOf => Vec<Payment>, |self, keys, db| {
    let orders: Vec<_> = keys.iter().map(|key| key.0).collect();
    many_each(store::payment::list_for_orders(db, &orders).await?, |row| Some(PaymentsOf(row.order_id)))
});
