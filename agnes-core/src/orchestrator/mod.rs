//! From extracts to one published catalog: immutable generations of content-addressed blobs.

mod attach;
mod blobs;
mod gc;
mod generation;
mod load;
mod master;
mod ownership;
mod plan;
mod read;
mod rebuild;
mod service;

pub(crate) use attach::attach;
pub use attach::{AttachError, AttachPolicy};
#[cfg(target_os = "linux")]
pub(crate) use attach::{load as load_extension, reach};
pub(crate) use blobs::{adopt, hex};
pub use gc::GcReport;
pub(crate) use gc::collect_garbage;
pub use generation::*;
pub(crate) use load::is_behind;
pub use load::load_current;
pub(crate) use master::scan;
pub(crate) use rebuild::{Rebuilds, rebuild_all, rebuild_sources};
pub use service::Orchestrator;
