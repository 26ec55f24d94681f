//! Compares the provider's list of charges with our payments, once a day. Trigger: every worker, every ten minutes; a lease lets one of
//! them. Idempotent: a break is kept once, and a question about a payment changes nothing that is known.

use crate::{
    app::App,
    services::{
        ServiceError,
        reconciliation::{self, ReconcileError},
    },
};

pub async fn run(app: App) -> Result<(), ServiceError> {
    match reconciliation::run_when_due(&app).await {
        Ok(()) => Ok(()),
        Err(ReconcileError::Service(error)) => Err(error),
        Err(ReconcileError::Gateway(error)) => {
            tracing::warn!(%error, "the comparison with the provider waits for the provider");
            Ok(())
        }
    }
}
