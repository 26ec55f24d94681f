//! `serve` and `work`, and how a process starts and stops.

use anyhow::Context;
use clap::Args;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    app::App,
    clock::Clock,
    config::{Config, MailTransport, Settings},
    http, jobs, store,
};

#[derive(Args)]
pub struct ServeArgs {
    /// Run the background jobs in this process too
    #[arg(long)]
    with_jobs: bool,
}

pub async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    let app = start_app()?;
    store::schema::check(&app.db).await?;
    let running = Running::start();
    jobs::start_clock(&app, &running.tasks, &running.stop).await?;
    jobs::start_followers(&app, &running.tasks, &running.stop).await?;
    if args.with_jobs {
        jobs::start_workers(&app, &running.tasks, &running.stop);
    }
    let address = app.config.http.listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    tracing::info!(%address, jobs = args.with_jobs, "serving");
    http::serve(listener, app, running.stop.clone()).await?;
    running.finish().await
}

pub async fn work() -> anyhow::Result<()> {
    let app = start_app()?;
    store::schema::check(&app.db).await?;
    let running = Running::start();
    jobs::start_clock(&app, &running.tasks, &running.stop).await?;
    jobs::start_workers(&app, &running.tasks, &running.stop);
    tracing::info!("working");
    running.stop.cancelled().await;
    running.finish().await
}

fn start_app() -> anyhow::Result<App> {
    let settings = Settings::environment();
    super::start_log(&settings)?;
    let config = Config::read(&settings, MailTransport::Smtp)?;
    Ok(App::new(config, Clock::system(), None)?)
}

/// A process that has been told to run until SIGINT or SIGTERM.
pub struct Running {
    pub stop: CancellationToken,
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
        Self { stop, tasks: TaskTracker::new() }
    }

    /// Waits until the background tasks have finished what they had begun, for [`http::DRAIN`] at most.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(http::DRAIN, self.tasks.wait()).await.is_err() {
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
