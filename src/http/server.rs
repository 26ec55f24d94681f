//! Connections: how many, how long they may be silent, and how they end.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{body::Body, http::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt::set_socket_send_buffer_size;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::front::Front;
use crate::app::App;

/// Before the listener is asked again after it failed, as it does when the process has no file descriptors left.
const AFTER_A_FAILED_ACCEPT: Duration = Duration::from_millis(100);

/// What the system keeps of an answer for a client that does not read. By itself it would take megabytes, on a WebSocket all of it old
/// news.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// Serves until `stop`, then finishes the requests that are under way and tells the sockets. The caller bounds the time.
pub async fn serve(listener: TcpListener, app: App, stop: CancellationToken) {
    let config = app.config.http.clone();
    let places = Arc::new(Semaphore::new(config.max_connections));
    let (connections, sockets) = (TaskTracker::new(), TaskTracker::new());
    let front = super::front(app, stop.clone(), sockets.clone());
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(config.idle_patience);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(connection) => connection,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(AFTER_A_FAILED_ACCEPT).await;
                continue;
            }
        };
        // One too many is closed by dropping it.
        let Ok(place) = places.clone().try_acquire_owned() else { continue };
        let connection = serve_connection(http.clone(), stream, peer, front.clone(), stop.clone());
        connections.spawn(async move {
            connection.await;
            drop(place);
        });
    }
    drop(listener);
    for tracker in [connections, sockets] {
        tracker.close();
        tracker.wait().await;
    }
}

async fn serve_connection(http: http1::Builder, stream: TcpStream, peer: SocketAddr, front: Front, stop: CancellationToken) {
    // Answers are small and whole: they need not wait for more.
    let prepared = stream.set_nodelay(true).and_then(|()| Ok(set_socket_send_buffer_size(&stream, SEND_BUFFER_BYTES)?));
    if let Err(error) = prepared {
        tracing::debug!(%error, "a connection has gone");
        return;
    }
    let service = service_fn(move |request: Request<Incoming>| front.clone().answer(peer, request.map(Body::new)));
    let mut connection = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
    }
}
