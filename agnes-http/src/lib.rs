//! The HTTP frontend: it reads requests, calls [`agnes_core::Engine`] and writes answers.
//! It holds no SQL, no permission rule and no file layout.
//!
//! [`Server`] is everything behind one listener; `agnes serve` runs it.

mod caller;
mod extract;
mod frame;
mod health;
mod meters;
mod openapi;
mod peer;
mod problem;
mod range;
mod rates;
mod routes;
mod rows;
mod server;
mod state;

pub use openapi::document;
pub use problem::Problem;
pub use server::{Build, Limits, ServeError, Server};
