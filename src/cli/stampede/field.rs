//! Where a stampede takes place: a running server, or a private database, Redis and server that live as long as the run.
//!
//! Owns: the order of the stages and what they need. Does not own: the stages (src/stampede/), what is printed in the end.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, bail};
use indicatif::ProgressBar;
use tokio_util::sync::CancellationToken;

use super::{ClaimCostArgs, StampedeArgs, keys, output};
use crate::{
    app::App,
    clock::Clock,
    config::{Config, MailTransport, Settings},
    domain::ids::CustomerId,
    embedded::{self, EmbeddedOptions, EmbeddedServices},
    stampede::{
        self, Plan, StampedeError,
        buyers::Buyer,
        child::Children,
        claim_costs::{ClaimCost, Size},
        load::Target,
        overload, proof,
        report::{Ceilings, Compared, Report},
    },
    store,
};

const RIVAL_CONNECTIONS: u32 = 16;
const MAX_CONNECTIONS: u16 = 200;

/// What a run stands on.
pub struct Field {
    app: App,
    server: Server,
}

enum Server {
    Running(Target),
    /// To be started, on these services.
    Own {
        services: Box<EmbeddedServices>,
        settings: BTreeMap<String, String>,
        folder: tempfile::TempDir,
    },
}

impl Field {
    pub async fn open(args: &StampedeArgs) -> anyhow::Result<Self> {
        if args.url.is_none() && args.operator.data_dir.is_none() {
            return Self::open_own().await;
        }
        let app = args.operator.app()?;
        let url = args.url.clone().unwrap_or_else(|| format!("http://{}", app.config.http.listen));
        let target = Target::parse(&url).ok_or(StampedeError::Target)?;
        if !target.is_ready().await {
            bail!("no server is ready at {url}");
        }
        Ok(Self { app, server: Server::Running(target) })
    }

    /// On a private database and Redis.
    pub async fn open_own() -> anyhow::Result<Self> {
        eprintln!("Starting PostgreSQL and Redis, durable, in a temporary folder …");
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        let data_dir = folder.path().join("services");
        let options = EmbeddedOptions { data_dir, fresh: true, durable: true, max_connections: MAX_CONNECTIONS };
        let services = EmbeddedServices::start(&options).await?;
        let mut settings: BTreeMap<String, String> = keys::fresh(1).into_iter().map(|(name, key)| (name.to_owned(), key)).collect();
        settings.insert("DATABASE_URL".to_owned(), services.database_url(embedded::DATABASE));
        settings.insert("REDIS_URL".to_owned(), services.redis_url());
        settings.insert("PAYMENT_SECRET_KEY".to_owned(), "sk_test_stampede".to_owned());
        let config = Config::read(&Settings::fixed(settings.clone()), MailTransport::Mailbox)?;
        let app = App::new(config, Clock::system(), Some(Arc::default()))?;
        store::schema::run(&app.db).await?;
        Ok(Self { app, server: Server::Own { services: Box::new(services), settings, folder } })
    }

    pub const fn app(&self) -> &App {
        &self.app
    }

    /// So many servers on the private services, with these settings besides.
    pub async fn serve(&self, more: &[(&str, &str)], servers: usize, with_jobs: bool) -> anyhow::Result<Children> {
        let Server::Own { settings, folder, .. } = &self.server else { bail!("there is a server already") };
        let mut settings = settings.clone();
        settings.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        match servers {
            1 => eprintln!("Starting a server …"),
            _ => eprintln!("Starting {servers} servers …"),
        }
        Ok(Children::start(folder.path(), settings, servers, with_jobs).await?)
    }

    /// The measurements that want the machine for themselves come before and after the server's life.
    pub async fn measure(&self, args: &StampedeArgs, stop: &CancellationToken) -> anyhow::Result<Report> {
        let plan = args.plan();
        let ceilings = if args.no_ceilings { None } else { Some(self.ceilings(&plan, stop).await?) };
        let (children, target) = match &self.server {
            Server::Running(target) => (None, target.clone()),
            Server::Own { .. } => {
                let children = self.serve(&[], plan.servers, !args.no_settlement).await?;
                let target = children.target.clone();
                (Some(children), target)
            }
        };
        let fought = unless_stopped(stop, self.fight(args, &plan, &target)).await;
        if let Some(children) = children {
            let log = children.log_tail();
            children.stop().await?;
            if !log.is_empty() {
                eprintln!("The server's log ends with:\n{log}");
            }
        }
        let mut report = Report { ceilings, ..fought? };
        if args.compare {
            report.compared = self.compare(&plan, stop).await?;
        }
        if args.claims.claim_costs {
            report.claim_costs = self.claim_costs(&args.claims, stop).await?;
        }
        Ok(report)
    }

    async fn ceilings(&self, plan: &Plan, stop: &CancellationToken) -> anyhow::Result<Ceilings> {
        eprintln!("Measuring what SQL and GraphQL do alone …");
        let (app, scratch) = stampede::scratch_app(&self.app, RIVAL_CONNECTIONS).await?;
        let measured = unless_stopped(stop, async { Ok(stampede::measure_ceilings(&app, plan).await?) }).await;
        scratch.drop().await?;
        measured
    }

    async fn compare(&self, plan: &Plan, stop: &CancellationToken) -> anyhow::Result<Vec<Compared>> {
        let (app, scratch) = stampede::scratch_app(&self.app, RIVAL_CONNECTIONS).await?;
        let say = |design| eprintln!("Comparing: {design} …");
        let compared = unless_stopped(stop, async { Ok(stampede::compare(&app, plan, say).await?) }).await;
        scratch.drop().await?;
        compared
    }

    async fn claim_costs(&self, args: &ClaimCostArgs, stop: &CancellationToken) -> anyhow::Result<Vec<ClaimCost>> {
        let (app, scratch) = stampede::scratch_app(&self.app, RIVAL_CONNECTIONS).await?;
        let size = Size { units: args.claim_units, old_orders: args.old_orders.into() };
        let say = |doing: &str| eprintln!("Claims: {doing} …");
        let measured = unless_stopped(stop, async { Ok(stampede::measure_claim_costs(&app, size, say).await?) }).await;
        scratch.drop().await?;
        measured
    }

    /// Everything that needs the server.
    async fn fight(&self, args: &StampedeArgs, plan: &Plan, target: &Target) -> anyhow::Result<Report> {
        let buyers = self.buyers(args).await?;
        eprintln!("Making the sale, then firing …");
        let answers = Arc::new(AtomicU64::new(0));
        let bar = output::timed(args.duration, "stampede");
        let moving = tokio::spawn(show(bar.clone(), answers.clone()));
        let fired = stampede::charge(&self.app, plan, target, &buyers, answers).await;
        moving.abort();
        bar.finish_and_clear();
        let (sale, fired) = fired?;
        if fired.promised.is_empty() {
            bail!("not one purchase was accepted; the answers: {:?}", fired.tally.kinds);
        }
        let settlement = match plan.settle_within {
            Some(within) => Some(stampede::settle(&self.app, sale, within).await?),
            None => None,
        };
        eprintln!("Auditing …");
        let (proof, count) = proof::prove(&self.app, sale, &fired).await?;
        let http = if args.no_ceilings { None } else { Some(stampede::measure_answers(&self.app, plan, target, &buyers).await?) };
        let mut report = Report {
            plan: plan.clone(),
            buyers: buyers.len(),
            tally: fired.tally,
            count,
            proof,
            settlement,
            ceilings: None,
            http,
            overload: None,
            compared: Vec::new(),
            claim_costs: Vec::new(),
        };
        if let Some(times) = plan.overload {
            eprintln!("Firing {times} times as fast …");
            let rate = times * report.orders_per_second();
            report.overload = Some(overload::measure(&self.app, plan, target, &buyers, rate).await?);
        }
        Ok(report)
    }

    async fn buyers(&self, args: &StampedeArgs) -> anyhow::Result<Arc<[Buyer]>> {
        if let Some(path) = &args.tokens {
            let file = std::fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
            return BufReader::new(file).lines().map(|line| buyer(&line?)).collect();
        }
        let bar = output::progress(args.buyers, "buyers");
        let made = stampede::make_buyers(&self.app, usize::try_from(args.buyers)?, |made| bar.set_position(made as u64)).await;
        bar.finish_and_clear();
        Ok(made?)
    }

    pub async fn close(self) -> anyhow::Result<()> {
        self.app.db.close().await;
        if let Server::Own { services, .. } = self.server {
            services.stop_and_delete().await?;
        }
        Ok(())
    }
}

/// A line as `seed --tokens-out` writes it.
fn buyer(line: &str) -> anyhow::Result<Buyer> {
    let line: serde_json::Value = serde_json::from_str(line).context("a line of the tokens is not JSON")?;
    let (id, token) = (line["customerId"].as_str().and_then(CustomerId::parse), line["accessToken"].as_str());
    let (Some(id), Some(token)) = (id, token) else { bail!("a line of the tokens lacks customerId or accessToken") };
    Ok(Buyer { id, authorization: format!("Bearer {token}").into() })
}

async fn unless_stopped<T>(stop: &CancellationToken, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::select! {
        done = work => done,
        () = stop.cancelled() => bail!("stopped"),
    }
}

/// Moves the bar with the time since the first answer, until it is aborted.
async fn show(bar: ProgressBar, answers: Arc<AtomicU64>) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let seen = answers.load(Ordering::Relaxed);
        if seen == 0 {
            bar.reset_elapsed();
        }
        bar.set_position(u64::try_from(bar.elapsed().as_millis()).unwrap_or(u64::MAX));
        bar.set_message(format!("{seen} answers"));
    }
}
