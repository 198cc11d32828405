//! What one sync of one source leaves on disk: `extract.duckdb` and Parquet under `data/`.

mod writer;

pub use writer::*;
