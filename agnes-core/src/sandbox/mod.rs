//! The parser wall: nothing a caller wrote reaches the engine unless it is one read-only
//! query over relations the caller may read.
//!
//! [`Gate::parse`] lets DuckDB's own parser read the text on a sealed, empty connection and
//! walks the whole tree against lists of what is known to be harmless; anything else is
//! refused. [`Parsed::resolve`] then decides for one caller and gives a [`Checked`], the
//! only value the query runtimes accept. Behind this wall stand the catalog wall and the
//! engine wall (see [`crate::query`]).

mod error;
mod expression;
mod functions;
mod gate;
mod grammar;
mod lex;
mod parser;
mod pivot;
mod resolve;
mod walk;

pub use error::SandboxError;
pub(crate) use expression::{Select, SliceQuery, UserValues};
pub use gate::{Gate, MAX_SQL_BYTES, Parsed};
pub use lex::{says_something, statement_end};
pub(crate) use pivot::PivotLookup;
#[cfg(target_os = "linux")]
pub(crate) use resolve::CheckedWire;
pub use resolve::{Checked, Readable, RelationKind};
pub use walk::{MAX_DEPTH, MAX_NODES, SystemRelation};
