//! The private Postgres: finding the programs, making the cluster, recovering what a killed run left behind.
//! Owns: the cluster, its password, its socket folder. Does not own: how processes live (process.rs), the schema.
//! Called by mod.rs.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tempfile::TempDir;
use tokio::time::sleep;

use super::process::{Launcher, Process, Stop, find_program, remove_if_there, run, write_private};
use super::{At, DATABASE, EmbeddedError, EmbeddedOptions, Home, free_port, random_secret};

const OLDEST: u32 = 15;
const OWNER: &str = "whitemonday";
const POLL: Duration = Duration::from_millis(10);
/// Reading and writing back a large log after a crash takes long; nothing else does.
const PATIENCE: Duration = Duration::from_mins(2);
/// Begins the name of clusters that are being made or removed.
const TEMPORARY: &str = "postgres-temporary-";
/// How long the remains of a killed run may be in the way.
const REMAINS_PATIENCE: Duration = Duration::from_secs(30);
/// `sun_path` holds 108 bytes on Linux and 104 on macOS, the last one zero; the name is Postgres' longest.
const SOCKET_FOLDER_MAX: usize = 103 - "/.s.PGSQL.65535".len();
/// macOS has no C.UTF-8 before version 15. Anything but UTF-8 would break `lower()` and search outside ASCII.
const LOCALE: &str = if cfg!(target_os = "macos") { "en_US.UTF-8" } else { "C.UTF-8" };
/// Reasons for a failed start that pass by themselves: a killed run's children, its server on the way out, a taken port.
const PASSING: [&str; 3] = ["is still in use", "lock file \"postmaster.pid\" already exists", "Address already in use"];

pub(super) struct Postgres {
    server: Process,
    launch: Launch,
    port: u16,
    password: String,
}

impl Postgres {
    pub async fn start(home: &Home, options: &EmbeddedOptions) -> Result<Self, EmbeddedError> {
        sweep(&home.services);
        let cluster = home.services.join("postgres");
        let programs = find_programs(&cluster).await?;
        let secret = home.data_dir.join("postgres-password");
        if made_by(&cluster).is_none() {
            write_private(&secret, &random_secret())?;
            make_cluster(home, &programs, &cluster, &secret, options.durable).await?;
        }
        let password = fs::read_to_string(&secret).at("read", &secret)?;
        clear_remains(&cluster).await?;
        let launch = Launch::new(home, options, &programs, cluster)?;
        let (server, port) = launch.start(None).await?;
        make_database(&programs, port, &password).await?;
        Ok(Self { server, launch, port, password })
    }

    pub fn url(&self, database: &str) -> String {
        format!("postgres://{OWNER}:{}@127.0.0.1:{}/{database}", self.password, self.port)
    }

    pub fn pid(&self) -> u32 {
        self.server.pid()
    }

    pub async fn stop(&mut self) -> Result<(), EmbeddedError> {
        self.server.stop(PATIENCE).await
    }

    pub async fn restart(&mut self) -> Result<(), EmbeddedError> {
        self.stop().await?;
        (self.server, _) = self.launch.start(Some(self.port)).await?;
        Ok(())
    }
}

/// Deletes a cluster, and stops a server that still runs on it. Any other folder of that name stays.
pub(super) async fn remove_cluster(services: &Path) -> Result<(), EmbeddedError> {
    let cluster = services.join("postgres");
    if made_by(&cluster).is_none() {
        return Ok(());
    }
    clear_remains(&cluster).await?;
    // Under another name first: a removal that is cut short must not leave half a cluster.
    fs::rename(&cluster, temporary_folder(services)).at("remove", &cluster)?;
    sweep(services);
    Ok(())
}

fn temporary_folder(services: &Path) -> PathBuf {
    services.join(format!("{TEMPORARY}{}", random_secret()))
}

/// Deletes half-made and half-removed clusters. What a killed run's initdb still writes to is left for the next time.
fn sweep(services: &Path) {
    for entry in fs::read_dir(services).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The major version a cluster was made by; none where there is no cluster.
fn made_by(cluster: &Path) -> Option<u32> {
    fs::read_to_string(cluster.join("PG_VERSION")).ok()?.trim().parse().ok()
}

/// The folder with `postgres`, `initdb` and `psql`, of the version that made the cluster.
async fn find_programs(cluster: &Path) -> Result<PathBuf, EmbeddedError> {
    let made_by = made_by(cluster);
    for folder in program_folders().await {
        if !["initdb", "psql"].iter().all(|name| folder.join(name).is_file()) {
            continue;
        }
        let version = run(tokio::process::Command::new(folder.join("postgres")).arg("--version"), "").await;
        let major = version.ok().and_then(|text| major_version(&text));
        if major.is_some_and(|major| major >= OLDEST && made_by.is_none_or(|wanted| wanted == major)) {
            return Ok(folder);
        }
    }
    Err(match made_by {
        Some(major) => EmbeddedError::PostgresVersion { cluster: cluster.to_owned(), major },
        None => EmbeddedError::PostgresMissing,
    })
}

/// Where server programs may be, best first: as the user's PATH says, then the newest where packages put them.
async fn program_folders() -> Vec<PathBuf> {
    let mut folders = Vec::new();
    if let Some(program) = find_program("postgres").await.and_then(|path| path.canonicalize().ok()) {
        folders.extend(program.parent().map(Path::to_owned));
    }
    if let Ok(folder) = run(tokio::process::Command::new("pg_config").arg("--bindir"), "").await {
        folders.push(PathBuf::from(folder.trim_end()));
    }
    let mut packaged = Vec::new();
    for place in ["/usr/lib/postgresql", "/usr", "/opt/homebrew/opt", "/usr/local/opt"] {
        for entry in fs::read_dir(place).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().join("bin/postgres").is_file() {
                packaged.push((major_version(&name), entry.path().join("bin")));
            }
        }
    }
    packaged.sort();
    folders.extend(packaged.into_iter().rev().map(|(_, folder)| folder));
    folders
}

/// One of Postgres' programs, like `pg_dump`.
pub async fn program(name: &str) -> Option<PathBuf> {
    program_folders().await.into_iter().map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// The first number in `postgres (PostgreSQL) 15.18`, `postgresql@17`, `pgsql-16`.
fn major_version(text: &str) -> Option<u32> {
    let number = text.trim_start_matches(|letter: char| !letter.is_ascii_digit());
    number.split(|letter: char| !letter.is_ascii_digit()).next()?.parse().ok()
}

/// Makes the cluster under another name first: one that has the right name is complete.
async fn make_cluster(home: &Home, programs: &Path, cluster: &Path, secret: &Path, durable: bool) -> Result<(), EmbeddedError> {
    let unfinished = temporary_folder(&home.services);
    home.launcher.make_folder(&unfinished)?;
    // The servers' account can't read the data folder of root.
    let password = home.services.join("initdb-password");
    let text = fs::read_to_string(secret).at("read", secret)?;
    home.launcher.write_for_server(&password, &text)?;

    let mut initdb = home.launcher.command(&programs.join("initdb"), Stop::Interrupt);
    initdb.args(["--encoding=UTF8", "--data-checksums", "--auth=scram-sha-256"]);
    initdb.args([format!("--locale={LOCALE}"), format!("--username={OWNER}")]);
    initdb.arg("--pwfile").arg(&password).arg("--pgdata").arg(&unfinished);
    if !durable {
        initdb.arg("--no-sync");
    }
    initdb.current_dir(&home.services);
    let mut initdb = Process::start("initdb", initdb, Stop::Interrupt, &home.log("postgres")).await?;
    let status = initdb.wait(PATIENCE).await?;
    remove_if_there(&password)?;
    if !status.success() {
        return Err(initdb.not_started());
    }
    fs::rename(&unfinished, cluster).at("move into place", cluster)
}

async fn make_database(programs: &Path, port: u16, password: &str) -> Result<(), EmbeddedError> {
    let mut psql = tokio::process::Command::new(programs.join("psql"));
    psql.env_clear().env("LC_ALL", "C").env("PGPASSWORD", password);
    psql.args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--host=127.0.0.1", "--dbname=postgres"]);
    psql.args([format!("--port={port}"), format!("--username={OWNER}")]);
    let missing = format!("FROM (VALUES (1)) AS one WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = '{DATABASE}')");
    run(&mut psql, &format!("SELECT 'CREATE DATABASE {DATABASE}' {missing} \\gexec\n")).await.map(drop)
}

/// How the server is started, the first time and after.
struct Launch {
    launcher: Launcher,
    program: PathBuf,
    cluster: PathBuf,
    settings: Vec<String>,
    log: PathBuf,
    _sockets: TempDir,
}

impl Launch {
    fn new(home: &Home, options: &EmbeddedOptions, programs: &Path, cluster: PathBuf) -> Result<Self, EmbeddedError> {
        let sockets = make_socket_folder(home)?;
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            format!("unix_socket_directories=\"{}\"", sockets.path().display()),
            "unix_socket_permissions=0700".to_owned(),
            format!("max_connections={}", options.max_connections),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
        ];
        if !options.durable {
            settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"].map(str::to_owned));
            // A circle of locks is told to tests as what it is, before the time-out of some lock ends it.
            settings.push("deadlock_timeout=20ms".to_owned());
        }
        let (launcher, program, log) = (home.launcher.clone(), programs.join("postgres"), home.log("postgres"));
        Ok(Self { launcher, program, cluster, settings, log, _sockets: sockets })
    }

    /// Starts the server on this port, or on any free one, and waits until it takes connections.
    async fn start(&self, fixed_port: Option<u16>) -> Result<(Process, u16), EmbeddedError> {
        let deadline = Instant::now() + REMAINS_PATIENCE;
        loop {
            let port = fixed_port.map_or_else(free_port, Ok)?;
            let mut server = self.spawn(port).await?;
            if self.ready(&mut server).await? {
                return Ok((server, port));
            }
            let output = server.output();
            if Instant::now() > deadline || !PASSING.iter().any(|reason| output.contains(reason)) {
                return Err(server.not_started());
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    async fn spawn(&self, port: u16) -> Result<Process, EmbeddedError> {
        let mut command = self.launcher.command(&self.program, Stop::Interrupt);
        command.current_dir(&self.cluster).arg("-D").arg(&self.cluster).args(["-p", &port.to_string()]);
        command.args(self.settings.iter().flat_map(|setting| ["-c", setting]));
        Process::start("postgres", command, Stop::Interrupt, &self.log).await
    }

    /// Waits until the server says so in its own file; false when it has ended instead.
    async fn ready(&self, server: &mut Process) -> Result<bool, EmbeddedError> {
        let deadline = Instant::now() + PATIENCE;
        while server.ended()?.is_none() {
            if PidFile::read(&self.cluster).is_some_and(|file| file.ready && file.pid == server.pid()) {
                return Ok(true);
            }
            if Instant::now() > deadline {
                return Err(server.not_started());
            }
            sleep(POLL).await;
        }
        Ok(false)
    }
}

/// A new folder for the sockets, in place of one that a killed run could not remove.
fn make_socket_folder(home: &Home) -> Result<TempDir, EmbeddedError> {
    const PREFIX: &str = "whitemonday-";
    let record = home.data_dir.join("socket-folder");
    if let Some(old) = fs::read_to_string(&record).ok().map(PathBuf::from)
        && old.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
    {
        let _ = fs::remove_dir_all(old);
    }
    // Root's own temp folder may be closed to the servers' account.
    let mut place = tempfile::env::temp_dir();
    if home.launcher.is_root() || place.as_os_str().len() + PREFIX.len() + 7 > SOCKET_FOLDER_MAX {
        place = PathBuf::from("/tmp");
    }
    let folder = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(Permissions::from_mode(0o700))
        .tempdir_in(&place)
        .at("make a folder in", &place)?;
    home.launcher.give(folder.path())?;
    write_private(&record, &folder.path().to_string_lossy())?;
    Ok(folder)
}

/// What a server says about itself in `postmaster.pid`.
#[derive(Debug, PartialEq)]
struct PidFile {
    pid: u32,
    ready: bool,
}

impl PidFile {
    fn read(cluster: &Path) -> Option<Self> {
        Self::parse(&fs::read_to_string(cluster.join("postmaster.pid")).ok()?)
    }

    /// Lines: process id, data folder, start time, port, socket folder, address, shared memory, state.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        let pid = lines.next()?.parse().ok().filter(|pid| *pid > 0)?;
        Some(Self { pid, ready: lines.nth(6) == Some("ready") })
    }
}

/// Gets what a killed run left out of the way: a server that is still stopping, or a `postmaster.pid` whose process id is
/// another process's by now, which Postgres would take for a running server.
async fn clear_remains(cluster: &Path) -> Result<(), EmbeddedError> {
    let Some(pid) = PidFile::read(cluster).and_then(|file| Pid::from_raw(i32::try_from(file.pid).ok()?)) else {
        return Ok(());
    };
    if !Path::new("/proc/self/cwd").exists() {
        // Without /proc nobody can tell whose the process is; PostgreSQL's own judgement is mostly right.
        return Ok(());
    }
    let cluster = cluster.canonicalize().at("open", cluster)?;
    let runs_here = || fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).is_ok_and(|folder| folder == cluster);
    if !runs_here() {
        // A process that doesn't exist PostgreSQL notices itself, and then looks for children of it that still do.
        return if test_kill_process(pid).is_ok() { remove_if_there(&cluster.join("postmaster.pid")) } else { Ok(()) };
    }
    // We hold the folder's lock: its program is gone.
    tracing::info!(pid = %pid, "stopping the PostgreSQL of an earlier run");
    let deadline = Instant::now() + REMAINS_PATIENCE;
    let _ = kill_process(pid, Signal::INT);
    while runs_here() {
        if Instant::now() > deadline {
            return Err(EmbeddedError::StillRunning { name: "the PostgreSQL of an earlier run", seconds: REMAINS_PATIENCE.as_secs() });
        }
        sleep(POLL).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_file_grows_and_is_read_at_every_length() {
        let whole = "4711\n/srv/postgres\n1700000000\n20001\n/tmp/whitemonday-x\n127.0.0.1\n  1234  5678\nready   \n";
        assert_eq!(PidFile::parse(whole), Some(PidFile { pid: 4711, ready: true }));
        assert_eq!(PidFile::parse(&whole.replace("ready   ", "starting")), Some(PidFile { pid: 4711, ready: false }));
        assert_eq!(PidFile::parse("4711\n"), Some(PidFile { pid: 4711, ready: false }));
        assert_eq!(PidFile::parse(""), None);
        assert_eq!(PidFile::parse("-4711\n/srv/postgres\n"), None, "a server in single-user mode");
    }

    #[test]
    fn a_major_version_is_the_first_number() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgresql@17"), Some(17));
        assert_eq!(major_version("postgresql"), None);
    }

    #[tokio::test]
    async fn only_a_cluster_is_removed() {
        let services = tempfile::tempdir().unwrap();
        let folder = services.path().join("postgres");
        fs::create_dir(&folder).unwrap();
        remove_cluster(services.path()).await.unwrap();
        assert!(folder.exists());
        fs::write(folder.join("PG_VERSION"), "15\n").unwrap();
        remove_cluster(services.path()).await.unwrap();
        assert!(!folder.exists());
    }
}
