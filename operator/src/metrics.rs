//! What is counted, for Prometheus. Every metric is listed in docs/kubernetes.md.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The media type of [`Metrics::text`].
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Upper bounds in seconds: from a look that changes nothing to an API server that hardly answers.
const BOUNDS: [f64; 10] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0, 10.0];

/// The counts of one process.
#[derive(Clone)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
    reconciles: Family<Outcome, Counter>,
    durations: Family<Controller, Histogram>,
    leading: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("openshell_operator");
        let reconciles = Family::default();
        registry.register("reconciles", "Objects looked at, by controller and result (ok, error)", reconciles.clone());
        let durations = Family::<Controller, Histogram>::new_with_constructor(|| Histogram::new(BOUNDS));
        registry.register("reconcile_seconds", "Time that looking at an object took", durations.clone());
        let leading = Gauge::default();
        registry.register("leading", "1 while this process holds the lease and works", leading.clone());
        Self { registry: Arc::new(Mutex::new(registry)), reconciles, durations, leading }
    }
}

impl Metrics {
    /// Everything, in the text format.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry.lock())?;
        Ok(text)
    }

    /// This process works from now on.
    pub fn leads(&self) {
        self.leading.set(1);
    }

    /// Counts what a controller does with an object.
    pub(crate) fn timed<W, T, E>(&self, controller: &'static str, work: W) -> impl Future<Output = Result<T, E>> + use<W, T, E>
    where
        W: Future<Output = Result<T, E>>,
    {
        let (reconciles, durations) = (self.reconciles.clone(), self.durations.clone());
        async move {
            let begin = Instant::now();
            let done = work.await;
            let result = if done.is_ok() { "ok" } else { "error" };
            reconciles.get_or_create(&Outcome { controller, result }).inc();
            durations.get_or_create(&Controller { controller }).observe(begin.elapsed().as_secs_f64());
            done
        }
    }

    /// Has a number per value of a label asked for whenever somebody looks.
    pub(crate) fn count<F>(&self, name: &'static str, help: &'static str, label: &'static str, numbers: F)
    where
        F: Fn() -> Vec<(String, i64)> + Send + Sync + 'static,
    {
        self.registry.lock().register_collector(Box::new(Counted { name, help, label, numbers }));
    }
}

/// A gauge that is counted when it is asked for.
struct Counted<F> {
    name: &'static str,
    help: &'static str,
    label: &'static str,
    numbers: F,
}

impl<F> fmt::Debug for Counted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Counted").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<F: Fn() -> Vec<(String, i64)> + Send + Sync + 'static> Collector for Counted<F> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(self.name, self.help, None, prometheus_client::metrics::MetricType::Gauge)?;
        for (value, number) in (self.numbers)() {
            let labels = [(self.label, value)];
            ConstGauge::new(number).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn counts_what_was_done_and_asks_for_the_rest() {
        let metrics = Metrics::default();
        metrics.leads();
        metrics.count("sandboxes", "Sandboxes", "phase", || vec![("Ready".to_owned(), 3), ("Error".to_owned(), 1)]);
        let _: Result<(), ()> = metrics.timed("policy", async { Ok(()) }).await;
        let _: Result<(), ()> = metrics.timed("policy", async { Err(()) }).await;
        let text = metrics.text().unwrap();
        for line in [
            "openshell_operator_reconciles_total{controller=\"policy\",result=\"ok\"} 1",
            "openshell_operator_reconciles_total{controller=\"policy\",result=\"error\"} 1",
            "openshell_operator_reconcile_seconds_count{controller=\"policy\"} 2",
            "openshell_operator_leading 1",
            "openshell_operator_sandboxes{phase=\"Ready\"} 3",
            "openshell_operator_sandboxes{phase=\"Error\"} 1",
            "# EOF",
        ] {
            assert!(text.lines().any(|found| found == line), "no line {line} in\n{text}");
        }
    }
}
