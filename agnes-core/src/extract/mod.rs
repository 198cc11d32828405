//! What one sync of one source leaves on disk: `extract.duckdb` and Parquet under `data/`.

mod drift;
mod encode;
mod error;
pub(crate) mod fsio;
pub(crate) mod parquet;
mod publish;
mod reader;
mod writer;

pub use drift::SchemaDrift;
pub use error::ExtractError;
pub use fsio::write_atomically;
pub use publish::*;
pub(crate) use reader::view_columns;
pub use reader::*;
pub use writer::*;
