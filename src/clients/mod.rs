//! The outside world, a struct each. Nothing else talks HTTP, SMTP or Redis.

pub mod circuit_breaker;
pub mod mailer;
pub mod payment_gateway;
pub mod redis;
pub mod rival_redis;
pub mod trace_collector;
