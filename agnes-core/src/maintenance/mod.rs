//! What operators do: back up, restore, collect garbage, ask what is wrong.

mod backup;
mod doctor;
mod health;
mod pulse;
mod services;

pub use backup::*;
pub use doctor::*;
pub(crate) use pulse::LastPulse;
pub use pulse::{Color, Pulse, PulseField};
pub use services::ServiceReport;

use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::orchestrator::{self, GcReport};

/// Care of a data folder. Everything here is for admins.
#[derive(Debug, Clone, Copy)]
pub struct Maintenance<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Care of the data folder.
    #[must_use]
    pub fn maintenance(&self) -> Maintenance<'_> {
        Maintenance { engine: self }
    }
}

impl Maintenance<'_> {
    /// Whether the caller may look at the figures of the server: admins and the service.
    ///
    /// # Errors
    /// `admin_required`, `inactive_user`.
    pub async fn require_operator(&self, ctx: &CallContext) -> Result<()> {
        self.admin(ctx).await
    }

    async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())
    }

    /// What a server does by itself, now and then: it deletes rows of the audit log that are
    /// older than `audit.retention_days`.
    ///
    /// # Errors
    /// What the state said.
    pub async fn tend(&self) -> Result<()> {
        let deleted = self.engine.audit().forget_old().await?;
        if deleted > 0 {
            tracing::info!(deleted, "rows of the audit log were older than `audit.retention_days`");
        }
        Ok(())
    }

    /// Deletes old generations, the blobs only they name, leftovers of interrupted work,
    /// jobs that ended long ago, and old rows of the audit log. With `dry_run` it only says what it would delete.
    ///
    /// # Errors
    /// I/O errors, `admin_required`.
    pub async fn gc(&self, ctx: &CallContext, dry_run: bool) -> Result<GcReport> {
        self.admin(ctx).await?;
        let done = orchestrator::collect_garbage(self.engine, dry_run).await;
        if !dry_run && done.is_ok() {
            let before = self.engine.clock().now() - chrono::Duration::days(30);
            self.engine.store().jobs().prune(before).await?;
            self.engine.audit().forget_old().await?;
        }
        self.engine
            .audit()
            .event(ctx, "maintenance.gc")
            .params(serde_json::json!({"dry_run": dry_run}))
            .outcome(&done)
            .record()
            .await;
        done
    }
}
