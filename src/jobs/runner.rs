//! How background work runs: repeatedly, until told to stop, whatever happens to the database.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, Span};

use crate::{
    app::App,
    services::{self, ServiceError},
    store::{
        self,
        queue::{Delivery, Queue},
    },
    telemetry,
};

/// Queues are polled this often when nobody rings, with up to a quarter of jitter.
const POLL: Duration = Duration::from_secs(1);
/// How long work may still run after the order to stop; with what follows it is less than the process waits.
const PATIENCE_AT_STOP: Duration = Duration::from_secs(20);
/// Before it is asked again whether there is room.
const NO_ROOM: Duration = Duration::from_millis(100);

/// Longer than a piece of work takes, three tries of a call to the provider included. One that takes longer waits for a database
/// that will never answer.
const WORK_LIMIT: Duration = Duration::from_mins(1);
/// The same of work that is a few statements.
const STATEMENTS_LIMIT: Duration = Duration::from_secs(10);
/// Of a batch, whose pieces have their own.
const BATCH_LIMIT: Duration = Duration::from_mins(10);
/// Of a job that runs again and again, in periods of it.
const PERIODS_LIMIT: u32 = 10;
const SHORTEST_LIMIT: Duration = Duration::from_secs(5);

/// Runs a job now and then every `period`. A failure or a panic is logged and the job runs again.
pub async fn every<F, Fut>(period: Duration, name: &'static str, app: App, stop: CancellationToken, job: F)
where
    F: Fn(App) -> Fut + Send,
    Fut: Future<Output = Result<(), ServiceError>> + Send,
{
    let limit = SHORTEST_LIMIT.max(period * PERIODS_LIMIT);
    loop {
        // What went wrong has been logged.
        let _ = attempt_within(limit, name, job(app.clone())).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

/// Why a piece of work did not go well.
pub enum Failure {
    /// The database is away, or others were in the way: as it is, it may go well the next time.
    Passing,
    /// It would fail again: in these words.
    Lasting(String),
}

/// Runs one piece of work to its end. Nothing that it does can end the runner: a panic is a failure that lasts.
pub async fn attempt<T>(name: &'static str, work: impl Future<Output = Result<T, ServiceError>>) -> Result<T, Failure> {
    attempt_within(WORK_LIMIT, name, work).await
}

async fn attempt_within<T>(limit: Duration, name: &'static str, work: impl Future<Output = Result<T, ServiceError>>) -> Result<T, Failure> {
    // Boxed, for work is nested and its state large.
    let work = Box::pin(AssertUnwindSafe(work).catch_unwind());
    let Ok(done) = tokio::time::timeout(limit, work).await else {
        tracing::error!(job = name, "a job was cut off after {} s and will be tried again", limit.as_secs());
        return Err(Failure::Passing);
    };
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => {
            tracing::warn!(job = name, %error, "a job failed and will be tried again");
            Err(if error.is_passing() { Failure::Passing } else { Failure::Lasting(error.to_string()) })
        }
        Err(_) => {
            tracing::error!(job = name, "a job panicked and will be tried again");
            Err(Failure::Lasting("panicked".to_owned()))
        }
    }
}

/// The same for a few statements; true when it went well.
pub async fn guarded(name: &'static str, work: impl Future<Output = Result<(), ServiceError>>) -> bool {
    attempt_within(STATEMENTS_LIMIT, name, work).await.is_ok()
}

/// The same for work that waits for others, however long, until it fails.
pub async fn unending(name: &'static str, work: impl Future<Output = Result<(), ServiceError>>) {
    // What went wrong has been logged.
    let _ = attempt_within(Duration::MAX, name, work).await;
}

/// Carries out one delivery's work, in its span. A failure that lasts is counted by `fail`; any other leaves the message to come again.
pub async fn carry_out<Fail: Future<Output = Result<(), ServiceError>>>(
    name: &'static str,
    delivery: &Delivery,
    work: impl Future<Output = Result<(), ServiceError>>,
    fail: impl FnOnce(String) -> Fail,
) {
    let work = async {
        if let Err(Failure::Lasting(error)) = attempt(name, work).await {
            guarded(name, fail(error)).await;
        }
    };
    work.instrument(delivery.span.clone()).await;
}

/// Works on all items at once. When that fails in a way that lasts, it works on each by itself, so that one of them does no harm to its
/// neighbours, and has those counted by `fail` that fail alone, too. Each has a span, and what is done for all of them is part of one.
pub async fn all_or_each<T, R, Work, Fail>(
    name: &'static str,
    items: Vec<T>,
    span: impl Fn(&T) -> &Span,
    work: impl Fn(Vec<T>) -> Work,
    fail: impl Fn(T, String) -> Fail,
) -> Vec<R>
where
    T: Clone,
    Work: Future<Output = Result<Vec<R>, ServiceError>>,
    Fail: Future<Output = Result<(), ServiceError>>,
{
    let attempt_all = |items: Vec<T>| {
        let shared = telemetry::shared_span(name, items.iter().map(&span));
        attempt(name, work(items)).instrument(shared)
    };
    match attempt_all(items.clone()).await {
        Ok(done) => return done,
        Err(Failure::Passing) => return Vec::new(),
        Err(Failure::Lasting(_)) => {}
    }
    let mut done = Vec::new();
    for item in items {
        match attempt_all(vec![item.clone()]).await {
            Ok(more) => done.extend(more),
            Err(Failure::Passing) => {}
            Err(Failure::Lasting(error)) => {
                let span = span(&item).clone();
                guarded(name, fail(item, error)).instrument(span).await;
            }
        }
    }
    done
}

/// The deliveries of the one kind that a queue's job knows. Others are of a newer program: they are left for it, and come
/// again until it takes them.
pub fn of_kind(deliveries: Vec<Delivery>, kind: &'static str) -> Vec<Delivery> {
    let (known, unknown): (Vec<_>, Vec<_>) = deliveries.into_iter().partition(|delivery| delivery.kind == kind);
    for delivery in unknown {
        let _in_span = delivery.span.enter();
        tracing::error!(queue = %delivery.queue, kind = delivery.kind, "a message of a kind that this program does not know");
    }
    known
}

/// What a queue's runner needs to know.
pub struct QueueRunner {
    pub app: App,
    pub queue: Queue,
    pub batch: i32,
    /// Batches that are under way at the same time.
    pub at_once: usize,
    pub bell: Arc<Notify>,
    /// How many messages may be read now; `None` is any number.
    pub room: fn(&App) -> Option<u32>,
    pub stop: CancellationToken,
}

impl QueueRunner {
    /// Reads batches and hands them to `handle` until told to stop; a full batch reads on at once. Messages that cannot be
    /// read go to the dead letters. While there is no room, nothing is read. What has been read is finished before the runner stops, or cut
    /// and given back.
    pub async fn run<F, Fut>(self, handle: F)
    where
        F: Fn(App, Vec<Delivery>) -> Fut + Send,
        Fut: Future<Output = Result<(), ServiceError>> + Send + 'static,
    {
        let name = self.queue.as_str();
        let meter = self.app.metrics.queue(name);
        let under_way = TaskTracker::new();
        let places = Arc::new(Semaphore::new(self.at_once));
        while !self.stop.is_cancelled() {
            let Ok(place) = places.clone().acquire_owned().await else { break };
            let batch = (self.room)(&self.app).map_or(self.batch, |room| self.batch.min(room.try_into().unwrap_or(i32::MAX)));
            if batch == 0 {
                tokio::select! {
                    () = self.stop.cancelled() => break,
                    () = tokio::time::sleep(NO_ROOM) => continue,
                }
            }
            let mut deliveries = Vec::new();
            let went_well = guarded(name, async {
                deliveries = self.read(batch).await?;
                Ok(())
            })
            .await;
            let is_full = deliveries.len() >= usize::try_from(batch).unwrap_or_default();
            if !deliveries.is_empty() {
                let (held, at_work) = (self.held(&deliveries), meter.begin(deliveries.len()));
                let work = handle(self.app.clone(), deliveries);
                under_way.spawn(async move {
                    let (_place, _at_work) = (place, at_work);
                    held.during(attempt_within(BATCH_LIMIT, name, work)).await;
                });
            }
            if is_full {
                continue;
            }
            let jitter = rand::random_range(0..250);
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = self.bell.notified(), if went_well => {}
                () = tokio::time::sleep(POLL + Duration::from_millis(jitter)) => {}
            }
        }
        under_way.close();
        under_way.wait().await;
    }

    fn held(&self, deliveries: &[Delivery]) -> Held {
        let messages = deliveries.iter().map(|delivery| delivery.message_id).collect();
        Held { app: self.app.clone(), queue: self.queue, messages, stop: self.stop.clone() }
    }

    async fn read(&self, batch: i32) -> Result<Vec<Delivery>, ServiceError> {
        let visibility = self.app.config.jobs.visibility;
        let messages = store::queue::read(&mut *self.app.db.acquire().await?, self.queue, visibility, batch).await?;
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in messages {
            match message {
                Ok(delivery) => deliveries.push(delivery),
                Err(dead) => {
                    tracing::error!(
                        queue = %dead.queue,
                        message = dead.message_id,
                        reason = dead.reason,
                        "a message cannot be read: it is a dead letter now"
                    );
                    // Its neighbours go on when even that fails; it comes again.
                    guarded("dead letter", services::dead_letter::bury(&self.app, &dead)).await;
                }
            }
        }
        Ok(deliveries)
    }
}

/// Messages that a runner has read and works on.
struct Held {
    app: App,
    queue: Queue,
    messages: Vec<i64>,
    stop: CancellationToken,
}

impl Held {
    /// Keeps the messages hidden while the work lasts. Work that still runs some time after the order to stop is cut, and what it has not
    /// acknowledged is visible to others at once.
    async fn during<T>(self, work: impl Future<Output = T>) {
        let visibility = self.app.config.jobs.visibility;
        let hide_again = async {
            loop {
                tokio::time::sleep(visibility / 3).await;
                guarded("keep hidden", self.hide(visibility)).await;
            }
        };
        let cut = async {
            self.stop.cancelled().await;
            tokio::time::sleep(PATIENCE_AT_STOP).await;
        };
        tokio::select! {
            _ = work => {}
            () = hide_again => {}
            () = cut => {
                tracing::warn!(queue = %self.queue, "work was cut because the program stops; others take it up");
                guarded("give back", self.hide(Duration::ZERO)).await;
            }
        }
    }

    async fn hide(&self, visibility: Duration) -> Result<(), ServiceError> {
        Ok(store::queue::hide(&mut *self.app.db.acquire().await?, self.queue, &self.messages, visibility).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::store::StoreError;

    #[tokio::test]
    async fn a_panic_is_a_failure_that_lasts_and_a_database_that_is_away_passes() {
        let panics = async { panic!("on purpose") };
        assert!(matches!(attempt::<()>("test", panics).await, Err(Failure::Lasting(error)) if error == "panicked"));
        let away = async { Err::<(), _>(StoreError::Database(sqlx::Error::PoolTimedOut).into()) };
        assert!(matches!(attempt("test", away).await, Err(Failure::Passing)));
        let broken = async { Err::<(), _>(StoreError::Missing("row").into()) };
        assert!(matches!(attempt("test", broken).await, Err(Failure::Lasting(error)) if error == "no row"));
        assert!(guarded("test", async { Ok(()) }).await);
    }

    #[tokio::test]
    async fn work_that_never_ends_is_cut_off_and_tried_again() {
        let never = attempt_within::<()>(Duration::from_millis(1), "test", std::future::pending());
        assert!(matches!(never.await, Err(Failure::Passing)));
    }

    #[tokio::test]
    async fn one_that_panics_does_its_neighbours_no_harm_and_is_counted() {
        static NO_SPAN: Span = Span::none();
        fn span(_: &i32) -> &Span {
            &NO_SPAN
        }
        let counted = Mutex::new(Vec::new());
        let work = async |items: Vec<i32>| {
            assert!(!items.contains(&3), "on purpose");
            Ok(items)
        };
        let count = |item, error: String| {
            counted.lock().unwrap().push((item, error));
            std::future::ready(Ok(()))
        };

        assert_eq!(all_or_each("test", vec![1, 2, 3, 4], span, work, count).await, [1, 2, 4]);
        assert_eq!(*counted.lock().unwrap(), [(3, "panicked".to_owned())]);
        assert_eq!(all_or_each("test", vec![1, 2], span, work, count).await, [1, 2], "together, when nothing is wrong");
    }
}
