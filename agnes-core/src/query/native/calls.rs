//! Calls of a warehouse that nobody waits for any more end there too.

use crate::connector::{Cancel, WarehouseQuery, WarehouseRows};
use crate::error::{Error, Result};

use super::Native;

/// Has whatever runs at a warehouse end when dropped.
pub(super) struct CancelOnDrop(Option<Cancel>);

impl CancelOnDrop {
    pub(super) fn new(cancel: &Cancel) -> Self {
        Self(Some(cancel.clone()))
    }

    /// Lets it run on.
    pub(super) fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for CancelOnDrop {
    fn drop(&mut self) {
        if let Some(cancel) = &self.0 {
            cancel.cancel();
        }
    }
}

/// Asks a warehouse, apart from whoever waits: a call that nobody waits for any more is
/// cancelled there.
pub(super) async fn ask(native: &Native, query: WarehouseQuery) -> Result<WarehouseRows> {
    let mut native = native.clone();
    native.source.cancel = native.source.cancel.child();
    let guard = CancelOnDrop::new(&native.source.cancel);
    let task = tokio::spawn(async move {
        let rows = native.warehouse()?.rows(&native.source, &query).await?;
        Ok::<_, Error>(rows)
    });
    let rows = task.await.map_err(|error| Error::internal("ask a warehouse", error))?;
    if rows.is_ok() {
        // It has ended there; what still comes is ended by not reading it.
        guard.leave();
    }
    rows
}
