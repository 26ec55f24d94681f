//! Makes the unit rows of sales that were scheduled, in chunks. Trigger: the leader, every second.
//!
//! Idempotent: it goes on after the last row that is there. A million rows take some seconds; holds that end meanwhile wait.

use crate::{
    app::App,
    services::{ServiceError, flash_sale},
};

pub async fn run(app: &App) -> Result<(), ServiceError> {
    flash_sale::make_missing_units(app).await
}
