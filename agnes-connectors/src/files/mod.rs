#![doc = include_str!("docs.md")]

mod config;
mod cursor;
mod discover;
mod engine_words;
mod error;
mod extract;
mod formats;
mod infer;
mod listing;
mod objects;
mod rejects;
mod schema;
mod text;
mod watch;

use agnes_core::connector::{
    Cancel, Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext,
};
use agnes_core::duck::{ScratchDb, blocking};
use agnes_core::error::Result;
use agnes_core::extract::TableWriter;
use async_trait::async_trait;

pub use error::FilesError;

pub(crate) use engine_words::words;
pub(crate) use infer::names;

use config::{FilesConfig, Format, TableOptions};
use formats::Inspected;
use listing::FileEntry;

/// Files in a folder.
#[derive(Debug, Clone, Copy, Default)]
pub struct FilesConnector;

impl FilesConnector {
    /// The connector.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

#[async_trait]
impl Connector for FilesConnector {
    fn kind(&self) -> &'static str {
        "files"
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, incremental: true, partitioned: true, remote: false, materialize: false }
    }

    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value> {
        FilesConfig::parse(config).map(|config| config.to_value())
    }

    fn for_operators(&self, source: &SourceContext) -> Option<String> {
        let config = FilesConfig::parse(&source.config).ok()?;
        match config.place {
            None => Some("it reads files of the server's machine; files of yours can be uploaded as tables".to_owned()),
            Some(place) => place.unlisted(source),
        }
    }

    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        let source = source.clone();
        blocking(move || check(&source)).await
    }

    async fn discover(&self, source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        let source = source.clone();
        blocking(move || discover::discover(&source)).await
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        let (source, request) = (source.clone(), request.clone());
        blocking(move || extract::extract(&source, &request, writer)).await
    }
}

/// Finds out the columns of one file, and how to read it.
fn inspect(
    db: &ScratchDb,
    entry: &FileEntry,
    format: Format,
    options: &TableOptions,
    index: usize,
    cancel: &Cancel,
) -> Result<Inspected> {
    match format {
        Format::Csv | Format::Tsv => formats::csv::inspect(db, entry, format, options),
        Format::Json | Format::Ndjson => formats::json::inspect(db, entry, format, options, index, cancel),
        Format::Parquet => formats::parquet::inspect(db, entry, index),
        Format::Xlsx => formats::xlsx::inspect(db, entry, options, index, cancel),
    }
}

fn check(source: &SourceContext) -> Result<Vec<CheckItem>> {
    let config = FilesConfig::parse(&source.config)?;
    let item = |name: &str, ok: bool, detail: String| CheckItem { name: name.to_owned(), ok, detail };
    let listing = match listing::list(&config, source) {
        Ok(listing) => listing,
        Err(error) => return Ok(vec![item("path", false, error.to_string())]),
    };
    let mut items = vec![item("path", true, "the path can be read".to_owned())];
    let known: Vec<_> = listing.files.values().filter(|file| Format::of(&file.rel).is_some()).collect();
    let others = listing.files.len() - known.len();
    let left = if others > 0 { format!(", {others} of a kind that is not read") } else { String::new() };
    items.push(item("files", !known.is_empty(), format!("{} files{left}", known.len())));
    // Objects are looked at when they are read.
    for file in known.iter().filter(|file| file.object.is_none()) {
        source.cancel.check()?;
        if let Err(error) = text::open(file) {
            items.push(item("file", false, error.to_string()));
        }
    }
    items.extend(listing.notes.into_iter().map(|note| item("file", false, note)));
    Ok(items)
}
