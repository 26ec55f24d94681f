//! Values as they are at one moment, made anew for each scrape.

use std::fmt;

use prometheus_client::{
    encoding::{EncodeGaugeValue, EncodeMetric, MetricEncoder},
    metrics::MetricType,
    registry::Registry,
};

use super::{PREFIX, text};

pub struct Snapshot(Registry);

impl Default for Snapshot {
    fn default() -> Self {
        Self(Registry::with_prefix(PREFIX))
    }
}

/// What a gauge can show.
pub trait Value: EncodeGaugeValue + fmt::Debug + Send + Sync + 'static {}

impl<V: EncodeGaugeValue + fmt::Debug + Send + Sync + 'static> Value for V {}

impl Snapshot {
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Value) {
        self.gauges(name, help, [], [([], value)]);
    }

    /// A value for each set of labels.
    pub fn gauges<'a, const N: usize, V: Value>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&'static str; N],
        values: impl IntoIterator<Item = ([&'a str; N], V)>,
    ) {
        let named = |texts: [&str; N]| labels.into_iter().zip(texts.map(str::to_owned)).collect();
        let values = values.into_iter().map(|(texts, value)| (named(texts), value)).collect();
        self.0.register(name, help, Values(values));
    }

    /// In Prometheus's text format.
    #[must_use]
    pub fn text(&self) -> String {
        text(&self.0)
    }
}

#[derive(Debug)]
struct Values<V>(Vec<(Vec<(&'static str, String)>, V)>);

impl<V: Value> EncodeMetric for Values<V> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(labels, value)| encoder.encode_family(labels)?.encode_gauge(value))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
