//! `browse`: how fast the catalogue is read. The measurements are src/stampede/browse.rs.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;

use super::{duration, output, stampede::field::Field};
use crate::{
    config::Settings,
    services::seed,
    stampede::{
        browse::{self, Reads},
        load::Load,
    },
    store, telemetry,
};

#[derive(Args)]
#[command(
    after_help = "It starts a database, Redis and a server of its own, and removes them in the end.\nThe speed means something in a release \
                        build only.\n\nExamples:\n  whitemonday browse\n  whitemonday browse --products 1000000 --json -"
)]
pub struct BrowseArgs {
    /// Products of the catalogue
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    products: usize,
    /// Connections, each with one request at a time; searches go one by one
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    in_flight: u16,
    /// How long each measurement lasts
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration::parse)]
    duration: Duration,
    /// Write everything as JSON; - is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

pub async fn run(args: BrowseArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_log(&Settings::environment().or("LOG", "warn"))?;
    let field = Field::open_own().await?;
    let reads = Box::pin(measure(&field, &args)).await;
    field.close().await?;
    let reads = reads?;
    let json = serde_json::to_string_pretty(&reads.json())?;
    match &args.json {
        Some(path) if path.as_os_str() == "-" => println!("{json}"),
        Some(path) => std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?,
        None => println!("{}", output::measured("browse", reads.rows())),
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(field: &Field, args: &BrowseArgs) -> anyhow::Result<Reads> {
    let app = field.app();
    let bar = output::progress(args.products as u64, "products");
    seed::catalogue(app, args.products, |done| bar.set_position(done as u64)).await?;
    bar.finish_and_clear();
    store::scratch::settle_down(&mut *app.db.acquire().await?).await?;
    // All visitors come from one address here.
    let children = field.serve(&[("ADDRESS_PER_MINUTE", "0")], 1, false).await?;
    eprintln!("Reading …");
    let load = Load { in_flight: args.in_flight.into(), duration: args.duration, rate: None, core: None };
    let reads = browse::measure(app, &children.target, load, args.products).await;
    let log = children.log_tail();
    children.stop().await?;
    if !log.is_empty() {
        eprintln!("The server's log ends with:\n{log}");
    }
    Ok(reads?)
}
