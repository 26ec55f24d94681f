//! A private Postgres and Redis, run from the installed server programs, for `demo`, tests and benchmarks alike.
//! Owns: the data folder and its lock, where things lie in it, the life of both servers.
//! Does not own: migrations, pools, which database is for what.
//! Called by the commands in cli/ and by the tests' support.

pub mod mailbox;
mod postgres;
mod process;
mod redis;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use postgres::Postgres;
pub use postgres::program as postgres_program;
use process::{Launcher, write_private};
use redis::Redis;

/// The database that [`EmbeddedServices::start`] makes.
pub const DATABASE: &str = "whitemonday";

/// Holds the clusters of all data folders when the program runs as root: Postgres refuses to run as root, and its own
/// account can't enter root's home, where the data folder often is.
const ROOT_HOME: &str = "/var/lib/whitemonday";

const LOCK_PATIENCE: Duration = Duration::from_secs(1);

const PORTS: Range<u16> = 20_000..32_000;

/// How to run the private servers.
#[derive(Clone, Debug)]
pub struct EmbeddedOptions {
    /// Made if missing; one program at a time can use it.
    pub data_dir: PathBuf,
    /// Deletes what earlier runs have kept.
    pub fresh: bool,
    /// False only for tests: data may be lost with the machine's power, not with the program.
    pub durable: bool,
    pub max_connections: u16,
}

#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "another whitemonday is running on this folder, pid {pid}: stop it, or choose another data folder than {}",
        .folder.display()
    )]
    AlreadyRunning { folder: PathBuf, pid: String },
    #[error(
        "PostgreSQL 15 or newer is not installed: `apt install postgresql`, \
         or with Homebrew `brew install postgresql@17`"
    )]
    PostgresMissing,
    #[error(
        "{} was made by PostgreSQL {major}, which is not installed: \
         install it (`apt install postgresql-{major}`), or start over with --fresh",
        .cluster.display()
    )]
    PostgresVersion { cluster: PathBuf, major: u32 },
    #[error("redis-server is not installed: `apt install redis-server`, or with Homebrew `brew install redis`")]
    RedisMissing,
    #[error(
        "root can only start servers with util-linux's setpriv: \
         `apt install util-linux`, or run as an ordinary user"
    )]
    SetprivMissing,
    #[error(
        "there is no account `postgres` to run the servers as: \
         install PostgreSQL by the system's package manager, or run as an ordinary user"
    )]
    AccountMissing,
    #[error(
        "the data of {} is kept in {found}, this run would keep it in {wanted}: the folder was moved, copied \
         or made by another account. Use it as before, or start over with --fresh",
        .folder.display()
    )]
    Elsewhere { folder: PathBuf, found: String, wanted: String },
    #[error("{name} did not start; the end of {}:\n{tail}", .log.display())]
    NotStarted { name: &'static str, log: PathBuf, tail: String },
    #[error("{name} is still running after {seconds} s")]
    StillRunning { name: &'static str, seconds: u64 },
    #[error("{} failed: {says}", .tool.display())]
    Tool { tool: PathBuf, says: String },
    #[error("no free port on 127.0.0.1 between {} and {}", PORTS.start, PORTS.end)]
    NoFreePort,
    #[error("can't {action} {}: {source}", .path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
}

/// Says of which file an I/O error speaks.
trait At<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &Path) -> Result<T, EmbeddedError> {
        self.map_err(|source| EmbeddedError::Io { action, path: path.to_owned(), source })
    }
}

/// The running servers. They end with the program, however it ends; [`stop`](Self::stop) also waits for them.
pub struct EmbeddedServices {
    // Dropped in this order: the lock last.
    postgres: Postgres,
    redis: Redis,
    home: Home,
}

impl EmbeddedServices {
    /// Both servers, ready for connections, and the database [`DATABASE`].
    ///
    /// # Errors
    /// Each says what to do: a program to install, a folder in use, the end of a server's log.
    pub async fn start(options: &EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let home = Home::open(options).await?;
        // Not try_join: it would drop the slower start half-way.
        let (postgres, redis) = tokio::join!(Postgres::start(&home, options), Redis::start(&home));
        Ok(Self { postgres: postgres?, redis: redis?, home })
    }

    /// The address of a database, with the owner's password. The name must be a plain identifier.
    #[must_use]
    pub fn database_url(&self, database: &str) -> String {
        self.postgres.url(database)
    }

    #[must_use]
    pub fn redis_url(&self) -> String {
        self.redis.url()
    }

    /// Ends both servers and waits for them: open connections are cut, the data is complete.
    ///
    /// # Errors
    /// A server that does not end. It still ends with the program.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let (postgres, redis) = tokio::join!(self.postgres.stop(), self.redis.stop());
        postgres.and(redis)
    }

    /// Ends both servers and deletes what they kept: for tests, whose data folder is a temporary one.
    ///
    /// # Errors
    /// As those of `stop`, and a folder that cannot be deleted.
    pub async fn stop_and_delete(mut self) -> Result<(), EmbeddedError> {
        let (postgres, redis) = tokio::join!(self.postgres.stop(), self.redis.stop());
        postgres.and(redis)?;
        fs::remove_dir_all(&self.home.services).at("delete", &self.home.services)
    }

    #[must_use]
    pub fn postgres_pid(&self) -> u32 {
        self.postgres.pid()
    }

    #[must_use]
    pub fn redis_pid(&self) -> u32 {
        self.redis.pid()
    }

    /// Stops Postgres, if it still runs, and starts it again under the same address.
    ///
    /// # Errors
    /// As those of `start` and `stop`.
    pub async fn restart_postgres(&mut self) -> Result<(), EmbeddedError> {
        self.postgres.restart().await
    }

    /// Ends Redis at once, for good.
    ///
    /// # Errors
    /// Only the system's: a signal that can't be sent.
    pub async fn kill_redis(&mut self) -> Result<(), EmbeddedError> {
        self.redis.kill().await
    }
}

/// Where the things of one data folder lie. Holds the folder's lock.
struct Home {
    data_dir: PathBuf,
    /// Where the servers keep their files: the data folder, or for root a folder that their account can enter.
    services: PathBuf,
    launcher: Launcher,
    _lock: File,
}

impl Home {
    async fn open(options: &EmbeddedOptions) -> Result<Self, EmbeddedError> {
        let folder = &options.data_dir;
        DirBuilder::new().recursive(true).mode(0o700).create(folder).at("make", folder)?;
        let data_dir = folder.canonicalize().at("open", folder)?;
        let lock = lock(&data_dir).await?;
        let launcher = Launcher::detect().await?;
        let services = if launcher.is_root() { Path::new(ROOT_HOME).join(folder_hash(&data_dir)) } else { data_dir.clone() };
        let home = Self { data_dir, services, launcher, _lock: lock };
        home.prepare(options.fresh).await?;
        for log in [home.log("postgres"), home.log("redis")] {
            let _ = fs::rename(&log, log.with_extension("log.old"));
        }
        Ok(home)
    }

    /// Makes the servers' folder and the pointer to it, for people and against folders that were moved or copied.
    async fn prepare(&self, fresh: bool) -> Result<(), EmbeddedError> {
        let pointer = self.data_dir.join("services-folder");
        let wanted = if self.launcher.is_root() { self.services.to_string_lossy() } else { "the folder itself".into() };
        let found = fs::read_to_string(&pointer).ok();
        if let Some(found) = found.as_ref().filter(|found| **found != wanted && !fresh) {
            let (found, wanted) = (found.clone(), wanted.into_owned());
            return Err(EmbeddedError::Elsewhere { folder: self.data_dir.clone(), found, wanted });
        }
        // Root's clusters lie elsewhere and outlive a data folder that someone removed, keys and passwords with it.
        let left_over = self.launcher.is_root() && found.is_none();
        if fresh || left_over {
            postgres::remove_cluster(&self.services).await?;
        }
        if self.launcher.is_root() {
            let root_home = Path::new(ROOT_HOME);
            DirBuilder::new().recursive(true).create(root_home).at("make", root_home)?;
            fs::set_permissions(root_home, Permissions::from_mode(0o711)).at("change the mode of", root_home)?;
            self.launcher.make_folder(&self.services)?;
        }
        if found.as_deref() != Some(&*wanted) {
            write_private(&pointer, &wanted)?;
        }
        Ok(())
    }

    /// A server's log. The last run's is kept as `.old`.
    fn log(&self, server: &str) -> PathBuf {
        self.data_dir.join(format!("{server}.log"))
    }
}

/// Takes the folder for this program until the file is closed; the file tells others our process id.
async fn lock(data_dir: &Path) -> Result<File, EmbeddedError> {
    let path = data_dir.join("lock");
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).at("open", &path)?;
    // A program that was killed a moment ago may not have let go yet.
    let deadline = Instant::now() + LOCK_PATIENCE;
    while let Err(error) = file.try_lock() {
        match error {
            TryLockError::WouldBlock if Instant::now() < deadline => tokio::time::sleep(LOCK_PATIENCE / 20).await,
            TryLockError::WouldBlock => {
                let pid = fs::read_to_string(&path).at("read", &path)?;
                return Err(EmbeddedError::AlreadyRunning { folder: data_dir.to_owned(), pid });
            }
            TryLockError::Error(error) => return Err(error).at("lock", &path),
        }
    }
    file.set_len(0).and_then(|()| write!(&file, "{}", std::process::id())).at("write", &path)?;
    Ok(file)
}

/// Names a data folder's place under [`ROOT_HOME`].
fn folder_hash(folder: &Path) -> String {
    hex(&Sha256::digest(folder.as_os_str().as_bytes())[..8])
}

fn random_secret() -> String {
    hex(&rand::random::<[u8; 24]>())
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// A port that nobody listens on. Below the range that systems give to outgoing connections: there a client that keeps
/// calling a stopped server can take, or even reach, the port itself.
fn free_port() -> Result<u16, EmbeddedError> {
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    (0..100).map(|_| rand::random_range(PORTS)).find(free).ok_or(EmbeddedError::NoFreePort)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_keeps_its_hash_and_another_has_another() {
        assert_eq!(folder_hash(Path::new("/srv/shop/.whitemonday")), folder_hash(Path::new("/srv/shop/.whitemonday")));
        assert_ne!(folder_hash(Path::new("/srv/shop/.whitemonday")), folder_hash(Path::new("/srv/shop2/.whitemonday")));
        assert_eq!(folder_hash(Path::new("/")).len(), 16);
    }

    #[test]
    fn secrets_need_no_escaping_and_differ() {
        let (one, other) = (random_secret(), random_secret());
        assert_eq!(one.len(), 48);
        assert!(one.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_ne!(one, other);
    }

    #[tokio::test]
    async fn a_folder_is_locked_once_and_the_second_learns_by_whom() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).await.unwrap();
        let second = lock(folder.path()).await;
        let me = std::process::id().to_string();
        assert!(matches!(second, Err(EmbeddedError::AlreadyRunning { pid, .. }) if pid == me));
        drop(first);
        lock(folder.path()).await.unwrap();
    }
}
