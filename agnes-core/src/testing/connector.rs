//! A connector whose tables do what a test says.

use std::time::Duration;

use async_trait::async_trait;

use crate::connector::{
    Capability, CheckItem, Connector, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext,
};
use crate::duck::{ScratchDb, ScratchLimits};
use crate::error::Result;
use crate::extract::TableWriter;
use crate::ident::TableName;

/// What happens when a table is read.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// The rows of this query, as one file.
    Rows(String),
    /// The rows of this query, as a file for each value of this column.
    Parts(String, String),
    /// A bug in the connector.
    Panic,
    /// Nothing, until it is cancelled.
    Sleep,
}

/// A connector without a source behind it.
#[derive(Debug)]
pub struct TestConnector {
    kind: &'static str,
    tables: Vec<(&'static str, Behaviour)>,
}

impl TestConnector {
    /// Sources of this `kind` have these tables.
    pub fn new(kind: &'static str, tables: impl IntoIterator<Item = (&'static str, Behaviour)>) -> Self {
        Self { kind, tables: tables.into_iter().collect() }
    }
}

#[async_trait]
impl Connector for TestConnector {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn capability(&self) -> Capability {
        Capability { discover: true, partitioned: true, ..Capability::default() }
    }

    fn normalise_config(&self, config: &serde_json::Value) -> Result<serde_json::Value> {
        Ok(config.clone())
    }

    async fn check(&self, _: &SourceContext) -> Result<Vec<CheckItem>> {
        Ok(Vec::new())
    }

    async fn discover(&self, _: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        let table = |(name, _): &(&'static str, Behaviour)| Ok(DiscoveredTable::new(TableName::parse(name)?, *name));
        self.tables.iter().map(table).collect()
    }

    async fn extract(
        &self,
        source: &SourceContext,
        request: &ExtractRequest,
        mut writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        let found = self.tables.iter().find(|(name, _)| *name == request.name.as_str());
        let (query, partition) = match found.map(|(_, behaviour)| behaviour.clone()) {
            Some(Behaviour::Rows(query)) => (query, None),
            Some(Behaviour::Parts(query, column)) => (query, Some(column)),
            Some(Behaviour::Panic) => panic!("a connector with a bug"),
            Some(Behaviour::Sleep) => {
                while !source.cancel.is_cancelled() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                source.cancel.check()?;
                return Ok((writer, ExtractReport::default()));
            }
            None => return Err(crate::Error::internal("read a table", "the test knows no such table")),
        };
        let scratch = source.scratch.clone();
        crate::duck::blocking(move || {
            let db = ScratchDb::open(&scratch, &ScratchLimits::default())?;
            match partition {
                Some(column) => drop(writer.write_partitioned(&db, &query, &column)?),
                None => drop(writer.write_query(&db, &query, None)?),
            }
            Ok((writer, ExtractReport::default()))
        })
        .await
    }
}
