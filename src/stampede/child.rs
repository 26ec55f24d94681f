//! A server and a payment simulator as programs of their own, so that the load generator does not share their runtime.
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
    server: Child,
    simulator: Child,
    log: PathBuf,
}

impl Children {
    /// A server on these settings, ready for requests. Logs go to `folder`.
    pub async fn start(folder: &Path, mut settings: BTreeMap<String, String>, with_jobs: bool) -> Result<Self, StampedeError> {
        let (simulator, payment_url) = start_simulator(folder).await?;
        let address = free_address()?;
        settings.insert("LISTEN".to_owned(), address.to_string());
        settings.insert("PAYMENT_URL".to_owned(), payment_url);
        // Nobody reads mail here.
        settings.insert("SMTP_URL".to_owned(), "smtp://127.0.0.1:9".to_owned());
        settings.insert("LOG".to_owned(), "warn".to_owned());
        let log = folder.join("server.log");
        let mut command = program("serve", &log)?;
        if with_jobs {
            command.arg("--with-jobs");
        }
        let server = command.envs(settings).stdout(Stdio::null()).spawn()?;
        let target = Target::parse(&format!("http://{address}")).ok_or(StampedeError::Target)?;
        let mut children = Self { target, server, simulator, log };
        children.wait_until_ready().await?;
        Ok(children)
    }

    async fn wait_until_ready(&mut self) -> Result<(), StampedeError> {
        let deadline = Instant::now() + START_PATIENCE;
        while !self.target.is_ready().await {
            if self.server.try_wait()?.is_some() || Instant::now() > deadline {
                return Err(StampedeError::NotStarted { log: self.log_tail() });
            }
            sleep(POLL).await;
        }
        Ok(())
    }

    /// The end of the server's log: warnings and errors.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    /// Asks both to stop and waits for them.
    pub async fn stop(mut self) -> io::Result<()> {
        stop(&mut self.server).await?;
        stop(&mut self.simulator).await
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
