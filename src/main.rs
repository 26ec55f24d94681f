//! The `whitemonday` command.

use std::process::ExitCode;

/// A request makes some hundred small allocations, on one thread, and frees them on another: glibc's allocator took a fifth
/// of the server's time under load.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    whitemonday::cli::main().await
}
