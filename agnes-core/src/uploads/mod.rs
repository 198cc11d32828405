//! Files that people upload: their sessions, artefacts and notes, and files that become tables.
//!
//! A file arrives under a temporary name in the folder it will be in, is put on the disk, and
//! renamed: a client that goes away or a kill leaves nothing but what a start removes.

mod error;
mod incoming;
mod own;
mod tables;

pub use error::UploadError;
pub use incoming::Incoming;
pub use own::{OwnSession, OwnUpload, Uploaded};
pub use tables::{TableUpload, TableUploaded, file_stem, table_name_of};
pub(crate) use tables::{config_of, forget_file, is_upload};

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::rbac::Ability;

/// Uploads of one person at a time.
const AT_ONCE: usize = 4;

/// What people may upload.
#[derive(Debug, Clone, Copy)]
pub struct Uploads<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Files that people upload.
    #[must_use]
    pub fn uploads(&self) -> Uploads<'_> {
        Uploads { engine: self }
    }
}

/// What keeps uploads in order.
#[derive(Debug, Default)]
pub(crate) struct UploadState {
    /// How many files of each person are arriving.
    arriving: Arc<Mutex<HashMap<String, usize>>>,
    /// Held by the one file that takes its place.
    placing: tokio::sync::Mutex<()>,
    /// Held by the one file that becomes a table.
    making: tokio::sync::Mutex<()>,
}

/// One of a person's uploads that are arriving.
#[derive(Debug)]
struct Turn {
    arriving: Arc<Mutex<HashMap<String, usize>>>,
    user: String,
}

impl Turn {
    fn take(state: &UploadState, user: &str) -> Result<Self> {
        let mut arriving = state.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let count = arriving.entry(user.to_owned()).or_default();
        if *count >= AT_ONCE {
            return Err(UploadError::TooMany { limit: AT_ONCE }.into());
        }
        *count += 1;
        Ok(Self { arriving: state.arriving.clone(), user: user.to_owned() })
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = arriving.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                arriving.remove(&self.user);
            }
        }
    }
}

impl Uploads<'_> {
    /// Bytes of the largest file.
    #[must_use]
    pub fn max_bytes(&self) -> u64 {
        self.engine.config().uploads.max_bytes
    }

    /// Refuses whoever may upload nothing.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`, `read_only_view`.
    pub async fn require(&self, ctx: &CallContext) -> Result<()> {
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require(Ability::Everything)?;
        ctx.principal().require_own()
    }
}
