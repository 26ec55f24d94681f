//! The circuit breakers before the payment provider, over all workers.

use chrono::TimeDelta;
use sqlx::PgConnection;

use super::ServiceError;
use crate::{
    app::App,
    clients::payment_gateway::Operation,
    domain::circuit_breaker::BreakerState,
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

/// Whether one of these calls mostly fails, in this process or, as far as they have told, in another one.
pub async fn is_ill(app: &App, db: &mut PgConnection, calls: &[Operation]) -> Result<bool, ServiceError> {
    if app.payment_gateway.breakers().any(|(call, seen)| calls.contains(&call) && seen.state != BreakerState::Closed) {
        return Ok(true);
    }
    let breakers = store::circuit_breaker::list_worst(db, app.clock.now() - FRESH).await?;
    let is_one_of = |breaker: &Breaker| calls.iter().any(|call| call.as_str() == breaker.operation);
    Ok(breakers.iter().any(|breaker| is_one_of(breaker) && breaker.state != BreakerState::Closed))
}

/// Forgets workers that are gone.
pub async fn forget(app: &App) -> Result<(), ServiceError> {
    store::circuit_breaker::delete_before(&mut *app.db.acquire().await?, app.clock.now() - FRESH).await?;
    Ok(())
}
