//! Carries changes of orders between processes. Trigger: a change in this process, or another one's ring.
//!
//! At most twenty rings a second, each with up to 300 orders. A ring that is lost or overflows costs a second: then the
//! followers compare versions anyhow.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::runner::{guarded, unending};
use crate::{
    app::App,
    services::{ServiceError, order_feed},
};

const BETWEEN_RINGS: Duration = Duration::from_millis(50);
const RECONNECT_AFTER: Duration = Duration::from_secs(1);

/// Rings for what this process has changed.
pub async fn ring(app: App, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = app.order_feed.changed() => {}
        }
        guarded("bell", order_feed::ring_others(&app)).await;
        tokio::time::sleep(BETWEEN_RINGS).await;
    }
}

/// Hears what other processes have changed.
pub async fn hear(app: App, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = unending("bell", listen(&app)) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(RECONNECT_AFTER) => {}
        }
    }
}

async fn listen(app: &App) -> Result<(), ServiceError> {
    let mut listener = order_feed::listener(app).await?;
    loop {
        order_feed::hear(app, &mut listener).await?;
    }
}
