//! What one worker does for all: it takes the lease, renews it every three seconds, and works each second while it leads.
//!
//! Idempotent: every write checks the term, so that two who both believe to lead do no harm (race 24).

use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::{advance, clean_up, expire_holds, notify_wishers, runner::attempt, send_due};
use crate::{
    app::App,
    services::{
        ServiceError,
        leader::{self, Term},
        payment_pause,
    },
};

const RENEW_EVERY: Duration = Duration::from_secs(3);
const WORK_EVERY: Duration = Duration::from_secs(1);
const ADVANCE_EVERY: Duration = Duration::from_secs(10);
const CLEAN_UP_EVERY: Duration = Duration::from_hours(1);

pub async fn run(app: App, stop: CancellationToken) {
    let mut lead = Lead { app, term: None, renewed_at: None, advanced_at: None, cleaned_at: None };
    loop {
        lead.round().await;
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(WORK_EVERY) => {}
        }
    }
    if lead.term.is_some() {
        step("leader", leader::step_down(&lead.app)).await;
    }
}

struct Lead {
    app: App,
    term: Option<Term>,
    renewed_at: Option<Instant>,
    advanced_at: Option<Instant>,
    cleaned_at: Option<Instant>,
}

impl Lead {
    async fn round(&mut self) {
        let is_due = |last: Option<Instant>, every| last.is_none_or(|at| at.elapsed() >= every);
        if self.term.is_none() || is_due(self.renewed_at, RENEW_EVERY) {
            // Asked for before it is known: a failed renewal must not leave an old term believed in.
            self.term = None;
            if let Ok(term) = attempt("leader", leader::take_or_renew(&self.app)).await {
                self.term = term;
                self.renewed_at = Some(Instant::now());
            }
        }
        let Some(term) = self.term else { return };
        // Before holds end: what must wait for payments waits at once.
        step("payment_pause", payment_pause::update(&self.app, term)).await;
        step("expire_holds", expire_holds::run(&self.app, term)).await;
        step("send_due", send_due::run(&self.app, term)).await;
        step("notify_wishers", notify_wishers::run(&self.app, term)).await;
        if is_due(self.advanced_at, ADVANCE_EVERY) {
            step("advance", advance::run(&self.app, term)).await;
            self.advanced_at = Some(Instant::now());
        }
        if is_due(self.cleaned_at, CLEAN_UP_EVERY) && step("clean_up", clean_up::run(&self.app)).await {
            self.cleaned_at = Some(Instant::now());
        }
    }
}

/// Each by itself: one that fails, and is logged, keeps no other from its turn.
async fn step(name: &'static str, work: impl Future<Output = Result<(), ServiceError>>) -> bool {
    attempt(name, work).await.is_ok()
}
