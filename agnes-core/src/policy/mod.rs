//! Row filters, column masks and hidden columns: what a group sees of a table it may read.
//!
//! A [`Policy`] belongs to one group and one table. [`effective`] says what all policies
//! together leave for one caller. A narrowed table never stands in a query instance as a
//! view over what is hidden: it is a slice, a Parquet file that holds the caller's part
//! alone, so nothing a query does can reach further.

mod check;
mod effective;
mod key;
mod model;
mod narrowed;
mod preview;
mod profile;
mod service;
mod slice;

pub use effective::{Narrowing, effective, narrowings};
pub(crate) use key::InstanceKey;
pub use model::*;
pub(crate) use narrowed::{Narrowed, NarrowedTables, narrowed_tables};
pub use narrowed::{ROW_SCOPE_KEY, RowScope};
pub use preview::*;
pub(crate) use profile::profile;
pub use service::{Policies, PolicyCheck, PolicyRow};
pub(crate) use slice::{Slice, Slices, StillUsed, collect};
