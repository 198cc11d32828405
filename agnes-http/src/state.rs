//! What every route has at hand.

use std::sync::Arc;

use agnes_core::Engine;

use crate::health::Health;
use crate::meters::Meters;
use crate::server::Limits;

/// What every route has at hand; cheap to clone.
#[derive(Clone)]
pub(crate) struct App(Arc<Inner>);

struct Inner {
    engine: Engine,
    health: Health,
    meters: Meters,
    limits: Limits,
}

impl App {
    pub(crate) fn new(engine: Engine, limits: Limits) -> Self {
        let (health, meters) = (Health::default(), Meters::default());
        Self(Arc::new(Inner { engine, health, meters, limits }))
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

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }
}
