//! Forgets idempotency keys after a week, and the provider's events after a month. Trigger: the leader, every hour. Idempotent.

use chrono::TimeDelta;

use crate::{
    app::App,
    services::{ServiceError, idempotency, webhook},
};

const KEY_LIFETIME: TimeDelta = TimeDelta::days(7);

pub async fn run(app: &App) -> Result<(), ServiceError> {
    webhook::forget(app).await?;
    idempotency::forget_before(app, app.clock.now() - KEY_LIFETIME).await
}
