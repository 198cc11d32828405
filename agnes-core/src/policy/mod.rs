//! Row filters, column masks and hidden columns: what a group sees of a table it may read.
//!
//! A [`Policy`] belongs to one group and one table. [`effective`] says what all policies
//! together leave for one caller. A narrowed table never stands in a query instance as a
//! view over what is hidden: it is a slice, a Parquet file that holds the caller's part
//! alone, so nothing a query does can reach further.

mod effective;
mod model;

pub use effective::{Narrowing, effective, narrowings};
pub use model::*;
