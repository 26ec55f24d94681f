//! `payment-simulator`: the provider's simulator on its own.

use std::net::SocketAddr;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use super::serve::Running;
use crate::{config::Settings, simulator};

#[derive(Args)]
pub struct PaymentSimulatorArgs {
    /// Keep it on loopback or a private network: its admin endpoints ask for no key
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    #[command(flatten)]
    simulator: simulator::SimulatorOptions,
}

pub async fn run(args: PaymentSimulatorArgs) -> anyhow::Result<()> {
    super::start_log(&Settings::environment())?;
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    println!("The payment simulator listens on http://{}", listener.local_addr()?);
    println!("Set PAYMENT_URL to it, and PAYMENT_SECRET_KEY to any key that begins with sk_test_.");
    let running = Running::start();
    simulator::serve(listener, args.simulator, running.stop.clone().cancelled_owned()).await?;
    Ok(())
}
