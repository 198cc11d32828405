#![doc = include_str!("docs.md")]

mod config;
mod dialect;
mod discover;
mod error;
mod extract;
mod session;

use agnes_core::connector::{
    Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext,
};
use agnes_core::duck::blocking;
use agnes_core::error::Result;
use agnes_core::extract::TableWriter;
use agnes_core::orchestrator::AttachError;
use agnes_core::registry::RegisteredTable;
use async_trait::async_trait;

pub use error::SqlError;

use config::SqlConfig;
use dialect::Dialect;
use session::Session;

/// A database: PostgreSQL, MySQL (or MariaDB), SQLite.
#[derive(Debug, Clone, Copy)]
pub struct SqlConnector(Dialect);

impl SqlConnector {
    /// PostgreSQL: kind `postgres`.
    #[must_use]
    pub fn postgres() -> Self {
        Self(Dialect::Postgres)
    }

    /// MySQL and MariaDB: kind `mysql`.
    #[must_use]
    pub fn mysql() -> Self {
        Self(Dialect::MySql)
    }

    /// A file of SQLite: kind `sqlite`.
    #[must_use]
    pub fn sqlite() -> Self {
        Self(Dialect::Sqlite)
    }
}

#[async_trait]
impl Connector for SqlConnector {
    fn kind(&self) -> &'static str {
        self.0.kind()
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, incremental: true, partitioned: true, remote: true, materialize: true }
    }

    fn remote_extension(&self) -> Option<&'static str> {
        Some(self.0.kind())
    }

    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value> {
        SqlConfig::parse(self.0, config)?.to_value()
    }

    /// Hosts, files and variables are those that the operator listed.
    fn for_operators(&self, source: &SourceContext) -> Option<String> {
        let attach = SqlConfig::parse(self.0, &source.config).ok()?.attach(self.0, source.name.as_str());
        if let Err(error) = source.attach.check_place(&attach) {
            return Some(error.to_string());
        }
        let listed = attach.token_env.is_empty() || source.attach.token_envs.contains(&attach.token_env);
        (!listed).then(|| AttachError::TokenEnvNotAllowed { name: attach.token_env }.to_string())
    }

    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        let (source, dialect) = (source.clone(), self.0);
        blocking(move || check(&source, dialect)).await
    }

    async fn discover(&self, source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        let (source, dialect) = (source.clone(), self.0);
        blocking(move || discover::discover(&source, dialect)).await
    }

    async fn primary_key(&self, source: &SourceContext, table: &RegisteredTable) -> Result<Option<Vec<String>>> {
        let (source, table, dialect) = (source.clone(), table.clone(), self.0);
        blocking(move || extract::primary_key(&source, dialect, &table)).await
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        let (source, request, dialect) = (source.clone(), request.clone(), self.0);
        blocking(move || {
            let done = extract::extract(&source, dialect, &request, writer);
            // Whatever failed because the run was to end failed for that reason.
            source.cancel.check()?;
            done
        })
        .await
    }
}

fn check(source: &SourceContext, dialect: Dialect) -> Result<Vec<CheckItem>> {
    let config = SqlConfig::parse(dialect, &source.config)?;
    let item = |name: &str, ok: bool, detail: String| CheckItem { name: name.to_owned(), ok, detail };
    let told = |error: agnes_core::Error| match error.hint() {
        Some(hint) => format!("{error}; {hint}"),
        None => error.to_string(),
    };
    if let Err(error) = source.attach.check_place(&config.attach(dialect, source.name.as_str())) {
        return Ok(vec![item("address", false, told(error.into()))]);
    }
    let mut items = vec![item("address", true, "the operator allows it".to_owned())];
    let connected = Session::open(source, dialect, &config).and_then(|session| session.ping());
    if let Err(error) = connected {
        items.push(item("connection", false, told(error)));
        return Ok(items);
    }
    items.push(item("connection", true, "the source answers and accepts its user".to_owned()));
    items.push(match discover::discover(source, dialect) {
        Ok(tables) => item("tables", !tables.is_empty(), format!("{} tables can be read", tables.len())),
        Err(error) => item("tables", false, told(error)),
    });
    Ok(items)
}
