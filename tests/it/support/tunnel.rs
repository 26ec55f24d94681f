//! Ways to a server that are as bad as networks can be: one that can swallow everything, so that nobody is told, and a slow one.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy, copy_bidirectional},
    net::{TcpListener, TcpStream},
    sync::watch,
};

pub struct Tunnel {
    /// Counts the times that everything was swallowed.
    swallowed: watch::Sender<u32>,
}

impl Tunnel {
    /// A tunnel to the server of a database, and the database's URL through it.
    pub async fn to(database_url: &str) -> (Self, String) {
        let (before, rest) = database_url.rsplit_once('@').unwrap();
        let (server, name) = rest.split_once('/').unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("{before}@{}/{name}", listener.local_addr().unwrap());
        let swallowed = watch::Sender::new(0);
        tokio::spawn(forward(listener, server.to_owned(), swallowed.subscribe()));
        (Self { swallowed }, url)
    }

    /// Connections that are open now stay open, and nothing comes through them any more. New ones are as before.
    pub fn swallow(&self) {
        self.swallowed.send_modify(|count| *count += 1);
    }
}

async fn forward(listener: TcpListener, server: String, swallowed: watch::Receiver<u32>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let (server, mut swallowed) = (server.clone(), swallowed.clone());
        swallowed.mark_unchanged();
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(server).await else { return };
            tokio::select! {
                _ = copy_bidirectional(&mut near, &mut far) => {}
                // Held open, for as long as the test lasts.
                Ok(()) = swallowed.changed() => std::future::pending().await,
            }
        });
    }
}

/// The way to a server whose answers come late, each by `delay`.
pub async fn slow_way_to(server: String, delay: Duration) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let Ok(far) = TcpStream::connect(&server).await else { return };
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (near.into_split(), far.into_split());
            tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
            tokio::spawn(async move {
                let mut answer = vec![0; 65_536];
                while let Ok(length @ 1..) = from_server.read(&mut answer).await {
                    tokio::time::sleep(delay).await;
                    if to_client.write_all(&answer[..length]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}
