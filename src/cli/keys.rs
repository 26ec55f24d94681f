//! `keys`: the secrets of a production configuration, made and changed.

use std::process::ExitCode;

use base64::{Engine, prelude::BASE64_STANDARD};
use clap::{Args, Subcommand};
use comfy_table::Cell;

use super::{OperatorArgs, output};
use crate::services::key_rotation::{self, RotatedColumn, RotatedIndex, Rotation};

/// Rows that are named, of those whose value does not open.
const SHOWN: usize = 20;

#[derive(Subcommand)]
pub enum KeysCommand {
    /// Print fresh keys as lines for the environment. Keep them: what they seal opens with nothing else
    Generate {
        /// The keys' number: after a key 1 comes a key 2
        #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
        number: u8,
    },
    /// Seal everything anew with the first sealing key, and index customers by the blind-index key, while the service runs; exit code 1
    /// when something is left. docs/OPERATIONS.md has the whole procedure
    Rotate(RotateArgs),
}

#[derive(Args)]
pub struct RotateArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub async fn run(command: KeysCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeysCommand::Generate { number } => {
            for (name, value) in fresh(number) {
                println!("{name}={value}");
            }
            Ok(ExitCode::SUCCESS)
        }
        KeysCommand::Rotate(args) => rotate(args).await,
    }
}

/// Fresh values for every variable that holds keys.
pub fn fresh(number: u8) -> [(&'static str, String); 3] {
    ["SEALING_KEYS", "BLIND_INDEX_KEY", "TOKEN_KEYS"]
        .map(|name| (name, format!("{number}:{}", BASE64_STANDARD.encode(rand::random::<[u8; 32]>()))))
}

async fn rotate(args: RotateArgs) -> anyhow::Result<ExitCode> {
    let app = args.operator.app()?;
    let bar = output::progress(0, "values");
    let rotation = key_rotation::run(&app, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await?;
    bar.finish_and_clear();
    let others: Vec<u8> = app.config.keys.sealing.iter().skip(1).map(|key| key.id).collect();
    if args.json {
        println!("{}", json(&rotation, &others));
    } else {
        print(&rotation, &others);
    }
    Ok(if rotation.is_complete() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print(rotation: &Rotation, others: &[u8]) {
    let mut table = output::table(&["column", "sealed anew", "values by key", "do not open"]);
    for column in &rotation.columns {
        table.add_row([
            Cell::new(column.column),
            Cell::new(column.resealed),
            Cell::new(by_key(column)),
            output::verdict(column.unreadable.is_empty(), column.unreadable.len()),
        ]);
    }
    println!("{table}");
    for column in &rotation.columns {
        for row in column.unreadable.iter().take(SHOWN) {
            println!("{} of row {row} does not open with any of SEALING_KEYS.", column.column);
        }
        if column.unreadable.len() > SHOWN {
            println!("{}: {} more; --json names all.", column.column, column.unreadable.len() - SHOWN);
        }
    }
    println!("Key {} of SEALING_KEYS seals.", rotation.active);
    for &key in others {
        let needing: Vec<_> = rotation.needing(key).map(|(column, count)| format!("{column} ({count})")).collect();
        if needing.is_empty() {
            println!("Key {key} may be removed from SEALING_KEYS, where no process seals with it any more.");
        } else {
            println!("Key {key} of SEALING_KEYS is still needed: {}. Run this again.", needing.join(", "));
        }
    }
    print_index(&rotation.index);
}

fn by_key(column: &RotatedColumn) -> String {
    let name = |key: Option<i32>| key.map_or("no key".to_owned(), |key| format!("key {key}"));
    let counts: Vec<_> = column.keys.iter().map(|count| format!("{}: {}", name(count.key), count.count)).collect();
    counts.join(", ")
}

fn print_index(index: &RotatedIndex) {
    println!("Made {} customers' indexes anew, of {} customers.", index.reindexed, index.counts.customers);
    for &key in &index.keys {
        println!("Key {key} of BLIND_INDEX_KEY indexes {}.", index.indexed_by(key));
    }
    if let ([first, second], true) = (index.keys.as_slice(), index.is_complete()) {
        println!("Either key may come first. Once key {second} does everywhere, key {first} may be removed; or the other way round.");
    }
}

fn json(rotation: &Rotation, others: &[u8]) -> serde_json::Value {
    let columns = rotation.columns.iter().map(|column| {
        let keys = column.keys.iter().map(|count| serde_json::json!({ "key": count.key, "values": count.count }));
        serde_json::json!({
            "column": column.column.to_string(), "resealed": column.resealed, "keys": keys.collect::<Vec<_>>(),
            "unreadable": column.unreadable,
        })
    });
    let removable: Vec<_> = others.iter().filter(|key| rotation.needing(**key).next().is_none()).collect();
    let index = &rotation.index;
    let keys = index.keys.iter().map(|&key| serde_json::json!({ "key": key, "indexed": index.indexed_by(key) }));
    serde_json::json!({
        "complete": rotation.is_complete(), "sealingKey": rotation.active, "columns": columns.collect::<Vec<_>>(),
        "removableSealingKeys": removable,
        "blindIndex": { "customers": index.counts.customers, "reindexed": index.reindexed, "keys": keys.collect::<Vec<_>>() },
    })
}
