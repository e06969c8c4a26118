//! Writes families of metrics whose values are already known.

use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;

/// Writes whole families; one without members leaves no trace.
#[derive(Debug)]
pub(super) struct Writer<'w, 'e>(pub(super) &'w mut DescriptorEncoder<'e>);

impl Writer<'_, '_> {
    pub(super) fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, f64)>,
    ) -> Result<(), fmt::Error> {
        self.family(name, help, MetricType::Gauge, values, |metric, value| metric.encode_gauge(value))
    }

    /// The name goes without `_total`, which the text has.
    pub(super) fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> Result<(), fmt::Error> {
        self.family(name, help, MetricType::Counter, values, |metric, value| {
            metric.encode_counter::<NoLabelSet, V, f64>(value, None)
        })
    }

    fn family<L: EncodeLabelSet, V>(
        &mut self,
        name: &str,
        help: &str,
        metric_type: MetricType,
        values: impl IntoIterator<Item = (L, V)>,
        mut encode: impl FnMut(&mut MetricEncoder<'_>, &V) -> Result<(), fmt::Error>,
    ) -> Result<(), fmt::Error> {
        let mut values = values.into_iter().peekable();
        if values.peek().is_none() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, &format!("{help}."), None, metric_type)?;
        for (labels, value) in values {
            encode(&mut family.encode_family(&labels)?, &value)?;
        }
        Ok(())
    }
}
