//! `/graphql/ws`: subscriptions by the graphql-transport-ws protocol.
//!
//! Close codes are those that the reference client (graphql-ws) understands: 4403 for a bad or expired token, 4408 when no
//! `connection_init` came in time, 1012 when the server restarts.

use std::{str::FromStr, time::Duration};

use async_graphql::{
    Data,
    http::{WebSocket as Protocol, WebSocketProtocols, WsMessage},
};
use axum::{
    Extension,
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, WebSocket},
    },
    http::StatusCode,
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use futures_util::{SinkExt, StreamExt, future};
use tokio::sync::oneshot;

use super::{HttpState, RequestId, authentication::authenticate, graphql::Api};
use crate::resolvers::{
    context::{Caller, request_data},
    errors::ApiError,
};

const SUBPROTOCOL: &str = "graphql-transport-ws";
const INIT_TIMEOUT: Duration = Duration::from_secs(5);
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// The largest message of ours has 4 KiB.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

const FORBIDDEN: u16 = 4403;
const INIT_TIMED_OUT: u16 = 4408;
const RESTART: u16 = 1012;
/// What the library closes with when `connection_init` is refused; the reference client would never come back.
const LIBRARY_REFUSED: u16 = 1002;

pub async fn upgrade(
    State(state): State<HttpState>,
    Extension(RequestId(request_id)): Extension<RequestId>,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade.protocols([SUBPROTOCOL]).max_message_size(MAX_MESSAGE_BYTES).max_frame_size(MAX_MESSAGE_BYTES),
        Err(rejection) => return rejection.into_response(),
    };
    if upgrade.selected_protocol().is_none_or(|protocol| protocol != SUBPROTOCOL) {
        return (StatusCode::BAD_REQUEST, "Use the WebSocket subprotocol graphql-transport-ws.").into_response();
    }
    upgrade.on_upgrade(move |socket| serve(state, request_id, socket))
}

async fn serve(state: HttpState, request_id: String, socket: WebSocket) {
    let Ok(protocol) = WebSocketProtocols::from_str(SUBPROTOCOL) else { return };
    let (mut sink, incoming) = socket.split();
    let incoming = incoming
        .take_while(|message| future::ready(message.is_ok()))
        .filter_map(|message| future::ready(message.ok()))
        .filter(|message| future::ready(matches!(message, Message::Text(_) | Message::Binary(_))))
        .map(Message::into_data)
        .boxed();

    let (accepted, init) = oneshot::channel();
    let api = Api { schema: state.schema.clone(), request_id: request_id.clone() };
    let app = state.app.clone();
    let outgoing =
        Protocol::new(api, incoming, protocol).keepalive_timeout(KEEP_ALIVE).on_connection_init(|payload: serde_json::Value| async move {
            let signed_in = authenticate(&app, authorization(&payload)).map_err(async_graphql::Error::from)?;
            let caller = Caller { viewer: signed_in.map(|(viewer, _)| viewer), user_agent: None, request_id: Some(request_id) };
            // Nobody waits for it any more when the socket is closing.
            let _ = accepted.send(signed_in.map(|(_, expires_at)| expires_at));
            Ok::<Data, async_graphql::Error>(request_data(&app, caller))
        });
    futures_util::pin_mut!(outgoing);

    let end = end_of_session(&state, init);
    tokio::pin!(end);
    loop {
        let message = tokio::select! {
            () = state.stop.cancelled() => close(RESTART, "the server restarts"),
            frame = &mut end => frame,
            message = outgoing.next() => match message {
                Some(WsMessage::Text(text)) => Message::Text(text.into()),
                Some(WsMessage::Close(LIBRARY_REFUSED, _)) => close(FORBIDDEN, ApiError::Unauthenticated.message()),
                Some(WsMessage::Close(code, reason)) => Message::Close(Some(CloseFrame { code, reason: reason.into() })),
                None => return,
            },
        };
        let is_last = matches!(message, Message::Close(_));
        if sink.send(message).await.is_err() || is_last {
            return;
        }
    }
}

/// Ends when the socket must: no `connection_init` in time, or the access token has run out.
async fn end_of_session(state: &HttpState, init: oneshot::Receiver<Option<DateTime<Utc>>>) -> Message {
    match tokio::time::timeout(INIT_TIMEOUT, init).await {
        Err(_) => close(INIT_TIMED_OUT, "connection_init did not come in time"),
        Ok(Ok(Some(expires_at))) => {
            let left = (expires_at - state.app.clock.now()).to_std().unwrap_or_default();
            tokio::time::sleep(left).await;
            close(FORBIDDEN, "the access token has expired: connect with a new one")
        }
        // Anonymous, or refused: nothing more to wait for.
        Ok(_) => future::pending().await,
    }
}

fn authorization(payload: &serde_json::Value) -> Option<&str> {
    payload.get("Authorization").or_else(|| payload.get("authorization")).map(|value| value.as_str().unwrap_or("unreadable"))
}

fn close(code: u16, reason: &str) -> Message {
    Message::Close(Some(CloseFrame { code, reason: reason.into() }))
}
