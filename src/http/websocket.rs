//! `/graphql/ws`: subscriptions by the graphql-transport-ws protocol.
//!
//! Owns: who may open a socket, and its life: keep-alive, how long it may keep us waiting, when it ends. What is said on it
//! stands in `protocol.rs`, how many there may be in `sockets.rs`.
//!
//! Close codes are those of the reference client (graphql-ws). It comes back after
//! - 4403: the token is bad, expired (within 30 s, so that not all come back at once), or its session has ended;
//! - 4408: no `connection_init` within 5 s;
//! - 1012: the server restarts;
//! - 1013: too many sockets, a server that cannot check sessions just now, or a reader that kept a message waiting for 10 s.
//!
//! It gives up, as it is mistaken, after
//! - 4400: no message of the protocol; 4401: an operation before `connection_init`; 4409: an id that is in use; 4429: a second
//!   `connection_init`;
//! - 4500: a fault of ours;
//! - 1002: no frames of a WebSocket; 1007: text that is not UTF-8; 1009: a message of more than 64 KiB.

mod protocol;

use std::{net::IpAddr, sync::Arc, time::Duration};

use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, close_code, rejection::WebSocketUpgradeRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use tokio::time::{Instant, MissedTickBehavior, interval, interval_at, timeout};
use tracing::{Instrument, Span};

use self::protocol::Conversation;
use super::{
    ClientAddress, HttpState, RequestId,
    graphql::Api,
    sockets::{Owner, Place},
};
use crate::{auth::revocations::SessionState, config::HttpConfig, metrics::Counted};

const SUBPROTOCOL: &str = "graphql-transport-ws";
const INIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A socket from which nothing has come for two of these, not even a pong, is dead.
const PING_EVERY: Duration = Duration::from_secs(25);
const CHECK_EVERY: Duration = Duration::from_millis(500);
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client has to answer a close.
const FAREWELL: Duration = Duration::from_secs(1);
/// The largest message of ours has 4 KiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;
/// Each socket keeps a buffer of this size.
const READ_BUFFER_BYTES: usize = 4 * 1024;

const BAD_REQUEST: u16 = 4400;
const UNAUTHORIZED: u16 = 4401;
const FORBIDDEN: u16 = 4403;
const INIT_TIMED_OUT: u16 = 4408;
const SUBSCRIBER_EXISTS: u16 = 4409;
const TOO_MANY_INITS: u16 = 4429;
const INTERNAL_ERROR: u16 = 4500;
const TRY_LATER: u16 = close_code::AGAIN;

pub async fn upgrade(
    State(state): State<Arc<HttpState>>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    if !may_connect(&headers, &state.app.config.http) {
        return (StatusCode::FORBIDDEN, "This origin may not connect.").into_response();
    }
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols([SUBPROTOCOL]),
        Err(rejection) => return rejection.into_response(),
    };
    if upgrade.selected_protocol().is_none() {
        return (StatusCode::BAD_REQUEST, "Use the WebSocket subprotocol graphql-transport-ws.").into_response();
    }
    let upgrade = upgrade.read_buffer_size(READ_BUFFER_BYTES).max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES);
    let enter = |owner| state.sockets.enter(owner);
    // Both, or the client is told on the socket: browsers do not show why an upgrade has failed.
    let places = enter(Owner::Process).zip(enter(Owner::Address(address)));
    let tasks = state.socket_tasks.clone();
    let span = socket_span(&request_id);
    upgrade.on_upgrade(move |socket| tasks.track_future(serve(state, request_id, address, socket, places).instrument(span)))
}

/// For the log alone, as its target says: a trace that lasts for hours would tell nobody anything.
fn socket_span(request_id: &str) -> Span {
    tracing::info_span!(target: "socket", parent: None, "socket", trace_id = request_id)
}

/// Browsers say whose page connects. Other programs say nothing.
fn may_connect(headers: &HeaderMap, config: &HttpConfig) -> bool {
    let is_allowed = |origin: &HeaderValue| config.allowed_origins.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes());
    headers.get(header::ORIGIN).is_none_or(is_allowed)
}

async fn serve(state: Arc<HttpState>, request_id: String, address: IpAddr, mut socket: WebSocket, places: Option<(Place, Place)>) {
    let _counted = places.as_ref().map(|_| Counted::one(&state.app.metrics.sockets));
    let reason = match places {
        Some(_) => converse(&state, request_id, address, &mut socket).await,
        None => Some(close(TRY_LATER, "too many sockets")),
    };
    // Whatever the client has sent meanwhile is read: unread, it would make the system drop the close frame. Reading also answers
    // the close of a client.
    let farewell = async {
        let mut open = match reason {
            Some(reason) => socket.send(Message::Close(Some(reason))).await,
            None => Ok(()),
        };
        while open.is_ok()
            && let Some(heard) = socket.recv().await
        {
            open = heard.map(|_| ());
        }
    };
    // A client that does not answer has had its chance.
    let _ = timeout(FAREWELL, farewell).await;
}

/// Serves a socket until it ends: with what is to be told, or `None` when the client has closed it or is gone.
async fn converse(state: &HttpState, request_id: String, address: IpAddr, socket: &mut WebSocket) -> Option<CloseFrame> {
    let api = Api { schema: state.schema.clone(), request_id };
    let mut conversation = Conversation::new(state.app.clone(), api, address, state.sockets.clone());
    let opened_at = Instant::now();
    let mut pings = interval_at(opened_at + PING_EVERY, PING_EVERY);
    let mut checks = interval(CHECK_EVERY);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_alive = true;
    loop {
        let message = tokio::select! {
            () = state.stop.cancelled() => return Some(close(close_code::RESTART, "the server restarts")),
            _ = checks.tick() => match overdue(state, &conversation, opened_at) {
                Some(reason) => return Some(reason),
                None => continue,
            },
            _ = pings.tick() => {
                if !std::mem::take(&mut is_alive) {
                    return None;
                }
                Message::Ping(axum::body::Bytes::new())
            }
            received = socket.recv() => {
                is_alive = true;
                let answer = match received {
                    Some(Ok(Message::Text(text))) => conversation.receive(text.as_bytes()),
                    Some(Ok(Message::Binary(bytes))) => conversation.receive(&bytes),
                    // The library queues the pong by itself. Sent here it is waited for, so that nobody can fill the queue.
                    Some(Ok(Message::Ping(payload))) => Ok(Some(Message::Pong(payload))),
                    Some(Ok(Message::Pong(_))) => Ok(None),
                    Some(Ok(Message::Close(_))) | None => return None,
                    Some(Err(error)) => return Some(unreadable(error)),
                };
                match answer {
                    Ok(Some(message)) => message,
                    Ok(None) => continue,
                    Err(reason) => return Some(reason),
                }
            }
            news = conversation.next() => match news {
                Ok(message) => message,
                Err(reason) => return Some(reason),
            },
        };
        match timeout(SEND_TIMEOUT, socket.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return None,
            Err(_) => return Some(close(TRY_LATER, "too slow a reader")),
        }
    }
}

/// Why a socket has to end now, if it has to.
fn overdue(state: &HttpState, conversation: &Conversation, opened_at: Instant) -> Option<CloseFrame> {
    let Some(client) = conversation.client() else {
        return (opened_at.elapsed() >= INIT_TIMEOUT).then(|| close(INIT_TIMED_OUT, "connection_init did not come in time"));
    };
    let (viewer, ends_at) = client.signed_in?;
    let now = state.app.clock.now();
    if now >= ends_at {
        Some(close(FORBIDDEN, "the access token has expired: connect with a new one"))
    } else if state.app.revocations.state(viewer.session, now) == SessionState::Ended {
        Some(close(FORBIDDEN, "the session has ended"))
    } else {
        None
    }
}

/// What a client is told whose bytes make no message.
fn unreadable(error: axum::Error) -> CloseFrame {
    match error.into_inner().downcast_ref() {
        Some(tungstenite::Error::Capacity(_)) => close(close_code::SIZE, "at most 64 KiB a message"),
        Some(tungstenite::Error::Utf8(_)) => close(close_code::INVALID, "not UTF-8"),
        _ => close(close_code::PROTOCOL, "not a WebSocket frame"),
    }
}

fn close(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}
