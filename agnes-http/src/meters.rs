//! Figures for Prometheus.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    /// The pattern, not the address: few values, and no names of tables.
    route: String,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    method: String,
    route: String,
}

/// What is counted.
pub(crate) struct Meters {
    registry: Registry,
    answered: Family<Answered, Counter>,
    seconds: Family<Asked, Histogram>,
    running: Gauge,
    connections: Gauge,
    generation: Gauge,
    audit_failures: Gauge,
}

fn histogram() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0])
}

impl Default for Meters {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("agnes");
        let (answered, running) = (Family::<Answered, Counter>::default(), Gauge::default());
        let seconds = Family::<Asked, Histogram>::new_with_constructor(histogram);
        let (connections, generation, audit_failures) = (Gauge::default(), Gauge::default(), Gauge::default());
        registry.register("http_requests", "Requests answered", answered.clone());
        registry.register("http_request_seconds", "Time until the head of the answer", seconds.clone());
        registry.register("http_requests_running", "Requests without a head of an answer", running.clone());
        registry.register("http_connections", "Open connections", connections.clone());
        registry.register("generation", "Number of the published catalog", generation.clone());
        registry.register("audit_write_failures", "Audit rows lost since the start", audit_failures.clone());
        Self { registry, answered, seconds, running, connections, generation, audit_failures }
    }
}

/// Counts one thing as long as it lives.
pub(crate) struct Held(Gauge);

impl Held {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Meters {
    pub(crate) fn request(&self) -> Held {
        Held::new(&self.running)
    }

    pub(crate) fn connection(&self) -> Held {
        Held::new(&self.connections)
    }

    pub(crate) fn answered(&self, method: &str, route: &str, status: u16, took: Duration) {
        let (method, route) = (method.to_owned(), route.to_owned());
        self.seconds.get_or_create(&Asked { method: method.clone(), route: route.clone() }).observe(took.as_secs_f64());
        self.answered.get_or_create(&Answered { method, route, status }).inc();
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn text(&self, generation: u64, audit_failures: u64) -> Result<String, std::fmt::Error> {
        self.generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.audit_failures.set(i64::try_from(audit_failures).unwrap_or(i64::MAX));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
