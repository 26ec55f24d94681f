//! Processes of the program, to be killed.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{TestApp, until};

/// A process of its own, which ends by SIGKILL: when the test says so, or with the test.
pub struct Process(Child);

impl Process {
    pub fn start(test: &TestApp, arguments: &[&str], settings: &[(&str, &str)]) -> Self {
        Self(Self::command(test, arguments, settings).spawn().unwrap())
    }

    fn command(test: &TestApp, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_whitemonday"));
        // No mail server answers it.
        command.args(arguments).env_clear().envs(test.settings()).env("SMTP_URL", "smtp://127.0.0.1:9").stdout(Stdio::null());
        command.env("LOG", std::env::var("CHILD_LOG").unwrap_or_else(|_| "error".to_owned()));
        command.envs(settings.iter().copied());
        command
    }

    pub fn worker(test: &TestApp) -> Self {
        Self::worker_with(test, &[])
    }

    /// With other settings than the test's.
    pub fn worker_with(test: &TestApp, settings: &[(&str, &str)]) -> Self {
        Self::start(test, &["work"], settings)
    }

    /// A server that takes requests, and its address.
    pub async fn server(test: &TestApp, more: &[&str]) -> (Self, SocketAddr) {
        Self::server_with(test, more, &[]).await
    }

    /// With other settings than the test's.
    pub async fn server_with(test: &TestApp, more: &[&str], settings: &[(&str, &str)]) -> (Self, SocketAddr) {
        let address = free_address();
        let listen = address.to_string();
        let server = Self::start(test, &[&["serve"], more].concat(), &[&[("LISTEN", listen.as_str())], settings].concat());
        ready(address).await;
        (server, address)
    }

    /// A server with jobs that writes its log into a file.
    pub async fn server_with_log(test: &TestApp, log: File, settings: &[(&str, &str)]) -> (Self, SocketAddr) {
        let address = free_address();
        let listen = address.to_string();
        let mut command = Self::command(test, &["serve", "--with-jobs"], &[&[("LISTEN", listen.as_str())], settings].concat());
        let server = Self(command.stderr(log).spawn().unwrap());
        ready(address).await;
        (server, address)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// Tells it to stop, and waits until it has.
    pub async fn terminate(&mut self) {
        let told = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(told.success());
        let process = &mut self.0;
        while process.try_wait().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it between two instructions.
    pub fn kill(&mut self) {
        // `kill` does nothing to one that has been waited for.
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

async fn ready(address: SocketAddr) {
    let ready = format!("http://{address}/healthz/ready");
    until(async || reqwest::get(&ready).await.ok().filter(|answer| answer.status() == 200)).await;
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Below the ports that systems give to outgoing connections, of which a busy test makes many.
pub fn free_address() -> SocketAddr {
    let candidates = std::iter::repeat_with(|| SocketAddr::from((Ipv4Addr::LOCALHOST, rand::random_range(20_000..32_000))));
    candidates.take(100).find(|address| TcpListener::bind(address).is_ok()).expect("a free port")
}
