//! The judge's and the tester's endpoints, outside the provider's API and without a key: the ledger, the faults, the webhooks.
//! Meant for loopback or a private network. Owns: their shapes. Does not own: what they show (`ledger`, `faults`, `webhooks`).

use std::collections::BTreeMap;

use axum::{
    Json, Router,
    extract::{Query, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    Simulator,
    faults::{FaultScript, Operation},
    ledger::{Charge, LedgerSummary},
    scripts::{BadScript, ScriptState},
    webhooks::{WebhookCounts, WebhookEvent, WebhookScript},
};

const PAGE_DEFAULT: usize = 1_000;
const PAGE_MAX: usize = 10_000;

pub fn routes() -> Router<Simulator> {
    Router::new()
        .route("/admin/ledger", get(show_ledger))
        .route("/admin/faults", post(add_fault).get(show_faults).delete(clear_faults))
        .route("/admin/webhooks", post(add_webhook_script).get(show_webhooks).delete(clear_webhook_scripts))
        .route("/admin/webhooks/release", post(release_webhooks))
}

/// One charge as the judge sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LedgerLine {
    pub charge: String,
    pub payment_intent: String,
    pub order_id: Option<String>,
    pub metadata: BTreeMap<String, String>,
    /// In the currency's minor unit, as is `refunded`.
    pub amount: i64,
    pub refunded: i64,
    pub currency: String,
    pub created_ms: u64,
    pub idempotency_key: Option<String>,
}

impl From<&Charge> for LedgerLine {
    fn from(charge: &Charge) -> Self {
        Self {
            charge: charge.id.clone(),
            payment_intent: charge.facts.id.clone(),
            order_id: charge.order_id().map(str::to_owned),
            metadata: charge.facts.metadata.clone(),
            amount: charge.facts.amount,
            refunded: charge.refunded,
            currency: charge.facts.currency.clone(),
            created_ms: charge.created_ms,
            idempotency_key: charge.key.clone(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LedgerQuery {
    /// Only this order's charges, all of them.
    order_id: Option<String>,
    /// How many charges to pass over, oldest first.
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
}

#[derive(Serialize)]
struct LedgerAnswer {
    summary: LedgerSummary,
    calls: BTreeMap<Operation, u64>,
    charges: Vec<LedgerLine>,
    /// The offset to go on with, when there are more.
    next_offset: Option<usize>,
}

async fn show_ledger(State(simulator): State<Simulator>, Query(query): Query<LedgerQuery>) -> Json<LedgerAnswer> {
    let limit = query.limit.unwrap_or(PAGE_DEFAULT).min(PAGE_MAX);
    let book = simulator.book();
    let (charges, next_offset) = if let Some(order) = &query.order_id {
        (book.ledger.charges_of_order(order).into_iter().map(LedgerLine::from).collect(), None)
    } else {
        let rows = book.ledger.charges.rows();
        let next = query.offset.saturating_add(limit);
        let charges = rows.iter().skip(query.offset).take(limit).map(LedgerLine::from).collect();
        (charges, (next < rows.len()).then_some(next))
    };
    Json(LedgerAnswer { summary: book.ledger.summary(), calls: book.calls.clone(), charges, next_offset })
}

async fn add_fault(State(simulator): State<Simulator>, Json(script): Json<FaultScript>) -> Response {
    added(simulator.script(script))
}

fn added(result: Result<(), BadScript>) -> Response {
    match result {
        Ok(()) => StatusCode::CREATED.into_response(),
        Err(error) => unprocessable(&error),
    }
}

fn unprocessable(error: &impl ToString) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, Json(json!({ "error": error.to_string() }))).into_response()
}

#[derive(Serialize)]
struct FaultsAnswer {
    /// How many calls wait for the faults to be cleared.
    held: usize,
    scripts: Vec<ScriptState<FaultScript>>,
}

async fn show_faults(State(simulator): State<Simulator>) -> Json<FaultsAnswer> {
    let faults = simulator.faults();
    let held = *faults.held().borrow();
    Json(FaultsAnswer { held, scripts: faults.list() })
}

async fn clear_faults(State(simulator): State<Simulator>) -> StatusCode {
    simulator.clear_faults();
    StatusCode::NO_CONTENT
}

async fn add_webhook_script(State(simulator): State<Simulator>, Json(script): Json<WebhookScript>) -> Response {
    added(simulator.script_webhooks(script))
}

#[derive(Serialize)]
struct WebhooksAnswer {
    counts: WebhookCounts,
    /// Oldest first; they wait for their release.
    held: Vec<WebhookEvent>,
    scripts: Vec<ScriptState<WebhookScript>>,
}

async fn show_webhooks(State(simulator): State<Simulator>) -> Json<WebhooksAnswer> {
    let webhooks = &simulator.0.webhooks;
    Json(WebhooksAnswer { counts: webhooks.counts(), held: webhooks.held(), scripts: webhooks.scripts() })
}

async fn clear_webhook_scripts(State(simulator): State<Simulator>) -> StatusCode {
    simulator.clear_webhook_scripts();
    StatusCode::NO_CONTENT
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Release {
    /// Held events, in the order to deliver them in.
    ids: Vec<String>,
}

async fn release_webhooks(State(simulator): State<Simulator>, Json(release): Json<Release>) -> Response {
    match simulator.release_webhooks(&release.ids).await {
        Ok(delivered) => Json(json!({ "delivered": delivered })).into_response(),
        Err(error) => unprocessable(&error),
    }
}
