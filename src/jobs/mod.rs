//! The table of contents of all background work.
//!
//! | job | trigger | what it does |
//! | --- | --- | --- |
//! | payment.rs | queue `payment` | charges orders and settles them |
//! | compensation.rs | queue `compensation` | gives money back |
//! | mail.rs | queue `mail` | sends mails |
//! | `tend_sales.rs` | when it rings, and every second | makes units; calls the orders of cancelled sales off; gives units that are left back |
//! | `send_due.rs` | every second | puts work whose pause is over back into its queue |
//! | pauses | every second | stop the clock of holds while payments cannot be taken |
//! | `notify_wishers.rs` | every second | writes mails about sales to those who wish for their products |
//! | `expire_holds.rs` | every second | gives the units of unpaid orders back |
//! | breakers | every second, each worker | tells how its circuit breakers are |
//! | `advance.rs` | every 10 s | moves paid and shipped orders on, where configured |
//! | `reconcile.rs` | every day | compares the provider's charges with our payments |
//! | audit.rs | every five minutes, or as configured | checks every invariant of the data |
//! | `clean_up.rs` | every hour | forgets idempotency keys after a week, and more |
//!
//! And for what a process keeps in memory; the clock in every process, the others in servers:
//!
//! | follow | every | what it reads |
//! | --- | --- | --- |
//! | clock | 10 s | the database's time |
//! | revocations | 1 s | sessions that have ended |
//! | orders | 1 s | versions of the orders that somebody listens to |
//! | bell.rs | when it rings | orders that another process has changed |
//! | sales | 250 ms | numbers of the sales that are on |
//! | pages | 250 ms | what has changed in the catalogue |
//! | limits | 1 s | what clients have tried at other servers, in Redis |
//! | sold-out flags | 1 s | whether sold-out sales still are |
//!
//! A server also runs the workers of the purchase batcher (services/purchase/batcher.rs), until its last request is answered.

mod advance;
mod audit;
mod bell;
mod clean_up;
mod compensation;
mod expire_holds;
mod follow_clock;
mod leader;
mod mail;
mod notify_wishers;
mod payment;
mod reconcile;
mod runner;
mod send_due;
mod tend_sales;

use std::time::Duration;

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    services::{self, ServiceError, purchase::batcher},
};

/// Starts the job runners; they stop after `stop`, and finish what they have begun.
pub fn start_workers(app: &App, tasks: &TaskTracker, stop: &CancellationToken) {
    let app = app.for_jobs();
    tasks.spawn(payment::run(app.clone(), stop.clone()));
    tasks.spawn(compensation::run(app.clone(), stop.clone()));
    tasks.spawn(mail::run(app.clone(), stop.clone()));
    tasks.spawn(tend_sales::run(app.clone(), stop.clone()));
    tasks.spawn(runner::every(Duration::from_secs(1), "report_breakers", app.clone(), stop.clone(), |app| async move {
        services::circuit_breaker::report(&app).await
    }));
    tasks.spawn(runner::every(Duration::from_mins(10), "reconcile", app.clone(), stop.clone(), reconcile::run));
    if let Some(period) = app.config.jobs.audit_every {
        tasks.spawn(audit::run(app.clone(), period, stop.clone()));
    }
    tasks.spawn(leader::run(app, stop.clone()));
}

/// What every process does: it puts itself on the database's time and stays there, and rings for the orders that it changes.
/// The first reading of the time is made before it returns.
///
/// # Errors
/// When the database cannot be asked.
pub async fn start_common(app: &App, tasks: &TaskTracker, stop: &CancellationToken) -> Result<(), ServiceError> {
    follow_clock::run(app.for_followers()).await?;
    tasks.spawn(runner::every(Duration::from_secs(10), "follow_clock", app.for_followers(), stop.clone(), follow_clock::run));
    tasks.spawn(bell::ring(app.for_followers(), stop.clone()));
    Ok(())
}

/// Starts what keeps a server's memory true. The first reading of the revocations is made before it returns, so that no
/// request is answered without them.
///
/// # Errors
/// When the database cannot be asked.
pub async fn start_followers(app: &App, tasks: &TaskTracker, stop: &CancellationToken) -> Result<(), ServiceError> {
    services::session::follow_revocations(&app.for_followers()).await?;
    services::sale_feed::poll(&app.for_followers()).await?;
    services::page_cache::follow(&app.for_followers()).await?;
    tasks.spawn(runner::every(Duration::from_secs(1), "follow_revocations", app.for_followers(), stop.clone(), |app| async move {
        services::session::follow_revocations(&app).await
    }));
    tasks.spawn(bell::hear(app.for_followers(), stop.clone()));
    tasks.spawn(runner::every(Duration::from_secs(1), "follow_orders", app.for_followers(), stop.clone(), |app| async move {
        services::order_feed::poll(&app).await
    }));
    tasks.spawn(runner::every(Duration::from_millis(250), "follow_sales", app.for_followers(), stop.clone(), |app| async move {
        services::sale_feed::poll(&app).await
    }));
    tasks.spawn(runner::every(Duration::from_millis(250), "follow_pages", app.for_followers(), stop.clone(), |app| async move {
        services::page_cache::follow(&app).await
    }));
    tasks.spawn(runner::every(Duration::from_secs(1), "share_limits", app.for_followers(), stop.clone(), |app| async move {
        services::rate_limit::share(&app).await
    }));
    tasks.spawn(runner::every(Duration::from_secs(1), "follow_sold_out", app.for_followers(), stop.clone(), |app| async move {
        services::purchase::sold_out::look_again(&app).await
    }));
    Ok(())
}

/// Starts the workers that place purchases. They stop after `served`, when no request is left that could wait for them.
pub fn start_purchase_workers(app: &App, tasks: &TaskTracker, served: &CancellationToken) {
    for number in 0..batcher::WORKERS {
        tasks.spawn(batcher::run(app.clone(), number, served.clone()));
    }
}
