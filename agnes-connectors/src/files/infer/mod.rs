//! What the columns of a table are called and which types they get.

pub(crate) mod names;
pub(crate) mod shape;
pub(crate) mod types;
