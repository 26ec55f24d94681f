//! Redis: makes reads cheaper and may vanish at any moment without a wrong answer. Every call has a time-out.

use std::{sync::Arc, time::Duration};

use deadpool_redis::{Config, Pool, PoolConfig, Runtime, Timeouts, redis};
use secrecy::{ExposeSecret, SecretString};

use super::circuit_breaker::CircuitBreaker;

const CONNECTIONS: usize = 16;
/// Of work that no request waits for.
const PATIENCE: Duration = Duration::from_secs(1);

const SPEND: &str = "
    local now, levels = tonumber(ARGV[1]), {}
    for i, bucket in ipairs(KEYS) do
        local full_at = math.max(tonumber(redis.call('GET', bucket) or 0), now) + tonumber(ARGV[i + 1])
        redis.call('SET', bucket, full_at, 'PX', math.max(full_at - now, 1))
        levels[i] = full_at
    end
    return levels
";

#[derive(Debug, thiserror::Error)]
pub enum RedisError {
    #[error("REDIS_URL cannot be used: {0}")]
    Config(#[from] deadpool_redis::CreatePoolError),
    #[error("no connection to Redis: {0}")]
    Pool(#[from] deadpool_redis::PoolError),
    #[error("Redis: {0}")]
    Redis(#[from] redis::RedisError),
    #[error("Redis did not answer in time")]
    Timeout,
    #[error("Redis fails, and is not asked for a while")]
    CircuitOpen,
}

#[derive(Clone)]
pub struct Redis {
    pool: Pool,
    /// Of what requests wait for.
    timeout: Duration,
    /// Before what requests wait for.
    breaker: Arc<CircuitBreaker>,
}

impl Redis {
    /// Connects on first use. A request waits `timeout` for it at most.
    ///
    /// # Errors
    /// When the URL cannot be used.
    pub fn new(url: &SecretString, timeout: Duration) -> Result<Self, RedisError> {
        let mut config = Config::from_url(url.expose_secret());
        let timeouts = Timeouts { wait: Some(timeout), create: Some(timeout), recycle: Some(timeout) };
        config.pool = Some(PoolConfig { max_size: CONNECTIONS, timeouts, ..PoolConfig::default() });
        Ok(Self { pool: config.create_pool(Some(Runtime::Tokio1))?, timeout, breaker: Arc::default() })
    }

    /// Adds what was spent to the level of each bucket (`domain/rate_limit.rs`), and tells the levels after it. A level is
    /// forgotten when its bucket is full.
    ///
    /// # Errors
    /// When Redis does not answer; what was added then is not known.
    pub async fn spend(&self, spent: &[(Vec<u8>, i64)], now: i64) -> Result<Vec<i64>, RedisError> {
        let script = redis::Script::new(SPEND);
        let mut invocation = script.prepare_invoke();
        invocation.arg(now);
        for (bucket, cost) in spent {
            invocation.key(bucket).arg(*cost);
        }
        let call = async { Ok(invocation.invoke_async(&mut self.pool.get().await?).await?) };
        tokio::time::timeout(PATIENCE, call).await.map_err(|_| RedisError::Timeout)?
    }

    /// What is kept under a name.
    ///
    /// # Errors
    /// When Redis does not answer in time, or lately mostly has not: then it is not asked.
    pub async fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, RedisError> {
        self.ask(redis::cmd("GET").arg(name)).await
    }

    /// Keeps a value under a name for so long.
    ///
    /// # Errors
    /// As [`Redis::get`]; the value may then be kept or not.
    pub async fn set(&self, name: &[u8], value: &[u8], lifetime: Duration) -> Result<(), RedisError> {
        let milliseconds = u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX).max(1);
        self.ask(redis::cmd("SET").arg(name).arg(value).arg("PX").arg(milliseconds)).await
    }

    async fn ask<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, RedisError> {
        let permit = self.breaker.permit().map_err(|_| RedisError::CircuitOpen)?;
        let call = async { Ok(command.query_async(&mut self.pool.get().await?).await?) };
        let answer = tokio::time::timeout(self.timeout, call).await.unwrap_or(Err(RedisError::Timeout));
        permit.settle(answer.is_err());
        answer
    }

    /// Whether Redis answers.
    ///
    /// # Errors
    /// When it does not, or too late.
    pub async fn ping(&self) -> Result<(), RedisError> {
        let ping = async {
            let mut connection = self.pool.get().await?;
            Ok(redis::cmd("PING").query_async(&mut connection).await?)
        };
        tokio::time::timeout(self.timeout, ping).await.map_err(|_| RedisError::Timeout)?
    }
}
