//! The HTTP frontend: it reads requests, calls [`agnes_core::Engine`] and writes answers.
//! It holds no SQL, no permission rule and no file layout.
//!
//! [`Server`] is everything behind one listener; `agnes serve` runs it.

mod arriving;
mod authority;
mod caller;
mod codes;
mod cors;
mod extract;
mod form;
mod frame;
mod health;
pub mod mcp;
mod meters;
mod oidc;
mod openapi;
mod peer;
mod problem;
mod providers;
mod range;
mod rates;
mod routes;
mod rows;
mod scheduler;
mod server;
mod state;
mod traces;
mod web;

pub use cors::{OriginError, Origins};
pub use openapi::document;
pub use problem::Problem;
pub use server::{Build, Limits, ServeError, Server};
pub use traces::{Traces, TracesError};
