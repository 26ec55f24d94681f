//! `payment-simulator`: the provider's simulator on its own.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use super::serve::Running;
use crate::{config::Settings, simulator, telemetry};

/// The server's setting: both sides of an endpoint share its secret.
const WEBHOOK_SECRET: &str = "PAYMENT_WEBHOOK_SECRET";

#[derive(Args)]
pub struct PaymentSimulatorArgs {
    /// Keep it on loopback or a private network: its admin endpoints ask for no key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    #[command(flatten)]
    simulator: simulator::SimulatorOptions,
}

pub async fn run(args: PaymentSimulatorArgs) -> anyhow::Result<()> {
    let settings = Settings::environment();
    telemetry::start_log(&settings)?;
    let mut options = args.simulator;
    options.webhook_secret = options.webhook_secret.or_else(|| settings.get(WEBHOOK_SECRET).map(Into::into));
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("The payment simulator listens on http://{}", listener.local_addr()?);
    println!("Set PAYMENT_URL to it, and PAYMENT_SECRET_KEY to any key that begins with sk_test_.");
    let running = Running::start();
    simulator::serve(listener, options, running.stop.clone().cancelled_owned()).await?;
    Ok(())
}
