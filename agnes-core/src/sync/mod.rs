//! Runs that bring tables up to date: state, history, durable jobs.

mod attempt;
mod execute;
mod jobs;
mod lease;
mod preferences;
mod runs;
mod state;

pub(crate) use attempt::free_bytes;
pub use jobs::*;
pub(crate) use lease::Heart;
pub use preferences::*;
pub use runs::*;
pub use state::*;
