//! A span for each SQL statement, made of what sqlx tells in its log once a statement has ended. Only what kind it is and of which table or
//! function goes into a trace: neither its text nor a value.

use std::{
    fmt::Debug,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Span, SpanKind, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::SdkTracer;
use tracing::{
    Event, Level, Metadata, Subscriber,
    field::{Field, Visit},
    level_filters::LevelFilter,
    subscriber::Interest,
};
use tracing_subscriber::{Layer, filter::dynamic_filter_fn, layer::Context as LayerContext, registry::LookupSpan};

pub struct Statements(SdkTracer);

impl Statements {
    /// Outside of recorded traces it costs a statement one look at a variable of the thread.
    pub fn layer<S: Subscriber + for<'span> LookupSpan<'span>>(tracer: SdkTracer) -> impl Layer<S> {
        let is_statement = |metadata: &Metadata<'_>| metadata.target() == "sqlx::query" && *metadata.level() <= Level::DEBUG;
        let is_recorded = || Context::map_current(|context| context.span().span_context().is_sampled());
        let filter = dynamic_filter_fn(move |metadata, _| is_statement(metadata) && is_recorded())
            .with_callsite_filter(move |metadata| if is_statement(metadata) { Interest::sometimes() } else { Interest::never() })
            .with_max_level_hint(LevelFilter::DEBUG);
        Self(tracer).with_filter(filter)
    }
}

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        let mut statement = Statement::default();
        event.record(&mut statement);
        let ended_at = opentelemetry::time::now();
        let summary = summary(&statement.sql);
        let attributes = [
            KeyValue::new("db.system.name", "postgresql"),
            KeyValue::new("db.query.summary", summary.clone()),
            KeyValue::new("db.response.returned_rows", i64::try_from(statement.rows).unwrap_or(i64::MAX)),
        ];
        let builder = self.0.span_builder(summary).with_kind(SpanKind::Client).with_attributes(attributes);
        let started_at = ended_at.checked_sub(statement.took).unwrap_or(SystemTime::UNIX_EPOCH);
        builder.with_start_time(started_at).start(&self.0).end_with_timestamp(ended_at);
    }
}

/// What sqlx tells of a statement.
#[derive(Default)]
struct Statement {
    sql: String,
    rows: u64,
    took: Duration,
}

impl Visit for Statement {
    fn record_str(&mut self, field: &Field, value: &str) {
        // The summary is the whole statement when it is short; the other one is empty then.
        if matches!(field.name(), "summary" | "db.statement") && !value.is_empty() {
            value.clone_into(&mut self.sql);
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "rows_returned" {
            self.rows = value;
        }
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if field.name() == "elapsed_secs" {
            self.took = Duration::try_from_secs_f64(value).unwrap_or_default();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

/// The verb of a statement and the first table or function that it is about: `INSERT orders`, `SELECT pgmq.send`.
fn summary(sql: &str) -> String {
    let mut words = sql.split_whitespace().map(|word| word.trim_start_matches('('));
    let verb = words.next().unwrap_or_default();
    let (mut before, mut target) = (verb, None);
    for word in words {
        let is_name = word.starts_with(|first: char| first.is_ascii_lowercase());
        match before {
            "FROM" | "INTO" | "UPDATE" if is_name => {
                target = Some(word);
                break;
            }
            // Of `SELECT pgmq.send($1, …)`, unless a table follows.
            "SELECT" if is_name && word.contains('(') => target = Some(word),
            _ => {}
        }
        before = word;
    }
    match target.and_then(|word| word.split(['(', ',', ')', ';']).next()) {
        Some(name) => format!("{verb} {name}"),
        None => verb.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_is_the_verb_and_what_it_is_about() {
        for (sql, expected) in [
            ("COMMIT", "COMMIT"),
            ("\n\nSELECT outcome AS \"outcome!\",\n  held\n FROM buy_now($1, $2)\n", "SELECT buy_now"),
            ("SELECT pgmq.send($1, $2::jsonb)", "SELECT pgmq.send"),
            ("INSERT INTO retry (queue, kind) VALUES ($1, $2)", "INSERT retry"),
            ("UPDATE payment p SET status = $1 FROM unnest($2) u", "UPDATE payment"),
            ("DELETE FROM retry WHERE due_at IS NULL", "DELETE retry"),
            ("WITH due AS (SELECT id FROM mail) UPDATE mail SET x = 1", "WITH mail"),
            ("SELECT count(*) >= $1 FROM (SELECT FROM pgmq.q_mail LIMIT $1) m", "SELECT pgmq.q_mail"),
            ("", ""),
        ] {
            assert_eq!(summary(sql), expected, "{sql}");
        }
    }
}
