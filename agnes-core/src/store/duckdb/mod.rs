//! State in one embedded DuckDB file.
