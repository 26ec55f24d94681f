//! The one leader among all workers.

use std::time::Duration;

use super::ServiceError;
use crate::{
    app::App,
    store::{self, lease::LEADER},
};

/// A leader that is gone is followed after this.
const LEASE: Duration = Duration::from_secs(10);

/// The right to lead, under a number that rises with each new leader. Whatever a leader writes, it writes only while its
/// term stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term(pub i64);

/// Takes or renews the lease; `None` while another worker leads.
pub async fn take_or_renew(app: &App) -> Result<Option<Term>, ServiceError> {
    let term = store::lease::take(&mut *app.db.acquire().await?, LEADER, app.process, LEASE).await?;
    Ok(term.map(Term))
}

/// Steps down, so that another worker leads at once.
pub async fn step_down(app: &App) -> Result<(), ServiceError> {
    store::lease::end(&mut *app.db.acquire().await?, LEADER, app.process).await?;
    Ok(())
}
