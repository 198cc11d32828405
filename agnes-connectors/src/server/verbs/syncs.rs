//! Syncs: begun at the server, followed, stopped, looked back at.

use std::time::Duration;

use agnes_core::connector::{Progress, ProgressEvent};
use agnes_core::error::Result;
use agnes_core::local::{CancelRun, GetRun, RunSync, Runs, TriggerSync};
use agnes_core::sync::{RunProgress, SyncRequest, SyncRun};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::admin::plain;
use super::{Served, Told, asked};
use crate::server::{Call, ServerClient};

/// How often a run is asked after.
const LOOK: Duration = Duration::from_millis(300);
/// How often in a row a look may fail: a server may start anew meanwhile, and finishes the run then.
const MISSED: u32 = 30;
/// Most runs that a server tells of at once.
const MOST: usize = 1000;

/// What the API takes for a request.
fn body(request: &SyncRequest) -> Value {
    let mut body = json!({});
    for (name, named) in [("tables", &request.tables), ("sources", &request.sources)] {
        if !named.is_empty() {
            body[name] = json!(named);
        }
    }
    if request.full {
        body["full"] = json!(true);
    }
    body
}

/// Begins a run: its id, and what the server said.
async fn begin(server: &ServerClient, request: &SyncRequest) -> Result<(String, Value)> {
    let said = server.ask(Call::post(&["api", "sync", "trigger"], body(request))).await?.body;
    let id = said["run_id"].as_str().ok_or_else(|| server.not_understood("there is no id of the run"))?;
    Ok((id.to_owned(), said))
}

/// What became of each table, as far as a run says.
fn ended(run: &SyncRun, mut seen: RunProgress) -> RunProgress {
    for table in run.outcome.iter().flat_map(|outcome| &outcome.tables) {
        seen.take(&ProgressEvent::TableFinished {
            source: table.source.clone(),
            table: table.table.clone(),
            status: table.status.as_str().to_owned(),
            rows: table.rows,
            bytes: table.bytes,
        });
    }
    seen
}

impl Served for RunSync {
    fn ask(self, server: &ServerClient) -> BoxFuture<'_, Result<Told<SyncRun>>> {
        self.follow(server, Progress::default())
    }

    /// Looks at the run again and again. Whoever ends this does not end the run.
    fn follow(self, server: &ServerClient, progress: Progress) -> BoxFuture<'_, Result<Told<SyncRun>>> {
        Box::pin(async move {
            let (id, _) = begin(server, &self.request).await?;
            let (mut seen, mut missed) = (RunProgress::default(), 0);
            loop {
                let run = match (GetRun { id: id.clone() }).ask(server).await {
                    Ok(run) => run,
                    Err(error) if error.is_retryable() && missed < MISSED => {
                        missed += 1;
                        tokio::time::sleep(LOOK).await;
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                missed = 0;
                let has_ended = run.finished_at.is_some();
                let now = match (&run.progress, has_ended) {
                    (_, true) => ended(&run, seen.clone()),
                    (Some(now), false) => now.clone(),
                    (None, false) => seen.clone(),
                };
                for event in now.since(&seen) {
                    progress.report(event);
                }
                if has_ended {
                    return Ok(run);
                }
                seen = now;
                tokio::time::sleep(LOOK).await;
            }
        })
    }
}

asked! {
    TriggerSync |v, server| {
        let (id, said) = begin(server, &v.request).await?;
        Ok(Told::by_server(GetRun { id }.ask(server).await?.into_reply(), said))
    };
    Runs |v, server| {
        let call = Call::get(&["api", "sync", "runs"]).param("limit", v.limit.clamp(1, MOST));
        plain(server, server.ask(call).await?.body)
    };
    GetRun |v, server| plain(server, server.ask(Call::get(&["api", "sync", "runs", &v.id])).await?.body);
    CancelRun |v, server| {
        let said = server.ask(Call::post(&["api", "sync", "runs", &v.id, "cancel"], json!({}))).await?.body;
        Ok(Told::by_server(server.read(said["cancelled"].clone())?, said))
    };
}
