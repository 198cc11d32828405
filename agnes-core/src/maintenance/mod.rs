//! What operators do: back up, restore, collect garbage, ask what is wrong.

mod backup;
mod doctor;
mod health;

pub use backup::*;
pub use doctor::*;

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
    async fn admin(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_admin(ctx.principal())
    }

    /// Deletes old generations, the blobs only they name, leftovers of interrupted work,
    /// and jobs that ended long ago. With `dry_run` it only says what it would delete.
    ///
    /// # Errors
    /// I/O errors, `admin_required`.
    pub async fn gc(&self, ctx: &CallContext, dry_run: bool) -> Result<GcReport> {
        self.admin(ctx).await?;
        let done = orchestrator::collect_garbage(self.engine, dry_run).await;
        if !dry_run && done.is_ok() {
            let before = self.engine.clock().now() - chrono::Duration::days(30);
            self.engine.store().jobs().prune(before).await?;
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
