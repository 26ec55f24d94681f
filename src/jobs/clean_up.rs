//! Forgets idempotency keys after a week. Trigger: the leader, every hour. Idempotent.

use chrono::TimeDelta;

use crate::{
    app::App,
    services::{ServiceError, idempotency},
};

const KEY_LIFETIME: TimeDelta = TimeDelta::days(7);

pub async fn run(app: &App) -> Result<(), ServiceError> {
    idempotency::forget_before(app, app.clock.now() - KEY_LIFETIME).await
}
