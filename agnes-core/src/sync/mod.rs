//! Runs that bring tables up to date: state, history, durable jobs.

mod jobs;
mod state;

pub use jobs::*;
pub use state::*;
