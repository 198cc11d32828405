//! What a caller may know of the tables they may read: list, columns, sample, profile, and
//! the manifest that laptops pull by.

mod download;
mod manifest;
mod model;
mod preferences;
mod related;
mod sample;
mod tables;

pub use download::Download;
pub use manifest::*;
pub use model::*;
pub(crate) use sample::SampleCache;
pub use tables::Catalog;
