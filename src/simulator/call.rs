//! How one call runs: its key, its faults, the effect, the journal, the answer. Called by `api` only.
//! Does not own: what the effect is (`book`).

use std::time::Duration;

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{
        HeaderName, HeaderValue, StatusCode,
        header::{CONTENT_TYPE, RETRY_AFTER},
        request::Parts,
    },
    response::{IntoResponse, Response},
};

use super::{
    Simulator,
    book::{Book, Circumstances, Command},
    connection::Cut,
    faults::{Fault, Operation, Struck},
    idempotency::{Begun, Kept},
    params::Params,
    wire::{ApiError, Reply},
};

const KEY_MAX: usize = 255;

/// What a call brings besides its parameters.
pub struct Call {
    endpoint: String,
    key: Option<String>,
    cut: Cut,
}

impl<S: Send + Sync> FromRequestParts<S> for Call {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let key = match parts.headers.get("idempotency-key").map(HeaderValue::to_str) {
            None => None,
            Some(Ok(key)) if (1..=KEY_MAX).contains(&key.len()) => Some(key.to_owned()),
            Some(_) => return Err(ApiError::invalid("parameter_invalid", "", "Keys have 1 to 255 characters.")),
        };
        let cut = parts.extensions.get::<ConnectInfo<Cut>>().map(|ConnectInfo(cut)| cut.clone()).unwrap_or_default();
        Ok(Self { endpoint: parts.uri.path().to_owned(), key, cut })
    }
}

/// A key in use by this call; free again if the call ends without an answer to keep.
struct HeldKey {
    simulator: Simulator,
    key: Option<String>,
}

impl Drop for HeldKey {
    fn drop(&mut self) {
        if let Some(key) = &self.key {
            self.simulator.book().keys.abort(key);
        }
    }
}

/// What is left to do for a call whose key is looked up.
enum Work {
    Execute { command: Command, fingerprint: u64, key: HeldKey },
    Replay(Reply),
}

/// The call ends here, without its effect.
enum Refused {
    Error(ApiError, Option<u64>),
    HangUp,
}

impl Call {
    /// Runs a call that changes something. It goes on when the caller hangs up, as it would at the provider.
    pub async fn change(self, simulator: Simulator, operation: Operation, params: &Params, command: Command) -> Response {
        let fingerprint = params.fingerprint(&self.endpoint);
        let begun = simulator.book().begin(operation, self.key.as_deref(), fingerprint);
        let work = match begun {
            Begun::InFlight => return ApiError::key_in_flight().into_response(),
            Begun::OtherParameters => return ApiError::other_parameters().into_response(),
            Begun::Replay(reply) => Work::Replay(reply),
            Begun::Started => {
                let key = HeldKey { simulator: simulator.clone(), key: self.key };
                Work::Execute { command, fingerprint, key }
            }
        };
        let struck = simulator.faults().strike(operation, matches!(work, Work::Execute { .. }));
        let running = tokio::spawn(run(simulator, work, struck, self.cut));
        running.await.unwrap_or_else(|_| ApiError::internal().into_response())
    }

    /// Runs a call that only reads.
    pub async fn read(
        self,
        simulator: &Simulator,
        operation: Operation,
        find: impl FnOnce(&Book, &str) -> Result<Vec<u8>, ApiError>,
    ) -> Response {
        simulator.book().count(operation);
        let mut struck = simulator.faults().strike(operation, true);
        if let Err(refused) = before(simulator, struck.as_mut()).await {
            return refused.answer(&self.cut);
        }
        let answer = match struck.as_ref().map(|struck| &struck.fault) {
            Some(Fault::ErrorBefore | Fault::ErrorAfter) => ApiError::internal().into_response(),
            _ => match find(&simulator.book(), simulator.public_url()) {
                Ok(body) => json_response(StatusCode::OK, body),
                Err(error) => error.into_response(),
            },
        };
        after(answer, struck, &self.cut).await
    }
}

async fn run(simulator: Simulator, work: Work, mut struck: Option<Struck>, cut: Cut) -> Response {
    if let Err(refused) = before(&simulator, struck.as_mut()).await {
        return refused.answer(&cut);
    }
    let (reply, replayed) = match work {
        Work::Replay(reply) => (reply, true),
        Work::Execute { command, fingerprint, key } => {
            let fault = struck.as_ref().map(|struck| &struck.fault);
            (execute(&simulator, command, fingerprint, key, fault).await, false)
        }
    };
    let status = StatusCode::from_u16(reply.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json_response(status, reply.body(simulator.public_url()));
    if replayed {
        let name = HeaderName::from_static("idempotent-replayed");
        answer.headers_mut().insert(name, HeaderValue::from_static("true"));
    }
    after(answer, struck, &cut).await
}

/// The effect, the answer kept under the key and the journal's line: one step under the book's lock.
async fn execute(simulator: &Simulator, command: Command, fingerprint: u64, mut held: HeldKey, fault: Option<&Fault>) -> Reply {
    let decline = match fault {
        Some(Fault::Decline { decline_code }) => Some(decline_code.as_deref().unwrap_or("generic_decline")),
        _ => None,
    };
    let now_ms = super::now_ms();
    let (reply, written) = {
        let mut book = simulator.book();
        let (mut reply, mut changes) = if fault == Some(&Fault::ErrorBefore) {
            (Reply::Failed(ApiError::internal()), Vec::new())
        } else {
            book.execute(command, &Circumstances { now_ms, key: held.key.as_deref(), decline })
        };
        if fault == Some(&Fault::ErrorAfter) && reply.is_kept() {
            reply = Reply::Failed(ApiError::internal());
        }
        if reply.is_kept()
            && let Some(key) = held.key.take()
        {
            let kept = Kept { fingerprint, at_ms: now_ms, reply: reply.clone() };
            book.keep(key, kept, simulator.has_journal().then_some(&mut changes));
        }
        (reply, simulator.publish(&book, changes))
    };
    // `held` is dropped after the lock: freeing the key takes it again.
    drop(held);
    if let Some(written) = written
        && written.await.is_err()
    {
        return Reply::Failed(ApiError::internal());
    }
    reply
}

/// Everything that can happen before the effect.
async fn before(simulator: &Simulator, struck: Option<&mut Struck>) -> Result<(), Refused> {
    wait(simulator.latency()).await;
    let Some(struck) = struck else {
        return Ok(());
    };
    match struck.fault {
        Fault::Unavailable => Err(Refused::Error(ApiError::unavailable(), None)),
        Fault::RateLimit { retry_after_s } => Err(Refused::Error(ApiError::rate_limited(), retry_after_s)),
        Fault::DropBefore => Err(Refused::HangUp),
        Fault::DelayBefore { ms } => {
            wait(Duration::from_millis(ms)).await;
            Ok(())
        }
        Fault::HoldBefore => {
            struck.wait_for_clearing().await;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Everything that can happen to the answer.
async fn after(answer: Response, struck: Option<Struck>, cut: &Cut) -> Response {
    let Some(mut struck) = struck else {
        return answer;
    };
    match struck.fault {
        Fault::DelayAfter { ms } => wait(Duration::from_millis(ms)).await,
        Fault::HoldAfter => struck.wait_for_clearing().await,
        Fault::DropAfter => return hang_up(cut),
        _ => {}
    }
    answer
}

async fn wait(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

impl Refused {
    fn answer(self, cut: &Cut) -> Response {
        match self {
            Self::HangUp => hang_up(cut),
            Self::Error(error, retry_after_s) => {
                let mut response = error.into_response();
                if let Some(seconds) = retry_after_s {
                    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
                }
                response
            }
        }
    }
}

/// Ends the connection: the answer made here is never written.
fn hang_up(cut: &Cut) -> Response {
    cut.cut();
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

fn json_response(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        json_response(status, super::wire::bytes(&self.body()))
    }
}
