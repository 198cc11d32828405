//! What frontends ask of sources that tell by themselves.

use std::fs::File;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use arrow::array::{Array as _, AsArray as _};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::inbox::{Inbox, Taken};
use super::worker::{self, Line};
use super::{Delivery, Documents, Looked, Push, PushError, SOURCES, apply};
use crate::connector::{Cancel, Connector, Progress, SourceContext};
use crate::context::{CallContext, Client};
use crate::engine::Engine;
use crate::error::{Error, ErrorKind, Result};
use crate::ident::printable;
use crate::query::{Params, Query, Value as Bound};
use crate::rbac::Ability;
use crate::registry::{self, RegisteredSource};

/// Sources that tell of their changes by themselves.
#[derive(Debug, Clone, Copy)]
pub struct Pushes<'a> {
    engine: &'a Engine,
}

impl Engine {
    /// Sources that tell of their changes by themselves.
    #[must_use]
    pub fn pushes(&self) -> Pushes<'_> {
        Pushes { engine: self }
    }
}

/// A delivery that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// What kind of event it was.
    pub event: String,
    /// The document it is about.
    pub subject: String,
    /// Whether it was kept before.
    pub known: bool,
}

/// How the deliveries of one kind of source are doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PushHealth {
    /// `ok`, `degraded` where documents cannot be brought up to date.
    pub status: String,
    /// Whether a source of this kind has what its documents are fetched with.
    pub configured: bool,
    /// Whether the secret of its deliveries is set.
    pub webhook_secret_set: bool,
    /// Documents that wait.
    pub pending: usize,
    /// Since when the oldest of them waits.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub pending_since: Option<DateTime<Utc>>,
    /// When something was last published since the start of this process.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub last_published: Option<DateTime<Utc>>,
    /// What keeps documents from being brought up to date, in words, with what to do.
    pub error: Option<String>,
}

/// A file that belongs to a document, open.
#[derive(Debug)]
pub struct Attachment {
    /// What it is called.
    pub file_name: String,
    /// Bytes.
    pub size_bytes: u64,
    file: Arc<File>,
}

impl Attachment {
    /// At most `length` bytes from `offset` on.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        crate::catalog::read_piece(self.file.clone(), self.size_bytes, offset, length).await
    }
}

/// A source with what speaks to it.
struct Found {
    source: RegisteredSource,
    connector: Arc<dyn Connector>,
    context: SourceContext,
}

impl Found {
    fn push(&self) -> Result<&dyn Push> {
        self.connector.push().ok_or_else(|| not_configured(&self.source.kind, "it does not tell by itself"))
    }
}

fn not_configured(kind: &str, missing: &str) -> Error {
    PushError::NotConfigured { kind: printable(kind, 40), missing: missing.to_owned() }.into()
}

impl Pushes<'_> {
    /// Goes on with deliveries that an earlier process left: for a process that serves.
    ///
    /// # Errors
    /// What the state says. An inbox that cannot be opened is logged.
    pub async fn start(&self) -> Result<()> {
        for source in self.engine.store().sources().list().await? {
            let tells = registry::connector(self.engine, &source.kind).is_ok_and(|known| known.push().is_some());
            if tells && let Err(error) = self.line(&source).await {
                tracing::error!(source = %source.name, code = error.code(), "its inbox cannot be opened: {error}");
            }
        }
        Ok(())
    }

    /// Takes a delivery for sources of this kind, from whoever can prove it by the secret of one of
    /// them. It is on the disk when this returns, and will reach the tables.
    ///
    /// # Errors
    /// `push_not_configured`, `webhook_signature_invalid`, `webhook_invalid`, `disk_full`.
    pub async fn receive(&self, client: &Client, kind: &str, delivery: &Delivery) -> Result<Delivered> {
        let done = self.take(kind, delivery).await;
        let audit = self.engine.audit();
        let event = audit.event_of(client, None, "webhook.received").outcome(&done);
        match &done {
            Ok((source, delivered)) => {
                let told = json!({"event": delivered.event, "subject": delivered.subject, "known": delivered.known});
                event.resource(format!("source:{source}")).params(told).later();
            }
            // Who knows no secret is no reason to write more than one row a moment.
            Err(_) if self.engine.push_state().refused_a_moment_ago() => drop(event),
            Err(_) => event.resource(format!("webhook:{}", printable(kind, 40))).later(),
        }
        done.map(|(_, delivered)| delivered)
    }

    async fn take(&self, kind: &str, delivery: &Delivery) -> Result<(String, Delivered)> {
        let mut last = not_configured(kind, "there is none");
        for found in self.of_kind(kind).await? {
            let push = found.push()?;
            let ready = push.readiness(&found.context);
            if !ready.secret {
                last = not_configured(kind, "the secret of its deliveries is not set");
                continue;
            }
            let notice = match push.receive(&found.context, delivery) {
                // Another source of this kind may have sent it.
                Err(error) if error.code() == "webhook_signature_invalid" => {
                    last = error;
                    continue;
                }
                received => received?,
            };
            if !ready.configured {
                return Err(not_configured(kind, "it is not known how its documents are fetched"));
            }
            let line = self.line(&found.source).await?;
            let (event, subject) = (notice.event.clone(), notice.subject.clone());
            let taken = line.inbox.put(notice, self.engine.clock().now()).await?;
            let delivered = Delivered { event, subject, known: taken == Taken::Known };
            return Ok((found.source.name.to_string(), delivered));
        }
        Err(last)
    }

    /// Refuses at once where no delivery of this kind could be proven.
    ///
    /// # Errors
    /// `push_not_configured`.
    pub async fn expects(&self, kind: &str) -> Result<()> {
        for found in self.of_kind(kind).await? {
            if found.push()?.readiness(&found.context).secret {
                return Ok(());
            }
        }
        Err(not_configured(kind, "the secret of its deliveries is not set"))
    }

    /// How deliveries of this kind are doing. For admins.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn health(&self, ctx: &CallContext, kind: &str) -> Result<PushHealth> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let mut health = PushHealth {
            status: "ok".to_owned(),
            configured: false,
            webhook_secret_set: false,
            pending: 0,
            pending_since: None,
            last_published: None,
            error: None,
        };
        for found in self.of_kind(kind).await? {
            let ready = found.push()?.readiness(&found.context);
            health.configured |= ready.configured;
            health.webhook_secret_set |= ready.secret;
            let line = self.line(&found.source).await?;
            let (waiting, since) = line.inbox.waiting();
            health.pending += waiting;
            health.pending_since = [health.pending_since, since].into_iter().flatten().min();
            let published = *line.published.lock().unwrap_or_else(PoisonError::into_inner);
            health.last_published = health.last_published.max(published);
            if let Some(trouble) = &*line.trouble.lock().unwrap_or_else(PoisonError::into_inner) {
                let hint = trouble.hint.as_deref().map(|hint| format!("; {hint}")).unwrap_or_default();
                health.error = Some(format!("{trouble}{hint}"));
                health.status = "degraded".to_owned();
            }
        }
        Ok(health)
    }

    /// Asks sources of this kind for what changes without their telling. For admins; one at a
    /// time.
    ///
    /// # Errors
    /// `push_not_configured`, `already_running`, what the source says, `admin_required`.
    pub async fn poll(&self, ctx: &CallContext, kind: &str) -> Result<Value> {
        self.look(ctx, kind, Look::Poll).await
    }

    /// Compares documents of the last `days` with the source and repairs what differs. For
    /// admins; one at a time.
    ///
    /// # Errors
    /// As [`Pushes::poll`].
    pub async fn check(&self, ctx: &CallContext, kind: &str, days: u32) -> Result<Value> {
        self.look(ctx, kind, Look::Check(days)).await
    }

    async fn look(&self, ctx: &CallContext, kind: &str, look: Look) -> Result<Value> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        let (engine, kind, started) = (self.engine.clone(), kind.to_owned(), Instant::now());
        let (tell, told) = tokio::sync::oneshot::channel();
        // It goes on to its end when nobody waits for it any more.
        let work = kind.clone();
        self.engine.sync_runs().spawn(async move {
            let done = engine.pushes().looked(&work, look).await;
            let _ = tell.send(done);
        });
        let done = match told.await {
            Ok(done) => done,
            Err(_) => Err(crate::connector::Cancelled.into()),
        };
        // A clock asks again and again, also where there is no such source.
        if done.as_ref().err().is_none_or(|error| error.code() != "push_not_configured") {
            let event = self.engine.audit().event(ctx, look.action()).resource(format!("sources:{kind}"));
            event.outcome(&done).took(started.elapsed()).record().await;
        }
        done
    }

    async fn looked(&self, kind: &str, look: Look) -> Result<Value> {
        let _once = self.engine.push_state().once(format!("{}:{kind}", look.action()))?;
        let mut reports = Vec::new();
        for mut found in self.of_kind(kind).await? {
            let id = format!("push-look:{}", uuid::Uuid::new_v4().simple());
            found.context.cancel = self.engine.sync_runs().begin(&id);
            let documents = Documents::of(&self.engine.folder().extract(&found.source.name));
            let looked = match look {
                Look::Poll => found.push()?.poll(&found.context, &documents).await,
                Look::Check(days) => found.push()?.check(&found.context, &documents, days).await,
            };
            self.engine.sync_runs().end(&id);
            let Looked { changed, mut report } = looked?;
            let mut failed = Vec::new();
            if !changed.is_empty() {
                let applied = apply::documents(self.engine, &found.source, found.connector.clone(), changed).await?;
                failed.extend(applied.failed.into_keys());
            }
            match look {
                Look::Poll if failed.is_empty() => {}
                Look::Poll => report["transform_failed"] = json!(failed),
                Look::Check(_) => {
                    let connector = found.connector.clone();
                    let checked = move || match connector.push() {
                        Some(push) => push.checked(&documents, report, &failed),
                        None => Ok(report),
                    };
                    report = crate::duck::blocking(checked).await?;
                    worker::lacking_files(self.engine, found.source.clone(), found.connector.clone());
                }
            }
            reports.push((found.source.name.to_string(), report));
        }
        match reports.len() {
            0 => {
                Err(PushError::NotSetUp { reason: format!("there is no source of kind `{}`", printable(kind, 40)) }
                    .into())
            }
            1 => Ok(reports.remove(0).1),
            _ => Ok(reports.into_iter().collect::<serde_json::Map<_, _>>().into()),
        }
    }

    /// A file that belongs to a document, by its id: for whoever may read its row in a table that
    /// tells of such files, under the policies that hold for them.
    ///
    /// # Errors
    /// `attachment_not_found`, also where they may not read it; `access_denied` and the others of
    /// a query.
    pub async fn attachment(&self, ctx: &CallContext, table: &str, id: &str) -> Result<Attachment> {
        let done = self.open_attachment(ctx, table, id).await;
        let resource = format!("table:{}", printable(table, 80));
        let params = json!({"attachment": printable(id, 40), "bytes": done.as_ref().map_or(0, |a| a.size_bytes)});
        self.engine.audit().event(ctx, "data.attachment").resource(resource).params(params).outcome(&done).later();
        done
    }

    async fn open_attachment(&self, ctx: &CallContext, table: &str, id: &str) -> Result<Attachment> {
        let missing = || Error::from(PushError::NoAttachment { id: printable(id, 40) });
        self.engine.access().await?.require_active(ctx.principal())?;
        ctx.principal().require(Ability::Everything)?;
        let index = self.engine.table_index().await?;
        let Some(row) = index.find(table) else { return Err(missing()) };
        let Some(name) = row.source.clone() else { return Err(missing()) };
        let Some(source) = self.engine.store().sources().get(&name).await? else { return Err(missing()) };
        let connector = registry::connector(self.engine, &source.kind)?;
        if connector.push().is_none() {
            return Err(missing());
        }
        // The caller's own right to the row decides.
        let quoted = crate::ident::quote_ident(&row.name);
        let sql = format!("SELECT issue_key, filename FROM {quoted} WHERE attachment_id = ?");
        let query = Query::new(sql).params(Params::Positional(vec![Bound::Text(id.to_owned())])).limit(1);
        let batches = match self.engine.query(ctx, query).await {
            Ok(mut rows) => rows.collect().await?,
            // Whoever may not read the table may not know what is in it.
            // And a table without such columns has no such files.
            Err(error)
                if matches!(error.kind(), ErrorKind::QueryRefused | ErrorKind::Forbidden | ErrorKind::InvalidInput) =>
            {
                return Err(missing());
            }
            Err(error) => return Err(error),
        };
        let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else { return Err(missing()) };
        let text = |column: usize| {
            let column = arrow::compute::cast(batch.column(column), &arrow::datatypes::DataType::Utf8).ok()?;
            let texts = column.as_string::<i32>();
            texts.is_valid(0).then(|| texts.value(0).to_owned())
        };
        let (Some(key), Some(file_name)) = (text(0), text(1)) else { return Err(missing()) };
        let (path, _) = Documents::of(&self.engine.folder().extract(&source.name)).attachment(&key, id, &file_name)?;
        let opened = crate::duck::blocking(move || {
            let opened = File::open(path).and_then(|file| file.metadata().map(|meta| (file, meta)));
            Ok(opened.ok().filter(|(_, meta)| meta.is_file()).map(|(file, meta)| (file, meta.len())))
        });
        let (file, size_bytes) = opened.await?.ok_or_else(missing)?;
        Ok(Attachment { file_name, size_bytes, file: Arc::new(file) })
    }

    /// Sources of this kind that tell by themselves.
    async fn of_kind(&self, kind: &str) -> Result<Vec<Found>> {
        let state = self.engine.push_state();
        let kept = state.sources.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let sources = match kept.filter(|(at, _)| at.elapsed() < SOURCES) {
            Some((_, sources)) => sources,
            None => {
                let sources = Arc::new(self.engine.store().sources().list().await?);
                *state.sources.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), sources.clone()));
                sources
            }
        };
        let mut found = Vec::new();
        for source in sources.iter().filter(|source| source.kind == kind) {
            let connector = registry::connector(self.engine, kind)?;
            if connector.push().is_some() {
                let context = registry::context(self.engine, source, Cancel::default(), Progress::default());
                found.push(Found { source: source.clone(), connector, context });
            }
        }
        Ok(found)
    }

    /// The inbox of a source, opened when it is first needed, with its worker.
    async fn line(&self, source: &RegisteredSource) -> Result<Arc<Line>> {
        let mut lines = self.engine.push_state().lines.lock().await;
        if let Some(line) = lines.get(source.name.as_str()) {
            return Ok(line.clone());
        }
        let folder = Documents::of(&self.engine.folder().extract(&source.name)).raw().join("webhook_events");
        let inbox = crate::duck::blocking(move || Inbox::open(&folder)).await?;
        let line = Arc::new(Line::new(inbox, source.name.as_str()));
        lines.insert(source.name.to_string(), line.clone());
        worker::start(self.engine, line.clone());
        Ok(line)
    }
}

/// A longer piece of work.
#[derive(Debug, Clone, Copy)]
enum Look {
    Poll,
    Check(u32),
}

impl Look {
    fn action(self) -> &'static str {
        match self {
            Self::Poll => "push.poll",
            Self::Check(_) => "push.check",
        }
    }
}
