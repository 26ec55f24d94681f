//! Whole answers of the catalogue, ready to send: in memory, and behind it in Redis for all servers (docs/adr/0020).
//!
//! Owns: for how long and until which change an answer may be shown again, and that a thousand who ask at once make one execution.
//! Does not own: what may be stored at all and how it is executed (http and resolvers decide), what a change is (the triggers of
//! table `page_change`).

mod changes;
mod page;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use moka::sync::Cache;
use tokio::sync::watch;
use tracing::Instrument;

use self::page::hex;
pub use self::{
    changes::PageChanges,
    page::{Freshness, NewPage, Page},
};
use super::ServiceError;
use crate::{
    app::App,
    clients::redis::{Redis, RedisError},
    clock::Clock,
    domain::page::PageLifetime,
    metrics::PageCounters,
    store,
};

/// Names an answer: a hash of whatever it depends on but the data.
pub type PageKey = [u8; 32];

/// How long changes are kept for servers that start, and for those that were cut off.
const CHANGE_LIFETIME: chrono::TimeDelta = chrono::TimeDelta::hours(1);
const BATCH: i64 = 10_000;

/// What came of an execution.
#[derive(Clone)]
pub enum Outcome {
    Page(Arc<Page>),
    /// An answer that must not be shown again: it has errors.
    Refusal(Bytes),
}

pub struct PageCache {
    /// `None` when pages are not kept.
    memory: Option<Cache<PageKey, Arc<Page>>>,
    redis: Option<Redis>,
    /// Which of the databases on a Redis is ours; until it is known, Redis is left alone.
    database: OnceLock<String>,
    flights: Mutex<HashMap<PageKey, Flight>>,
    clock: Clock,
    deadline: Duration,
    pub changes: PageChanges,
    pub counters: PageCounters,
}

/// An execution under way; `None` until it has ended.
type Flight = watch::Receiver<Option<Outcome>>;

impl PageCache {
    /// Keeps `bytes` of pages in memory, none at all with 0. An execution is cut off at its deadline.
    #[must_use]
    pub fn new(bytes: u64, redis: Option<Redis>, clock: Clock, deadline: Duration, counters: PageCounters) -> Self {
        let memory = || {
            let cache = Cache::builder().max_capacity(bytes).weigher(|_, page: &Arc<Page>| page.weight());
            cache.time_to_live(page::OLDEST.to_std().unwrap_or_default()).build()
        };
        Self {
            memory: (bytes > 0).then(memory),
            redis: redis.filter(|_| bytes > 0),
            database: OnceLock::new(),
            flights: Mutex::default(),
            clock,
            deadline,
            changes: PageChanges::default(),
            counters,
        }
    }

    /// Whether pages are kept.
    pub const fn is_on(&self) -> bool {
        self.memory.is_some()
    }

    /// The page of a key, if memory has it and it need not be made anew.
    pub fn fresh(&self, key: &PageKey) -> Option<Arc<Page>> {
        match self.in_memory(key)? {
            (page, Freshness::Fresh) => Some(self.shown(page)),
            _ => None,
        }
    }

    /// The page of a key. `execution` is begun where there is none to be shown, or none for long, and nobody else is at it; it goes on
    /// when whoever asked has gone. `None` when it broke.
    pub async fn get<F>(self: &Arc<Self>, key: PageKey, lifetime: PageLifetime, execution: impl FnOnce() -> F) -> Option<Outcome>
    where
        F: Future<Output = Result<NewPage, Bytes>> + Send + 'static,
    {
        let known = self.in_memory(&key);
        match known {
            Some((page, Freshness::Fresh)) => Some(Outcome::Page(self.shown(page))),
            Some((page, Freshness::Stale)) => {
                self.counters.stale_hits.inc();
                let page = self.shown(page);
                // Nobody waits for it.
                let _ = self.fly(key, lifetime, execution);
                Some(Outcome::Page(page))
            }
            old => {
                let mut flight = match self.fly(key, lifetime, execution) {
                    Ok(page) => return Some(Outcome::Page(page)),
                    Err(flight) => flight,
                };
                let outcome = flight.wait_for(Option::is_some).await.ok().and_then(|outcome| outcome.clone());
                match (outcome, old) {
                    (Some(Outcome::Page(page)), _) => Some(Outcome::Page(page)),
                    (_, Some((page, _))) if page.freshness(self.clock.now(), &self.changes) > Freshness::Dead => {
                        self.counters.stale_hits.inc();
                        Some(Outcome::Page(page))
                    }
                    (outcome, _) => outcome,
                }
            }
        }
    }

    /// What memory has and is not dead.
    fn in_memory(&self, key: &PageKey) -> Option<(Arc<Page>, Freshness)> {
        let memory = self.memory.as_ref()?;
        let page = memory.get(key)?;
        let freshness = page.freshness(self.clock.now(), &self.changes);
        match freshness {
            Freshness::Dead => {
                if page.is_outdated(&self.changes) {
                    self.counters.invalidations.inc();
                }
                memory.invalidate(key);
                None
            }
            Freshness::Old | Freshness::Stale | Freshness::Fresh => Some((page, freshness)),
        }
    }

    /// Counts a page that is shown from memory.
    fn shown(&self, page: Arc<Page>) -> Arc<Page> {
        self.counters.memory_hits.inc();
        self.counters.ages.observe(page.age(self.clock.now()).to_std().unwrap_or_default().as_secs_f64());
        page
    }

    /// The flight of a key, begun if there is none; or the page that one has just brought.
    fn fly<F>(self: &Arc<Self>, key: PageKey, lifetime: PageLifetime, execution: impl FnOnce() -> F) -> Result<Arc<Page>, Flight>
    where
        F: Future<Output = Result<NewPage, Bytes>> + Send + 'static,
    {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(&key) {
            self.counters.joined.inc();
            return Err(flight.clone());
        }
        // One may have landed since this request looked: a page is in memory before its flight is over.
        if let Some((page, Freshness::Fresh)) = self.in_memory(&key) {
            return Ok(self.shown(page));
        }
        let (landed, flight) = watch::channel(None);
        flights.insert(key, flight.clone());
        drop(flights);
        let landing = Landing { cache: self.clone(), key };
        let execution = execution();
        let journey = async move {
            let cache = landing.cache.clone();
            let outcome = cache.obtain(key, lifetime, execution).await;
            landed.send_replace(outcome.as_ref().map(|(outcome, _)| outcome.clone()));
            drop(landing);
            if let Some((Outcome::Page(page), true)) = outcome {
                cache.put_into_redis(&key, &page).await;
            }
        };
        tokio::spawn(journey.in_current_span());
        Err(flight)
    }

    /// A page from Redis or from the execution, put into memory; and whether Redis lacks it.
    async fn obtain(
        &self,
        key: PageKey,
        lifetime: PageLifetime,
        execution: impl Future<Output = Result<NewPage, Bytes>>,
    ) -> Option<(Outcome, bool)> {
        if lifetime == PageLifetime::Lasting
            && let Some(page) = self.in_redis(&key).await
        {
            self.counters.redis_hits.inc();
            return Some((Outcome::Page(self.keep(key, page)), false));
        }
        self.counters.misses.inc();
        // Both from before: whatever changes from here on counts as not seen.
        let (made_at, snapshot) = (self.clock.now(), self.changes.snapshot());
        match tokio::time::timeout(self.deadline, execution).await.ok()? {
            Ok(new) => {
                let is_lasting = new.lifetime == PageLifetime::Lasting;
                Some((Outcome::Page(self.keep(key, Page::new(new, made_at, snapshot))), is_lasting))
            }
            Err(refusal) => Some((Outcome::Refusal(refusal), false)),
        }
    }

    fn keep(&self, key: PageKey, page: Page) -> Arc<Page> {
        let page = Arc::new(page);
        if let Some(memory) = &self.memory {
            memory.insert(key, page.clone());
        }
        page
    }

    /// The page of a key in Redis, if it is fresh.
    async fn in_redis(&self, key: &PageKey) -> Option<Page> {
        let (redis, name) = (self.redis.as_ref()?, self.name(key)?);
        let frame = self.count_errors(redis.get(&name).await)??;
        let Some(page) = Page::from_frame(&name, &frame) else {
            self.counters.redis_errors.inc();
            return None;
        };
        (page.freshness(self.clock.now(), &self.changes) == Freshness::Fresh).then_some(page)
    }

    async fn put_into_redis(&self, key: &PageKey, page: &Page) {
        let (Some(redis), Some(name)) = (&self.redis, self.name(key)) else { return };
        if let Ok(left) = page.left(self.clock.now()).to_std() {
            self.count_errors(redis.set(&name, &page.to_frame(&name), left).await);
        }
    }

    fn name(&self, key: &PageKey) -> Option<Vec<u8>> {
        Some(format!("whitemonday:page:{}:{}", self.database.get()?, hex(key)).into_bytes())
    }

    fn count_errors<T>(&self, result: Result<T, RedisError>) -> Option<T> {
        match result {
            Ok(value) => return Some(value),
            Err(RedisError::CircuitOpen) => {
                self.counters.redis_skips.inc();
            }
            Err(error) => {
                tracing::debug!(%error, "Redis keeps no pages just now");
                self.counters.redis_errors.inc();
            }
        }
        None
    }

    /// Held for a moment, never over an await.
    fn flights(&self) -> MutexGuard<'_, HashMap<PageKey, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends a flight, however it ends: whoever waits is told, and the next one may begin.
struct Landing {
    cache: Arc<PageCache>,
    key: PageKey,
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.cache.flights().remove(&self.key);
    }
}

/// Hears what has changed since the last time.
pub async fn follow(app: &App) -> Result<(), ServiceError> {
    let mut db = app.db.acquire().await?;
    if app.pages.database.get().is_none() {
        let name = store::page_change::get_database_name(&mut db).await?;
        app.pages.database.get_or_init(|| name);
    }
    let (snapshot, changes) = store::page_change::list_since(&mut db, app.pages.changes.snapshot().xmin).await?;
    app.pages.changes.learn(snapshot, &changes);
    Ok(())
}

/// Forgets changes that no page is older than, in batches.
pub async fn forget_changes(app: &App) -> Result<(), ServiceError> {
    let horizon = app.clock.now() - CHANGE_LIFETIME;
    while store::page_change::delete_before(&mut *app.db.acquire().await?, horizon, BATCH).await? > 0 {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::future::pending;
    use prometheus_client::registry::Registry;
    use tokio::sync::oneshot;

    use super::*;

    fn cache(deadline: Duration) -> Arc<PageCache> {
        Arc::new(PageCache::new(1_000_000, None, Clock::system(), deadline, PageCounters::new(&mut Registry::default())))
    }

    fn page() -> NewPage {
        NewPage { body: Bytes::from_static(b"{}"), lifetime: PageLifetime::Lasting, tags: Vec::new(), dies_at: None }
    }

    fn executions(cache: &PageCache) -> u64 {
        cache.counters.misses.get()
    }

    #[tokio::test]
    async fn a_flight_goes_on_when_whoever_began_it_has_gone() {
        let cache = cache(Duration::from_secs(10));
        let (release, released) = oneshot::channel::<()>();
        let execution = async move {
            let _ = released.await;
            Ok(page())
        };
        let first = tokio::spawn({
            let cache = cache.clone();
            async move { cache.get([1; 32], PageLifetime::Lasting, || execution).await }
        });
        while executions(&cache) == 0 {
            tokio::task::yield_now().await;
        }
        first.abort();
        assert!(first.await.is_err());
        let second = cache.get([1; 32], PageLifetime::Lasting, pending::<Result<NewPage, Bytes>>);
        let (outcome, _) = tokio::join!(second, async { release.send(()) });
        assert!(matches!(outcome, Some(Outcome::Page(_))));
        assert_eq!(executions(&cache), 1);
    }

    #[tokio::test]
    async fn a_flight_that_breaks_leaves_nobody_hanging_and_the_next_one_free() {
        let cache = cache(Duration::from_secs(10));
        let broken = || async { panic!("as a resolver might") };
        let (first, second) =
            tokio::join!(cache.get([1; 32], PageLifetime::Lasting, broken), cache.get([1; 32], PageLifetime::Lasting, broken));
        assert!(first.is_none() && second.is_none());
        assert!(matches!(cache.get([1; 32], PageLifetime::Lasting, || async { Ok(page()) }).await, Some(Outcome::Page(_))));
    }

    #[tokio::test]
    async fn a_flight_ends_at_its_deadline() {
        let cache = cache(Duration::from_millis(1));
        assert!(cache.get([1; 32], PageLifetime::Lasting, pending::<Result<NewPage, Bytes>>).await.is_none());
        assert!(cache.flights().is_empty());
    }
}
