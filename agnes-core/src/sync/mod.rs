//! Runs that bring tables up to date: state, history, durable jobs.

mod attempt;
mod claim;
mod execute;
mod jobs;
mod lease;
mod outcome;
mod preferences;
#[cfg(unix)]
mod programs;
mod progress;
mod runs;
mod state;

pub(crate) use attempt::free_bytes;
pub(crate) use claim::sweep as sweep_claims;
pub use jobs::*;
pub(crate) use lease::Heart;
pub use outcome::*;
pub use preferences::*;
pub use progress::*;
pub use runs::*;
pub use state::*;
