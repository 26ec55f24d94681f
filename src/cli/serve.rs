//! `serve` and `work`, and how a process starts and stops.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context;
use clap::Args;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    clock::Clock,
    config::{Config, MailTransport, Settings},
    http, jobs, services, store,
    telemetry::Telemetry,
};

/// What is under way when the signal comes gets this long.
const DRAIN: Duration = Duration::from_secs(25);

#[derive(Args)]
pub struct ServeArgs {
    /// Run the background jobs in this process too
    #[arg(long)]
    with_jobs: bool,
}

pub async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let (app, telemetry) = start_app()?;
    raise_open_files();
    store::schema::check(&mut *app.db.acquire().await?).await?;
    services::key_rotation::check_email_index(&app).await?;
    let running = Running::start();
    if let Some(address) = app.config.http.metrics {
        running.show_metrics(listen(address).await?, &app);
    }
    jobs::start_common(&app, &running.tasks, &running.stop).await?;
    jobs::start_followers(&app, &running.tasks, &running.stop).await?;
    jobs::start_purchase_workers(&app, &running.tasks, &running.served);
    if args.with_jobs {
        jobs::start_workers(&app, &running.tasks, &running.stop);
    }
    let address = app.config.http.listen;
    let listener = listen(address).await?;
    tracing::info!(%address, jobs = args.with_jobs, "serving");
    running.serve(listener, app);
    running.finish().await?;
    telemetry.finish().await;
    Ok(())
}

pub async fn work() -> anyhow::Result<()> {
    let (app, telemetry) = start_app()?;
    store::schema::check(&mut *app.db.acquire().await?).await?;
    services::key_rotation::check_email_index(&app).await?;
    let running = Running::start();
    if let Some(address) = app.config.http.metrics {
        running.show_metrics(listen(address).await?, &app);
    }
    jobs::start_common(&app, &running.tasks, &running.stop).await?;
    jobs::start_workers(&app, &running.tasks, &running.stop);
    tracing::info!("working");
    running.finish().await?;
    telemetry.finish().await;
    Ok(())
}

fn start_app() -> anyhow::Result<(App, Telemetry)> {
    let settings = Settings::environment();
    let config = Config::read(&settings, MailTransport::Smtp)?;
    let telemetry = Telemetry::start(&settings)?;
    Ok((App::new(config, Clock::system(), None)?, telemetry))
}

async fn listen(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

/// Each connection is an open file: as many as the system lets us have.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit on open files stays as it is");
    }
}

/// A process that has been told to run until SIGINT or SIGTERM.
pub struct Running {
    pub stop: CancellationToken,
    /// The last request has been answered.
    pub served: CancellationToken,
    pub tasks: TaskTracker,
}

impl Running {
    /// Listens for the signals from now on.
    pub fn start() -> Self {
        let stop = CancellationToken::new();
        tokio::spawn({
            let stop = stop.clone();
            async move {
                if let Err(error) = stop_signal().await {
                    tracing::error!(%error, "cannot listen for signals");
                }
                stop.cancel();
            }
        });
        Self { stop, served: CancellationToken::new(), tasks: TaskTracker::new() }
    }

    /// Serves requests, as one of the tasks, until the signal.
    pub fn serve(&self, listener: TcpListener, app: App) {
        let (stop, served) = (self.stop.clone(), self.served.clone());
        self.tasks.spawn(async move {
            http::serve(listener, app, stop).await;
            served.cancel();
        });
    }

    /// Shows metrics and health on a port of their own until the process ends.
    pub fn show_metrics(&self, listener: TcpListener, app: &App) {
        tokio::spawn(http::serve_metrics(listener, app.clone(), self.stop.clone()));
    }

    /// Waits for the signal, then until every task has finished what it had begun, for [`DRAIN`] at most.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.stop.cancelled().await;
        self.tasks.close();
        if tokio::time::timeout(DRAIN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some work was cut off; it will be taken up again");
        }
        Ok(())
    }
}

async fn stop_signal() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
