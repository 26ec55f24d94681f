//! The integration tests, a file per walkthrough. Run them with `make test`: they need the services it starts.

mod support;

mod accounts;
mod audit;
mod batches;
mod browser;
mod configuration;
mod conformance;
mod crash_points;
mod demo;
mod dependency_faults;
mod edge;
mod expiry;
mod frontend_queries;
mod key_rotation;
mod late_money;
mod layers;
mod orders;
mod outages;
mod oversell;
mod payments;
mod purchase;
mod races;
mod rate_limits;
mod reads;
mod reconciliation;
mod refunds;
mod schema;
mod sessions;
mod stampede;
mod subscriptions;
mod trusted_documents;
mod walk;
mod webhooks;
