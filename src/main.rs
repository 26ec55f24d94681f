//! The `whitemonday` command.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    whitemonday::cli::main().await
}
