//! Talking to the provider about a try that was begun. Moves no row but the intent's id.

use std::collections::HashMap;

use chrono::{DateTime, Utc};

use super::{Answer, Begun};
use crate::{
    app::App,
    clients::payment_gateway::{GatewayError, Intent, IntentStatus, NewIntent},
    domain::ids::PaymentId,
    services::ServiceError,
    store,
};

const MISMATCH: &str = "The payment provider speaks of another amount, currency or order than was asked for.";

/// Makes the intent at the provider, unconfirmed, unless there is one. Moves no money and touches no row.
pub async fn create_intent(app: &App, mut begun: Begun) -> Result<Begun, (Begun, Answer)> {
    if begun.reference.is_some() {
        return Ok(begun);
    }
    if begun.is_unwanted {
        // No intent that could be confirmed is known, so no money can have moved.
        return Err((begun, Answer::Abandoned));
    }
    let new = NewIntent {
        amount_minor: begun.amount.minor,
        currency: begun.amount.currency.as_str(),
        payment_method: &begun.method,
        order_id: begun.order.0,
        attempt_id: begun.payment.0,
    };
    let key = begun.key("create");
    match in_time(app, begun.deadline, app.payment_gateway.create_intent(&key, &new)).await {
        Ok(intent) if is_ours(&begun, &intent) => {
            begun.reference = Some(intent.id);
            Ok(begun)
        }
        Ok(_) => Err((begun, Answer::ForPeople { note: MISMATCH })),
        Err(error) => Err((begun, answer_of_error(error))),
    }
}

/// Calls the provider in the rest of a step's time; afterwards the try may be another worker's.
async fn in_time<T>(app: &App, deadline: DateTime<Utc>, call: impl Future<Output = Result<T, GatewayError>>) -> Result<T, GatewayError> {
    let left = (deadline - app.clock.now()).to_std().unwrap_or_default();
    let late = |_| Err(GatewayError::unknown("the step took too long"));
    tokio::time::timeout(left, call).await.unwrap_or_else(late)
}

/// Notes the intents' ids, from here on the provider can be asked by id, and goes on with the one that is noted. One
/// statement.
pub async fn record_references(app: &App, begun: Vec<Begun>) -> Result<Vec<Begun>, ServiceError> {
    let new = |begun: &Begun| begun.reference.clone().filter(|_| !begun.is_noted).map(|reference| (begun.payment, reference));
    let references: Vec<_> = begun.iter().filter_map(new).collect();
    if references.is_empty() {
        return Ok(begun);
    }
    let noted = store::payment::update_references(&mut *app.db.acquire().await?, &references, app.clock.now()).await?;
    let mut noted: HashMap<PaymentId, String> = noted.into_iter().collect();
    let with_noted = |begun: Begun| match noted.remove(&begun.payment) {
        Some(reference) => Begun { reference: Some(reference), is_noted: true, ..begun },
        None => begun,
    };
    Ok(begun.into_iter().map(with_noted).collect())
}

/// Takes the money, once: asks first when another worker may have done so already. Touches no row.
pub async fn confirm(app: &App, begun: &Begun) -> Answer {
    let Some(reference) = begun.reference.as_ref().filter(|_| begun.is_noted) else {
        return Answer::open("no intent");
    };
    match in_time(app, begun.deadline, confirm_intent(app, begun, reference)).await {
        Ok(intent) => answer_of_intent(begun, intent),
        Err(GatewayError::WrongState { intent }) => answer_of_intent(begun, *intent),
        // It was made before, and the provider told us its id.
        Err(GatewayError::NotFound) => Answer::ForPeople { note: "The payment provider does not know the payment (any more)." },
        Err(error) if begun.is_overdue && !matches!(error, GatewayError::Declined { .. }) => {
            Answer::ForPeople { note: "The payment provider has not said for a day what became of the payment." }
        }
        Err(error) => answer_of_error(error),
    }
}

async fn confirm_intent(app: &App, begun: &Begun, reference: &str) -> Result<Intent, GatewayError> {
    if begun.resumed > 0 {
        let intent = app.payment_gateway.retrieve_intent(reference).await?;
        if begun.is_unwanted && !is_final(intent.status) {
            // If the money was taken meanwhile, that is the answer.
            return app.payment_gateway.cancel_intent(&begun.key("cancel"), reference).await;
        }
        if intent.status != IntentStatus::RequiresConfirmation {
            return Ok(intent);
        }
    }
    app.payment_gateway.confirm_intent(&begun.key("confirm"), reference, &begun.method).await
}

/// No more money can move, or it has moved.
const fn is_final(status: IntentStatus) -> bool {
    matches!(status, IntentStatus::Succeeded | IntentStatus::Canceled | IntentStatus::Processing)
}

fn is_ours(begun: &Begun, intent: &Intent) -> bool {
    intent.amount_minor == begun.amount.minor
        && intent.currency == begun.amount.currency.as_str()
        && intent.order_id == Some(begun.order.0)
        && intent.attempt_id == Some(begun.payment.0)
}

fn answer_of_intent(begun: &Begun, intent: Intent) -> Answer {
    if !is_ours(begun, &intent) {
        return Answer::ForPeople { note: MISMATCH };
    }
    match intent.status {
        IntentStatus::Succeeded if intent.received_minor == begun.amount.minor => Answer::Captured { label: intent.method_label },
        IntentStatus::Succeeded => Answer::ForPeople { note: MISMATCH },
        IntentStatus::RequiresAction => Answer::RequiresAction { url: intent.next_action_url },
        IntentStatus::RequiresPaymentMethod => {
            Answer::Declined { code: intent.failure_code.unwrap_or_else(|| "declined".to_owned()), label: intent.method_label }
        }
        IntentStatus::Canceled => Answer::Abandoned,
        IntentStatus::Processing | IntentStatus::RequiresConfirmation => Answer::open(format!("the intent is {:?}", intent.status)),
    }
}

fn answer_of_error(error: GatewayError) -> Answer {
    match error {
        GatewayError::Declined { code, method_label } => Answer::Declined { code, label: method_label },
        GatewayError::Rejected { .. } => Answer::Refused { reason: error.to_string() },
        other => Answer::Open { reason: other.to_string(), retry_after: other.retry_after() },
    }
}
