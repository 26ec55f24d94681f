//! `import`: the products of another shop.

use std::{fs::File, path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::Args;
use serde_json::json;

use super::{OperatorArgs, output};
use crate::services::import::{self, Report};

#[derive(Args)]
#[command(
    after_help = "Run it again with a newer file: products are updated, not doubled.\nThe file wins over what staff have changed of them; the stock \
                        changes by the difference,\nso that what was sold stays sold.\n\nExamples:\n  \
                        whitemonday import products.csv --dry-run\n  whitemonday import products.csv --json > report.json"
)]
pub struct ImportArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// The CSV of products that Shopify exports
    file: PathBuf,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Print the report as JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn run(args: ImportArgs) -> anyhow::Result<ExitCode> {
    let app = args.operator.app()?;
    let file = File::open(&args.file).with_context(|| format!("cannot read {}", args.file.display()))?;
    let bar = output::progress(file.metadata()?.len(), "bytes");
    let report = import::shopify(&app, file, args.dry_run, |bytes| bar.set_position(bytes)).await;
    bar.finish_and_clear();
    if args.json {
        println!("{}", json_of(&report, args.dry_run));
    } else {
        print_report(&report, args.dry_run);
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn json_of(report: &Report, dry_run: bool) -> serde_json::Value {
    let refused: Vec<_> =
        report.refused.iter().map(|row| json!({ "line": row.line, "handle": row.handle, "reason": row.reason })).collect();
    json!({
        "ok": report.is_clean(), "dryRun": dry_run, "rows": report.rows, "created": report.created, "updated": report.updated,
        "unchanged": report.unchanged, "refusedRows": report.refused_rows, "refused": refused,
        "brokenOff": report.broken_off.as_ref().map(ToString::to_string),
    })
}

fn print_report(report: &Report, dry_run: bool) {
    if !report.refused.is_empty() {
        let mut table = output::table(&["line", "product", "why it was refused"]);
        for row in &report.refused {
            table.add_row([&row.line.to_string(), &row.handle, &row.reason]);
        }
        println!("{table}");
    }
    let further = report.refused_rows - report.refused.len();
    if further > 0 {
        println!("{further} further rows were refused.");
    }
    let (created, updated, unchanged) = (report.created, report.updated, report.unchanged);
    let would = if dry_run { "Nothing was done. Products that would be new" } else { "Products that are new" };
    println!(
        "{would}: {created}, changed: {updated}, as they were: {unchanged}. Rows read: {}, refused: {}.",
        report.rows, report.refused_rows
    );
    if let Some(error) = &report.broken_off {
        println!("The rest was not imported: {error}");
    }
}
