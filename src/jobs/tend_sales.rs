//! Makes the units of sales that were scheduled, calls off the orders of sales that were cancelled, and gives the units that are left of
//! a sale back to the ordinary stock. Trigger: the bell `sales_waiting`, and every second; a lease lets one worker.
//!
//! Idempotent: each chunk is a transaction that finds nothing to do the second time. It may take minutes, so it is no step of the
//! leader's, and is dropped where it is when the program stops.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::runner::unending;
use crate::{app::App, services::flash_sale};

const LOOK_EVERY: Duration = Duration::from_secs(1);

pub async fn run(app: App, stop: CancellationToken) {
    let tend = async {
        loop {
            unending("tend_sales", flash_sale::tend(&app)).await;
            // Without the bell, another process has rung or a sale has closed.
            let _ = tokio::time::timeout(LOOK_EVERY, app.sales_waiting.notified()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = tend => {}
    }
}
