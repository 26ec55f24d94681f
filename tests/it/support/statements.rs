//! Counts the statements that this process sends. Each test is a process of its own.

use std::{
    fmt::Debug,
    sync::atomic::{AtomicUsize, Ordering},
};

use tracing::field::{Field, Visit};
use tracing_subscriber::{Layer, layer::SubscriberExt};

static SENT: AtomicUsize = AtomicUsize::new(0);

/// Counts from now on; only those with `words` in them.
pub fn count(words: &'static str) {
    tracing::subscriber::set_global_default(tracing_subscriber::registry().with(Counter(words))).unwrap();
}

pub fn sent() -> usize {
    SENT.load(Ordering::SeqCst)
}

struct Counter(&'static str);

impl<S: tracing::Subscriber> Layer<S> for Counter {
    fn on_event(&self, event: &tracing::Event<'_>, _: tracing_subscriber::layer::Context<'_, S>) {
        let mut search = Search { words: self.0, found: self.0.is_empty() };
        if event.metadata().target() == "sqlx::query" {
            event.record(&mut search);
            SENT.fetch_add(usize::from(search.found), Ordering::SeqCst);
        }
    }
}

struct Search {
    words: &'static str,
    found: bool,
}

impl Visit for Search {
    fn record_str(&mut self, _: &Field, value: &str) {
        self.found |= value.split_whitespace().collect::<Vec<_>>().join(" ").contains(self.words);
    }

    fn record_debug(&mut self, _: &Field, value: &dyn Debug) {
        self.found |= format!("{value:?}").contains(self.words);
    }
}
