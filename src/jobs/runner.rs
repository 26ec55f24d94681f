//! How background work runs: repeatedly, until told to stop, whatever happens to the database.

use std::{future::Future, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    app::App,
    services::{self, ServiceError},
    store::{
        self,
        queue::{Delivery, Queue},
    },
};

/// Queues are polled this often when nobody rings, with up to a quarter of jitter.
const POLL: Duration = Duration::from_secs(1);

/// Runs a job now and then every `period`. A failure or a panic is logged and the job runs again.
pub async fn every<F, Fut>(period: Duration, name: &'static str, app: App, stop: CancellationToken, job: F)
where
    F: Fn(App) -> Fut + Send,
    Fut: Future<Output = Result<(), ServiceError>> + Send,
{
    loop {
        guarded(name, job(app.clone())).await;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(period) => {}
        }
    }
}

/// Runs one piece of work to its end; true when it went well. Nothing that it does can end the runner.
pub async fn guarded(name: &'static str, work: impl Future<Output = Result<(), ServiceError>>) -> bool {
    match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(())) => true,
        Ok(Err(error)) => {
            tracing::warn!(job = name, %error, "a job failed and will be tried again");
            false
        }
        Err(_) => {
            tracing::error!(job = name, "a job panicked and will be tried again");
            false
        }
    }
}

/// What a queue's runner needs to know.
pub struct QueueRunner {
    pub app: App,
    pub queue: Queue,
    pub batch: i32,
    pub bell: Arc<Notify>,
    pub stop: CancellationToken,
}

impl QueueRunner {
    /// Reads batches and hands them to `handle` until told to stop; a full batch reads on at once. Messages that cannot be
    /// read go to the dead letters. A batch that has been read is finished before the runner stops.
    pub async fn run<F, Fut>(self, handle: F)
    where
        F: Fn(App, Vec<Delivery>) -> Fut + Send,
        Fut: Future<Output = Result<(), ServiceError>> + Send,
    {
        let name = self.queue.as_str();
        while !self.stop.is_cancelled() {
            let mut full = false;
            let went_well = guarded(name, async {
                let deliveries = self.read().await?;
                full = deliveries.len() >= usize::try_from(self.batch).unwrap_or_default();
                if deliveries.is_empty() { Ok(()) } else { handle(self.app.clone(), deliveries).await }
            })
            .await;
            if full && went_well {
                continue;
            }
            let jitter = rand::random_range(0..250);
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.bell.notified(), if went_well => {}
                () = tokio::time::sleep(POLL + Duration::from_millis(jitter)) => {}
            }
        }
    }

    async fn read(&self) -> Result<Vec<Delivery>, ServiceError> {
        let visibility = self.app.config.jobs.visibility;
        let messages = store::queue::read(&mut *self.app.db.acquire().await?, self.queue, visibility, self.batch).await?;
        let mut deliveries = Vec::with_capacity(messages.len());
        for message in messages {
            match message {
                Ok(delivery) => deliveries.push(delivery),
                Err(unreadable) => {
                    tracing::error!(queue = %unreadable.queue, message = unreadable.message_id, reason = unreadable.reason, "a message cannot be read: it is a dead letter now");
                    services::dead_letter::bury(&self.app, &unreadable).await?;
                }
            }
        }
        Ok(deliveries)
    }
}
