//! Makes the units of sales that were scheduled; ends those that are over: calls the orders of cancelled ones off, and gives the units that
//! are left back to the ordinary stock. Trigger: the bell `sales_waiting`, and every so often; a lease each lets one worker.
//!
//! Idempotent: each chunk is a transaction that finds nothing to do the second time. Both may take minutes, so they are no steps of the
//! leader's, a new sale does not wait for the end of an old one, and they are dropped where they are when the program stops.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::runner::{guarded, unending};
use crate::{
    app::App,
    services::{ServiceError, flash_sale},
};

const MAKE_UNITS_EVERY: Duration = Duration::from_secs(1);
/// A look at a sale that waits for some order costs a scan of its units.
const END_SALES_EVERY: Duration = Duration::from_secs(5);

pub async fn run(app: App, stop: CancellationToken) {
    let make_units = repeat("make_units", &app, MAKE_UNITS_EVERY, || flash_sale::make_missing_units(&app));
    let end_sales = repeat("end_sales", &app, END_SALES_EVERY, || flash_sale::end_sales(&app));
    tokio::select! {
        () = stop.cancelled() => {}
        () = make_units => {}
        () = end_sales => {}
    }
    guarded("give_up_turns", flash_sale::give_up_turns(&app)).await;
}

/// Without the bell, another process has rung, or a sale has closed.
async fn repeat<Work: Future<Output = Result<(), ServiceError>>>(name: &'static str, app: &App, every: Duration, work: impl Fn() -> Work) {
    loop {
        // From before the work: a ring in its midst is not missed.
        let bell = app.sales_waiting.notified();
        unending(name, work()).await;
        let _ = tokio::time::timeout(every, bell).await;
    }
}
