//! The sources that the configuration itself names (`data_source`, `jira`), as clients know them: one of a
//! kind, named by it. They are sources like any other; their settings follow the configuration.

use super::RegisteredSource;
use std::path::Path;

use super::rules::{BIGQUERY, JIRA, KEBOOLA};
use crate::config::DataSourceConfig;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ident::SourceName;
use crate::push::{Documents, PushError};

/// Who added such a source.
const BY: &str = "configuration";

impl Engine {
    /// Keeps a source for each kind that `config` names, where no other of its kind was added by hand.
    /// What is wrong with one of them is logged: the others are kept all the same, and the next start
    /// says it again.
    pub(crate) async fn keep_configured_sources(&self, config: &DataSourceConfig) {
        for kind in [KEBOOLA, BIGQUERY, JIRA] {
            if let Err(error) = self.keep_configured_source(kind, config).await {
                let code = error.code();
                tracing::error!(kind, code, "the source that the configuration names cannot be used: {error}");
            }
        }
    }

    async fn keep_configured_source(&self, kind: &str, config: &DataSourceConfig) -> Result<()> {
        let sources = self.store().sources();
        let settings = config.settings.get(kind).cloned().unwrap_or_default();
        let named = config.primary.as_deref() == Some(kind) || !settings.is_empty();
        let Some(connector) = self.connectors().get(kind).filter(|_| named) else { return Ok(()) };
        let settings = connector.normalise_config(&settings.into())?;
        let of_kind: Vec<_> = sources.list().await?.into_iter().filter(|source| source.kind == kind).collect();
        let own = of_kind.iter().find(|source| source.created_by.as_deref() == Some(BY));
        match own {
            Some(own) if own.config == settings => {}
            Some(own) => sources.update(&RegisteredSource { config: settings, ..own.clone() }).await?,
            None if !of_kind.is_empty() => {}
            None => {
                let source = RegisteredSource {
                    name: SourceName::parse(kind)?,
                    kind: kind.to_owned(),
                    config: settings,
                    schedule: None,
                    created_at: Some(self.clock().now()),
                    created_by: Some(BY.to_owned()),
                };
                sources.insert(&source).await?;
                tracing::info!(kind, "a source was added, as the configuration names it");
            }
        }
        Ok(())
    }

    /// Has the source `jira` keep what it was told where `JIRA_DATA_DIR` says: `raw` in its extract
    /// is a link to there, for everything that reads or writes it.
    ///
    /// # Errors
    /// `raw_folder_elsewhere` where there are documents in `raw` already; I/O errors.
    pub(crate) fn keep_raw_folder(&self, wanted: &Path) -> Result<()> {
        let raw = Documents::of(&self.folder().extract(&SourceName::parse(JIRA)?)).raw();
        let io = |error| Error::io("keep the documents of Jira elsewhere", error);
        let wanted = std::path::absolute(wanted).map_err(io)?;
        std::fs::create_dir_all(&wanted).map_err(io)?;
        if let Some(parent) = raw.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        let there = raw.symlink_metadata().ok();
        if there.is_some() && raw.canonicalize().ok() == wanted.canonicalize().ok() {
            return Ok(());
        }
        match there {
            Some(there) if there.is_symlink() => std::fs::remove_file(&raw).map_err(io)?,
            // Only where nothing is in it.
            Some(_) => std::fs::remove_dir(&raw).map_err(|_| PushError::RawElsewhere)?,
            None => {}
        }
        #[cfg(unix)]
        std::os::unix::fs::symlink(&wanted, &raw).map_err(io)?;
        Ok(())
    }

    /// Whether a run registers tables that it finds at `source`. Clients of Keboola and BigQuery say
    /// which tables they want; of Keboola they get all where they never said.
    pub(crate) async fn registers_what_it_finds(&self, source: &RegisteredSource) -> Result<bool> {
        Ok(match source.kind.as_str() {
            BIGQUERY => false,
            KEBOOLA => self.store().tables().list().await?.is_empty(),
            _ => true,
        })
    }
}
