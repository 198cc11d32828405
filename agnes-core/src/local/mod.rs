//! The local door to a data folder: one process holds it, the others of that user are served.
//!
//! The holder takes `state/holder.lock` and listens on `state/holder.sock`. A process that
//! finds the lock taken becomes a client of the holder for every [`Verb`], so reading beside
//! a writer works without two processes ever having the state open. [`Door`] hides which of
//! the two happened.

mod client;
mod door;
mod error;
mod frame;
mod listen;
mod lock;
mod rows;
mod socket;
mod verb;
mod verbs;

pub use door::Door;
pub use error::LocalError;
pub use listen::Listener;
pub use lock::{Holder, HolderLock};
pub use rows::{RowSource, Rows};
pub use verb::{Caller, Verb};
pub use verbs::*;
