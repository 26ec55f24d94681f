//! `migrate`: the schema's life.

use std::path::PathBuf;

use anyhow::{Context, bail};
use chrono::{DateTime, Utc};
use clap::Subcommand;

use super::{OperatorArgs, output};
use crate::{
    clock::Clock,
    config::DatabaseConfig,
    store::{self, schema::MigrationState},
};

#[derive(Subcommand)]
pub enum MigrateCommand {
    /// Install pgmq and its queues, then apply the migrations that are missing. Safe to run twice
    Run {
        #[command(flatten)]
        operator: OperatorArgs,
        /// Read the migrations from this folder instead of those built in; for development
        #[arg(long, value_name = "FOLDER")]
        from: Option<PathBuf>,
    },
    /// List the migrations and whether the database has them
    Status(OperatorArgs),
    /// Undo the newest migration. For development: data of its tables is lost
    Revert(OperatorArgs),
    /// Make a pair of files for a new migration
    New {
        /// What it does, in a few words: `add_gift_wrapping`
        name: String,
        #[arg(long, default_value = "migrations")]
        folder: PathBuf,
    },
}

pub async fn run(command: MigrateCommand) -> anyhow::Result<()> {
    match command {
        MigrateCommand::Run { operator, from } => {
            let pool = pool(&operator)?;
            let applied = match from {
                None => store::schema::run(&pool).await?,
                Some(folder) => store::schema::run_from(&pool, &folder).await?,
            };
            if applied.is_empty() {
                println!("The schema is up to date.");
            } else {
                for migration in applied {
                    println!("applied {} {}", migration.version, migration.description);
                }
            }
        }
        MigrateCommand::Status(args) => print_status(&store::schema::status(&pool(&args)?).await?),
        MigrateCommand::Revert(args) => {
            let reverted = store::schema::revert(&pool(&args)?).await?;
            println!("reverted {} {}", reverted.version, reverted.description);
        }
        MigrateCommand::New { name, folder } => new(&name, &folder, Clock::system().now())?,
    }
    Ok(())
}

fn pool(args: &OperatorArgs) -> anyhow::Result<sqlx::PgPool> {
    let config = DatabaseConfig::read(&args.settings()?)?;
    Ok(store::pool(&config.direct_url, 2, store::JOB_PATIENCE, "whitemonday migrate")?)
}

fn print_status(migrations: &[MigrationState]) {
    let mut table = output::table(&["version", "migration", "state"]);
    for migration in migrations {
        let state = if migration.applied { "applied" } else { "missing" };
        table.add_row(vec![
            comfy_table::Cell::new(migration.version),
            comfy_table::Cell::new(&migration.description),
            output::verdict(migration.applied, state),
        ]);
    }
    println!("{table}");
}

fn new(name: &str, folder: &std::path::Path, now: DateTime<Utc>) -> anyhow::Result<()> {
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
        bail!("a migration's name has lower-case letters, digits and underscores only");
    }
    let stem = folder.join(format!("{}_{name}", now.format("%Y%m%d%H%M%S")));
    let up = "-- Why:   \n-- Locks: \n-- Undo:  the down file.\n";
    let down = "-- Write how to undo it, or `-- irreversible` and why.\n";
    for (kind, content) in [("up", up), ("down", down)] {
        let path = stem.with_extension(format!("{kind}.sql"));
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        println!("made {}", path.display());
    }
    Ok(())
}
