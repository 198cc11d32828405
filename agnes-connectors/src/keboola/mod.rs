#![doc = include_str!("docs.md")]

mod api;
mod config;
mod cursor;
mod delta;
mod discover;
mod download;
mod error;
mod export;
mod extract;
mod filters;
mod load;
mod merge;
mod model;
mod partitions;
mod place;
mod pull;
mod types;
mod workspace;

use std::sync::Arc;

use agnes_core::connector::{
    Capability, CheckItem, ColumnsTold, Connector, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext,
};
use agnes_core::error::Result;
use agnes_core::extract::TableWriter;
use agnes_core::ident::printable;
use agnes_core::orchestrator::AttachError;
use agnes_core::registry::{ColumnMetadata, RegisteredTable};
use agnes_core::secret::SecretSource;
use async_trait::async_trait;
use tokio::sync::Semaphore;

pub use error::KeboolaError;

use crate::outbound::Outbound;
use api::Api;
use config::KeboolaConfig;
use discover::Known;
use model::TokenInfo;

/// Token and stack for what is written there, where they are others than for reading.
const WRITING_TOKEN: &str = "KBC_STORAGE_TOKEN";
const WRITING_STACK: &str = "KBC_STACK_URL";
/// Slices of all exports that are read at a time.
const SLICES: usize = 8;

/// Tables of a Keboola project.
#[derive(Debug, Clone)]
pub struct KeboolaConnector {
    outbound: Outbound,
    /// Slices on their way.
    slots: Arc<Semaphore>,
    /// One conversion at a time: each may use the memory one may use.
    convert: Arc<Semaphore>,
    /// What is known of the columns of tables.
    known: Arc<Known>,
}

impl KeboolaConnector {
    /// The connector; it calls out by `outbound`.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        let (slots, convert) = (Arc::new(Semaphore::new(SLICES)), Arc::new(Semaphore::new(1)));
        Self { outbound, slots, convert, known: Arc::default() }
    }

    fn api(&self, source: &SourceContext, config: &KeboolaConfig) -> Result<Api> {
        // Who adds a source says where its token goes: not any variable of this process.
        let name = config.token_env();
        if !source.attach.token_envs.iter().any(|allowed| allowed == name) {
            return Err(AttachError::TokenEnvNotAllowed { name: printable(name, 64) }.into());
        }
        let (secrets, cancel) = (source.secrets.as_ref(), source.cancel.clone());
        let token = config.token(secrets)?;
        Ok(Api::new(self.outbound.clone(), config.url(secrets)?, token, config.project_id.clone(), cancel))
    }
}

/// Whose token it is; refused where it is not that of the project in the settings.
async fn identity(api: &Api, config: &KeboolaConfig) -> Result<TokenInfo> {
    let token = api.verify().await?;
    if token.is_expired {
        let missing = format!("the token in `{}` is expired", config.token_env());
        return Err(KeboolaError::NotConfigured { missing }.into());
    }
    match &config.project_id {
        Some(wanted) if *wanted != token.owner.id => Err(KeboolaError::WrongProject {
            env: config.token_env().to_owned(),
            found: printable(&token.owner.id, 40),
            wanted: wanted.clone(),
        }
        .into()),
        _ => Ok(token),
    }
}

/// What tells a project from all others: those of different stacks may have the same number.
fn project(config: &KeboolaConfig, secrets: &dyn SecretSource, token: &TokenInfo) -> Result<String> {
    Ok(format!("{} {}", config.url(secrets)?, token.owner.id))
}

#[async_trait]
impl Connector for KeboolaConnector {
    fn kind(&self) -> &'static str {
        "keboola"
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, incremental: true, partitioned: true, remote: true, materialize: true }
    }

    fn remote_extension(&self) -> Option<&'static str> {
        Some("keboola")
    }

    fn remote_address(&self, source: &SourceContext) -> Option<String> {
        KeboolaConfig::parse(&source.config).ok()?.url(source.secrets.as_ref()).ok()
    }

    fn parallel_tables(&self, source: &SourceContext) -> usize {
        KeboolaConfig::parse(&source.config).map_or(1, |config| config.parallelism(source.secrets.as_ref()))
    }

    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value> {
        KeboolaConfig::parse(config).map(|config| config.to_value())
    }

    fn for_operators(&self, source: &SourceContext) -> Option<String> {
        let config = KeboolaConfig::parse(&source.config).ok()?;
        if config.has_endpoints() {
            return Some("`endpoints` say where its files are sent from".to_owned());
        }
        // Where the operator's token goes is the operator's to say, but for the vendor's own stacks.
        let stack = config.stack_url.as_deref()?;
        let own = source.secrets.get("KEBOOLA_STACK_URL");
        let known = crate::is_listed(stack, source, ".keboola.com")
            || own.is_some_and(|own| own.expose().trim().trim_end_matches('/') == stack);
        (!known).then(|| "the operator did not list the host of `stack_url`".to_owned())
    }

    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        let config = KeboolaConfig::parse(&source.config)?;
        match self.api(source, &config) {
            Ok(api) => Ok(discover::check(&api, &config).await),
            Err(error) => Ok(vec![CheckItem { name: "settings".to_owned(), ok: false, detail: error.to_string() }]),
        }
    }

    async fn discover(&self, source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        let config = KeboolaConfig::parse(&source.config)?;
        let api = self.api(source, &config)?;
        let project = project(&config, source.secrets.as_ref(), &identity(&api, &config).await?)?;
        discover::discover(&api, &config, &self.known, &project).await
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        source.cancel.check()?;
        extract::extract(self, source, request, writer).await
    }

    async fn primary_key(&self, source: &SourceContext, table: &RegisteredTable) -> Result<Option<Vec<String>>> {
        let api = self.api(source, &KeboolaConfig::parse(&source.config)?)?;
        Ok(Some(api.table(&extract::table_id(table)?).await?.primary_key))
    }

    async fn tell_columns(
        &self,
        source: &SourceContext,
        table: &RegisteredTable,
        columns: &[ColumnMetadata],
    ) -> Result<Option<ColumnsTold>> {
        let mut config = KeboolaConfig::parse(&source.config)?;
        let secrets = source.secrets.as_ref();
        // Reading needs no right to write: whoever wants this may name another token for it.
        if secrets.get(WRITING_TOKEN).is_some() {
            config.token_env = Some(WRITING_TOKEN.to_owned());
            if let Some(url) = secrets.get(WRITING_STACK) {
                config.stack_url = Some(config::origin(WRITING_STACK, url.expose())?);
            }
        }
        let (api, id) = (self.api(source, &config)?, extract::table_id(table)?);
        let mut told = ColumnsTold::default();
        for column in columns {
            match api.describe_column(&id, column).await {
                Ok(()) => told.pushed += 1,
                Err(error) if error.code() == "cancelled" => return Err(error),
                Err(error) => told.errors.push(format!("`{}`: {error}", printable(&column.column_name, 60))),
            }
        }
        Ok(Some(told))
    }
}
