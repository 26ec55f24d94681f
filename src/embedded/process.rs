//! Starting servers so that none outlives the program, and stopping them.
//! Owns: the spawner thread, the leash that ends a server with its parent, the account servers run as, their logs.
//! Does not own: what is started and when it is ready (postgres.rs, redis.rs).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::oneshot;

use super::{At, EmbeddedError};

const POLL: Duration = Duration::from_millis(10);
const TAIL_LINES: usize = 15;

/// Ends a server when the program's end of its standard input closes, where the kernel can't be asked to. The watcher is
/// forked twice, so that it is no child of the server; a line instead of the end means that the server is already gone.
const LEASH: &str = r#"
exec 3<&0 </dev/null
signal=$1
shift
( { read -r _ <&3 || kill -s "$signal" $$; } & )
exec "$@" 3<&-
"#;

struct Order {
    command: Command,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// Forks every server, on a thread that lives as long as the program: the kernel sends the parent-death signal when the
/// *thread* that forked ends, and tokio's threads come and go with their runtime.
static SPAWNER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
    let (orders, inbox) = mpsc::channel::<Order>();
    let spawn_all = move || {
        for Order { mut command, reply } in inbox {
            if let Err(Ok(mut unwanted)) = reply.send(command.spawn()) {
                let _ = unwanted.kill();
            }
        }
    };
    // Should the thread not start, its inbox is dropped and every order is answered with an error.
    let _ = thread::Builder::new().name("embedded-spawner".into()).spawn(spawn_all);
    orders
});

/// How a server is asked to stop, by its parent or by the parent's death.
#[derive(Clone, Copy)]
pub(super) enum Stop {
    Interrupt,
    Terminate,
}

impl Stop {
    const fn signal(self) -> Signal {
        match self {
            Self::Interrupt => Signal::INT,
            Self::Terminate => Signal::TERM,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Interrupt => "INT",
            Self::Terminate => "TERM",
        }
    }
}

/// The system account that servers run as when the program runs as root.
#[derive(Clone)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

/// How servers are started on this host.
#[derive(Clone)]
pub(super) struct Launcher {
    /// util-linux's, which knows `--pdeathsig`; busybox's doesn't. Without it servers run on the shell's leash.
    setpriv: Option<PathBuf>,
    account: Option<Account>,
}

impl Launcher {
    pub async fn detect() -> Result<Self, EmbeddedError> {
        let mut setpriv = find_program("setpriv").await;
        if let Some(path) = &setpriv {
            let probe = tokio::process::Command::new(path).args(["--pdeathsig", "INT", "true"]).output().await;
            if !probe.is_ok_and(|output| output.status.success()) {
                setpriv = None;
            }
        }
        if !rustix::process::geteuid().is_root() {
            return Ok(Self { setpriv, account: None });
        }
        if setpriv.is_none() {
            return Err(EmbeddedError::SetprivMissing);
        }
        let (uid, gid) = tokio::join!(id_of_postgres("-u"), id_of_postgres("-g"));
        let (Some(uid), Some(gid)) = (uid, gid) else {
            return Err(EmbeddedError::AccountMissing);
        };
        Ok(Self { setpriv, account: Some(Account { uid, gid }) })
    }

    pub const fn is_root(&self) -> bool {
        self.account.is_some()
    }

    /// A command that runs `program` as the servers' account and ends with this program.
    pub fn command(&self, program: &Path, stop: Stop) -> Command {
        let Some(setpriv) = &self.setpriv else {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", LEASH, "leash", stop.name()]).arg(program).stdin(Stdio::piped());
            return command;
        };
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", stop.name()]).stdin(Stdio::null());
        if let Some(Account { uid, gid }) = &self.account {
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={gid}")).arg("--init-groups");
        }
        command.arg(program);
        command
    }

    /// Makes a folder that only the servers' account can enter. The folder above must exist.
    pub fn make_folder(&self, folder: &Path) -> Result<(), EmbeddedError> {
        use std::os::unix::fs::DirBuilderExt;
        match fs::DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error).at("make", folder),
            _ => self.give(folder),
        }
    }

    /// Hands a folder to the servers' account.
    pub fn give(&self, folder: &Path) -> Result<(), EmbeddedError> {
        let Some(Account { uid, gid }) = &self.account else { return Ok(()) };
        File::open(folder).and_then(|it| fchown(it, Some(*uid), Some(*gid))).at("change the owner of", folder)
    }

    /// Writes a file that only the servers' account can read. Never through a link: that account owns the folder.
    pub fn write_for_server(&self, path: &Path, text: &str) -> Result<(), EmbeddedError> {
        let file = write_private(path, text)?;
        let Some(Account { uid, gid }) = &self.account else { return Ok(()) };
        fchown(file, Some(*uid), Some(*gid)).at("change the owner of", path)
    }
}

/// Replaces a file by one that only its owner can read.
pub(super) fn write_private(path: &Path, text: &str) -> Result<File, EmbeddedError> {
    remove_if_there(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).at("create", path)?;
    file.write_all(text.as_bytes()).at("write", path)?;
    Ok(file)
}

pub(super) fn remove_if_there(path: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("remove", path),
        _ => Ok(()),
    }
}

async fn id_of_postgres(which: &str) -> Option<u32> {
    let text = run(tokio::process::Command::new("id").args([which, "postgres"]), "").await.ok()?;
    text.trim().parse().ok()
}

/// Where the shell finds a program, links resolved no further: some programs ask by which name they were called.
pub(super) async fn find_program(name: &str) -> Option<PathBuf> {
    let mut shell = tokio::process::Command::new("/bin/sh");
    let path = run(shell.args(["-c", r#"command -v "$1""#, "sh", name]), "").await.ok()?;
    Some(PathBuf::from(path.trim_end())).filter(|path| path.is_absolute())
}

/// Runs a short tool to its end and returns what it printed.
pub(super) async fn run(command: &mut tokio::process::Command, input: &str) -> Result<String, EmbeddedError> {
    use tokio::io::AsyncWriteExt;
    let tool = PathBuf::from(command.as_std().get_program());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().at("run", &tool)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends without reading its input says why on its standard error.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.at("wait for", &tool)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(EmbeddedError::Tool { tool, says: String::from_utf8_lossy(&output.stderr).trim().to_owned() })
}

/// A running server or installer. Dropped, it is asked to stop, and not waited for.
pub(super) struct Process {
    name: &'static str,
    child: Child,
    leash: Option<ChildStdin>,
    stop: Stop,
    log: PathBuf,
    log_start: u64,
}

impl Process {
    /// Starts a command made by [`Launcher::command`] with the same `stop`. It sees none of our environment (`PG*`
    /// variables would change what it does) and appends to the log.
    pub async fn start(name: &'static str, mut command: Command, stop: Stop, log: &Path) -> Result<Self, EmbeddedError> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(log).at("open", log)?;
        let log_start = file.metadata().at("read", log)?.len();
        let copy = file.try_clone().at("open", log)?;
        // Its own process group: a Ctrl-C in the terminal is for the program, which stops its servers last.
        command.env_clear().env("LC_ALL", "C").process_group(0).stdout(copy).stderr(file);
        let program = PathBuf::from(command.get_program());
        let (reply, child) = oneshot::channel();
        let sent = SPAWNER.send(Order { command, reply }).map_err(io::Error::other);
        sent.at("start", &program)?;
        let mut child = child.await.map_err(io::Error::other).flatten().at("start", &program)?;
        let leash = child.stdin.take();
        Ok(Self { name, child, leash, stop, log: log.to_owned(), log_start })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>, EmbeddedError> {
        let ended = self.child.try_wait().at("wait for", Path::new(self.name))?;
        if ended.is_some()
            && let Some(mut leash) = self.leash.take()
        {
            let _ = leash.write_all(b"\n");
        }
        Ok(ended)
    }

    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus, EmbeddedError> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                return Err(EmbeddedError::StillRunning { name: self.name, seconds: patience.as_secs() });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Asks it to stop and waits. One that has already ended is fine.
    pub async fn stop(&mut self, patience: Duration) -> Result<(), EmbeddedError> {
        self.signal(self.stop.signal())?;
        self.wait(patience).await.map(drop)
    }

    /// Ends it with SIGKILL and waits until it is gone.
    pub async fn kill(&mut self) -> Result<(), EmbeddedError> {
        self.signal(Signal::KILL)?;
        self.wait(Duration::from_secs(5)).await.map(drop)
    }

    /// What it wrote to the log since it was started.
    pub fn output(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX);
        String::from_utf8_lossy(bytes.get(start..).unwrap_or_default()).into_owned()
    }

    /// The error for a start that failed, with the log's last lines.
    pub fn not_started(&self) -> EmbeddedError {
        EmbeddedError::NotStarted { name: self.name, log: self.log.clone(), tail: last_lines(&self.output(), TAIL_LINES) }
    }

    fn signal(&mut self, signal: Signal) -> Result<(), EmbeddedError> {
        // Not yet waited for, so the id can't belong to another process.
        if self.ended()?.is_none()
            && let Some(pid) = i32::try_from(self.pid()).ok().and_then(Pid::from_raw)
        {
            kill_process(pid, signal).map_err(io::Error::from).at("signal", Path::new(self.name))?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.signal(self.stop.signal());
    }
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<_> = text.trim_end().lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_the_last_lines_without_the_blank_end() {
        assert_eq!(last_lines("a\nb\nc\n\n", 2), "b\nc");
        assert_eq!(last_lines("a", 2), "a");
        assert_eq!(last_lines("", 2), "");
    }
}
