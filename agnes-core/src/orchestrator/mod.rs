//! From extracts to one published catalog: immutable generations of content-addressed blobs.

mod generation;

pub use generation::*;
