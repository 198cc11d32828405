//! Texts that admins edit: what people give their assistants to set a computer up, and the `CLAUDE.md`
//! that `agnes init` writes.
//!
//! A template sees the values that it is given and nothing else: no file, no variable of the environment,
//! no other template; steps and length are limited. One that fails when it is needed gives way to the
//! default.

mod render;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use crate::Engine;
use crate::context::CallContext;
use crate::distribution::plain_origin;
use crate::error::{Coded, ErrorKind, Result};
use crate::identity::Me;
use crate::rbac::Ability;
use render::render;
pub(crate) use render::render_now;

/// Longest template, characters.
pub const LONGEST: usize = 200_000;

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TemplateKey {
    /// What people give their assistants: commands that set a computer up.
    SetupPrompt,
    /// `CLAUDE.md` of a workspace.
    Workspace,
}

impl TemplateKey {
    /// Its key in the state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SetupPrompt => "welcome",
            Self::Workspace => "claude_md",
        }
    }

    /// What holds while nobody wrote another.
    #[must_use]
    pub fn default_text(self) -> &'static str {
        match self {
            Self::SetupPrompt => include_str!("setup.md"),
            Self::Workspace => include_str!("claude.md"),
        }
    }
}

/// A template as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredTemplate {
    /// The text; none while the default holds.
    pub content: Option<String>,
    /// When it was written.
    pub updated_at: Option<DateTime<Utc>>,
    /// Id of who wrote it.
    pub updated_by: Option<String>,
}

/// Keeps templates. Every method is one transaction.
#[async_trait]
pub trait TemplateRepository: Send + Sync {
    /// The template under a key; the empty one where nobody wrote any.
    async fn find(&self, key: &str) -> Result<StoredTemplate>;
    /// Keeps a text, or takes it away; the one before it stays as the previous one.
    async fn put(&self, key: &str, content: Option<&str>, by: &str, at: DateTime<Utc>) -> Result<()>;
}

/// Why a template is not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It does not render.
    #[error("the template is not valid: {message}")]
    Invalid {
        /// Where, from 1 on; 0 where that is not known.
        line: usize,
        /// In words.
        message: String,
    },
}

impl Coded for TemplateError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::InvalidInput
    }
    fn code(&self) -> &str {
        "template_invalid"
    }
    fn facts(&self) -> Option<Value> {
        let Self::Invalid { line, message } = self;
        Some(json!({"kind": "template_invalid", "line": line, "message": message}))
    }
}

/// Where a text is rendered for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// How addresses of this server begin.
    pub origin: &'a str,
    /// Whether it offers archives of the command.
    pub offers: bool,
    /// The certificate of its authority, PEM, where computers do not know that by themselves.
    pub authority: Option<&'a str>,
}

/// The texts of an engine; made by [`Engine::templates`].
#[derive(Debug, Clone, Copy)]
pub struct Templates<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Texts that admins edit.
    #[must_use]
    pub fn templates(&self) -> Templates<'_> {
        Templates { engine: self }
    }
}

impl Templates<'_> {
    /// A template as it is kept. For admins who are people.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn get(&self, ctx: &CallContext, key: TemplateKey) -> Result<StoredTemplate> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        self.engine.store().templates().find(key.as_str()).await
    }

    /// Keeps a text that renders for somebody who is signed in and for somebody who is not. For
    /// admins who are people; audited as `template.updated`.
    ///
    /// # Errors
    /// `template_invalid`, `admin_required`, `service_forbidden`.
    pub async fn set(&self, ctx: &CallContext, key: TemplateKey, content: &str) -> Result<StoredTemplate> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        let done = match self.check(content).await {
            Ok(()) => self.put(ctx, key, Some(content)).await,
            Err(error) => Err(error),
        };
        self.audited(ctx, "template.updated", key, &done).await;
        done?;
        self.engine.store().templates().find(key.as_str()).await
    }

    /// Returns to the default. For admins who are people; audited as `template.reset`.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn reset(&self, ctx: &CallContext, key: TemplateKey) -> Result<()> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        let done = self.put(ctx, key, None).await;
        self.audited(ctx, "template.reset", key, &done).await;
        done
    }

    /// What a text would become for the caller. For admins who are people.
    ///
    /// # Errors
    /// `template_invalid`, `admin_required`, `service_forbidden`.
    pub async fn preview(
        &self,
        ctx: &CallContext,
        key: TemplateKey,
        content: &str,
        place: Place<'_>,
    ) -> Result<String> {
        self.engine.access().await?.require_access_admin(ctx.principal())?;
        self.check(content).await?;
        render(content, self.values(Some(ctx), key, place).await?).await
    }

    /// `CLAUDE.md` for the caller. Where they name the server as they reach it, by `as_seen`, that is
    /// what it is called in it.
    ///
    /// # Errors
    /// Those of who is asking.
    pub async fn workspace_guide(&self, ctx: &CallContext, place: Place<'_>, as_seen: Option<&str>) -> Result<String> {
        ctx.principal().require(Ability::Workspace)?;
        let origin = as_seen.map(|seen| seen.trim_end_matches('/')).filter(|seen| plain_origin(seen));
        let place = Place { origin: origin.unwrap_or(place.origin), ..place };
        self.text(Some(ctx), TemplateKey::Workspace, place).await
    }

    /// What somebody gives their assistant to set a computer up, with `{token}` where a token has to
    /// be. Nothing in it is anybody's secret.
    ///
    /// # Errors
    /// Of the state.
    pub async fn setup_prompt(&self, ctx: Option<&CallContext>, place: Place<'_>) -> Result<String> {
        let text = self.text(ctx, TemplateKey::SetupPrompt, place).await?;
        Ok(text.replace("{server_url}", place.origin))
    }

    async fn text(&self, ctx: Option<&CallContext>, key: TemplateKey, place: Place<'_>) -> Result<String> {
        let values = self.values(ctx, key, place).await?;
        let kept = self.engine.store().templates().find(key.as_str()).await?;
        if let Some(content) = kept.content {
            match render(&content, values.clone()).await {
                Ok(text) => return Ok(text),
                Err(error) => {
                    tracing::warn!(template = key.as_str(), "a template gives way to the default: {error}");
                }
            }
        }
        render(key.default_text(), values).await
    }

    /// Whether a text renders for whoever comes.
    async fn check(&self, content: &str) -> Result<()> {
        let invalid = |message: &str| TemplateError::Invalid { line: 0, message: message.to_owned() };
        if content.is_empty() || content.chars().count() > LONGEST {
            return Err(invalid("it has to have 1 to 200000 characters").into());
        }
        let place = Place { origin: "https://agnes.example.com", offers: true, authority: None };
        let stub =
            json!({"id": "0", "email": "ann@example.com", "name": "Ann", "is_admin": false, "groups": ["Everyone"]});
        for user in [stub, Value::Null] {
            let mut values = self.common(place);
            values["user"] = user;
            let table = json!({"name": "orders", "description": "one row an order", "query_mode": "local"});
            add_workspace(&mut values, &[table], "files");
            render(content, values).await?;
        }
        Ok(())
    }

    /// What every text may name.
    pub(crate) fn common(&self, place: Place<'_>) -> Value {
        let (site, now) = (self.engine.live_config().site.clone(), self.engine.clock().now());
        let host = place.origin.split_once("://").map_or(place.origin, |(_, host)| host);
        json!({
            "instance": {"name": site.product, "subtitle": site.subtitle.unwrap_or_default()},
            "server": {
                "url": place.origin, "hostname": host.split(['/', ':']).next().unwrap_or_default(),
                "offers_cli": place.offers, "authority": place.authority.unwrap_or_default().lines().collect::<Vec<_>>(),
            },
            "now": now.format("%Y-%m-%d %H:%M UTC").to_string(),
            "today": now.format("%Y-%m-%d").to_string(),
        })
    }

    async fn values(&self, ctx: Option<&CallContext>, key: TemplateKey, place: Place<'_>) -> Result<Value> {
        let mut values = self.common(place);
        values["user"] = match ctx {
            Some(ctx) => user(&self.engine.sign_in().me(ctx).await?),
            None => Value::Null,
        };
        let (mut tables, mut kind) = (Vec::new(), "local".to_owned());
        if let (Some(ctx), TemplateKey::Workspace) = (ctx, key) {
            for table in self.engine.catalog().tables(ctx).await? {
                kind = table.source_type.unwrap_or(kind);
                let description = table.description.unwrap_or_default();
                tables.push(json!({"name": table.name, "description": description, "query_mode": table.query_mode}));
            }
        }
        add_workspace(&mut values, &tables, &kind);
        Ok(values)
    }

    async fn put(&self, ctx: &CallContext, key: TemplateKey, content: Option<&str>) -> Result<()> {
        let (by, at) = (ctx.principal().user_id(), self.engine.clock().now());
        self.engine.store().templates().put(key.as_str(), content, by, at).await
    }

    async fn audited(&self, ctx: &CallContext, action: &'static str, key: TemplateKey, done: &Result<()>) {
        self.engine.audit().event(ctx, action).params(json!({"template": key.as_str()})).outcome(done).record().await;
    }
}

fn user(me: &Me) -> Value {
    let groups: Vec<&str> = me.groups.iter().map(|group| group.name.as_str()).collect();
    json!({"id": me.user_id, "email": me.email, "name": me.name, "is_admin": me.is_admin, "groups": groups})
}

fn add_workspace(values: &mut Value, tables: &[Value], kind: &str) {
    // As often as a server looks unless it is told otherwise.
    values["sync_interval"] = json!("15 minutes");
    values["data_source"] = json!({"type": kind});
    values["tables"] = json!(tables);
    values["metrics"] = json!({"count": 0, "categories": []});
    values["marketplaces"] = json!([]);
}
