//! What a caller may know of the tables they may read: list, columns, sample, profile, and
//! the manifest that laptops pull by.

mod assets;
mod download;
mod manifest;
mod metadata;
mod model;
mod preferences;
mod related;
mod sample;
mod scannable;
mod tables;

pub(crate) use assets::AssetHashes;
pub use assets::{AssetFile, ManifestAsset};
pub use download::Download;
pub(crate) use download::read_piece;
pub use manifest::*;
pub use metadata::DescribedColumns;
pub use model::*;
pub(crate) use sample::SampleCache;
pub(crate) use scannable::Scannable;
pub use tables::Catalog;
