//! The first steps of an installation: which source, under which name.

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Value, json};

use super::change::sections;
use super::{Settings, SettingsError};
use crate::connector::{Cancel, CheckItem, Progress, SourceContext};
use crate::context::CallContext;
use crate::error::Result;
use crate::ident::{SourceName, printable};
use crate::secret::{Secret, SecretSource};

/// Variable of the Storage API's token.
const KEBOOLA_TOKEN: &str = "KEBOOLA_STORAGE_TOKEN";

/// What to configure.
#[derive(Debug, Clone, Default)]
pub struct Configure {
    /// `local`, or the kind of a source that this build reads.
    pub data_source: String,
    /// Token of the Storage API; the one that is set already when missing.
    pub keboola_token: Option<Secret>,
    /// Address of the stack.
    pub keboola_url: Option<String>,
    /// Project of the data.
    pub bigquery_project: Option<String>,
    /// Region.
    pub bigquery_location: Option<String>,
    /// Name of the installation.
    pub instance_name: Option<String>,
    /// Domains that may sign in, by commas.
    pub allowed_domain: Option<String>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Configured {
    /// The primary source.
    pub data_source: String,
    /// What the source said, where there is one to ask.
    pub detail: Option<String>,
}

/// The token of a request over the secrets of the engine.
#[derive(Debug)]
struct Given {
    token: Option<Secret>,
    rest: Arc<dyn SecretSource>,
}

impl SecretSource for Given {
    fn get(&self, name: &str) -> Option<Secret> {
        self.token.clone().filter(|_| name == KEBOOLA_TOKEN).or_else(|| self.rest.get(name))
    }
}

impl Settings<'_> {
    /// Sets the primary source, once it answers, and what the installation is called.
    ///
    /// # Errors
    /// `source_not_offered`, `connection_failed`; those of [`Settings::update`]. Nothing is
    /// written then.
    pub async fn configure(&self, ctx: &CallContext, wanted: &Configure) -> Result<Configured> {
        let done = self.configure_held(ctx, wanted).await;
        let resource = format!("data_source:{}", printable(&wanted.data_source, 80));
        self.engine.audit().event(ctx, "configure").resource(resource).outcome(&done).record().await;
        done
    }

    async fn configure_held(&self, ctx: &CallContext, wanted: &Configure) -> Result<Configured> {
        self.admin(ctx).await?;
        let _only_one = self.engine.settings_state().writing.lock().await;
        let kind = wanted.data_source.as_str();
        let keboola_url = wanted.keboola_url.as_deref();
        if let Some(url) = keboola_url {
            self.check_url("keboola_url", url).await?;
            // A stored token goes to the host it was stored for, to no other.
            let stored = self.layers().await?.merged();
            let same = crate::config::at(&stored, "data_source.keboola.stack_url").and_then(Value::as_str) == Some(url);
            if !same && wanted.keboola_token.is_none() {
                let reason = "given together with `keboola_token`".to_owned();
                return Err(SettingsError::Invalid { key: "keboola_url".to_owned(), reason }.into());
            }
        }
        let detail = if kind == "local" { None } else { Some(self.ask(wanted).await?) };
        let token = wanted.keboola_token.as_ref().map(Secret::expose);
        let changed = sections(&[
            ("data_source.type", Some(kind)),
            ("data_source.keboola.storage_token", token),
            ("data_source.keboola.stack_url", keboola_url),
            ("data_source.bigquery.project", wanted.bigquery_project.as_deref()),
            ("data_source.bigquery.location", wanted.bigquery_location.as_deref()),
            ("instance.name", wanted.instance_name.as_deref()),
            ("auth.allowed_domain", wanted.allowed_domain.as_deref()),
        ]);
        self.update_held(ctx, &changed, true).await?;
        Ok(Configured { data_source: kind.to_owned(), detail })
    }

    /// Asks the source, as it would be configured, whether it answers.
    async fn ask(&self, wanted: &Configure) -> Result<String> {
        let kind = wanted.data_source.as_str();
        let known = self.engine.connectors();
        let connector = known.get(kind).ok_or_else(|| SettingsError::NotOffered {
            kind: printable(kind, 64),
            known: known.kinds().into_iter().chain(["local"]).collect::<Vec<_>>().join(", "),
        })?;
        let mut config = json!({});
        for (key, value) in [
            ("stack_url", &wanted.keboola_url),
            ("project", &wanted.bigquery_project),
            ("location", &wanted.bigquery_location),
        ] {
            if let Some(value) = value {
                config[key] = value.as_str().into();
            }
        }
        let source = SourceContext {
            name: SourceName::parse(kind)?,
            config: connector.normalise_config(&config)?,
            secrets: Arc::new(Given { token: wanted.keboola_token.clone(), rest: self.engine.source_secrets() }),
            attach: Arc::new(crate::orchestrator::AttachPolicy::of(self.engine.config())),
            timeout: self.engine.config().sync.table_timeout,
            scratch: self.engine.scratch().to_owned(),
            cancel: Cancel::default(),
            progress: Progress::default(),
        };
        let items = connector.check(&source).await?;
        let words =
            |items: Vec<&CheckItem>| items.iter().map(|item| item.detail.as_str()).collect::<Vec<_>>().join("; ");
        let failed: Vec<&CheckItem> = items.iter().filter(|item| !item.ok).collect();
        if failed.is_empty() {
            return Ok(words(items.iter().collect()));
        }
        let mut detail = words(failed);
        if let Some(token) = &wanted.keboola_token {
            detail = token.scrub(&detail);
        }
        Err(SettingsError::ConnectionFailed { kind: kind.to_owned(), detail }.into())
    }
}
