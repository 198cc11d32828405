//! Verbs about sources.

use agnes_core::error::Result;
use agnes_core::local::{AddSource, CheckSource, DiscoverSource, RebuildSource, RemoveSource, Sources};
use agnes_core::registry::OfferedTable;
use futures::future::BoxFuture;
use serde_json::{Value, json};

use super::admin::plain;
use super::registry::offered;
use super::{Served, Told, asked, list};
use crate::server::{Call, Method, ServerClient};

asked! {
    Sources |_v, server| plain(server, server.ask(Call::get(&["api", "admin", "sources"])).await?.body);
    AddSource |v, server| {
        let call = Call::post(&["api", "admin", "sources"], json!(v.new)).unlimited();
        plain(server, server.ask(call).await?.body)
    };
    RemoveSource |v, server| {
        let call = Call::new(Method::DELETE, &["api", "admin", "sources", &v.name]).param("drop_data", v.drop_data);
        server.ask(call.unlimited()).await?;
        Ok(Told::here(()))
    };
    CheckSource |v, server| {
        let call = Call::post(&["api", "admin", "sources", &v.name, "check"], json!({})).unlimited();
        plain(server, server.ask(call).await?.body)
    };
    DiscoverSource |v, server| {
        let call = Call::get(&["api", "admin", "discover-tables"]).param("source", &v.name).param("tables", true).unlimited();
        let said = server.ask(call).await?.body;
        let tables: Vec<Value> = list(&said, "tables").iter().map(offered).collect();
        let tables: Vec<OfferedTable> = server.read(tables.into())?;
        let tables: Vec<_> = tables.into_iter().map(|offered| offered.table).collect();
        let said = json!(tables);
        Ok(Told::by_server(tables, said))
    };
    RebuildSource |v, server| {
        let call = Call::post(&["api", "admin", "sources", &v.source, "rebuild"], json!({})).unlimited();
        plain(server, server.ask(call).await?.body)
    };
}
