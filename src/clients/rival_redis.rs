//! Redis as the designs use it that whitemonday is compared with: a lock, and a counter that holds the stock. Called by
//! src/stampede/rivals.rs only; in the program itself Redis holds no truth.

use std::time::Duration;

use deadpool_redis::{
    Config, Connection, Pool, PoolConfig, Runtime,
    redis::{self, Script, cmd},
};
use secrecy::{ExposeSecret, SecretString};

use super::redis::RedisError;

/// Deletes the lock only if it is still ours.
const UNLOCK: &str = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";
/// Takes units only when there are enough.
const TAKE: &str = "if tonumber(redis.call('GET', KEYS[1]) or '0') >= tonumber(ARGV[1]) then return redis.call('DECRBY', KEYS[1], ARGV[1]) \
                    else return -1 end";

#[derive(Clone)]
pub struct RivalRedis {
    pool: Pool,
    key: String,
}

impl RivalRedis {
    /// Works on one key. Connects on first use; a call waits as long as it takes.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn new(url: &SecretString, key: String, connections: usize) -> Result<Self, RedisError> {
        let mut config = Config::from_url(url.expose_secret());
        config.pool = Some(PoolConfig { max_size: connections, ..PoolConfig::default() });
        Ok(Self { pool: config.create_pool(Some(Runtime::Tokio1))?, key })
    }

    async fn connection(&self) -> Result<Connection, RedisError> {
        Ok(self.pool.get().await?)
    }

    /// `SET NX PX`: whether the lock is ours now.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn try_lock(&self, token: u64, lifetime: Duration) -> Result<bool, RedisError> {
        let lifetime = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX);
        let mut set = cmd("SET");
        set.arg(&self.key).arg(token).arg("NX").arg("PX").arg(lifetime);
        let answer: Option<String> = set.query_async(&mut self.connection().await?).await?;
        Ok(answer.is_some())
    }

    /// Gives the lock back.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn unlock(&self, token: u64) -> Result<(), RedisError> {
        let mut connection = self.connection().await?;
        let _: i64 = Script::new(UNLOCK).key(&self.key).arg(token).invoke_async(&mut connection).await?;
        Ok(())
    }

    /// Puts the stock there.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn set_stock(&self, units: i32) -> Result<(), RedisError> {
        let () = cmd("SET").arg(&self.key).arg(units).query_async(&mut self.connection().await?).await?;
        Ok(())
    }

    /// Whether the units were taken from the stock.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn take_stock(&self, quantity: i32) -> Result<bool, RedisError> {
        let mut connection = self.connection().await?;
        let left: i64 = Script::new(TAKE).key(&self.key).arg(quantity).invoke_async(&mut connection).await?;
        Ok(left >= 0)
    }

    /// Removes the key.
    ///
    /// # Errors
    /// When Redis does not answer.
    pub async fn clear(&self) -> Result<(), RedisError> {
        let _: redis::Value = cmd("DEL").arg(&self.key).query_async(&mut self.connection().await?).await?;
        Ok(())
    }
}
