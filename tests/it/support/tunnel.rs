//! A way to the database that can swallow everything, as a network does that has lost a route: nobody is told.

use tokio::{
    io::copy_bidirectional,
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
