//! From extracts to one published catalog: immutable generations of content-addressed blobs.

mod attach;
mod blobs;
mod drift;
mod extension;
mod gc;
mod generation;
mod load;
mod master;
mod ownership;
mod plan;
mod read;
mod rebuild;
mod record;
mod remote_view;
mod service;

#[cfg(target_os = "linux")]
pub(crate) use attach::reach;
pub use attach::{AttachError, AttachPolicy, attach_source};
pub(crate) use attach::{attach, can_attach, compares_texts_its_way};
pub(crate) use blobs::{adopt, hex, signature_of};
#[cfg(target_os = "linux")]
pub(crate) use extension::{CheckedFile, checked_files, load as load_extension, take_over_checked};
pub use gc::GcReport;
pub(crate) use gc::collect_garbage;
pub use generation::*;
pub use load::load_current;
pub(crate) use load::{is_behind, share_scratch, sweep_scratch};
pub(crate) use master::scan;
pub(crate) use rebuild::{Rebuilds, rebuild_all, rebuild_sources};
pub use service::Orchestrator;
