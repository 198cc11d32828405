//! The local door to a data folder: one process holds it, the others of that user are served.

mod error;
mod lock;

pub use error::LocalError;
pub use lock::{Holder, HolderLock};
