//! Keeps the program's clock on the database's time. Trigger: every ten seconds, in every process.

use crate::{
    app::App,
    services::{ServiceError, clock},
};

pub async fn run(app: App) -> Result<(), ServiceError> {
    clock::follow_database(&app).await
}
