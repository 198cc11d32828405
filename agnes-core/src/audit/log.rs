//! Writes the audit log without ever failing the action it records.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::{AuditEvent, AuditFilter, AuditRepository};
use crate::context::{CallContext, Client};
use crate::engine::Engine;
use crate::error::Result;
use crate::rbac::ClientKind;

/// Events that may wait for the writer; more are written by the caller itself.
const QUEUE: usize = 4096;
/// How long events of reads wait for others: a hundred rows cost little more than one.
const GATHER: Duration = Duration::from_millis(100);
/// So many are written at once without waiting for more.
const ENOUGH: usize = 512;
/// Longest `resource` kept, in characters.
const MAX_RESOURCE: usize = 256;
/// Longest text value kept in `params`, in bytes.
const MAX_TEXT: usize = 4096;

enum Message {
    Event(Box<AuditEvent>),
    Flush(oneshot::Sender<()>),
}

/// How long reading the same rows again leaves no row of its own.
const READER: Duration = Duration::from_secs(60);

/// Collects events and writes them in batches.
pub(crate) struct AuditLog {
    repository: Arc<dyn AuditRepository>,
    queue: mpsc::Sender<Message>,
    failures: Arc<AtomicU64>,
    /// Who read which rows a moment ago.
    readers: moka::sync::Cache<String, ()>,
}

impl std::fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuditLog").field("failures", &self.failures()).finish_non_exhaustive()
    }
}

impl AuditLog {
    /// Starts the writer on the current runtime.
    pub(crate) fn start(repository: Arc<dyn AuditRepository>) -> Self {
        let (queue, mut inbox) = mpsc::channel::<Message>(QUEUE);
        let failures = Arc::new(AtomicU64::new(0));
        let (target, failed) = (repository.clone(), failures.clone());
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while inbox.recv_many(&mut waiting, QUEUE).await > 0 {
                let gather = async {
                    let is_flush = |message: &Message| matches!(message, Message::Flush(_));
                    while waiting.len() < ENOUGH && !waiting.iter().any(is_flush) {
                        if inbox.recv_many(&mut waiting, QUEUE).await == 0 {
                            break;
                        }
                    }
                };
                // Nobody waits for them: who reads the log flushes first.
                let _ = tokio::time::timeout(GATHER, gather).await;
                let mut events = Vec::new();
                let mut flushed = Vec::new();
                for message in waiting.drain(..) {
                    match message {
                        Message::Event(event) => events.push(*event),
                        Message::Flush(done) => flushed.push(done),
                    }
                }
                if !events.is_empty() {
                    write(&*target, &events, &failed).await;
                }
                for done in flushed {
                    let _ = done.send(());
                }
            }
        });
        let readers = moka::sync::Cache::builder().max_capacity(1000).time_to_live(READER).build();
        Self { repository, queue, failures, readers }
    }

    /// How many events could not be written since the start.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Waits until every event queued so far is written.
    pub(crate) async fn flush(&self) {
        let (done, wait) = oneshot::channel();
        if self.queue.send(Message::Flush(done)).await.is_ok() {
            let _ = wait.await;
        }
    }
}

async fn write(repository: &dyn AuditRepository, events: &[AuditEvent], failures: &AtomicU64) {
    if let Err(error) = repository.append(events).await {
        failures.fetch_add(events.len() as u64, Ordering::Relaxed);
        tracing::error!(code = error.code(), events = events.len(), "audit events were lost: {error}");
    }
}

/// The audit log of an engine.
#[derive(Debug, Clone, Copy)]
pub struct Audit<'a> {
    pub(super) engine: &'a Engine,
}

impl Engine {
    /// The audit log.
    #[must_use]
    pub fn audit(&self) -> Audit<'_> {
        Audit { engine: self }
    }
}

impl<'a> Audit<'a> {
    /// Rows of the log, newest first; at most 1,000 at once. For admins.
    ///
    /// # Errors
    /// `admin_required`, `inactive_user`.
    pub async fn list(&self, ctx: &CallContext, filter: &AuditFilter) -> Result<Vec<AuditEvent>> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        self.engine.audit_log().flush().await;
        let filter = AuditFilter { limit: filter.limit.clamp(1, 1000), ..filter.clone() };
        let rows = self.engine.store().audit().list(&filter).await?;
        // Somebody who follows the log leaves one row a minute in it, not one a look.
        let wanted = serde_json::json!({"filter": AuditFilter { since: None, before: None, ..filter }});
        let reader = format!("{} {wanted}", ctx.principal().user_id());
        if !ctx.principal().is_trusted_owner() && self.engine.audit_log().readers.get(&reader).is_none() {
            self.engine.audit_log().readers.insert(reader, ());
            self.event(ctx, "activity.read").params(wanted).later();
        }
        Ok(rows)
    }

    /// Deletes rows older than `audit.retention_days`, where that is set; how many. What was
    /// deleted is in the log itself.
    pub(crate) async fn forget_old(&self) -> Result<u64> {
        let days = self.engine.config().audit_retention_days;
        if days == 0 {
            return Ok(0);
        }
        let before = self.engine.clock().now() - chrono::TimeDelta::days(days.into());
        let deleted = self.engine.store().audit().prune(before).await?;
        if deleted > 0 {
            let told = serde_json::json!({"deleted": deleted, "before": before, "retention_days": days});
            self.event_of(&Client::at(None), None, "audit.pruned").params(told).record().await;
        }
        Ok(deleted)
    }

    /// How many events could not be written since the engine was opened.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.engine.audit_log().failures()
    }

    /// Begins an event of the caller `ctx`; end with [`Event::record`] or [`Event::later`].
    pub(crate) fn event(&self, ctx: &CallContext, action: &'static str) -> Event<'a> {
        let principal = ctx.principal();
        // Who looks at what somebody else sees is who does it.
        let (who, seen) = match principal.viewer() {
            Some(viewer) => (viewer, Some(principal.user_id().to_owned())),
            None => (principal.user_id(), None),
        };
        let event = self.begin(Some(who), ctx.client_ip(), principal.client(), ctx.request_id(), action);
        Event { seen, ..event }
    }

    /// Begins an event of a request that nobody proved yet; `user_id` is whom it is about.
    pub(crate) fn event_of(&self, client: &Client, user_id: Option<&str>, action: &'static str) -> Event<'a> {
        self.begin(user_id, client.ip(), client.kind(None), client.request_id(), action)
    }

    fn begin(
        &self,
        user_id: Option<&str>,
        ip: Option<IpAddr>,
        kind: ClientKind,
        request_id: &str,
        action: &'static str,
    ) -> Event<'a> {
        Event {
            log: self.engine.audit_log(),
            seen: None,
            event: AuditEvent {
                id: uuid::Uuid::new_v4().simple().to_string(),
                timestamp: self.engine.clock().now(),
                user_id: user_id.map(str::to_owned),
                action: action.to_owned(),
                resource: None,
                params: None,
                params_before: None,
                result: Some("success".to_owned()),
                duration_ms: None,
                client_ip: ip.map(|ip| ip.to_string()),
                client_kind: Some(kind.as_str().to_owned()),
                correlation_id: Some(request_id.to_owned()),
            },
        }
    }
}

/// An event that is being put together.
#[must_use]
pub(crate) struct Event<'a> {
    log: &'a AuditLog,
    /// Whose view an admin looks at.
    seen: Option<String>,
    event: AuditEvent,
}

impl Event<'_> {
    /// On what, e.g. `table:orders`.
    pub(crate) fn resource(mut self, resource: impl AsRef<str>) -> Self {
        self.event.resource = Some(resource.as_ref().chars().take(MAX_RESOURCE).collect());
        self
    }

    /// Facts; secret-looking keys are masked.
    pub(crate) fn params(mut self, params: Value) -> Self {
        self.event.params = Some(redact(params));
        self
    }

    /// The state before a change; secret-looking keys are masked.
    pub(crate) fn before(mut self, params: Value) -> Self {
        self.event.params_before = Some(redact(params));
        self
    }

    /// The result of `outcome`: `success`, `denied` or `error.<code>`.
    pub(crate) fn outcome<T>(mut self, outcome: &Result<T>) -> Self {
        use crate::error::ErrorKind::{Forbidden, Unauthenticated};
        self.event.result = Some(match outcome {
            Ok(_) => "success".to_owned(),
            Err(error) if matches!(error.kind(), Forbidden | Unauthenticated) => "denied".to_owned(),
            Err(error) => format!("error.{}", error.code()),
        });
        self
    }

    /// A result in the words of whoever decided, e.g. `invalid_password`.
    pub(crate) fn result(mut self, result: &str) -> Self {
        self.event.result = Some(result.to_owned());
        self
    }

    /// How long it took.
    pub(crate) fn took(mut self, duration: Duration) -> Self {
        self.event.duration_ms = i64::try_from(duration.as_millis()).ok();
        self
    }

    fn finished(mut self) -> AuditEvent {
        if let Some(seen) = self.seen {
            let params = self.event.params.get_or_insert_with(|| Value::Object(serde_json::Map::new()));
            if let Value::Object(params) = params {
                params.insert("as_user".to_owned(), Value::from(seen));
            }
        }
        self.event
    }

    /// Writes it now: for changes, so that what is acknowledged is recorded.
    pub(crate) async fn record(self) {
        let log = self.log;
        write(&*log.repository, &[self.finished()], &log.failures).await;
    }

    /// Queues it, off the caller's path: for reads.
    pub(crate) fn later(self) {
        let log = self.log;
        if let Err(full) = log.queue.try_send(Message::Event(Box::new(self.finished())))
            && let Message::Event(event) = full.into_inner()
        {
            let (repository, failures) = (log.repository.clone(), log.failures.clone());
            tokio::spawn(async move { write(&*repository, &[*event], &failures).await });
        }
    }
}

/// `value` with the values of secret-looking keys masked and long texts cut.
fn redact(value: Value) -> Value {
    const SECRET_KEYS: [&str; 6] = ["secret", "token", "password", "api_key", "authorization", "cookie"];
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| {
                    let lower = key.to_lowercase();
                    // `token_env` and the like hold the name of a variable, not its value.
                    let secret = !lower.ends_with("_env") && SECRET_KEYS.iter().any(|s| lower.contains(s));
                    let value = if secret { Value::from("***") } else { redact(value) };
                    (key, value)
                })
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(redact).collect()),
        Value::String(text) if text.len() > MAX_TEXT => {
            let cut = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
            Value::String(format!("{}…", &text[..cut]))
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_masked_wherever_they_are() {
        let masked = redact(serde_json::json!({
            "name": "x", "storage_token": "t", "nested": [{"Password": "p", "token_env": "KBC_TOKEN"}],
        }));
        assert_eq!(
            masked,
            serde_json::json!({"name": "x", "storage_token": "***", "nested": [{"Password": "***", "token_env": "KBC_TOKEN"}]})
        );
    }
}
