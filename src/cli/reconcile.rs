//! `reconcile`: do the provider's charges and our payments say the same?

use std::process::ExitCode;

use anyhow::ensure;
use chrono::{DateTime, Utc};
use clap::Args;
use comfy_table::Cell;

use super::{OperatorArgs, output};
use crate::{
    services::reconciliation,
    store::reconciliation::{Break, Reconciliation},
};

/// Breaks that are shown.
const SHOWN: i64 = 1_000;

#[derive(Args)]
pub struct ReconcileArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Compare what was made from this time on, like 2026-11-24T00:00:00Z; 48 hours ago when left out
    #[arg(long, value_name = "TIME")]
    from: Option<DateTime<Utc>>,
    /// And before this time; 15 minutes ago when left out, because what is younger may still be under way
    #[arg(long, value_name = "TIME")]
    to: Option<DateTime<Utc>>,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn run(args: ReconcileArgs) -> anyhow::Result<ExitCode> {
    let app = args.operator.app()?;
    let (usual_from, usual_to) = reconciliation::usual_time(app.clock.now());
    let (from, to) = (args.from.unwrap_or(usual_from), args.to.unwrap_or(usual_to));
    ensure!(from < to, "--from must be before --to");
    let spinner = output::spinner("comparing");
    let done = reconciliation::run(&app, from, to, |count| spinner.set_position(count.unsigned_abs())).await?;
    spinner.finish_and_clear();
    let breaks = reconciliation::list_open_breaks(&app, SHOWN).await?;
    if args.json {
        println!("{}", json(&done, &breaks));
    } else {
        print(&done, &breaks);
    }
    Ok(if breaks.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(done: &Reconciliation, breaks: &[Break]) {
    println!(
        "{} charges and {} payments from {} to {} compared; {} do not fit.",
        done.charges,
        done.payments,
        done.created_from.format("%F %T UTC"),
        done.created_to.format("%F %T UTC"),
        done.breaks
    );
    if breaks.is_empty() {
        return;
    }
    let mut table = output::table(&["made at", "what", "provider's id", "order", "ours", "theirs", "currency"]);
    for found in breaks {
        table.add_row([
            Cell::new(found.made_at.format("%F %T")),
            output::verdict(false, found.kind),
            Cell::new(&found.reference),
            Cell::new(found.order_id.map(|id| id.to_string()).unwrap_or_default()),
            Cell::new(found.ours_minor),
            Cell::new(found.theirs_minor),
            Cell::new(&found.currency),
        ]);
    }
    println!("Not mended yet, amounts in minor units:\n{table}");
}

fn json(done: &Reconciliation, breaks: &[Break]) -> serde_json::Value {
    let list = breaks.iter().map(|found| {
        serde_json::json!({
            "kind": found.kind.as_str(), "reference": found.reference, "orderId": found.order_id.map(|id| id.to_string()),
            "currency": found.currency, "oursMinor": found.ours_minor, "theirsMinor": found.theirs_minor, "madeAt": found.made_at,
        })
    });
    serde_json::json!({
        "from": done.created_from, "to": done.created_to, "charges": done.charges, "payments": done.payments, "breaks": done.breaks,
        "open": list.collect::<Vec<_>>(),
    })
}
