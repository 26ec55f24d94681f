//! Audits the data now and then. Trigger: every worker, each `AUDIT_EVERY_SECONDS`; a lease lets one of them. It only reads.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::runner::{every, guarded};
use crate::{app::App, services::audit};

pub async fn run(app: App, period: Duration, stop: CancellationToken) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = every(period, "audit", app.clone(), stop.clone(), |app| async move { audit::run_in_turn(&app, period).await }) => {}
    }
    guarded("audit", audit::give_up_turn(&app)).await;
}
