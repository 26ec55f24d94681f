//! `audit`: does the data keep every promise?

use std::process::ExitCode;

use clap::Args;
use comfy_table::Cell;

use super::{OperatorArgs, output};
use crate::services::audit::{self, AuditReport};

#[derive(Args)]
pub struct AuditArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn run(args: AuditArgs) -> anyhow::Result<ExitCode> {
    let report = audit::run(&args.operator.app()?).await?;
    if args.json {
        print_json(&report);
    } else {
        print_table(&report);
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_json(report: &AuditReport) {
    let invariants: Vec<_> = report
        .invariants
        .iter()
        .map(|invariant| serde_json::json!({ "name": invariant.name, "description": invariant.description, "violations": invariant.violations }))
        .collect();
    println!("{}", serde_json::json!({ "ok": report.is_clean(), "checkedAt": report.checked_at, "invariants": invariants }));
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
