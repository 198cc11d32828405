//! Verbs of those who look after a server, and receipts.

use agnes_core::error::Result;
use agnes_core::local::{CollectGarbage, Doctor, GetPulse, PastSyncs, ReplayReceipt};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::admin::plain;
use super::{Served, Told, asked, list, with};
use crate::server::{Call, ServerClient};

/// How far back a server tells of syncs, minutes, and how many of them at once.
const LONGEST: i64 = 30 * 24 * 60;
const MOST: usize = 500;

asked! {
    Doctor |_v, server| plain(server, server.ask(Call::get(&["api", "admin", "doctor"])).await?.body);
    CollectGarbage |v, server| {
        let call = Call::post(&["api", "admin", "gc"], json!({})).param("dry_run", v.dry_run).unlimited();
        plain(server, server.ask(call).await?.body)
    };
    GetPulse |_v, server| plain(server, server.ask(Call::get(&["api", "admin", "activity", "health"])).await?.body);
    PastSyncs |v, server| {
        let call = Call::get(&["api", "admin", "activity", "sync"])
            .param("since_minutes", v.since_minutes.clamp(1, LONGEST))
            .param("limit", v.limit.clamp(1, MOST));
        let said = server.ask(call).await?.body;
        let rows = list(&said, "rows").into_iter().map(|row| {
            let (id, name) = (row["table_id"].clone(), row["table_name"].clone());
            let mut row = with(row, &[("id", json!("")), ("registry_id", id)]);
            row["table_id"] = name;
            row
        });
        let rows: Vec<Value> = rows.collect();
        Ok(Told::by_server(server.read(rows.into())?, said))
    };
    ReplayReceipt |v, server| {
        let call = Call::post(&["api", "query", "replay"], json!(v.receipt)).within(server.query_timeout());
        plain(server, server.ask(call).await?.body)
    };
}
