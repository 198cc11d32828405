//! A source of your own: implement `Connector`, register it by an ordinary function call.
//! Core does the rest: schedule, isolation, publication, state, grants.
//!
//! `cargo run -p agnes-examples --example own_connector`

use std::sync::Arc;

use agnes_core::connector::{
    Capability, CheckItem, Connector, ConnectorRegistry, DiscoveredTable, ExtractReport, ExtractRequest, Progress,
    SourceContext,
};
use agnes_core::extract::TableWriter;
use agnes_core::ident::TableName;
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::{NewSource, SyncStrategy};
use agnes_core::sync::SyncRequest;
use agnes_core::{CallContext, Engine, Result};
use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;

/// A pond: it has ducks, and it remembers the last one it told about.
#[derive(Debug)]
struct Pond;

const DUCKS: [(i64, &str); 3] = [(1, "mallard"), (2, "teal"), (3, "pintail")];

#[async_trait]
impl Connector for Pond {
    fn kind(&self) -> &'static str {
        "pond"
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, ..Capability::default() }
    }

    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value> {
        Ok(config.clone())
    }

    async fn check(&self, _source: &SourceContext) -> Result<Vec<CheckItem>> {
        Ok(vec![CheckItem { name: "water".to_owned(), ok: true, detail: "wet".to_owned() }])
    }

    async fn discover(&self, _source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        Ok(vec![DiscoveredTable {
            name: TableName::parse("ducks")?,
            source_table: "ducks".to_owned(),
            description: Some("every duck on the pond".to_owned()),
            sync_strategy: SyncStrategy::FullRefresh,
            partition_by: None,
            primary_key: Some(vec!["id".to_owned()]),
            options: None,
            size_bytes: None,
        }])
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        mut writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        source.cancel.check()?;
        // The cursor is ours: whatever the last good run left. Nothing new: say so, and the
        // published data stays as it is.
        let newest = serde_json::json!(DUCKS.len());
        if !request.full && request.cursor.as_ref() == Some(&newest) {
            return Ok((writer, ExtractReport { unchanged: true, cursor: Some(newest), ..ExtractReport::default() }));
        }
        let schema = Arc::new(Schema::new(vec![
            Field::new("id", DataType::Int64, false),
            Field::new("species", DataType::Utf8, false),
        ]));
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(Int64Array::from_iter_values(DUCKS.map(|(id, _)| id))),
                Arc::new(StringArray::from_iter_values(DUCKS.map(|(_, species)| species))),
            ],
        )
        .map_err(|e| agnes_core::Error::internal("build a batch", e))?;
        writer.write_batches(schema, &mut std::iter::once(Ok(batch)), None)?;
        Ok((writer, ExtractReport { cursor: Some(newest), ..ExtractReport::default() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = tempfile::tempdir()?;
    let connectors: ConnectorRegistry = agnes_connectors::builtin().with(Pond);
    let engine = Engine::builder(place.path()).connectors(connectors).open().await?;
    let ctx = CallContext::new(Principal::trusted_owner_of_the_data_folder("an example", ClientKind::Api));

    let config = serde_json::json!({});
    engine
        .sources()
        .add(&ctx, NewSource { name: "park".to_owned(), kind: "pond".to_owned(), config, schedule: None })
        .await?;
    for _ in 0..2 {
        let run = engine.sync().run(&ctx, SyncRequest::default(), Progress::default()).await?;
        for table in run.outcome.unwrap_or_default().tables {
            println!("{}.{}: {} ({} rows)", table.source, table.table, table.status.as_str(), table.rows);
        }
    }
    let shown = agnes_examples::table(engine.query(&ctx, Query::new("FROM ducks ORDER BY id")).await?).await?;
    println!("{shown}");
    assert!(shown.contains("pintail"));

    engine.close().await?;
    Ok(())
}
