//! BigQuery as a source that answers queries itself.

use agnes_core::connector::{
    SourceContext, Warehouse, WarehouseEstimate, WarehousePath, WarehouseQuery, WarehouseRows, WarehouseTable,
};
use agnes_core::error::Result;
use agnes_core::registry::RegisteredTable;
use async_trait::async_trait;

use super::BigQueryConnector;
use super::config::BigQueryConfig;
use super::extract::{rows_of, table_of};
use super::model::TableReference;
use super::{discover, types};

#[async_trait]
impl Warehouse for BigQueryConnector {
    fn home(&self, source: &SourceContext) -> Result<String> {
        Ok(BigQueryConfig::parse(&source.config)?.project()?.to_owned())
    }

    fn billing(&self, source: &SourceContext) -> Result<String> {
        Ok(BigQueryConfig::parse(&source.config)?.billing()?.to_owned())
    }

    async fn datasets(&self, source: &SourceContext) -> Result<Vec<String>> {
        let mut datasets = discover::datasets(&self.api(source).await?).await?;
        datasets.sort_unstable();
        Ok(datasets)
    }

    fn path(&self, source: &SourceContext, table: &RegisteredTable) -> Result<WarehousePath> {
        let TableReference { project_id, dataset_id, table_id } =
            table_of(table, &BigQueryConfig::parse(&source.config)?)?;
        Ok(WarehousePath { project: project_id, dataset: dataset_id, table: table_id })
    }

    async fn estimate(&self, source: &SourceContext, sql: &str) -> Result<WarehouseEstimate> {
        self.api(source).await?.estimate(sql).await
    }

    async fn rows(&self, source: &SourceContext, query: &WarehouseQuery) -> Result<WarehouseRows> {
        let api = self.api(source).await?;
        let job = api.start(&query.sql, query.max_bytes, Some(&query.asker)).await?;
        let job = api.finished(job).await?;
        let (schema, batches) = rows_of(&api, job, query.ordered, &mut Vec::new()).await?;
        Ok(WarehouseRows { schema, batches })
    }

    async fn describe(&self, source: &SourceContext, path: &WarehousePath) -> Result<WarehouseTable> {
        let table = TableReference {
            project_id: path.project.clone(),
            dataset_id: path.dataset.clone(),
            table_id: path.table.clone(),
        };
        let told = self.api(source).await?.table(&table).await?;
        let view = told.is_view();
        let partition = told.time_partitioning.as_ref();
        let range = told.range_partitioning.as_ref().and_then(|range| range.field.clone());
        Ok(WarehouseTable {
            entity_type: (!told.kind.is_empty()).then(|| match told.kind.as_str() {
                "TABLE" => "BASE TABLE".to_owned(),
                kind => kind.replace('_', " "),
            }),
            // A view has none of its own: Google says 0.
            rows: told.num_rows.filter(|_| !view),
            size_bytes: told.num_bytes.filter(|_| !view),
            partition_by: partition
                .map(|partition| partition.field.clone().unwrap_or_else(|| "_PARTITIONTIME".to_owned()))
                .or(range),
            clustered_by: told.clustering.map(|clustering| clustering.fields).unwrap_or_default(),
            columns: told.schema.fields.iter().map(|field| (field.name.clone(), types::sql(field))).collect(),
        })
    }
}
