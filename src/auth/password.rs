//! Password hashing: Argon2id with bounded memory.
//!
//! Owns: parameters, and how many hashes run at once. A hash takes 19 MiB and some 20 ms of a core; a hundred log-ins at
//! the same moment must not take 1.9 GiB.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version, password_hash::phc::PasswordHash};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// OWASP's minimum for Argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;
const MAX_WAITING: usize = 50;

#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("too many passwords are being checked at once")]
    Overloaded,
    #[error("hashing failed: {0}")]
    Hash(String),
}

/// Hashes and verifies passwords on the blocking pool.
#[derive(Clone)]
pub struct Passwords {
    permits: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    /// What an unknown customer's password is compared with, so that the answer takes as long.
    decoy: Arc<str>,
}

/// The answer to a log-in's password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Right,
    Wrong,
}

impl Passwords {
    /// # Errors
    /// When the parameters are not acceptable to the library.
    pub fn new() -> Result<Self, PasswordError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            permits: Arc::new(Semaphore::new(cores)),
            waiting: Arc::default(),
            decoy: hash_now("a password that nobody has").map(Into::into)?,
        })
    }

    /// The PHC string of a password that is already in normal form.
    ///
    /// # Errors
    /// `Overloaded` when too many callers wait already.
    pub async fn hash(&self, normal: Zeroizing<String>) -> Result<String, PasswordError> {
        self.run(move || hash_now(&normal)).await?
    }

    /// Compares with a stored hash; `None` (no such customer) costs the same and is always wrong.
    ///
    /// # Errors
    /// `Overloaded` when too many callers wait already.
    pub async fn verify(&self, normal: Zeroizing<String>, stored: Option<String>) -> Result<Verdict, PasswordError> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.decoy.to_string());
        let matches = self.run(move || verify_now(&normal, &stored)).await??;
        Ok(if known && matches { Verdict::Right } else { Verdict::Wrong })
    }

    /// Whether a stored hash was made with other parameters than those of today.
    #[must_use]
    pub fn is_outdated(stored: &str) -> bool {
        let today = argon2().map(|argon2| (argon2.params().m_cost(), argon2.params().t_cost(), argon2.params().p_cost()));
        let then = PasswordHash::new(stored).ok().and_then(|hash| {
            let params = Params::try_from(&hash).ok()?;
            Some((params.m_cost(), params.t_cost(), params.p_cost()))
        });
        then != today.ok()
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let waiting = Waiting::enter(&self.waiting)?;
        let permit = self.permits.clone().acquire_owned().await.map_err(|_| PasswordError::Overloaded)?;
        drop(waiting);
        tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        })
        .await
        .map_err(|error| PasswordError::Hash(error.to_string()))
    }
}

/// One place in the bounded waiting list; given back when dropped, also when the caller goes away.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn enter(count: &Arc<AtomicUsize>) -> Result<Self, PasswordError> {
        let place = Self(count.clone());
        if count.fetch_add(1, Ordering::Relaxed) < MAX_WAITING { Ok(place) } else { Err(PasswordError::Overloaded) }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn argon2() -> Result<Argon2<'static>, PasswordError> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn hash_now(normal: &str) -> Result<String, PasswordError> {
    let hash = argon2()?.hash_password(normal.as_bytes()).map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(hash.to_string())
}

fn verify_now(normal: &str, stored: &str) -> Result<bool, PasswordError> {
    let stored = PasswordHash::new(stored).map_err(|error| PasswordError::Hash(error.to_string()))?;
    Ok(argon2()?.verify_password(normal.as_bytes(), &stored).is_ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_rush_waits_in_a_short_line_and_the_rest_is_told_at_once() {
        let passwords = Passwords::new().unwrap();
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (running, most) = (running.clone(), most.clone());
            move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
                running.fetch_sub(1, Ordering::SeqCst);
            }
        };

        let results = join_all((0..200).map(|_| passwords.run(work()))).await;

        let cores = std::thread::available_parallelism().unwrap().get();
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), cores + MAX_WAITING);
        assert!(results.iter().all(|result| matches!(result, Ok(()) | Err(PasswordError::Overloaded))));
        assert!(most.load(Ordering::SeqCst) <= cores, "19 MiB each");
        passwords.run(|| ()).await.unwrap();
    }
}
