//! Tools for assistants: the Model Context Protocol, over standard input and output and over
//! HTTP.
//!
//! `Tool` declares each tool once: its name, what it takes, what it answers. Both doors list the
//! same tools and answer them by the same code, from a [`Backend`]: the data folder of `agnes mcp`,
//! or the engine of a server with the rights of whoever sent the request. The shapes of answers are
//! those of the API, so that an assistant and a program read the same. `agnes mcp` in a workspace has
//! three more, for the files there: see [`Laptop`].

mod backend;
mod docs;
mod schema;
mod server;
mod shapes;
mod tools;
mod turns;

use std::sync::Arc;

use rmcp::ServiceExt as _;
use rmcp::service::ServerInitializeError;

pub(crate) use backend::Served;
pub use backend::{Backend, Laptop};
pub(crate) use server::{Asking, Assistant};
pub(crate) use turns::Turns;

use tools::Tool;

/// Longest answer of a tool, unless the operator says otherwise: what an assistant can still read.
pub const DEFAULT_OUTPUT: usize = 100_000;

/// How much a tool may answer.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Most characters of one answer; 0 for any number.
    pub max_output: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self { max_output: DEFAULT_OUTPUT }
    }
}

/// Answers one assistant over standard input and output, until it closes them.
///
/// # Errors
/// What broke the connection, in words.
pub async fn serve_stdio(backend: Arc<dyn Backend>, settings: Settings) -> Result<(), String> {
    let assistant = Assistant::alone(backend, settings);
    let running = match assistant.serve(rmcp::transport::stdio()).await {
        Ok(running) => running,
        // Whoever looked whether the command is there, and asked nothing.
        Err(ServerInitializeError::ConnectionClosed(_)) => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    running.waiting().await.map(drop).map_err(|error| error.to_string())
}
