//! An engine with a source on the fake site, and what is told of it over and over.

use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_connectors::jira::JiraConnector;
use agnes_connectors::outbound::{Names, Outbound, Rules};
use agnes_core::connector::{ConnectorRegistry, Progress};
use agnes_core::push::{Delivered, Delivery};
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::NewSource;
use agnes_core::secret::FixedSecrets;
use agnes_core::sync::{SyncRequest, SyncRun, TableStatus};
use agnes_core::{CallContext, Client, Engine};
use serde_json::Value;

use crate::fake::{CLOUD, Fake, SECRET, SLA_EMAIL, SLA_TOKEN, TOKEN, signature};

/// Columns of the issues, with their types in DuckDB.
pub(crate) const ISSUES: [(&str, &str); 49] = [
    ("issue_key", "VARCHAR"),
    ("issue_id", "VARCHAR"),
    ("issue_url", "VARCHAR"),
    ("summary", "VARCHAR"),
    ("description", "VARCHAR"),
    ("issue_type", "VARCHAR"),
    ("status", "VARCHAR"),
    ("status_category", "VARCHAR"),
    ("priority", "VARCHAR"),
    ("resolution", "VARCHAR"),
    ("project_key", "VARCHAR"),
    ("project_name", "VARCHAR"),
    ("creator_email", "VARCHAR"),
    ("creator_name", "VARCHAR"),
    ("reporter_email", "VARCHAR"),
    ("reporter_name", "VARCHAR"),
    ("assignee_email", "VARCHAR"),
    ("assignee_name", "VARCHAR"),
    ("created_at", "TIMESTAMP WITH TIME ZONE"),
    ("updated_at", "TIMESTAMP WITH TIME ZONE"),
    ("resolved_at", "TIMESTAMP WITH TIME ZONE"),
    ("due_date", "VARCHAR"),
    ("labels", "VARCHAR"),
    ("attachment_count", "BIGINT"),
    ("comment_count", "BIGINT"),
    ("issuelink_count", "BIGINT"),
    ("request_type", "VARCHAR"),
    ("request_status", "VARCHAR"),
    ("severity", "VARCHAR"),
    ("triage", "VARCHAR"),
    ("configuration_item", "VARCHAR"),
    ("participants", "VARCHAR"),
    ("organizations", "VARCHAR"),
    ("spam", "VARCHAR"),
    ("context", "VARCHAR"),
    ("custom_url", "VARCHAR"),
    ("slack_link", "VARCHAR"),
    ("technical_issue_category", "VARCHAR"),
    ("email_address", "VARCHAR"),
    ("satisfaction", "BIGINT"),
    ("first_response_breached", "VARCHAR"),
    ("first_response_goal_millis", "BIGINT"),
    ("first_response_elapsed_millis", "BIGINT"),
    ("time_to_resolution_breached", "VARCHAR"),
    ("time_to_resolution_goal_millis", "BIGINT"),
    ("time_to_resolution_elapsed_millis", "BIGINT"),
    ("l3_team", "VARCHAR"),
    ("_synced_at", "VARCHAR"),
    ("_raw_file", "VARCHAR"),
];

/// A site of the Cloud, and Atlassian's host of files; both are this machine.
pub(crate) const CLOUD_HOST: &str = "shop.atlassian.net";
pub(crate) const MEDIA_HOST: &str = "api.media.atlassian.com";

/// Every name is this machine.
struct Here;

#[async_trait::async_trait]
impl Names for Here {
    async fn resolve(&self, _: &str) -> std::io::Result<Vec<std::net::IpAddr>> {
        Ok(vec![std::net::Ipv4Addr::LOCALHOST.into()])
    }
}

/// A connector that may call this machine.
pub(crate) fn connector() -> JiraConnector {
    let rules = Rules::default().allowing(["127.0.0.1", CLOUD_HOST, MEDIA_HOST]).with_names(Here);
    JiraConnector::new(Outbound::new(rules))
}

pub(crate) struct Site {
    pub(crate) fake: Fake,
    pub(crate) engine: Engine,
    pub(crate) root: tempfile::TempDir,
}

pub(crate) fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

pub(crate) async fn open(root: &std::path::Path, token: &str) -> Engine {
    let secrets = [("JIRA_API_TOKEN", token), ("JIRA_WEBHOOK_SECRET", SECRET), ("JIRA_SLA_API_TOKEN", SLA_TOKEN)];
    Engine::builder(root)
        .connectors(ConnectorRegistry::new().with(connector()))
        .secrets(Arc::new(FixedSecrets::new(secrets)))
        .open()
        .await
        .unwrap()
}

impl Site {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// With further settings of the source.
    pub(crate) async fn with(settings: impl FnOnce(&mut Value)) -> Self {
        Self::opened_by(TOKEN, settings).await
    }

    /// With another token and further settings.
    pub(crate) async fn opened_by(token: &str, settings: impl FnOnce(&mut Value)) -> Self {
        let (fake, root) = (Fake::start(), tempfile::tempdir().unwrap());
        let engine = open(root.path(), token).await;
        let site = Self { fake, engine, root };
        site.add(settings).await;
        site
    }

    /// Adds the source.
    pub(crate) async fn add(&self, settings: impl FnOnce(&mut Value)) {
        let fake = &self.fake;
        let mut config = fake.config();
        config["cloud_id"] = CLOUD.into();
        config["sla_email"] = SLA_EMAIL.into();
        config["atlassian_url"] = fake.url.clone().into();
        config["sla_pause_seconds"] = 0.into();
        settings(&mut config);
        let source = NewSource { name: "jira".to_owned(), kind: "jira".to_owned(), config, schedule: None };
        self.engine.sources().add(&owner(), source).await.unwrap();
    }

    /// The same folder, opened anew.
    pub(crate) async fn again(mut self, token: &str) -> Self {
        self.engine.close().await.unwrap();
        self.engine = open(self.root.path(), token).await;
        self.engine.pushes().start().await.unwrap();
        self
    }

    pub(crate) async fn sync(&self, full: bool) -> SyncRun {
        let request = SyncRequest { full, ..SyncRequest::default() };
        self.engine.sync().run(&owner(), request, Progress::default()).await.unwrap()
    }

    /// Syncs; every table fared well.
    pub(crate) async fn synced(&self) {
        let run = self.sync(false).await;
        let outcome = run.outcome.unwrap();
        assert_eq!(outcome.tables.len(), 6);
        for table in &outcome.tables {
            assert_ne!(table.status, TableStatus::Error, "{}: {:?}", table.table, table.error);
        }
    }

    pub(crate) async fn deliver(&self, id: &str, body: &[u8]) -> agnes_core::Result<Delivered> {
        let headers = vec![
            ("x-hub-signature-256".to_owned(), signature(SECRET, body)),
            ("x-atlassian-webhook-identifier".to_owned(), id.to_owned()),
        ];
        let delivery = Delivery { headers, body: body.to_vec() };
        self.engine.pushes().receive(&Client::at(None), "jira", &delivery).await
    }

    /// Has the site tell of something.
    pub(crate) async fn tell(&self, kind: &str, key: &str) {
        let (id, body) = self.fake.event(kind, key);
        let told = self.deliver(&id, &body).await.unwrap();
        assert_eq!((told.event.as_str(), told.subject.as_str(), told.known), (kind, key, false));
    }

    /// Waits until nothing waits any more.
    pub(crate) async fn settled(&self) {
        let patience = Instant::now() + Duration::from_secs(60);
        while self.engine.pushes().health(&owner(), "jira").await.unwrap().pending > 0 {
            assert!(Instant::now() < patience, "deliveries still wait");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until a query has this one row.
    pub(crate) async fn comes_to(&self, sql: &str, row: &str) {
        let patience = Instant::now() + Duration::from_secs(60);
        loop {
            let rows = self.ask(sql).await;
            if rows == [row] {
                return;
            }
            assert!(Instant::now() < patience, "{rows:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Rows of a query, values joined by `|`.
    pub(crate) async fn ask(&self, sql: &str) -> Vec<String> {
        let mut rows = self.engine.query(&owner(), Query::new(sql)).await.unwrap();
        let batches = rows.collect().await.unwrap();
        let mut out = Vec::new();
        for batch in batches {
            let text = |column: usize, row: usize| {
                let options = arrow::util::display::FormatOptions::default().with_null("NULL");
                let column = batch.column(column);
                let formatter = arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options).unwrap();
                formatter.value(row).to_string()
            };
            for row in 0..batch.num_rows() {
                out.push((0..batch.num_columns()).map(|column| text(column, row)).collect::<Vec<_>>().join("|"));
            }
        }
        out
    }

    /// Has the last list of all issues be older than a day.
    pub(crate) fn a_day_later(&self) {
        let path = self.root.path().join("extracts/jira/raw/_listed.json");
        let mut note: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        note["all"] = (chrono::Utc::now() - chrono::TimeDelta::hours(25)).to_rfc3339().into();
        std::fs::write(&path, note.to_string()).unwrap();
    }

    pub(crate) fn raw(&self, key: &str) -> Option<Value> {
        let path = self.root.path().join(format!("extracts/jira/raw/issues/{key}.json"));
        std::fs::read(path).ok().map(|bytes| serde_json::from_slice(&bytes).unwrap())
    }
}

impl Site {
    /// Every table is what the site has: issues with what they say, and the ids of all that belongs
    /// to them.
    pub(crate) async fn is_same(&self) {
        let (mut issues, mut others) = (Vec::new(), Vec::new());
        for (key, issue) in &self.fake.state().issues {
            let text = |name: &str| issue.fields[name].as_str().unwrap_or_default().to_owned();
            let status = issue.fields["status"]["name"].as_str().unwrap().to_owned();
            let (summary, at) = (text("summary"), issue.updated / 1000);
            issues.push(format!("{key}|{summary}|{status}|{}|{at}", issue.comments.len()));
            let id = |one: &Value| one["id"].as_str().map_or_else(|| one["id"].to_string(), str::to_owned);
            let lists = [
                ("comment", issue.comments.clone()),
                ("change", issue.changes.clone()),
                ("remote", issue.remote.clone()),
                ("link", issue.fields["issuelinks"].as_array().unwrap().clone()),
                ("file", issue.fields["attachment"].as_array().unwrap().clone()),
            ];
            for (what, list) in lists {
                others.extend(list.iter().map(|one| format!("{what}|{key}|{}", id(one))));
            }
        }
        issues.sort();
        others.sort();
        let sql = "SELECT issue_key, summary, status, comment_count, epoch_ms(updated_at) // 1000 FROM jira_issues ORDER BY ALL";
        let mut found = self.ask(sql).await;
        found.sort();
        assert_eq!(found, issues);
        let one = |what: &str, table: &str, id: &str| format!("SELECT '{what}', issue_key, {id} FROM jira_{table}");
        let sql = [
            one("comment", "comments", "comment_id"),
            one("change", "changelog", "change_id"),
            one("remote", "remote_links", "remote_link_id"),
            one("link", "issuelinks", "link_id"),
            one("file", "attachments", "attachment_id"),
        ];
        let mut found = self.ask(&sql.join(" UNION ALL ")).await;
        found.sort();
        assert_eq!(found, others);
    }
}
