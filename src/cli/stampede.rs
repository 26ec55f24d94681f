//! `stampede`: the command line, and what is printed. The run itself is src/stampede/.

pub(super) mod field;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::Context;
use clap::Args;
use tokio_util::sync::CancellationToken;

use self::field::Field;
use super::{OperatorArgs, duration, keys, output};
use crate::{
    config::Settings,
    stampede::{Plan, buyers::QuantityMix, chart, load::Load, report::Report},
    telemetry,
};

#[derive(Args)]
#[command(
    after_help = "Without --url and --data-dir it starts a database, Redis, a payment simulator and a server of its own, and removes \
                        them in the end.\nThe speed means something in a release build only.\n\nExamples:\n  \
                        whitemonday stampede --compare --chart stampede.svg\n  \
                        whitemonday stampede --rate 500 --duration 60s\n  \
                        taskset -c 0 whitemonday stampede --generator-core 1 --overload 3\n  \
                        whitemonday stampede --data-dir .whitemonday --buyers 2000 --units 500"
)]
pub struct StampedeArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// The server to fire at; its database is the one that --data-dir or the environment names
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Customers who buy; they are made for the run
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = count())]
    buyers: u64,
    /// Customers made before, as `seed --tokens-out` writes them
    #[arg(long, value_name = "FILE", conflicts_with = "buyers")]
    tokens: Option<PathBuf>,
    /// Units of the sale
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(i32).range(1..=10_000_000))]
    units: i32,
    /// Units that one customer may have
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = clap::value_parser!(i32).range(1..=999))]
    per_customer_limit: i32,
    /// Units of a purchase: a number, or a range of which each number is asked for equally often
    #[arg(long, value_name = "Q", default_value = "1..3")]
    quantity: QuantityMix,
    /// Connections, each with one purchase at a time
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    in_flight: u16,
    /// How long to fire
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse)]
    duration: Duration,
    /// End after this many purchases
    #[arg(long, value_name = "N")]
    requests: Option<u64>,
    /// Purchases a second, whether or not the earlier ones are answered; latency then begins when a purchase is due
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,
    /// The core that the load generator keeps to; start the stampede by `taskset` on the others, and it takes nothing of theirs
    #[arg(long, value_name = "CORE")]
    generator_core: Option<usize>,
    /// So many of a hundred accepted purchases are sent again with the same key
    #[arg(long, value_name = "PERCENT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=100))]
    repeat: u32,
    /// Server processes to start, on one database and one Redis; connections are dealt out to them in turn
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5), conflicts_with_all = ["url", "data_dir"])]
    servers: u8,
    /// Nobody takes payments: the own servers run without jobs, and no settlement is waited for
    #[arg(long)]
    no_settlement: bool,
    /// How long to wait until all orders are settled
    #[arg(long, value_name = "TIME", default_value = "3m", value_parser = duration::parse)]
    settle_within: Duration,
    /// How long each of the other measurements lasts
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = duration::parse)]
    measure: Duration,
    /// Leave out the ceilings: what GraphQL and SQL do alone, the cheapest query, sold-out answers
    #[arg(long)]
    no_ceilings: bool,
    /// Then fire at so many times the speed that was reached: what is still sold, and how quick a refusal is
    #[arg(long, value_name = "TIMES", value_parser = clap::value_parser!(u8).range(2..=20))]
    overload: Option<u8>,
    /// Compare with other designs: the same purchases by a locked counter, by Redis, one by one
    #[arg(long)]
    compare: bool,
    #[command(flatten)]
    claims: ClaimCostArgs,
    /// Write everything as JSON; - is standard output, instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw throughput over time and latencies
    #[arg(long, value_name = "FILE.svg")]
    chart: Option<PathBuf>,
}

#[derive(Args)]
struct ClaimCostArgs {
    /// Measure what a claim costs at the first and the last units of a large sale, and beside old orders; takes some minutes
    #[arg(long)]
    claim_costs: bool,
    /// Units of the sale of --claim-costs
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(i32).range(100_000..=10_000_000))]
    claim_units: i32,
    /// Old orders of --claim-costs; 0 leaves that part out
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    old_orders: u32,
}

fn count() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=10_000_000)
}

impl StampedeArgs {
    fn plan(&self) -> Plan {
        Plan {
            units: self.units,
            per_customer_limit: self.per_customer_limit,
            quantity: self.quantity,
            load: Load {
                in_flight: self.in_flight.into(),
                duration: self.duration,
                rate: self.rate.map(f64::from),
                core: self.generator_core,
            },
            purchases: self.requests,
            repeat_percent: self.repeat,
            measure: self.measure,
            settle_within: (!self.no_settlement).then_some(self.settle_within),
            overload: self.overload.map(f64::from),
            servers: self.servers.into(),
        }
    }
}

pub async fn run(args: StampedeArgs) -> anyhow::Result<ExitCode> {
    telemetry::start_log(&Settings::environment().or("LOG", "warn"))?;
    let field = Field::open(&args).await?;
    let stop = stop_at_ctrl_c();
    let report = Box::pin(field.measure(&args, &stop)).await;
    field.close().await?;
    let report = report?;
    publish(&args, &report)?;
    Ok(if report.proof.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn stop_at_ctrl_c() -> CancellationToken {
    let stop = CancellationToken::new();
    tokio::spawn({
        let stop = stop.clone();
        async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                stop.cancel();
            }
        }
    });
    stop
}

fn publish(args: &StampedeArgs, report: &Report) -> anyhow::Result<()> {
    if let Some(path) = &args.chart {
        std::fs::write(path, chart::svg(report)).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let json = serde_json::to_string_pretty(&report.json())?;
    match &args.json {
        Some(path) if path.as_os_str() == "-" => {
            println!("{json}");
            return Ok(());
        }
        Some(path) => std::fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?,
        None => {}
    }
    print_tables(report);
    Ok(())
}

fn print_tables(report: &Report) {
    println!("{}", output::measured("stampede", report.rows()));
    if !report.compared.is_empty() {
        let mut table = output::table(&["design", "purchases a second", "of this engine's"]);
        table.add_rows(report.comparison());
        println!("{table}\n{}", report.comparison_form());
    }
    if !report.claim_costs.is_empty() {
        let mut table = output::table(&["a claim at …", "each", "of the first", "a new process's first batch"]);
        table.add_rows(report.claim_costs());
        println!("{table}\nBatches of 100 on one connection; the median of 60.");
    }
    let verdict = if report.proof.holds() {
        "Nothing was oversold, lost, doubled or over a limit."
    } else {
        "Somebody must look: a promise is broken."
    };
    println!("{verdict}");
}
