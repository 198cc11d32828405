//! Figures for Prometheus.

use std::time::Duration;

use agnes_core::mail::MailStatus;
use agnes_core::sync::TableStatus;
use chrono::{DateTime, Utc};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

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

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Synced {
    status: String,
}

/// What the engine counts.
pub(crate) struct Figures {
    /// Number of the published catalog.
    pub(crate) generation: u64,
    /// Audit rows lost since the start.
    pub(crate) audit_failures: u64,
    pub(crate) mails: MailStatus,
    /// Tables of ended sync runs since the start.
    pub(crate) synced: [(TableStatus, u64); 4],
    /// When a scheduler last did something, where that can be told.
    pub(crate) last_tick: Option<DateTime<Utc>>,
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
    mails_sent: Gauge,
    mails_failed: Gauge,
    queries_running: Gauge,
    queries_waiting: Gauge,
    synced: Family<Synced, Gauge>,
    last_tick: Gauge,
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
        let (mails_sent, mails_failed) = (Gauge::default(), Gauge::default());
        registry.register("mails_sent", "Mails handed over since the start", mails_sent.clone());
        registry.register("mails_failed", "Mails that could not be handed over since the start", mails_failed.clone());
        let (queries_running, queries_waiting) = (Gauge::default(), Gauge::default());
        let running_words = "Queries and scans over HTTP that are not answered to their last row";
        registry.register("queries_running", running_words, queries_running.clone());
        let waiting_words = "Those of them without a first row, for want of a turn or of time";
        registry.register("queries_waiting", waiting_words, queries_waiting.clone());
        let (synced, last_tick) = (Family::<Synced, Gauge>::default(), Gauge::default());
        registry.register("sync_tables", "Tables of sync runs that ended since the start", synced.clone());
        let tick_words = "When a scheduler last did something, Unix time; 0 before the first time";
        registry.register_with_unit("scheduler_last_tick_timestamp", tick_words, Unit::Seconds, last_tick.clone());
        Self {
            registry,
            answered,
            seconds,
            running,
            connections,
            generation,
            audit_failures,
            mails_sent,
            mails_failed,
            queries_running,
            queries_waiting,
            synced,
            last_tick,
        }
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

/// A query that is asked, until its first row.
pub(crate) struct Asking {
    running: Held,
    waiting: Held,
}

impl Asking {
    /// Its first row is there; it is counted until the last.
    pub(crate) fn answered(self) -> Held {
        drop(self.waiting);
        self.running
    }
}

impl Meters {
    pub(crate) fn query(&self) -> Asking {
        Asking { running: Held::new(&self.queries_running), waiting: Held::new(&self.queries_waiting) }
    }

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
    pub(crate) fn text(&self, figures: &Figures) -> Result<String, std::fmt::Error> {
        let set = |gauge: &Gauge, figure: u64| gauge.set(i64::try_from(figure).unwrap_or(i64::MAX));
        set(&self.generation, figures.generation);
        set(&self.audit_failures, figures.audit_failures);
        set(&self.mails_sent, figures.mails.sent);
        set(&self.mails_failed, figures.mails.failed);
        for (status, tables) in figures.synced {
            set(&self.synced.get_or_create(&Synced { status: status.as_str().to_owned() }), tables);
        }
        if let Some(at) = figures.last_tick {
            self.last_tick.set(at.timestamp());
        }
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry)?;
        Ok(text)
    }
}
