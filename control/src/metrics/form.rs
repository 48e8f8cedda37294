//! The forms that metrics are written in beside those of the library: a counter with a name of
//! Istio's, and any metric in one list.

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Metric;

/// A counter whose name is written as it is.
#[derive(Clone, Debug, Default)]
pub struct Bare(Counter);

impl Bare {
    /// One more.
    pub fn inc(&self) {
        self.0.inc();
    }

    /// How many so far.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl TypedMetric for Bare {
    const TYPE: MetricType = MetricType::Unknown;
}

impl EncodeMetric for Bare {
    fn encode(&self, mut encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        // What a gauge is written as is what an untyped value is: the name and the number.
        encoder.encode_gauge(&i64::try_from(self.0.get()).unwrap_or(i64::MAX))
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

/// Any metric, so that all are registered in one list.
#[derive(Debug)]
pub(super) struct Boxed(pub(super) Box<dyn Metric>);

impl EncodeMetric for Boxed {
    fn encode(&self, encoder: MetricEncoder) -> Result<(), std::fmt::Error> {
        self.0.encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        self.0.metric_type()
    }
}
