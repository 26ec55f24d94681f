//! `seed`: sample data of any size.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::PathBuf,
};

use anyhow::Context;
use chrono::TimeDelta;
use clap::Args;

use super::{OperatorArgs, output};
use crate::services::seed;

#[derive(Args)]
#[command(after_help = "Examples:\n  whitemonday seed --products 1000\n  \
                        whitemonday seed --customers 100000 --tokens-out buyers.jsonl\n  \
                        whitemonday seed --sale-units 500 --per-customer-limit 2")]
pub struct SeedArgs {
    #[command(flatten)]
    operator: OperatorArgs,
    /// Fill the catalogue up to this many products
    #[arg(long, value_name = "N")]
    products: Option<usize>,
    /// Make this many verified customers with an address
    #[arg(long, value_name = "N", requires = "tokens_out")]
    customers: Option<usize>,
    /// Where their access tokens go, a JSON line each
    #[arg(long, value_name = "FILE", requires = "customers")]
    tokens_out: Option<PathBuf>,
    /// Make an open flash sale of this many units, and print its id as JSON
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    sale_units: Option<i32>,
    /// Units of that sale that one customer may have
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=999))]
    per_customer_limit: i32,
}

pub async fn run(args: SeedArgs) -> anyhow::Result<()> {
    let app = args.operator.app()?;
    let nothing_said = args.customers.is_none() && args.sale_units.is_none();
    if let Some(products) = args.products.or(nothing_said.then_some(200)) {
        let bar = output::progress(products as u64, "products");
        seed::catalogue(&app, products, |done| bar.set_position(done as u64)).await?;
        bar.finish_and_clear();
        eprintln!("The catalogue has at least {products} products.");
    }
    if let (Some(customers), Some(path)) = (args.customers, args.tokens_out) {
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut file = BufWriter::new(file);
        let mut written = Ok(());
        let bar = output::progress(customers as u64, "customers");
        seed::customers(&app, customers, |made| {
            bar.inc(made.len() as u64);
            if written.is_ok() {
                written = made.iter().try_for_each(|customer| writeln!(file, "{}", seed::json_line(customer)));
            }
        })
        .await?;
        bar.finish_and_clear();
        written.and_then(|()| file.flush()).with_context(|| format!("cannot write {}", path.display()))?;
        eprintln!("Made {customers} customers; their tokens are in {}.", path.display());
    }
    if let Some(units) = args.sale_units {
        let sale = seed::sale(&app, units, args.per_customer_limit, TimeDelta::zero()).await?;
        println!("{}", serde_json::json!({ "flashSaleId": sale.to_string() }));
    }
    Ok(())
}
