//! `audit`: does the data keep every promise?

use std::{
    process::ExitCode,
    time::{Duration, Instant},
};

use clap::Args;
use comfy_table::Cell;
use serde_json::json;

use super::{OperatorArgs, duration, output};
use crate::{
    app::App,
    services::audit::{self, AuditReport, Sample},
};

#[derive(Args)]
pub struct AuditArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON instead of a table; with --watch, a line each time
    #[arg(long)]
    json: bool,
    /// Look again and again, without being in the way of a sale: at the newest orders each time, and at one invariant in full.
    /// Ends at Ctrl-C; exit code 1 when one was ever broken
    #[arg(long)]
    watch: bool,
    /// Time between two looks
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, requires = "watch")]
    every: Duration,
    /// End after this time
    #[arg(long = "for", value_name = "TIME", value_parser = duration::parse, requires = "watch")]
    lasting: Option<Duration>,
}

pub async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let app = args.operator.app()?;
    if args.watch {
        return Ok(code(watch(&app, &args).await?));
    }
    let report = audit::run(&app).await?;
    if args.json {
        print_json(&report);
    } else {
        print_table(&report);
    }
    Ok(code(report.is_clean()))
}

const fn code(is_clean: bool) -> ExitCode {
    if is_clean { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether no look found anything broken. A database that does not answer for a while is told of and asked again.
async fn watch(app: &App, args: &AuditArgs) -> anyhow::Result<bool> {
    let start = Instant::now();
    let mut ticks = tokio::time::interval(args.every.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut ctrl_c = std::pin::pin!(tokio::signal::ctrl_c());
    let (mut is_clean, mut looks) = (true, 0);
    while args.lasting.is_none_or(|lasting| start.elapsed() < lasting) {
        let sample = tokio::select! {
            ended = &mut ctrl_c => {
                ended?;
                break;
            }
            sample = async { ticks.tick().await; audit::sample(app, looks).await } => sample,
        };
        looks += 1;
        match sample {
            Ok(sample) => {
                is_clean &= sample.broken.is_empty();
                println!("{}", if args.json { json_of(&sample).to_string() } else { line(&sample) });
            }
            Err(error) => eprintln!("{}  no answer: {error}", app.clock.now().format("%H:%M:%S%.3f")),
        }
    }
    Ok(is_clean)
}

fn line(sample: &Sample) -> String {
    let verdict = if sample.broken.is_empty() {
        "ok".to_owned()
    } else {
        let broken = sample.broken.iter().map(|(name, count)| format!("{name} ({count})"));
        format!("BROKEN {}", broken.collect::<Vec<_>>().join(", "))
    };
    let (name, is_done) = sample.in_full;
    let in_full = if is_done { format!("{name} in full") } else { format!("{name} in full given up: it took too long") };
    format!("{}  {verdict}  {in_full}  {:.0} ms", sample.at.format("%H:%M:%S%.3f"), sample.took.as_secs_f64() * 1_000.0)
}

fn json_of(sample: &Sample) -> serde_json::Value {
    let broken: Vec<_> = sample.broken.iter().map(|(name, count)| json!({ "name": name, "violations": count })).collect();
    let (name, is_done) = sample.in_full;
    json!({
        "ok": broken.is_empty(), "checkedAt": sample.at, "milliseconds": sample.took.as_secs_f64() * 1_000.0, "broken": broken,
        "inFull": { "name": name, "done": is_done },
    })
}

fn print_json(report: &AuditReport) {
    let invariants: Vec<_> = report
        .invariants
        .iter()
        .map(|invariant| json!({ "name": invariant.name, "description": invariant.description, "violations": invariant.violations }))
        .collect();
    println!("{}", json!({ "ok": report.is_clean(), "checkedAt": report.checked_at, "invariants": invariants }));
}

fn print_table(report: &AuditReport) {
    let mut table = output::table(&["", "what must hold", "violations"]);
    for invariant in &report.invariants {
        let violations = output::verdict(invariant.violations == 0, invariant.violations);
        table.add_row(vec![Cell::new(invariant.name), Cell::new(invariant.description), violations]);
    }
    println!("{table}");
    println!("{}", if report.is_clean() { "Every invariant holds." } else { "Somebody must look: an invariant is broken." });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_is_one_line_that_names_what_is_broken() {
        let at = chrono::DateTime::from_timestamp_millis(45_296_789).unwrap();
        let mut sample = Sample { at, took: Duration::from_millis(12), broken: Vec::new(), in_full: ("I4", true) };
        assert_eq!(line(&sample), "12:34:56.789  ok  I4 in full  12 ms");
        sample.broken = vec![("I2", 3), ("I4", 1)];
        assert_eq!(line(&sample), "12:34:56.789  BROKEN I2 (3), I4 (1)  I4 in full  12 ms");
    }
}
