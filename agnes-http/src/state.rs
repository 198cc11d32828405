//! What every route has at hand.

use std::sync::Arc;

use agnes_core::Engine;

use crate::health::Health;
use crate::meters::Meters;
use crate::rates::Rates;
use crate::server::Limits;

/// What every route has at hand; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    engine: Engine,
    health: Health,
    meters: Meters,
    rates: Rates,
    limits: Limits,
}

impl App {
    pub(crate) fn new(engine: Engine, limits: Limits) -> Self {
        let (health, meters) = (Health::default(), Meters::default());
        let rates = Rates::new(limits.sign_in_rates);
        Self(Arc::new(Inner { engine, health, meters, rates, limits }))
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.0.engine
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    pub(crate) fn meters(&self) -> &Meters {
        &self.0.meters
    }

    pub(crate) fn rates(&self) -> &Rates {
        &self.0.rates
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }
}

/// The time, ISO 8601.
pub(crate) fn now() -> String {
    chrono::Utc::now().to_rfc3339()
}
