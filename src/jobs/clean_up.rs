//! Forgets idempotency keys after a week, the provider's events after a month, links that have expired, mails about sales that have closed,
//! changes of the catalogue that all servers have heard of, and what workers that are gone have left. Trigger: the leader, every hour. Idempotent.

use chrono::TimeDelta;

use crate::{
    app::App,
    services::{ServiceError, account, circuit_breaker, idempotency, mail, page_cache, retry, webhook},
};

const KEY_LIFETIME: TimeDelta = TimeDelta::days(7);

pub async fn run(app: &App) -> Result<(), ServiceError> {
    webhook::forget(app).await?;
    circuit_breaker::forget(app).await?;
    retry::forget(app).await?;
    page_cache::forget_changes(app).await?;
    account::forget_expired_links(app).await?;
    mail::forget_closed_sales(app).await?;
    idempotency::forget_before(app, app.clock.now() - KEY_LIFETIME).await
}
