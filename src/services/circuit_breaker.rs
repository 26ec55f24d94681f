//! The circuit breakers before the payment provider, over all workers.

use chrono::TimeDelta;

use super::ServiceError;
use crate::{
    app::App,
    store::{self, circuit_breaker::Breaker},
};

/// A worker that has not told anything for so long is gone.
const FRESH: TimeDelta = TimeDelta::seconds(10);

/// Tells the others how this process's breakers are. One statement.
pub async fn report(app: &App) -> Result<(), ServiceError> {
    let now = app.clock.now();
    let breakers: Vec<Breaker> = app
        .payment_gateway
        .breakers()
        .map(|(operation, seen)| Breaker {
            operation: operation.as_str().to_owned(),
            state: seen.state,
            failure_rate: seen.failure_rate,
            since: now - TimeDelta::from_std(seen.age).unwrap_or_default(),
        })
        .collect();
    store::circuit_breaker::upsert(&mut *app.db.acquire().await?, app.process, &breakers, now).await?;
    Ok(())
}

/// Each operation's breaker, as the worker has it that fares worst.
pub async fn list(app: &App) -> Result<Vec<Breaker>, ServiceError> {
    Ok(store::circuit_breaker::list_worst(&mut *app.db.acquire().await?, app.clock.now() - FRESH).await?)
}

/// Forgets workers that are gone.
pub async fn forget(app: &App) -> Result<(), ServiceError> {
    store::circuit_breaker::delete_before(&mut *app.db.acquire().await?, app.clock.now() - FRESH).await?;
    Ok(())
}
