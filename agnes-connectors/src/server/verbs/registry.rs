//! Verbs about registered tables: registering, describing, what sources offer, how their syncs went.

use agnes_core::error::Result;
use agnes_core::local::{
    DescribeColumns, GetColumns, GetTable, Offers, PrecheckTable, PushColumns, Rebuild, RegisterFields, SyncHistoryOf,
    SyncStates, Tables, TakeOffers, UnregisterTable, UpdateFields,
};
use agnes_core::registry::{RegisteredTable, Registration};
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::admin::{meant, plain};
use super::{Served, Told, asked, list, with};
use crate::server::{Call, Method, ServerClient};

/// How far back a server tells of syncs, minutes.
const WINDOW: u32 = 30 * 24 * 60;
/// How many syncs it tells of at once.
const MOST: usize = 500;

impl ServerClient {
    /// The row of a table, by id, name or the unique begin of one; null where there is none.
    async fn registered(&self, reference: &str) -> Result<Value> {
        let said = self.ask(Call::get(&["api", "admin", "registry"])).await?.body;
        Ok(meant(&list(&said, "tables"), "name", "a table", reference)?.cloned().unwrap_or_default())
    }

    /// The row of a table, and its id; the reference itself where there is none: the server says so.
    async fn table_of(&self, reference: &str) -> Result<(String, Value)> {
        let row = self.registered(reference).await?;
        Ok((row["id"].as_str().unwrap_or(reference).to_owned(), row))
    }
}

/// A table as a source tells of it, of what the API says of it.
pub(super) fn offered(said: &Value) -> Value {
    let id = said["id"].as_str().unwrap_or_default();
    let bucket = said["bucket_id"].as_str();
    let own = bucket.and_then(|bucket| id.strip_prefix(bucket)?.strip_prefix('.')).unwrap_or(id);
    let mut one = with(
        said.clone(),
        &[
            ("kind", said["source_type"].clone()),
            ("source_table", json!(own)),
            ("bucket", said["bucket_id"].clone()),
            ("rows", said["row_count"].clone()),
        ],
    );
    // Their types are not told.
    one["columns"] = json!([]);
    one
}

/// A list of names, where a kind of source is one of several.
fn kinds(said: &Value) -> Vec<&str> {
    said["source"].as_str().unwrap_or_default().split(", ").filter(|kind| !kind.is_empty()).collect()
}

asked! {
    Tables |_v, server| {
        let said = server.ask(Call::get(&["api", "admin", "registry"])).await?.body;
        Ok(Told::by_server(server.read(list(&said, "tables").into())?, said))
    };
    GetTable |v, server| {
        let (id, row) = server.table_of(&v.table).await?;
        if row.is_null() {
            // Words for what is not there are the server's.
            server.ask(Call::get(&["api", "admin", "metadata", &id])).await?;
        }
        plain(server, row)
    };
    RegisterFields |v, server| {
        let said = server.ask(Call::post(&["api", "admin", "register-table"], json!(v.fields))).await?.body;
        let table: RegisteredTable = server.read(server.registered(said["id"].as_str().unwrap_or_default()).await?)?;
        let warnings = server.read(said["warnings"].clone())?;
        Ok(Told::by_server(Registration { table, warnings }, said))
    };
    PrecheckTable |v, server| {
        plain(server, server.ask(Call::post(&["api", "admin", "register-table", "precheck"], json!(v.fields))).await?.body)
    };
    UpdateFields |v, server| {
        let (id, _) = server.table_of(&v.table).await?;
        let said = server.ask(Call::new(Method::PUT, &["api", "admin", "registry", &id]).json(&json!(v.fields))).await?.body;
        Ok(Told::by_server(server.read(server.registered(&id).await?)?, said))
    };
    UnregisterTable |v, server| {
        let (id, row) = server.table_of(&v.table).await?;
        server.ask(Call::new(Method::DELETE, &["api", "admin", "registry", &id])).await?;
        plain(server, row)
    };
    Rebuild |_v, server| {
        plain(server, server.ask(Call::post(&["api", "admin", "registry", "rebuild"], json!({})).unlimited()).await?.body)
    };

    Offers |v, server| {
        let call = Call::get(&["api", "admin", "discover-tables"]).maybe("source", v.source).param("tables", true).unlimited();
        let said = server.ask(call).await?.body;
        let tables: Vec<Value> = list(&said, "tables").iter().map(offered).collect();
        let errors: Vec<&str> = said["error"].as_str().into_iter().collect();
        let offer = json!({"tables": tables, "kinds": kinds(&said), "errors": errors});
        Ok(Told::by_server(server.read(offer)?, said))
    };
    TakeOffers |v, server| {
        let call = Call::post(&["api", "admin", "discover-and-register"], json!({}));
        let call = call.param("dry_run", v.dry_run).maybe("source", v.source).maybe("source_type", v.source_type);
        let said = server.ask(call.unlimited()).await?.body;
        let taken = json!({
            "tables": said["tables"], "skipped": said["skipped"], "drift": said["drift"], "invalid": said["invalid"],
            "errors": [], "kinds": kinds(&said), "dry_run": said["dry_run"],
        });
        Ok(Told::by_server(server.read(taken)?, said))
    };

    GetColumns |v, server| plain(server, server.ask(Call::get(&["api", "admin", "metadata", &v.table])).await?.body);
    DescribeColumns |v, server| {
        let columns = v.columns.iter().map(|column| json!({
            "column_name": column.column_name, "basetype": column.basetype, "description": column.description,
            "confidence": column.confidence,
        }));
        let body = json!({"columns": columns.collect::<Vec<Value>>()});
        let said = server.ask(Call::post(&["api", "admin", "metadata", &v.table], body)).await?.body;
        Ok(Told::by_server(server.read(said["count"].clone())?, said))
    };
    PushColumns |v, server| {
        let said = server.ask(Call::post(&["api", "admin", "metadata", &v.table, "push"], json!({})).unlimited()).await?.body;
        Ok(Told::by_server(server.read(with(said.clone(), &[("errors", json!([]))]))?, said))
    };

    SyncStates |_v, server| {
        let said = server.ask(Call::get(&["api", "admin", "registry"])).await?.body;
        // What was never synced has no state.
        let rows = list(&said, "tables").into_iter().filter(|row| !row["last_sync_status"].is_null());
        let states = rows.map(|row| json!({
            "table_id": row["name"], "last_sync": row["last_sync"], "rows": row["rows"],
            "file_size_bytes": row["file_size_bytes"], "status": row["last_sync_status"], "error": row["last_sync_error"],
        }));
        let states: Vec<Value> = states.collect();
        Ok(Told::by_server(server.read(json!(states))?, json!(states)))
    };
    SyncHistoryOf |v, server| {
        let (id, row) = server.table_of(&v.table).await?;
        let call = Call::get(&["api", "admin", "activity", "sync"]).param("since_minutes", WINDOW).param("limit", MOST);
        let said = server.ask(call).await?.body;
        let is_meant = |past: &Value| past["table_id"] == json!(id) || past["table_name"] == row["name"];
        let past = list(&said, "rows").into_iter().filter(is_meant).take(v.limit).map(|past| {
            let name = past["table_name"].clone();
            let mut past = with(past, &[("id", json!(""))]);
            past["table_id"] = name;
            past
        });
        let past: Vec<Value> = past.collect();
        Ok(Told::by_server(server.read(json!(past))?, json!(past)))
    };
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_offered_has_its_own_name_at_the_source() {
        let said = json!({
            "id": "in.c-main.orders", "name": "orders", "bucket_id": "in.c-main", "columns": ["id"], "row_count": 3,
            "source": "crm", "source_type": "keboola", "sync_strategy": "full_refresh", "registered": "new",
        });
        let read: agnes_core::registry::OfferedTable = serde_json::from_value(offered(&said)).unwrap();
        assert_eq!((read.table.source_table.as_str(), read.table.rows), ("orders", Some(3)));
        assert_eq!(read.table.bucket.as_deref(), Some("in.c-main"));
        let said = json!({
            "id": "orders.csv", "name": "orders", "bucket_id": null, "source": "shop", "source_type": "files",
            "sync_strategy": "full_refresh", "registered": "match",
        });
        let read: agnes_core::registry::OfferedTable = serde_json::from_value(offered(&said)).unwrap();
        assert_eq!((read.table.source_table.as_str(), read.kind.as_str()), ("orders.csv", "files"));
    }
}
