//! `agnes mcp`: tools for an assistant that starts this command.

use std::sync::Arc;

use agnes_connectors::server::{Call, Served, ServerClient};
use agnes_core::Result;
use agnes_core::catalog::{CatalogTable, Sample, TableSchema};
use agnes_core::connector::Progress;
use agnes_core::local::{
    Caller, CatalogTables, Door, EstimateScan, GetProfile, GetSample, GetSchema, Rows, Verb, WhoAmI,
};
use agnes_core::query::Query;
use agnes_core::rbac::ClientKind;
use agnes_core::scan::{ScanEstimate, ScanRequest};
use agnes_core::workspace::{PullLimits, PullOptions, PullReport, SnapshotMeta, Workspace};
use agnes_http::mcp::{Backend, Laptop, Settings, serve_stdio};
use async_trait::async_trait;
use serde_json::Value;

use super::snapshot::usual_name;
use crate::app::App;
use crate::args::McpArgs;
use crate::failure::{Failure, Outcome};
use crate::place;

/// Answers until the assistant closes standard input.
pub(super) async fn run(app: &App, args: &McpArgs) -> Outcome {
    let settings = settings()?;
    let who = args.who.as_user.as_deref();
    let backend: Arc<dyn Backend> = match app.at_server()? {
        Some(client) => {
            let client = who.map_or_else(|| client.clone(), |user| client.seeing_as(user));
            let laptop = match place::here_or_last(&app.account, client.server()) {
                // Somebody else's eyes are not for one's own files.
                Ok(workspace) if who.is_none() => {
                    let (limits, quota) = (super::pull::limits()?, super::snapshot::quota()?);
                    Some(Here { workspace, client: client.clone(), limits, quota })
                }
                _ => None,
            };
            Arc::new(Server { client, laptop })
        }
        None => {
            let caller = Caller::owner(ClientKind::Mcp).acting_as(who);
            Arc::new(Folder { door: app.shared_door().await?, caller })
        }
    };
    serve_stdio(backend, settings).await.map_err(Failure::usage)
}

/// How much a tool may answer, as the operator says.
pub(super) fn settings() -> Outcome<Settings> {
    let name = "AGNES_MCP_MAX_OUTPUT_CHARS";
    let Some(text) = std::env::var(name).ok().filter(|text| !text.is_empty()) else { return Ok(Settings::default()) };
    let max_output = text.parse().map_err(|_| Failure::usage(format!("`{name}` has to be a whole number")))?;
    Ok(Settings { max_output })
}

/// The data folder, held by this process or by another one of the same user.
struct Folder {
    door: Arc<Door>,
    caller: Caller,
}

impl Folder {
    async fn call<V: Verb>(&self, verb: V) -> Result<V::Reply> {
        self.door.call(verb, &self.caller, Default::default()).await
    }
}

#[async_trait]
impl Backend for Folder {
    fn server(&self) -> Option<String> {
        None
    }

    async fn user(&self) -> Result<Option<String>> {
        Ok(Some(self.call(WhoAmI {}).await?.email))
    }

    async fn tables(&self) -> Result<Vec<CatalogTable>> {
        self.call(CatalogTables {}).await
    }

    async fn schema(&self, table: &str) -> Result<TableSchema> {
        self.call(GetSchema { table: table.to_owned() }).await
    }

    async fn sample(&self, table: &str, rows: usize) -> Result<Sample> {
        self.call(GetSample { table: table.to_owned(), rows }).await
    }

    async fn profile(&self, table: &str) -> Result<Value> {
        self.call(GetProfile { table: table.to_owned() }).await
    }

    async fn estimate(&self, request: ScanRequest) -> Result<ScanEstimate> {
        self.call(EstimateScan { request }).await
    }

    async fn query(&self, query: Query) -> Result<Rows> {
        self.door.query(query, &self.caller).await
    }
}

/// A server, asked with the token that is kept for it.
struct Server {
    client: ServerClient,
    laptop: Option<Here>,
}

#[async_trait]
impl Backend for Server {
    fn server(&self) -> Option<String> {
        Some(self.client.server().to_owned())
    }

    async fn user(&self) -> Result<Option<String>> {
        let me = self.client.ask(Call::get(&["auth", "me"])).await?.body;
        Ok(me["email"].as_str().map(str::to_owned))
    }

    async fn health(&self) -> Result<String> {
        match self.client.ask(Call::get(&["api", "health"]).public()).await {
            Ok(answer) => Ok(answer.body["status"].as_str().unwrap_or("unhealthy").to_owned()),
            // It answers, that it is not well.
            Err(error) if error.facts().is_some_and(|facts| facts["http_status"] == 503) => Ok("unhealthy".to_owned()),
            Err(error) => Err(error),
        }
    }

    async fn tables(&self) -> Result<Vec<CatalogTable>> {
        Ok(CatalogTables {}.ask(&self.client).await?.into_reply())
    }

    async fn schema(&self, table: &str) -> Result<TableSchema> {
        Ok(GetSchema { table: table.to_owned() }.ask(&self.client).await?.into_reply())
    }

    async fn sample(&self, table: &str, rows: usize) -> Result<Sample> {
        Ok(GetSample { table: table.to_owned(), rows }.ask(&self.client).await?.into_reply())
    }

    async fn profile(&self, table: &str) -> Result<Value> {
        Ok(GetProfile { table: table.to_owned() }.ask(&self.client).await?.into_reply())
    }

    async fn estimate(&self, request: ScanRequest) -> Result<ScanEstimate> {
        Ok(EstimateScan { request }.ask(&self.client).await?.into_reply())
    }

    async fn query(&self, query: Query) -> Result<Rows> {
        self.client.query(&query).await
    }

    fn laptop(&self) -> Option<&dyn Laptop> {
        self.laptop.as_ref().map(|here| here as &dyn Laptop)
    }
}

/// The workspace in which the assistant works.
struct Here {
    workspace: Workspace,
    client: ServerClient,
    limits: PullLimits,
    quota: u64,
}

#[async_trait]
impl Laptop for Here {
    async fn query(&self, query: Query) -> Result<Rows> {
        self.workspace.query(query).await
    }

    async fn pull(&self, tables: Vec<String>, skip_materialized: bool) -> Result<PullReport> {
        let options = PullOptions { tables, skip_materialized, limits: self.limits, ..PullOptions::default() };
        self.workspace.pull(&self.client, &options, Progress::default()).await
    }

    async fn snapshot(&self, mut request: ScanRequest, force: bool) -> Result<(SnapshotMeta, Vec<String>)> {
        let name = request.snapshot.take().unwrap_or_else(|| usual_name(&request.table));
        self.workspace.check_snapshot(&name, force)?;
        request.snapshot = Some(name.clone());
        let expected = self.client.estimate_scan(&request).await?["estimated_scan_bytes"].as_u64().unwrap_or_default();
        let rows = self.client.scan(&request).await?;
        self.workspace.keep_snapshot(&name, &request, rows, expected, (force, self.quota)).await
    }
}
