//! `demo`: everything on one machine, from nothing to a first purchase.

use std::{
    collections::BTreeMap,
    io::Write,
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;

use super::{keys, serve::Running};
use crate::{
    app::App,
    clock::Clock,
    config::{Config, MailTransport, SETTINGS_FILE, Settings},
    domain::customer::Role,
    embedded::{self, EmbeddedOptions, EmbeddedServices},
    jobs,
    services::seed::{self, DemoAccount},
    simulator::{Simulator, SimulatorOptions},
    store,
    telemetry::Telemetry,
};

const PRODUCTS: usize = 200;
const CUSTOMER: DemoAccount<'_> = DemoAccount { email: "customer@whitemonday.example", name: "김하늘", role: Role::Customer };
const STAFF: DemoAccount<'_> = DemoAccount { email: "staff@whitemonday.example", name: "Sam Park", role: Role::Staff };
const PASSWORD: &str = "DEMO_PASSWORD";
/// It protects nothing: the simulator's events only make the demo ask the simulator.
const WEBHOOK_SECRET: &str = "whsec_demo";

#[derive(Args)]
pub struct DemoArgs {
    /// Where the server listens, on 127.0.0.1; 0 takes a free port
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Where the demo keeps its data and keys
    #[arg(long, value_name = "DIR", default_value = ".whitemonday")]
    data_dir: PathBuf,
    /// Start over: forget all data of earlier runs
    #[arg(long)]
    fresh: bool,
}

pub async fn run(args: DemoArgs) -> anyhow::Result<()> {
    let telemetry = Telemetry::start(&quiet_by_default())?;
    let wanted = SocketAddr::from(([127, 0, 0, 1], args.port));
    let listener = TcpListener::bind(wanted).await.with_context(|| format!("cannot listen on {wanted}: choose another --port"))?;
    let address = listener.local_addr()?;
    let metrics = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on 127.0.0.1")?;
    let running = Running::start();

    println!("Starting PostgreSQL and Redis in {} …", args.data_dir.display());
    let options = EmbeddedOptions { data_dir: args.data_dir.clone(), fresh: args.fresh, durable: true, max_connections: 100 };
    let services = EmbeddedServices::start(&options).await?;
    let journal = args.data_dir.join("payments.jsonl");
    if args.fresh && journal.exists() {
        std::fs::remove_file(&journal)?;
    }
    let options = SimulatorOptions {
        state_file: Some(journal),
        webhook_url: Some(format!("http://{address}/webhooks/stripe")),
        webhook_secret: Some(WEBHOOK_SECRET.into()),
        ..SimulatorOptions::default()
    };
    let simulator = Simulator::start(SocketAddr::from(([127, 0, 0, 1], 0)), options).await?;

    let addresses = Addresses { server: address, metrics: metrics.local_addr()?, payments: &simulator.url };
    let settings = settings(&args, &addresses, &services)?;
    let config = Config::read(&Settings::fixed(settings.clone()), MailTransport::Mailbox)?;
    let app = App::new(config, Clock::system(), Some(Arc::default()))?;
    store::schema::run(&app.db).await?;
    jobs::start_common(&app, &running.tasks, &running.stop).await?;
    jobs::start_followers(&app, &running.tasks, &running.stop).await?;
    jobs::start_purchase_workers(&app, &running.tasks, &running.served);
    jobs::start_workers(&app, &running.tasks, &running.stop);
    running.serve(listener, app.clone());
    running.show_metrics(metrics, &app);

    let password = settings.get(PASSWORD).map(String::as_str).unwrap_or_default();
    seed::catalogue(&app, PRODUCTS, |_| ()).await?;
    seed::account(&app, &CUSTOMER, password).await?;
    seed::account(&app, &STAFF, password).await?;
    seed::demo_sales(&app).await?;
    print_ready(&addresses, &settings);

    running.finish().await?;
    println!("\nStopped.");
    simulator.stop().await?;
    services.stop().await?;
    telemetry.finish().await;
    Ok(())
}

/// The demo's screen is for its addresses: warnings only, unless LOG says otherwise.
fn quiet_by_default() -> Settings {
    Settings::environment().or("LOG", "warn")
}

/// Where things listen.
struct Addresses<'a> {
    server: SocketAddr,
    metrics: SocketAddr,
    /// The payment simulator's URL.
    payments: &'a str,
}

/// The settings of this run, written down for operators' commands. Keys and password stay those of earlier runs.
fn settings(args: &DemoArgs, addresses: &Addresses<'_>, services: &EmbeddedServices) -> anyhow::Result<BTreeMap<String, String>> {
    let Addresses { server, metrics, payments } = addresses;
    let earlier = if args.fresh { None } else { Settings::of_data_folder(&args.data_dir).ok() };
    let kept = |name: &str, fresh: String| earlier.as_ref().and_then(|settings| settings.get(name)).unwrap_or(fresh);
    let mut settings: BTreeMap<String, String> =
        keys::fresh(1).into_iter().map(|(name, fresh)| (name.to_owned(), kept(name, fresh))).collect();
    settings.insert(PASSWORD.to_owned(), kept(PASSWORD, format!("white-monday-{}", rand::random_range(100_000..1_000_000))));
    settings.extend(
        [
            ("DATABASE_URL", services.database_url(embedded::DATABASE)),
            ("REDIS_URL", services.redis_url()),
            ("LISTEN", server.to_string()),
            ("METRICS_ADDRESS", metrics.to_string()),
            ("PUBLIC_URL", format!("http://{server}")),
            // A person may type that name as well; its pages could not open sockets otherwise.
            ("ALLOWED_ORIGINS", format!("http://localhost:{}", server.port())),
            ("DEVELOPER_TOOLS", "on".to_owned()),
            // Everybody comes from this machine.
            ("ADDRESS_PER_MINUTE", "0".to_owned()),
            ("PAYMENT_URL", (*payments).to_owned()),
            ("PAYMENT_SECRET_KEY", "sk_test_demo".to_owned()),
            ("PAYMENT_WEBHOOK_SECRET", WEBHOOK_SECRET.to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    write_settings(&args.data_dir.join(SETTINGS_FILE), &settings)?;
    Ok(settings)
}

/// Only the owner may read it: it holds keys. Written beside and renamed, so that a kill leaves the old file or the new.
fn write_settings(path: &Path, settings: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let beside = path.with_extension("new");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    for (name, value) in settings {
        writeln!(file, "{name}={value}")?;
    }
    file.sync_all()?;
    std::fs::rename(&beside, path)?;
    Ok(())
}

fn print_ready(Addresses { server, metrics, payments }: &Addresses<'_>, settings: &BTreeMap<String, String>) {
    let setting = |name: &str| settings.get(name).map(String::as_str).unwrap_or_default();
    println!(
        "ready\n\
         \x20 GraphiQL    http://{server}/\n\
         \x20 API         http://{server}/graphql   ws://{server}/graphql/ws\n\
         \x20 Mailbox     http://{server}/dev/mailbox\n\
         \x20 Payments    {payments}/admin/ledger\n\
         \x20 Metrics     http://{metrics}/metrics\n\
         \x20 Customer    {}   {}\n\
         \x20 Staff       {}   {}\n\
         \x20 DATABASE_URL={}\n\
         Ctrl-C ends everything.",
        CUSTOMER.email,
        setting(PASSWORD),
        STAFF.email,
        setting(PASSWORD),
        setting("DATABASE_URL"),
    );
}
