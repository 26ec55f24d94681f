//! The table of contents of all background work.
//!
//! | job | trigger | what it does |
//! | --- | --- | --- |
//! | payment.rs | queue `payment` | charges orders and settles them |
//! | mail.rs | queue `mail` | sends mails |
//! | `expire_holds.rs` | every second | gives the units of unpaid orders back |
//! | `clean_up.rs` | every hour | forgets idempotency keys after a week |
//!
//! And for what a process keeps in memory; the clock in every process, the others in servers:
//!
//! | follow | every | what it reads |
//! | --- | --- | --- |
//! | clock | 10 s | the database's time |
//! | revocations | 1 s | sessions that have ended |
//! | orders | 1 s | versions of the orders that somebody listens to |
//! | sales | 250 ms | numbers of the sales that somebody watches |

mod clean_up;
mod expire_holds;
mod follow_clock;
mod mail;
mod payment;
mod runner;

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    services::{self, ServiceError},
};

/// Starts the job runners; they stop after `stop`, and finish what they have begun.
pub fn start_workers(app: &App, tasks: &TaskTracker, stop: &CancellationToken) {
    let app = app.for_jobs();
    tasks.spawn(payment::run(app.clone(), stop.clone()));
    tasks.spawn(mail::run(app.clone(), stop.clone()));
    tasks.spawn(runner::every(Duration::from_secs(1), "expire_holds", app.clone(), stop.clone(), expire_holds::run));
    tasks.spawn(runner::every(Duration::from_hours(1), "clean_up", app, stop.clone(), clean_up::run));
}

/// Puts this process on the database's time and keeps it there. The first reading is made before it returns.
///
/// # Errors
/// When the database cannot be asked.
pub async fn start_clock(app: &App, tasks: &TaskTracker, stop: &CancellationToken) -> Result<(), ServiceError> {
    follow_clock::run(app.for_jobs()).await?;
    tasks.spawn(runner::every(Duration::from_secs(10), "follow_clock", app.for_jobs(), stop.clone(), follow_clock::run));
    Ok(())
}

/// Starts what keeps a server's memory true. The first reading of the revocations is made before it returns, so that no
/// request is answered without them.
///
/// # Errors
/// When the database cannot be asked.
pub async fn start_followers(app: &App, tasks: &TaskTracker, stop: &CancellationToken) -> Result<(), ServiceError> {
    services::session::follow_revocations(app).await?;
    tasks.spawn(runner::every(Duration::from_secs(1), "follow_revocations", app.for_jobs(), stop.clone(), |app| async move {
        services::session::follow_revocations(&app).await
    }));
    tasks.spawn(runner::every(Duration::from_secs(1), "follow_orders", app.for_jobs(), stop.clone(), |app| async move {
        services::order_feed::poll(&app).await
    }));
    tasks.spawn(runner::every(Duration::from_millis(250), "follow_sales", app.for_jobs(), stop.clone(), |app| async move {
        services::sale_feed::poll(&app).await
    }));
    Ok(())
}
