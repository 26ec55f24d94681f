//! Servers and a payment simulator as programs of their own, so that the load generator does not share their runtime.
//!
//! Owns: starting and stopping them, their settings and logs. Does not own: the database and Redis behind them.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::{Instant, sleep, timeout},
};

use super::{StampedeError, load::Target};
use crate::config;

const START_PATIENCE: Duration = Duration::from_secs(30);
const STOP_PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);
const TAIL_LINES: usize = 12;

/// They end with this program: at once where util-linux's setpriv is at hand, otherwise when it ends in order.
pub struct Children {
    pub target: Target,
    servers: Vec<Server>,
    simulator: Child,
}

struct Server {
    target: Target,
    process: Child,
    log: PathBuf,
}

impl Children {
    /// So many servers on these settings, ready for requests. Logs go to `folder`.
    pub async fn start(
        folder: &Path,
        mut settings: BTreeMap<String, String>,
        servers: usize,
        with_jobs: bool,
    ) -> Result<Self, StampedeError> {
        let (simulator, payment_url) = start_simulator(folder).await?;
        settings.insert("PAYMENT_URL".to_owned(), payment_url);
        // Nobody reads mail here.
        settings.insert("SMTP_URL".to_owned(), "smtp://127.0.0.1:9".to_owned());
        settings.insert("LOG".to_owned(), "warn".to_owned());
        let mut started = Vec::with_capacity(servers);
        for number in 1..=servers {
            started.push(Server::start(&folder.join(format!("server-{number}.log")), &settings, with_jobs)?);
        }
        for server in &mut started {
            server.wait_until_ready().await?;
        }
        let targets: Vec<Target> = started.iter().map(|server| server.target.clone()).collect();
        Ok(Self { target: Target::all(&targets), servers: started, simulator })
    }

    /// The end of each server's log: warnings and errors.
    #[must_use]
    pub fn log_tail(&self) -> String {
        self.servers.iter().map(Server::log_tail).filter(|tail| !tail.is_empty()).collect::<Vec<_>>().join("\n")
    }

    /// Asks all to stop and waits for them.
    pub async fn stop(mut self) -> io::Result<()> {
        for server in &mut self.servers {
            stop(&mut server.process).await?;
        }
        stop(&mut self.simulator).await
    }
}

impl Server {
    fn start(log: &Path, settings: &BTreeMap<String, String>, with_jobs: bool) -> Result<Self, StampedeError> {
        let address = free_address()?;
        let target = Target::parse(&format!("http://{address}")).ok_or(StampedeError::Target)?;
        let mut command = program("serve", log)?;
        if with_jobs {
            command.arg("--with-jobs");
        }
        let process = command.envs(settings).env("LISTEN", address.to_string()).stdout(Stdio::null()).spawn()?;
        Ok(Self { target, process, log: log.to_owned() })
    }

    async fn wait_until_ready(&mut self) -> Result<(), StampedeError> {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.target.is_ready().await {
            if self.process.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(StampedeError::NotStarted { log: self.log_tail() });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }
}

async fn stop(child: &mut Child) -> io::Result<()> {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        kill_process(pid, Signal::TERM)?;
    }
    match timeout(STOP_PATIENCE, child.wait()).await {
        Ok(ended) => ended.map(drop),
        Err(_) => child.kill().await,
    }
}

async fn start_simulator(folder: &Path) -> Result<(Child, String), StampedeError> {
    let mut command = program("payment-simulator", &folder.join("simulator.log"))?;
    let mut child = command.args(["--listen", "127.0.0.1:0"]).env("LOG", "warn").stdout(Stdio::piped()).spawn()?;
    let Some(stdout) = child.stdout.take() else { return Err(StampedeError::NoSimulator) };
    let mut lines = BufReader::new(stdout).lines();
    while let Some(line) = timeout(START_PATIENCE, lines.next_line()).await.map_err(io::Error::from)?? {
        if let Some((_, address)) = line.split_once("http://") {
            let url = format!("http://{}", address.trim());
            // It may write more: a closed pipe would be its end.
            tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
            return Ok((child, url));
        }
    }
    Err(StampedeError::NoSimulator)
}

/// This program once more, with nothing of our environment.
fn program(subcommand: &str, log: &Path) -> io::Result<Command> {
    let program = config::program()?;
    let has_setpriv = ["/usr/bin/setpriv", "/bin/setpriv"].into_iter().find(|path| Path::new(path).exists());
    let mut command = match has_setpriv {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "TERM"]).arg(program);
            command
        }
        None => Command::new(program),
    };
    let log = std::fs::File::create(log)?;
    command.arg(subcommand).env_clear().stdin(Stdio::null()).stderr(log).kill_on_drop(true);
    // A Ctrl-C is for the stampede, which then stops them in order.
    command.process_group(0);
    Ok(command)
}

/// Free a moment ago.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}
