//! `test-services`: a private database and Redis around a command, for tests.

use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Args;
use tokio::process::Command;

use crate::embedded::{EmbeddedOptions, EmbeddedServices};

/// Read by tests/it/support.
pub const DATABASE_VARIABLE: &str = "WHITEMONDAY_TEST_DATABASE_URL";
pub const REDIS_VARIABLE: &str = "WHITEMONDAY_TEST_REDIS_URL";

#[derive(Args)]
pub struct TestServicesArgs {
    /// Write to disk as a production database does: for benchmarks and crash tests
    #[arg(long)]
    durable: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

pub async fn run(args: TestServicesArgs) -> anyhow::Result<ExitCode> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let options = EmbeddedOptions { data_dir: folder.path().to_owned(), fresh: true, durable: args.durable, max_connections: 400 };
    let services = EmbeddedServices::start(&options).await?;
    let [program, arguments @ ..] = args.command.as_slice() else { bail!("a command is needed") };
    let status = Command::new(program)
        .args(arguments)
        .env(DATABASE_VARIABLE, services.database_url("postgres"))
        .env(REDIS_VARIABLE, services.redis_url())
        .status()
        .await
        .with_context(|| format!("cannot run {program}"));
    services.stop_and_delete().await?;
    Ok(if status?.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
