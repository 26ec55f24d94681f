//! The commands: parsing and wiring only. What they do lives in services, jobs and http.

mod audit;
mod browse;
mod dead_letters;
mod demo;
mod duration;
mod import;
mod keys;
mod migrate;
mod output;
mod payment_simulator;
mod reconcile;
mod seed;
mod serve;
mod staff;
mod stampede;
mod test_services;

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context;
use clap::{Args, Parser, Subcommand};

use crate::{
    app::App,
    clock::Clock,
    config::{Config, MailTransport, Settings},
};

#[derive(Parser)]
#[command(
    name = "whitemonday",
    version,
    about = "An engine for first-come-first-served sales: N units, a hundred thousand buyers, one opening second.",
    after_help = "First time here? `whitemonday demo` starts everything with sample data and needs no configuration.\n\
                  For production: set the variables of .env.example, then `migrate run`, `serve` and `work`."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start everything on this machine, with sample data: database, Redis, payment simulator, mailbox, server, jobs
    Demo(demo::DemoArgs),
    /// Serve the GraphQL API
    Serve(serve::ServeArgs),
    /// Run the background jobs: payments, mails, ends of holds
    Work,
    /// Bring the database's schema up to date, or look at it
    #[command(subcommand)]
    Migrate(migrate::MigrateCommand),
    /// Print the GraphQL schema
    Schema,
    /// Fill the catalogue with sample data; make test customers and sales
    Seed(seed::SeedArgs),
    /// Take in the products of another shop: the CSV that Shopify exports; exit code 1 when rows are refused
    Import(import::ImportArgs),
    /// Open a session for a customer and print its access token
    Token(staff::TokenArgs),
    /// Give an account a role
    GrantRole(staff::GrantRoleArgs),
    /// Make the secrets that a production configuration needs, and change them
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Look at messages that no worker could use, send them again, or discard them
    #[command(subcommand)]
    DeadLetters(dead_letters::DeadLettersCommand),
    /// Compare the payment provider's charges with our payments, both ways; exit code 1 when they differ
    Reconcile(reconcile::ReconcileArgs),
    /// Check every invariant of the data; exit code 1 when one is broken
    Audit(audit::AuditArgs),
    /// Measure how fast the catalogue is read: from the page cache, made anew, one product, search
    Browse(browse::BrowseArgs),
    /// Fire a flash sale's buyers at a server, and prove that nothing was oversold, lost, doubled or over a limit
    Stampede(stampede::StampedeArgs),
    /// Run the payment provider's simulator on its own
    PaymentSimulator(payment_simulator::PaymentSimulatorArgs),
    /// Run a command with a private database and Redis for tests
    #[command(after_help = "Example: whitemonday test-services -- cargo nextest run")]
    TestServices(test_services::TestServicesArgs),
}

/// For commands of operators, which act on a server's database.
#[derive(Args, Clone, Debug)]
struct OperatorArgs {
    /// Act on the demo that runs on this folder, instead of reading the configuration from the environment
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

impl OperatorArgs {
    fn settings(&self) -> anyhow::Result<Settings> {
        match &self.data_dir {
            None => Ok(Settings::environment()),
            Some(folder) => Settings::of_data_folder(folder)
                .with_context(|| format!("no demo has left its settings in {}: start `whitemonday demo` first", folder.display())),
        }
    }

    /// The program on the operator's settings, with the patience of jobs. Mail that it queues is sent by the running ones.
    fn app(&self) -> anyhow::Result<App> {
        let config = Config::read(&self.settings()?, MailTransport::Mailbox)?;
        Ok(App::new(config, Clock::system(), Some(std::sync::Arc::default()))?.for_jobs())
    }
}

/// Runs the command line.
pub async fn main() -> ExitCode {
    let command = Cli::parse().command;
    match Box::pin(run(command)).await {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Demo(args) => demo::run(args).await?,
        Command::Serve(args) => serve::serve(args).await?,
        Command::Work => serve::work().await?,
        Command::Migrate(command) => migrate::run(command).await?,
        Command::Schema => print!("{}", crate::resolvers::sdl()),
        Command::Seed(args) => seed::run(args).await?,
        Command::Import(args) => return import::run(args).await,
        Command::Token(args) => staff::token(args).await?,
        Command::GrantRole(args) => staff::grant_role(args).await?,
        Command::Keys(command) => return keys::run(command).await,
        Command::DeadLetters(command) => dead_letters::run(command).await?,
        Command::Reconcile(args) => return reconcile::run(args).await,
        Command::Audit(args) => return audit::run(args).await,
        Command::Browse(args) => return browse::run(args).await,
        Command::Stampede(args) => return Box::pin(stampede::run(args)).await,
        Command::PaymentSimulator(args) => payment_simulator::run(args).await?,
        Command::TestServices(args) => return test_services::run(args).await,
    }
    Ok(ExitCode::SUCCESS)
}
