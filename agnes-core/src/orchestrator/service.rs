//! What admins ask of the orchestrator.

use super::{RebuildOutcome, SourceOutcome, rebuild};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::registry::RegistryError;

/// Publishes extracts as one catalog. Everything here is for admins.
#[derive(Debug, Clone, Copy)]
pub struct Orchestrator<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Publication of extracts.
    #[must_use]
    pub fn orchestrator(&self) -> Orchestrator<'_> {
        Orchestrator { engine: self }
    }
}

impl Orchestrator<'_> {
    /// Reads every extract that changed and publishes the result. Calls that wait for the
    /// same rebuild share it.
    ///
    /// # Errors
    /// `disk_full` and other I/O errors, `admin_required`. A source that cannot be read is
    /// in the outcome.
    pub async fn rebuild(&self, ctx: &CallContext) -> Result<RebuildOutcome> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let done = rebuild::rebuild_all(self.engine).await;
        self.engine.audit().event(ctx, "catalog.rebuild").resource("all_sources").outcome(&done).record().await;
        done
    }

    /// Reads one extract, if it changed, and publishes the result.
    ///
    /// # Errors
    /// `source_not_found` when there is no such extract and never was; as
    /// [`Orchestrator::rebuild`].
    pub async fn rebuild_source(&self, ctx: &CallContext, source: &str) -> Result<SourceOutcome> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let done = rebuild::rebuild_sources(self.engine, &[source.to_owned()]).await;
        let resource = format!("source:{}", crate::ident::printable(source, 64));
        self.engine.audit().event(ctx, "catalog.rebuild").resource(resource).outcome(&done).record().await;
        let found = done?.sources.into_iter().find(|s| s.source == source);
        found.ok_or_else(|| {
            RegistryError::SourceNotFound { source_name: crate::ident::printable(source, 64), suggestion: None }.into()
        })
    }

    /// What happened at the last rebuild.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn outcome(&self, ctx: &CallContext) -> Result<RebuildOutcome> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        Ok(self.engine.generation().outcome.clone())
    }
}
