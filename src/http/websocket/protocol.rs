//! The messages of graphql-transport-ws, and the subscriptions of one socket.
//!
//! Owns: what each message is answered with, and which of them the socket is closed for, as the reference implementation
//! (graphql-ws) does it. Does not own: the network, time.

use std::{net::IpAddr, sync::Arc};

use async_graphql::{Data, Executor, Request, Response as GraphQlResponse, ServerError};
use axum::extract::ws::{CloseFrame, Message};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{
    Stream, StreamExt, future,
    stream::{self, BoxStream},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio_stream::StreamMap;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::{BAD_REQUEST, FORBIDDEN, INTERNAL_ERROR, SUBSCRIBER_EXISTS, TOO_MANY_INITS, TRY_LATER, UNAUTHORIZED, close};
use crate::{
    app::App,
    auth::Viewer,
    http::{
        authentication::authenticate,
        graphql::{Api, could_not_run, error_body},
        sockets::{Owner, Place, Sockets},
    },
    metrics::Counted,
    resolvers::{
        context::{Caller, Transport, request_data},
        errors::ApiError,
    },
};

const MAX_SUBSCRIPTIONS: usize = 20;
/// Sockets whose tokens run out together are closed one after the other within this time.
const EXPIRY_SPREAD: TimeDelta = TimeDelta::seconds(29);

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ClientMessage {
    ConnectionInit {
        #[serde(default)]
        payload: Value,
    },
    Subscribe {
        id: String,
        payload: Box<Request>,
    },
    Complete {
        id: String,
    },
    Ping {
        payload: Option<Value>,
    },
    Pong,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ServerMessage<'a> {
    ConnectionAck,
    Next {
        id: &'a str,
        payload: GraphQlResponse,
    },
    /// The last of an operation that was not executed.
    Error {
        id: &'a str,
        payload: Value,
    },
    Complete {
        id: &'a str,
    },
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Value>,
    },
}

impl ServerMessage<'_> {
    fn frame(&self) -> Result<Message, CloseFrame> {
        serde_json::to_string(self).map(|text| Message::Text(text.into())).map_err(|error| {
            tracing::error!(%error, "a message could not be written");
            close(INTERNAL_ERROR, "something went wrong on our side")
        })
    }
}

/// Who a socket has said it is.
pub struct Client {
    /// With a time from which on the socket is closed.
    pub signed_in: Option<(Viewer, DateTime<Utc>)>,
    data: Arc<Data>,
    /// Among the sockets of its account.
    _place: Option<Place>,
}

/// One socket's side of the conversation.
pub struct Conversation {
    app: App,
    api: Api,
    address: IpAddr,
    sockets: Arc<Sockets>,
    client: Option<Client>,
    /// Each ends with a `None`.
    subscriptions: StreamMap<String, BoxStream<'static, Option<GraphQlResponse>>>,
}

/// What to send next, if anything; or what to close the socket with.
type Answer = Result<Option<Message>, CloseFrame>;

impl Conversation {
    pub fn new(app: App, api: Api, address: IpAddr, sockets: Arc<Sockets>) -> Self {
        Self { app, api, address, sockets, client: None, subscriptions: StreamMap::new() }
    }

    /// `None` before `connection_init`.
    pub const fn client(&self) -> Option<&Client> {
        self.client.as_ref()
    }

    pub fn receive(&mut self, message: &[u8]) -> Answer {
        let Ok(message) = serde_json::from_slice(message) else {
            return Err(close(BAD_REQUEST, "not a message of graphql-transport-ws"));
        };
        match message {
            ClientMessage::ConnectionInit { payload } => self.introduce(&payload),
            ClientMessage::Subscribe { id, payload } => self.subscribe(id, *payload),
            ClientMessage::Complete { id } => {
                self.subscriptions.remove(&id);
                Ok(None)
            }
            ClientMessage::Ping { payload } => ServerMessage::Pong { payload }.frame().map(Some),
            ClientMessage::Pong => Ok(None),
        }
    }

    fn introduce(&mut self, payload: &Value) -> Answer {
        if self.client.is_some() {
            return Err(close(TOO_MANY_INITS, "too many initialisation requests"));
        }
        let signed_in = authenticate(&self.app, authorization(payload)).map_err(|error| match error {
            ApiError::Unavailable(message) => close(TRY_LATER, message),
            _ => close(FORBIDDEN, error.message()),
        })?;
        let place = match signed_in {
            Some((viewer, _)) => {
                let place = self.sockets.enter(Owner::Account(viewer.customer));
                Some(place.ok_or_else(|| close(TRY_LATER, "too many sockets of this account"))?)
            }
            None => None,
        };
        let caller = Caller {
            viewer: signed_in.map(|(viewer, _)| viewer),
            user_agent: None,
            address: Some(self.address),
            transport: Transport::Socket,
        };
        self.client = Some(Client {
            signed_in: signed_in.map(|(viewer, expires_at)| (viewer, expires_at + EXPIRY_SPREAD * rand::random_range(0..=100) / 100)),
            data: Arc::new(request_data(&self.app, caller)),
            _place: place,
        });
        ServerMessage::ConnectionAck.frame().map(Some)
    }

    fn subscribe(&mut self, id: String, request: Request) -> Answer {
        let Some(client) = &self.client else {
            return Err(close(UNAUTHORIZED, "connection_init comes first"));
        };
        if self.subscriptions.contains_key(&id) {
            return Err(close(SUBSCRIBER_EXISTS, "there is a subscription with this id"));
        }
        if self.subscriptions.len() >= MAX_SUBSCRIPTIONS {
            let error = error_body(ApiError::BadRequest("At most 20 subscriptions at once on a socket."), Some(&self.api.request_id));
            return ServerMessage::Error { id: &id, payload: error.0["errors"].clone() }.frame().map(Some);
        }
        let responses = read_ahead(self.api.execute_stream(request, Some(client.data.clone())), self.api.request_id.clone());
        let counted = Counted::one(&self.app.metrics.streams);
        let responses = responses.inspect(move |_| {
            // Kept as long as the subscription is.
            let _ = &counted;
        });
        self.subscriptions.insert(id, responses.map(Some).chain(stream::once(future::ready(None))).boxed());
        Ok(None)
    }

    /// The next message of a subscription; never, while there is none.
    pub async fn next(&mut self) -> Result<Message, CloseFrame> {
        let Some((id, response)) = self.subscriptions.next().await else {
            return future::pending().await;
        };
        match response {
            Some(response) if could_not_run(&response) => {
                self.subscriptions.remove(&id);
                ServerMessage::Error { id: &id, payload: serde_json::json!(response.errors) }.frame()
            }
            Some(response) => ServerMessage::Next { id: &id, payload: response }.frame(),
            None => {
                self.subscriptions.remove(&id);
                ServerMessage::Complete { id: &id }.frame()
            }
        }
    }
}

/// The responses of a subscription, read in a task of its own: one that a slow client kept from going on amid a query would keep
/// its connection to the database, too. The next response is made when the last one has been taken, so that whoever reads slowly gets
/// the newest state and no backlog.
///
/// A read that panics, as a loader does whose time is over, is told as a fault: the end of the responses would look like success.
fn read_ahead(
    mut responses: impl Stream<Item = GraphQlResponse> + Send + Unpin + 'static,
    request_id: String,
) -> impl Stream<Item = GraphQlResponse> + Send {
    let (to_socket, from_task) = mpsc::channel(1);
    let read = async move {
        while let Ok(place) = to_socket.reserve().await
            && let Some(response) = responses.next().await
        {
            place.send(response);
        }
    };
    let task = AbortOnDropHandle::new(tokio::spawn(read.in_current_span()));
    stream::unfold(Some((from_task, task, request_id)), |reading| async {
        let (mut from_task, task, request_id) = reading?;
        if let Some(response) = from_task.recv().await {
            return Some((response, Some((from_task, task, request_id))));
        }
        let error = task.await.err()?;
        tracing::error!(%error, request_id, "a subscription broke");
        let mut fault = ServerError::from(ApiError::Internal);
        fault.extensions.get_or_insert_default().set("requestId", request_id);
        Some((GraphQlResponse::from_errors(vec![fault]), None))
    })
}

fn authorization(payload: &Value) -> Option<&str> {
    payload.get("Authorization").or_else(|| payload.get("authorization")).map(|value| value.as_str().unwrap_or("unreadable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_subscription_that_panics_ends_with_a_fault_and_one_that_is_over_does_not() {
        let answer = || GraphQlResponse::new(async_graphql::Value::Null);
        let whole = read_ahead(stream::iter([answer(), answer()]), "id".to_owned());
        assert!(whole.collect::<Vec<_>>().await.iter().all(|response| response.errors.is_empty()));

        let broken = stream::iter([1, 2]).map(move |number| if number == 1 { answer() } else { panic!("on purpose") });
        let told: Vec<_> = read_ahead(broken, "id".to_owned()).collect().await;
        assert_eq!(told.len(), 2);
        assert!(told[0].errors.is_empty() && could_not_run(&told[1]));
        let extensions = told[1].errors[0].extensions.as_ref().unwrap();
        assert_eq!(extensions.get("code"), Some(&"INTERNAL".into()));
        assert_eq!(extensions.get("requestId"), Some(&"id".into()));
    }
}
