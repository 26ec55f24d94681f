//! Tells subscribers that an order of theirs has changed.
//!
//! Owns: who listens, and the versions they were told of. A change in this process rings at once, one of another process when
//! its bell is heard, and a poll each second finds what a lost bell did not tell. Listeners read the present state themselves,
//! so a slow one misses steps, not the end.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Notify, watch};

use super::ServiceError;
use crate::{
    app::App,
    domain::ids::{CustomerId, OrderId},
    store::{
        self,
        bell::{BellListener, MAX_IDS},
    },
};

/// A subscription without an order's id follows this many of a customer's newest orders.
pub const ORDERS_PER_CUSTOMER: i64 = 100;
const IDS_PER_QUERY: usize = 1_000;
/// More changes than these wait for no bell: the poll of other processes finds them.
const MAX_UNTOLD: usize = 10_000;

/// What somebody listens to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    Customer(CustomerId),
    Order(OrderId),
}

#[derive(Default)]
pub struct OrderFeed {
    entries: Mutex<HashMap<Topic, Entry>>,
    /// Orders that other processes are still to be told of.
    untold: Mutex<Vec<OrderId>>,
    has_untold: Notify,
}

struct Entry {
    bell: watch::Sender<()>,
    /// What the last poll saw, a number that rises with every change; `None` before the first one.
    seen: Option<i64>,
}

/// Wakes its holder after each change; quick changes may be one. The topic is forgotten with its last listener.
pub struct Listener {
    feed: Arc<OrderFeed>,
    topic: Topic,
    bell: watch::Receiver<()>,
}

impl Listener {
    /// Waits for the next change; `false` when the program is stopping.
    pub async fn changed(&mut self) -> bool {
        self.bell.changed().await.is_ok()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut entries = self.feed.entries();
        // This listener's own receiver still counts.
        if entries.get(&self.topic).is_some_and(|entry| entry.bell.receiver_count() <= 1) {
            entries.remove(&self.topic);
        }
    }
}

impl OrderFeed {
    fn entries(&self) -> MutexGuard<'_, HashMap<Topic, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Listens to a topic. Listen first, then read the present state: nothing is missed in between.
    #[must_use]
    pub fn listen(self: &Arc<Self>, topic: Topic) -> Listener {
        let mut entries = self.entries();
        let entry = entries.entry(topic).or_insert_with(|| Entry { bell: watch::Sender::new(()), seen: None });
        Listener { feed: self.clone(), topic, bell: entry.bell.subscribe() }
    }

    /// This process has changed these orders, and the change is committed: tells its own listeners, and soon those of others.
    pub fn ring(&self, changed: &[(OrderId, CustomerId)]) {
        if changed.is_empty() {
            return;
        }
        self.wake(changed);
        let mut untold = self.untold();
        if untold.len() < MAX_UNTOLD {
            untold.extend(changed.iter().map(|(order, _)| *order));
        }
        self.has_untold.notify_one();
    }

    /// Waits until there is something to tell other processes.
    pub async fn changed(&self) {
        self.has_untold.notified().await;
    }

    fn untold(&self) -> MutexGuard<'_, Vec<OrderId>> {
        self.untold.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self, changed: &[(OrderId, CustomerId)]) {
        let entries = self.entries();
        for (order, customer) in changed {
            for topic in [Topic::Order(*order), Topic::Customer(*customer)] {
                if let Some(entry) = entries.get(&topic) {
                    entry.bell.send_replace(());
                }
            }
        }
    }

    /// Wakes a topic that has changed since the last poll.
    fn compare(&self, topic: Topic, changes: i64) {
        if let Some(entry) = self.entries().get_mut(&topic)
            && entry.seen.replace(changes) != Some(changes)
        {
            entry.bell.send_replace(());
        }
    }
}

/// Rings for the orders that this process has changed, as many as fit; the rest follow with the next ring.
pub async fn ring_others(app: &App) -> Result<(), ServiceError> {
    let (orders, is_all) = {
        let mut untold = app.order_feed.untold();
        let count = untold.len().min(MAX_IDS);
        (untold.drain(..count).collect::<Vec<_>>(), untold.is_empty())
    };
    if !is_all {
        app.order_feed.has_untold.notify_one();
    }
    if !orders.is_empty() {
        store::bell::ring(&mut *app.db.acquire().await?, &orders).await?;
    }
    Ok(())
}

/// Begins to hear what other processes ring.
pub async fn listener(app: &App) -> Result<BellListener, ServiceError> {
    Ok(BellListener::connect(&app.config.database.direct_url).await?)
}

/// Waits for the next ring and wakes whom it concerns here: one read of the changed orders for all of them.
pub async fn hear(app: &App, listener: &mut BellListener) -> Result<(), ServiceError> {
    let orders = listener.hear().await?;
    if app.order_feed.entries().is_empty() {
        return Ok(());
    }
    let changed = store::order::list_versions(&mut *app.db.acquire().await?, &orders).await?;
    let changed: Vec<_> = changed.into_iter().map(|(order, customer, _)| (order, customer)).collect();
    app.order_feed.wake(&changed);
    Ok(())
}

/// Compares everything that is listened to with what it was the last time, and wakes whom it concerns.
pub async fn poll(app: &App) -> Result<(), ServiceError> {
    let topics: Vec<Topic> = app.order_feed.entries().keys().copied().collect();
    if topics.is_empty() {
        return Ok(());
    }
    let mut db = app.db.acquire().await?;
    for chunk in topics.chunks(IDS_PER_QUERY) {
        let customers: Vec<_> = chunk.iter().filter_map(|topic| if let Topic::Customer(id) = topic { Some(*id) } else { None }).collect();
        let orders: Vec<_> = chunk.iter().filter_map(|topic| if let Topic::Order(id) = topic { Some(*id) } else { None }).collect();
        for (customer, changes) in store::order::list_changes_for_customers(&mut db, &customers, ORDERS_PER_CUSTOMER).await? {
            app.order_feed.compare(Topic::Customer(customer), changes);
        }
        for (order, _, version) in store::order::list_versions(&mut db, &orders).await? {
            app.order_feed.compare(Topic::Order(order), version.into());
        }
    }
    Ok(())
}
