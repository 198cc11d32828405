//! A source of your own, from nothing: `cargo run -p agnes-examples --example own_connector`

use std::sync::Arc;

use agnes_core::connector::{
    Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, Progress, SourceContext,
};
use agnes_core::duck::blocking;
use agnes_core::extract::TableWriter;
use agnes_core::ident::TableName;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::{NewSource, RegistryError};
use agnes_core::{CallContext, Engine, Error, Result, query::Query, sync::SyncRequest};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use async_trait::async_trait;
use serde_json::{Value, json};

/// A pond: a text file with one duck a line, its number and its species.
#[derive(Debug)]
pub struct Pond;

/// All ducks: what would be a call of an API.
fn ducks(source: &SourceContext) -> Result<(Vec<i64>, Vec<String>)> {
    let path = source.config["path"].as_str().unwrap_or_default();
    let text = std::fs::read_to_string(path).map_err(|e| Error::io("read the pond", e))?;
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(lines.filter_map(|(id, species)| Some((id.parse::<i64>().ok()?, species.to_owned()))).unzip())
}

#[async_trait]
impl Connector for Pond {
    fn kind(&self) -> &'static str {
        "pond"
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, ..Capability::default() }
    }

    fn normalise_config(&self, config: &Value) -> Result<Value> {
        let known = config.as_object().is_some_and(|keys| keys.len() == 1 && keys["path"].is_string());
        let invalid = || RegistryError::InvalidConfig { reason: "give `path`, and nothing else".to_owned() };
        if known { Ok(config.clone()) } else { Err(invalid().into()) }
    }

    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        let found = ducks(source).map(|(ids, _)| format!("{} ducks", ids.len()));
        let (ok, detail) = found.map_or_else(|error| (false, error.to_string()), |detail| (true, detail));
        Ok(vec![CheckItem { name: "water".to_owned(), ok, detail }])
    }

    async fn discover(&self, _source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        Ok(vec![DiscoveredTable::new(TableName::parse("ducks")?, "every duck on the pond")])
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        mut writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        source.cancel.check()?;
        let (ids, species) = ducks(source)?;
        // The cursor is ours: what the last good run left. Nothing new: the published data stays.
        let cursor = Some(json!([ids, species]));
        if !request.full && request.cursor == cursor {
            return Ok((writer, ExtractReport { unchanged: true, cursor, ..ExtractReport::default() }));
        }
        let fields = vec![Field::new("id", DataType::Int64, false), Field::new("species", DataType::Utf8, false)];
        let schema = Arc::new(Schema::new(fields));
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(ids)), Arc::new(StringArray::from(species))];
        let batch = RecordBatch::try_new(schema.clone(), columns).map_err(|e| Error::internal("build a batch", e));
        blocking(move || writer.write_batches(schema, &mut std::iter::once(batch), None).map(|_| writer))
            .await
            .map(|writer| (writer, ExtractReport { cursor, ..ExtractReport::default() }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = tempfile::tempdir()?;
    std::fs::write(place.path().join("pond.txt"), "1 mallard\n2 teal\n3 pintail\n")?;
    let connectors = agnes_connectors::builtin().with(Pond);
    let engine = Engine::builder(place.path().join("data")).connectors(connectors).open().await?;
    let ctx = CallContext::new(Principal::trusted_owner_of_the_data_folder("an example", ClientKind::Api));
    let config = json!({"path": place.path().join("pond.txt")});
    let park = NewSource { name: "park".to_owned(), kind: "pond".to_owned(), config, schedule: None };
    engine.sources().add(&ctx, park).await?;
    engine.sync().run(&ctx, SyncRequest::default(), Progress::default()).await?;
    let shown = agnes_examples::table(engine.query(&ctx, Query::new("FROM ducks ORDER BY id")).await?).await?;
    println!("{shown}");
    assert!(shown.contains("pintail"));
    Ok(engine.close().await?)
}
