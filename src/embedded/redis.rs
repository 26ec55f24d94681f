//! The private Redis: nothing on disk, a new password at each start.
//! Owns: its configuration file and when it is ready. Does not own: how processes live (process.rs).
//! Called by mod.rs.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::{Process, Stop, find_program, remove_if_there};
use super::{EmbeddedError, Home, free_port, random_secret};

const PATIENCE: Duration = Duration::from_secs(10);
const PORT_TRIES: u32 = 5;
/// Where Homebrew puts programs, should its folder not be on the PATH.
const OTHER_PLACES: [&str; 2] = ["/opt/homebrew/bin", "/usr/local/bin"];

pub(super) struct Redis {
    server: Process,
    port: u16,
    password: String,
}

impl Redis {
    pub async fn start(home: &Home) -> Result<Self, EmbeddedError> {
        let program = find().await.ok_or(EmbeddedError::RedisMissing)?;
        let folder = home.services.join("redis");
        home.launcher.make_folder(&folder)?;
        // Left by someone's SAVE; Redis would load it.
        remove_if_there(&folder.join("dump.rdb"))?;
        let password = random_secret();
        let mut tries = 0;
        loop {
            tries += 1;
            let port = free_port()?;
            let mut server = launch(home, &program, &folder, port, &password).await?;
            if ready(&mut server, port, &password).await? {
                return Ok(Self { server, port, password });
            }
            if tries == PORT_TRIES || !server.output().contains("Address already in use") {
                return Err(server.not_started());
            }
        }
    }

    pub fn url(&self) -> String {
        format!("redis://default:{}@127.0.0.1:{}", self.password, self.port)
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub async fn stop(&mut self) -> Result<(), EmbeddedError> {
        self.server.stop(PATIENCE).await
    }

    pub async fn kill(&mut self) -> Result<(), EmbeddedError> {
        self.server.kill().await
    }
}

async fn find() -> Option<PathBuf> {
    for name in ["redis-server", "valkey-server"] {
        if let Some(path) = find_program(name).await {
            return Some(path);
        }
        let mut others = OTHER_PLACES.iter().map(|place| Path::new(place).join(name));
        if let Some(path) = others.find(|path| path.is_file()) {
            return Some(path);
        }
    }
    None
}

/// The password goes through a file: arguments can be read by every user of the machine.
async fn launch(home: &Home, program: &Path, folder: &Path, port: u16, password: &str) -> Result<Process, EmbeddedError> {
    let config = folder.join("redis.conf");
    let text = format!("bind 127.0.0.1\nport {port}\nrequirepass {password}\nsave \"\"\nappendonly no\ndaemonize no\n");
    home.launcher.write_for_server(&config, &text)?;
    let mut command = home.launcher.command(program, Stop::Terminate);
    command.arg(config).current_dir(folder);
    Process::start("redis-server", command, Stop::Terminate, &home.log("redis")).await
}

/// Waits until it answers; false when it has ended instead.
async fn ready(server: &mut Process, port: u16, password: &str) -> Result<bool, EmbeddedError> {
    let deadline = Instant::now() + PATIENCE;
    while server.ended()?.is_none() {
        if answers(port, password).await.unwrap_or(false) {
            return Ok(true);
        }
        if Instant::now() > deadline {
            return Err(server.not_started());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(false)
}

/// Whether a Redis with our password listens there; another's on the same port doesn't know it.
async fn answers(port: u16, password: &str) -> std::io::Result<bool> {
    const WANTED: &[u8] = b"+OK\r\n+PONG\r\n";
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes()).await?;
    let mut answer = [0; WANTED.len()];
    tokio::time::timeout(Duration::from_secs(1), stream.read_exact(&mut answer)).await??;
    Ok(answer == *WANTED)
}
