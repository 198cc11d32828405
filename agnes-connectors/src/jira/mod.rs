#![doc = include_str!("docs.md")]

mod api;
mod check;
mod columns;
mod config;
mod document;
mod error;
mod event;
mod extract;
mod fetch;
mod fields;
mod files;
mod listing;
mod reconcile;
mod rows;
mod sla;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use agnes_core::connector::{
    Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext,
};
use agnes_core::duck::blocking;
use agnes_core::error::{Error, Result};
use agnes_core::extract::TableWriter;
use agnes_core::ident::{SourceName, TableName, printable};
use agnes_core::push::{
    Delivery, DocumentRows, Documents, Fetched, Looked, News, Notice, Push, PushError, PushTable, Readiness,
};
use async_trait::async_trait;
use chrono::Utc;
use serde_json::Value;

pub use error::JiraError;

use crate::outbound::Outbound;
use api::Api;
use config::JiraConfig;
use fetch::Levels;
use fields::Fields;
use listing::Wanted;
use reconcile::Index;

/// What was last compared with the site.
#[derive(Debug, Default)]
struct Compared {
    /// Tables that used it.
    used: BTreeSet<String>,
    /// Issues that could not be fetched.
    failed: usize,
}

/// By the folder of the extract.
type Prepared = Mutex<HashMap<PathBuf, Compared>>;

/// Issues of a Jira Cloud site.
#[derive(Debug, Clone)]
pub struct JiraConnector {
    outbound: Outbound,
    index: Arc<Index>,
    prepared: Arc<Prepared>,
}

/// The published name of a table.
fn table_name(source: &SourceName, table: &str) -> Result<TableName> {
    Ok(TableName::parse(&format!("{source}_{table}"))?)
}

impl JiraConnector {
    /// The connector; it calls out by `outbound`.
    #[must_use]
    pub fn new(outbound: Outbound) -> Self {
        Self { outbound, index: Arc::default(), prepared: Arc::default() }
    }

    fn api(&self, source: &SourceContext, config: &JiraConfig) -> Result<Api> {
        let account = config.account(source)?;
        let base = config.base(source.secrets.as_ref())?;
        Ok(Api::new(self.outbound.clone(), base, &account, source.cancel.clone()))
    }

    /// Who is asked for service levels, and for which fields.
    fn levels(&self, source: &SourceContext, config: &JiraConfig, fields: &Fields) -> Result<Levels> {
        let (cloud_id, account) = config.sla(source)?;
        let api = Api::new(self.outbound.clone(), config.atlassian(), &account, source.cancel.clone());
        let ids = ["first_response", "time_to_resolution"].iter().filter_map(|column| fields.id(column));
        Ok(Levels { api, cloud_id, fields: ids.map(str::to_owned).collect() })
    }

    /// Compares everything that is kept with the site.
    async fn reconcile(&self, source: &SourceContext, documents: &Documents, wanted: Wanted) -> Result<Compared> {
        let config = JiraConfig::parse(&source.config)?;
        let api = self.api(source, &config)?;
        let fields = looked_up(source, &api, &config, documents).await?;
        let levels = self.levels(source, &config, &fields).ok();
        let project = config.project(source.secrets.as_ref());
        let parallel = config.parallelism();
        let levels = levels.as_ref();
        let failed = reconcile::everything(&api, levels, documents, &self.index, &project, parallel, wanted).await?;
        Ok(Compared { failed, ..Compared::default() })
    }

    fn prepared(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Compared>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which fields columns come from, as names mean now; kept for those who ask later.
async fn looked_up(source: &SourceContext, api: &Api, config: &JiraConfig, documents: &Documents) -> Result<Fields> {
    let (meanings, wrong) = fields::look_up(api, config).await?;
    for words in wrong {
        tracing::warn!(source = %source.name, "a column of Jira stays empty: {words}");
    }
    let fields = Fields::of(config, &meanings);
    let kept = documents.clone();
    blocking(move || fields::keep(&kept, &meanings)).await?;
    Ok(fields)
}

/// Which fields columns come from, as names were last found to mean.
async fn noted(config: &JiraConfig, documents: &Documents) -> Result<Fields> {
    let (config, documents) = (config.clone(), documents.clone());
    blocking(move || Fields::kept(&config, &documents)).await
}

fn settings_item(error: &Error) -> CheckItem {
    let detail = error.hint().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"));
    CheckItem { name: "settings".to_owned(), ok: false, detail }
}

#[async_trait]
impl Connector for JiraConnector {
    fn kind(&self) -> &'static str {
        "jira"
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, incremental: true, partitioned: true, ..Capability::default() }
    }

    fn normalise_config(&self, config: &Value) -> Result<Value> {
        JiraConfig::parse(config).map(|config| config.to_value())
    }

    fn for_operators(&self, source: &SourceContext) -> Option<String> {
        // Where the operator's tokens go is the operator's to say, but for the vendor's own sites.
        let config = JiraConfig::parse(&source.config).ok()?;
        if config.atlassian_url.is_some() || !config.attachment_hosts.is_empty() {
            return Some("`atlassian_url` and `attachment_hosts` say where its accounts are known".to_owned());
        }
        let base = config.domain?;
        let address = if base.contains("://") { base } else { format!("https://{base}") };
        let known = crate::is_listed(&address, source, ".atlassian.net");
        (!known).then(|| "the operator did not list the host of `domain`".to_owned())
    }

    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        let config = JiraConfig::parse(&source.config)?;
        let api = match self.api(source, &config) {
            Ok(api) => api,
            Err(error) => return Ok(vec![settings_item(&error)]),
        };
        let mut items = Vec::new();
        match api.myself().await {
            Ok(me) => {
                let name = me["displayName"].as_str().or_else(|| me["accountId"].as_str()).unwrap_or("somebody");
                let detail = format!("the token is that of {}", printable(name, 80));
                items.push(CheckItem { name: "token".to_owned(), ok: true, detail });
            }
            Err(error) => {
                items.push(CheckItem { name: "token".to_owned(), ..settings_item(&error) });
                return Ok(items);
            }
        }
        match fields::look_up(&api, &config).await {
            Ok((_, wrong)) if wrong.is_empty() => {}
            Ok((_, wrong)) => {
                items.push(CheckItem { name: "fields".to_owned(), ok: false, detail: wrong.join("; ") });
            }
            Err(error) => items.push(CheckItem { name: "fields".to_owned(), ..settings_item(&error) }),
        }
        let secret = config.webhook_secret(source);
        let detail = match &secret {
            Ok(_) => "deliveries are taken at `/webhooks/jira`".to_owned(),
            Err(_) => "deliveries are not taken: the variable with their secret is not set".to_owned(),
        };
        // A source that is only synced needs no deliveries.
        items.push(CheckItem { name: "deliveries".to_owned(), ok: true, detail });
        Ok(items)
    }

    async fn discover(&self, source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        let config = JiraConfig::parse(&source.config)?;
        self.api(source, &config)?.myself().await?;
        let described = |table: PushTable| DiscoveredTable {
            description: Some(table.description),
            primary_key: Some(table.primary_key),
            ..DiscoveredTable::new(table.name, table.source_table)
        };
        Ok(self.tables(source)?.into_iter().map(described).collect())
    }

    async fn prepare(&self, source: &SourceContext, folder: &Path, full: bool) -> Result<()> {
        source.cancel.check()?;
        let wanted = if full { Wanted::Everything } else { Wanted::Changes };
        let compared = self.reconcile(source, &Documents::of(folder), wanted).await?;
        self.prepared().insert(folder.to_owned(), compared);
        Ok(())
    }

    fn push(&self) -> Option<&dyn Push> {
        Some(self)
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        source.cancel.check()?;
        let (folder, table) = (writer.folder().to_owned(), request.name.to_string());
        // Each table of a run takes what the run prepared once.
        let fresh = self.prepared().get_mut(&folder).is_some_and(|known| known.used.insert(table.clone()));
        if !fresh {
            let wanted = if request.full { Wanted::Everything } else { Wanted::Changes };
            let mut compared = self.reconcile(source, &Documents::of(&folder), wanted).await?;
            compared.used.insert(table);
            self.prepared().insert(folder.clone(), compared);
        }
        let failed = self.prepared().get(&folder).map_or(0, |known| known.failed);
        let (writer, mut report) = extract::extract(self, source, request, writer).await?;
        if failed > 0 {
            report.notes.push(format!("{failed} issues could not be fetched, and are tried again by the next sync"));
        }
        Ok((writer, report))
    }
}

#[async_trait]
impl Push for JiraConnector {
    fn readiness(&self, source: &SourceContext) -> Readiness {
        let Ok(config) = JiraConfig::parse(&source.config) else {
            return Readiness { configured: false, secret: false };
        };
        let configured = self.api(source, &config).is_ok();
        Readiness { configured, secret: config.webhook_secret(source).is_ok() }
    }

    fn receive(&self, source: &SourceContext, delivery: &Delivery) -> Result<Notice> {
        let config = JiraConfig::parse(&source.config)?;
        let secret = config.webhook_secret(source)?;
        event::prove(&secret, delivery)?;
        let mut notice = event::read(delivery)?;
        // Of other projects nothing is kept.
        notice.tells &= config.project(source.secrets.as_ref()).holds(&notice.body["issue"]);
        Ok(notice)
    }

    fn tables(&self, source: &SourceContext) -> Result<Vec<PushTable>> {
        let further = fields::further(&JiraConfig::parse(&source.config)?);
        let one = |(number, (table, key, description)): (usize, &(&str, &[&str], &str))| {
            Ok(PushTable {
                name: table_name(&source.name, table)?,
                source_table: (*table).to_owned(),
                schema: columns::schema(number, &further),
                document_column: "issue_key",
                primary_key: key.iter().map(ToString::to_string).collect(),
                description: format!("Jira: {description}"),
            })
        };
        columns::TABLES.iter().enumerate().map(one).collect()
    }

    async fn fetch(&self, source: &SourceContext, documents: &Documents, key: &str) -> Result<Fetched> {
        let config = JiraConfig::parse(&source.config)?;
        let api = self.api(source, &config)?;
        let (asked, kept) = (config.clone(), documents.clone());
        // A delivery may come before the first sync, or before the first one after a change of the settings.
        if blocking(move || fields::is_new(&asked, &kept)).await?
            && let Err(error) = looked_up(source, &api, &config, documents).await
        {
            tracing::warn!(source = %source.name, code = error.code(), "fields are not known by name: {error}");
        }
        let fields = noted(&config, documents).await?;
        let levels = self.levels(source, &config, &fields).ok();
        let fetched = fetch::issue(&api, levels.as_ref(), key).await?;
        if let Fetched::Found { key, document, .. } = &fetched
            && !config.project(source.secrets.as_ref()).holds(document)
        {
            // Of one that is kept the next sync says whether the project still lists it.
            let (kept, key) = (documents.clone(), key.clone());
            let there = blocking(move || kept.read(&key)).await;
            if there.is_ok_and(|there| there.is_none_or(|there| document::is_deleted(&there))) {
                return Ok(Fetched::Gone);
            }
        }
        Ok(fetched)
    }

    fn settle(&self, there: Option<&Value>, news: News) -> Option<Value> {
        document::settle(there, news)
    }

    fn rows(&self, source: &SourceContext, documents: &Documents, key: &str, document: &Value) -> Result<DocumentRows> {
        let config = JiraConfig::parse(&source.config)?;
        let base = config.base(source.secrets.as_ref())?;
        rows::of(&base, documents, key, document, &Fields::kept(&config, documents)?)
    }

    async fn files(&self, source: &SourceContext, documents: &Documents, key: &str) -> bool {
        let Ok(config) = JiraConfig::parse(&source.config) else { return false };
        let Ok(api) = self.api(source, &config) else { return false };
        if config.attachments == Some(false) {
            return false;
        }
        let rules = files::Rules { hosts: config.file_hosts(&api.base), most: config.max_attachment() };
        files::of_issue(&api, &rules, documents, key).await
    }

    async fn lacking(&self, source: &SourceContext, documents: &Documents) -> Result<Vec<String>> {
        let config = JiraConfig::parse(&source.config)?;
        if config.attachments == Some(false) {
            return Ok(Vec::new());
        }
        let (index, documents, most) = (self.index.clone(), documents.clone(), config.max_attachment());
        blocking(move || Ok(files::lacking(&index.of(&documents)?, &documents, most))).await
    }

    async fn poll(&self, source: &SourceContext, documents: &Documents) -> Result<Looked> {
        let config = JiraConfig::parse(&source.config)?;
        let fields = noted(&config, documents).await?;
        let not_set_up = |error: Error| PushError::NotSetUp { reason: error.to_string() };
        let levels = self.levels(source, &config, &fields).map_err(not_set_up)?;
        sla::run(&levels, documents, &table_name(&source.name, "issues")?, config.sla_pause()).await
    }

    async fn check(&self, source: &SourceContext, documents: &Documents, days: u32) -> Result<Looked> {
        let config = JiraConfig::parse(&source.config)?;
        let not_set_up = |error: Error| PushError::NotSetUp { reason: error.to_string() };
        let api = self.api(source, &config).map_err(not_set_up)?;
        let levels = self.levels(source, &config, &noted(&config, documents).await?).ok();
        let days = check::days(documents, days, Utc::now()).await?;
        let (issues, project) = (table_name(&source.name, "issues")?, config.project(source.secrets.as_ref()));
        check::run(&api, levels.as_ref(), documents, &self.index, &issues, &project, days).await
    }

    fn checked(&self, documents: &Documents, report: Value, failed: &[String]) -> Result<Value> {
        check::finish(documents, report, failed)
    }
}
