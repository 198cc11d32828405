#![doc = include_str!("docs.md")]

mod api;
mod auth;
mod config;
mod discover;
mod error;
mod extract;
mod model;
mod plain;
mod storage;
mod types;
mod warehouse;

use std::sync::Arc;

use agnes_core::connector::{
    Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext, Warehouse,
};
use agnes_core::error::Result;
use agnes_core::extract::TableWriter;
use agnes_core::ident::printable;
use agnes_core::orchestrator::AttachError;
use async_trait::async_trait;

pub use error::BigQueryError;

use crate::outbound::Outbound;
use api::Api;
use config::BigQueryConfig;

/// Tables of a BigQuery project.
#[derive(Debug, Clone)]
pub struct BigQueryConnector {
    outbound: Outbound,
    tokens: Arc<auth::Tokens>,
}

impl BigQueryConnector {
    /// The connector; it calls out by `outbound`.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound, tokens: Arc::default() }
    }

    async fn api(&self, source: &SourceContext) -> Result<Api> {
        let config = BigQueryConfig::parse(&source.config)?;
        config.project()?;
        // Who adds a source says where its token goes: not any variable of this process.
        if let Some(name) = config.key_env.as_ref().filter(|name| !source.attach.token_envs.contains(*name)) {
            return Err(AttachError::TokenEnvNotAllowed { name: printable(name, 64) }.into());
        }
        let outbound = self.outbound.clone();
        let access = auth::Access::new(self.tokens.clone(), outbound.clone(), source.clone(), config.clone()).await?;
        Ok(Api { outbound, access: Arc::new(access), config, cancel: source.cancel.clone() })
    }
}

#[async_trait]
impl Connector for BigQueryConnector {
    fn kind(&self) -> &'static str {
        "bigquery"
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, remote: true, materialize: true, ..Capability::default() }
    }

    fn warnings(&self, config: &serde_json::Value) -> Vec<String> {
        BigQueryConfig::parse(config).map(|config| config.warnings()).unwrap_or_default()
    }

    fn warehouse(&self) -> Option<&dyn Warehouse> {
        Some(self)
    }

    fn for_operators(&self, source: &SourceContext) -> Option<String> {
        let config = BigQueryConfig::parse(&source.config).ok()?;
        config.has_own_endpoint().then(|| "`endpoint` and `storage_endpoint` say where its token is shown".to_owned())
    }

    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value> {
        BigQueryConfig::parse(config).map(|config| config.to_value())
    }

    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        match self.api(source).await {
            Ok(api) => discover::check(&api).await,
            Err(error) => {
                let detail = discover::told(&error);
                Ok(vec![CheckItem { name: "credentials".to_owned(), ok: false, detail }])
            }
        }
    }

    async fn discover(&self, source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        discover::discover(&self.api(source).await?).await
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        source.cancel.check()?;
        extract::extract(&self.api(source).await?, source, request, writer).await
    }
}
