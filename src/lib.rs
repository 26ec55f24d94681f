//! `WhiteMonday`: an engine for first-come-first-served sales.
//!
//! A GraphQL backend-for-frontend over a PostgreSQL-centric core. `docs/ARCHITECTURE.md` is the map.

pub mod app;
pub mod auth;
pub mod cli;
pub mod clients;
pub mod clock;
pub mod config;
pub mod domain;
pub mod embedded;
pub mod http;
pub mod jobs;
pub mod metrics;
pub mod resolvers;
pub mod sealing;
pub mod services;
pub mod simulator;
pub mod stampede;
pub mod store;
pub mod telemetry;
