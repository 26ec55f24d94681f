//! `/graphql/ws`: subscriptions by the graphql-transport-ws protocol.
//!
//! Owns: the socket's life. Close codes are those that the reference client (graphql-ws) understands: 4400 for what is no
//! message, 4403 for a bad, expired or revoked token, 4408 when no `connection_init` came in time, 1012 when the server
//! restarts, 1013 when it cannot serve just now or the reader is too slow.

use std::{
    net::IpAddr,
    str::FromStr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_graphql::{
    Data,
    http::{WebSocket as Protocol, WebSocketProtocols, WsMessage},
};
use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket, rejection::WebSocketUpgradeRejection},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures_util::{SinkExt, StreamExt, future};

use super::{
    ClientAddress, HttpState, RequestId,
    authentication::{Authenticated, authenticate},
    graphql::Api,
};
use crate::{
    auth::revocations::SessionState,
    resolvers::{
        context::{Caller, request_data},
        errors::ApiError,
    },
};

const SUBPROTOCOL: &str = "graphql-transport-ws";
const INIT_TIMEOUT: Duration = Duration::from_secs(5);
/// A socket from which nothing has come for two of these, not even a pong, is dead.
const PING_EVERY: Duration = Duration::from_secs(25);
const SESSION_CHECK_EVERY: Duration = Duration::from_secs(1);
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest message of ours has 4 KiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

const BAD_REQUEST: u16 = 4400;
const FORBIDDEN: u16 = 4403;
const INIT_TIMED_OUT: u16 = 4408;
const RESTART: u16 = 1012;
const TRY_LATER: u16 = 1013;
/// What the library closes with when `connection_init` is refused or a message does not parse; the reference client would
/// never come back after it.
const LIBRARY_REFUSED: u16 = 1002;

pub async fn upgrade(
    State(state): State<HttpState>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    Extension(ClientAddress(address)): Extension<ClientAddress>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols([SUBPROTOCOL]).max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES),
        Err(rejection) => return rejection.into_response(),
    };
    if upgrade.selected_protocol().is_none_or(|protocol| protocol != SUBPROTOCOL) {
        return (StatusCode::BAD_REQUEST, "Use the WebSocket subprotocol graphql-transport-ws.").into_response();
    }
    let sockets = state.sockets.clone();
    upgrade.on_upgrade(move |socket| sockets.track_future(serve(state, request_id, address, socket)))
}

/// What is known of a socket's client.
#[derive(Default)]
struct Client {
    /// The answer to `connection_init`, once it came.
    init: OnceLock<Result<Option<Authenticated>, ApiError>>,
    /// Something has come since the last ping.
    is_alive: AtomicBool,
}

async fn serve(state: HttpState, request_id: String, address: IpAddr, socket: WebSocket) {
    let Ok(protocol) = WebSocketProtocols::from_str(SUBPROTOCOL) else { return };
    let client = Arc::new(Client::default());
    let (mut sink, incoming) = socket.split();
    let heard = client.clone();
    let incoming = incoming
        .take_while(|message| future::ready(message.is_ok()))
        .filter_map(|message| future::ready(message.ok()))
        .inspect(move |_| heard.is_alive.store(true, Ordering::Relaxed))
        .filter(|message| future::ready(matches!(message, Message::Text(_) | Message::Binary(_))))
        .map(Message::into_data)
        .boxed();

    let api = Api { schema: state.schema.clone(), request_id: request_id.clone() };
    let (app, introduced) = (state.app.clone(), client.clone());
    let outgoing = Protocol::new(api, incoming, protocol).on_connection_init(move |payload: serde_json::Value| async move {
        let init = authenticate(&app, authorization(&payload));
        let viewer = introduced.init.get_or_init(|| init).map(|signed_in| signed_in.map(|(viewer, _)| viewer));
        let caller = Caller {
            viewer: viewer.map_err(async_graphql::Error::from)?,
            user_agent: None,
            request_id: Some(request_id),
            address: Some(address),
        };
        Ok::<Data, async_graphql::Error>(request_data(&app, caller))
    });
    futures_util::pin_mut!(outgoing);

    let end = end_of_session(&state, &client);
    tokio::pin!(end);
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + PING_EVERY, PING_EVERY);
    client.is_alive.store(true, Ordering::Relaxed);
    loop {
        let message = tokio::select! {
            () = state.stop.cancelled() => close(RESTART, "the server restarts"),
            frame = &mut end => frame,
            _ = pings.tick() => {
                if !client.is_alive.swap(false, Ordering::Relaxed) {
                    return;
                }
                Message::Ping(axum::body::Bytes::new())
            }
            message = outgoing.next() => match message {
                Some(WsMessage::Text(text)) => Message::Text(text.into()),
                Some(WsMessage::Close(LIBRARY_REFUSED, _)) => refusal(&client),
                Some(WsMessage::Close(code, reason)) => Message::Close(Some(CloseFrame { code, reason: reason.into() })),
                None => return,
            },
        };
        let is_last = matches!(message, Message::Close(_));
        match tokio::time::timeout(SEND_TIMEOUT, sink.send(message)).await {
            Ok(Ok(())) if !is_last => {}
            _ => return,
        }
    }
}

/// Why the library has closed the socket, in codes that clients understand.
fn refusal(client: &Client) -> Message {
    match client.init.get() {
        Some(Err(error @ ApiError::Unavailable(_))) => close(TRY_LATER, error.message()),
        Some(Err(error)) => close(FORBIDDEN, error.message()),
        Some(Ok(_)) | None => close(BAD_REQUEST, "not a message of graphql-transport-ws"),
    }
}

/// Ends when the socket must: no `connection_init` in time, or the session of its token has ended or run out.
async fn end_of_session(state: &HttpState, client: &Client) -> Message {
    let deadline = tokio::time::Instant::now() + INIT_TIMEOUT;
    loop {
        tokio::time::sleep(SESSION_CHECK_EVERY).await;
        let now = state.app.clock.now();
        match client.init.get() {
            None if tokio::time::Instant::now() >= deadline => return close(INIT_TIMED_OUT, "connection_init did not come in time"),
            Some(Ok(Some((_, expires_at)))) if now >= *expires_at => {
                return close(FORBIDDEN, "the access token has expired: connect with a new one");
            }
            Some(Ok(Some((viewer, _)))) if state.app.revocations.state(viewer.session, now) == SessionState::Ended => {
                return close(FORBIDDEN, "the session has ended");
            }
            _ => {}
        }
    }
}

fn authorization(payload: &serde_json::Value) -> Option<&str> {
    payload.get("Authorization").or_else(|| payload.get("authorization")).map(|value| value.as_str().unwrap_or("unreadable"))
}

fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}
