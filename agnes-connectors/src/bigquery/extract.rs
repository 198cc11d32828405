//! One table: the answer to its query, or all its rows.

use agnes_core::connector::{ExtractReport, ExtractRequest, SourceContext};
use agnes_core::duck::blocking;
use agnes_core::error::{Error, Result};
use agnes_core::extract::{ExtractAttach, RemoteRelation, TableWriter};
use agnes_core::ident::{GcpProject, RelaxedName};
use agnes_core::registry::{QueryMode, RegisteredTable};
use agnes_core::warehouse::only_reads;
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::ReaderBuilder;
use tokio::sync::mpsc;

use super::api::Api;
use super::config::BigQueryConfig;
use super::error::BigQueryError;
use super::model::{Job, Rows, TableReference};
use super::{storage, types};

/// Batches that wait to be written.
const QUEUE: usize = 4;

/// Reads one table into `writer`.
pub(crate) async fn extract(
    api: &Api,
    source: &SourceContext,
    request: &ExtractRequest,
    writer: TableWriter,
) -> Result<(TableWriter, ExtractReport)> {
    let row = &request.table;
    if row.query_mode == QueryMode::Remote {
        return Ok((writer, remote(api, row).await?));
    }
    let mut notes = api.config.warnings();
    let query = row.source_query.as_deref().map(str::trim).filter(|query| !query.is_empty());
    let (sql, session) = match query {
        Some(query) => (query.to_owned(), None),
        None => {
            let named = table_of(row, &api.config)?;
            let (detail, session) = tokio::join!(api.table(&named), storage::open(api, &named, false));
            let detail = detail?;
            let sql = format!("SELECT * FROM {}", detail.table_reference.quoted());
            // Rows of a table need no job; those of a view do.
            (sql, (detail.kind == "TABLE").then_some((session, detail.num_bytes)))
        }
    };
    if let Some((session, bytes)) = session {
        match bytes {
            Some(bytes) => within(api, bytes)?,
            None => affordable(api, &sql, &mut notes).await?,
        }
        match session.and_then(|session| session.read(api)) {
            Ok(incoming) => return finish(source, writer, incoming.schema, incoming.batches, notes).await,
            Err(error) if no_session(&error) => notes.push(no_session_note(&error)),
            Err(error) => return Err(error),
        }
    }
    let job = asked(api, &sql, &mut notes).await?;
    let (schema, batches) = rows_of(api, job, false, &mut notes).await?;
    finish(source, writer, schema, batches, notes).await
}

/// Rows on their way, and their columns.
type Incoming = (SchemaRef, mpsc::Receiver<Result<RecordBatch>>);

/// The rows of a job that ended.
pub(crate) async fn rows_of(api: &Api, job: Job, ordered: bool, notes: &mut Vec<String>) -> Result<Incoming> {
    if let Some(table) = job.configuration.query.as_ref().and_then(|query| query.destination_table.clone()) {
        match storage::read(api, &table, ordered).await {
            Ok(incoming) => return Ok((incoming.schema, incoming.batches)),
            Err(error) if no_session(&error) => notes.push(no_session_note(&error)),
            Err(error) => return Err(error),
        }
    }
    pages(api, job).await
}

fn no_session(error: &Error) -> bool {
    matches!(error.code(), "bigquery_forbidden" | "bigquery_not_found")
        || error.facts().is_some_and(|facts| facts["status"] == 501)
}

fn no_session_note(error: &Error) -> String {
    format!("rows were read page by page, which is slower: {error}")
}

/// Runs a query whose cost was looked at first.
async fn asked(api: &Api, sql: &str, notes: &mut Vec<String>) -> Result<Job> {
    affordable(api, sql, notes).await?;
    let job = api.start(sql, api.config.most_bytes(), None).await?;
    api.finished(job).await
}

/// Refuses a query that would read too much, or do more than read.
async fn affordable(api: &Api, sql: &str, notes: &mut Vec<String>) -> Result<()> {
    match api.estimate(sql).await {
        Ok(estimate) => {
            within(api, estimate.bytes)?;
            if estimate.only_reads { Ok(()) } else { Err(BigQueryError::Writes.into()) }
        }
        // One query that cannot be estimated cannot run either, or is told by the job; the bytes are bounded
        // there too. A script may write before it fails.
        Err(error) if error.code() == "bigquery_query_invalid" && only_reads(sql) => {
            notes.push("the cost of the query could not be estimated".to_owned());
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn within(api: &Api, current: u64) -> Result<()> {
    match api.config.most_bytes().filter(|limit| current > *limit) {
        Some(limit) => Err(BigQueryError::OverBudget { current, limit }.into()),
        None => Ok(()),
    }
}

/// The rows of a job, page by page.
async fn pages(api: &Api, job: Job) -> Result<Incoming> {
    let reference = job.job_reference;
    let reference =
        reference.ok_or(BigQueryError::NotUnderstood { call: "look at the job", reason: "it names no job" })?;
    let first = api.rows(&reference, None).await?;
    let schema = types::columns(&first.schema);
    let (send, receive) = mpsc::channel(QUEUE);
    let (api, columns, fields) = (api.clone(), schema.clone(), first.schema.clone());
    tokio::spawn(async move {
        let (mut page, mut last) = (first, None::<String>);
        loop {
            let next = page.page_token.take().filter(|token| !token.is_empty());
            let batch = batch(&columns, &fields, page);
            let failed = batch.is_err();
            if let Some(batch) = batch.transpose()
                && (send.send(batch).await.is_err() || failed)
            {
                return;
            }
            let Some(token) = next else { return };
            if last.as_ref() == Some(&token) {
                let (call, reason) = ("read the rows", "its next page is the one that was read");
                return drop(send.send(Err(BigQueryError::NotUnderstood { call, reason }.into())).await);
            }
            match api.rows(&reference, Some(&token)).await {
                Ok(more) => (page, last) = (more, Some(token)),
                Err(error) => return drop(send.send(Err(error)).await),
            }
        }
    });
    Ok((schema, receive))
}

fn batch(columns: &SchemaRef, fields: &super::model::Schema, page: Rows) -> Result<Option<RecordBatch>> {
    let misread = |_| BigQueryError::NotUnderstood { call: "read the rows", reason: "values are none of their types" };
    let objects = page.rows.into_iter().map(|row| types::object(fields, row)).collect::<Result<Vec<_>, _>>()?;
    let mut decoder =
        ReaderBuilder::new(columns.clone()).with_batch_size(objects.len().max(1)).build_decoder().map_err(misread)?;
    decoder.serialize(&objects).map_err(misread)?;
    Ok(decoder.flush().map_err(misread)?)
}

async fn finish(
    source: &SourceContext,
    mut writer: TableWriter,
    schema: SchemaRef,
    mut batches: mpsc::Receiver<Result<RecordBatch>>,
    mut notes: Vec<String>,
) -> Result<(TableWriter, ExtractReport)> {
    let cancel = source.cancel.clone();
    let (writer, rows) = blocking(move || {
        let mut all = std::iter::from_fn(|| {
            let next = batches.blocking_recv()?;
            Some(cancel.check().and(next))
        });
        let part = writer.write_batches(schema, &mut all, None)?;
        Ok((writer, part.rows))
    })
    .await?;
    source.cancel.check()?;
    if rows == 0 {
        notes.push("there are no rows".to_owned());
    }
    Ok((writer, ExtractReport { notes, ..ExtractReport::default() }))
}

/// Where a table is that stays in BigQuery, for the engine's extension.
async fn remote(api: &Api, row: &RegisteredTable) -> Result<ExtractReport> {
    let detail = api.table(&table_of(row, &api.config)?).await?;
    let project = &detail.table_reference.project_id;
    let alias = match project == api.config.project()? {
        true => "bq".to_owned(),
        // Another project is another catalog.
        false => format!("bq_{}", project.replace('-', "_")),
    };
    let attach = ExtractAttach {
        alias,
        extension: "bigquery".to_owned(),
        url: format!("project={project}"),
        token_env: String::new(),
    };
    let columns = detail.schema.fields.iter().map(|field| (field.name.clone(), types::sql(field))).collect();
    let TableReference { dataset_id, table_id, .. } = detail.table_reference;
    let remote = RemoteRelation { attach, schema: dataset_id, table: table_id, columns };
    Ok(ExtractReport { remote: Some(remote), ..ExtractReport::default() })
}

/// The full name of a row's table: `bq_fqn`, else dataset and table in the data's project.
pub(crate) fn table_of(row: &RegisteredTable, config: &BigQueryConfig) -> Result<TableReference> {
    let unnamed = |reason| Error::from(BigQueryError::TableId { reason });
    let given = |text: &Option<String>| text.as_deref().map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned);
    let reference = match given(&row.bq_fqn) {
        Some(path) => {
            let parts: Vec<&str> = path.trim_matches('`').split('.').collect();
            let [project, dataset, table] = parts.as_slice() else {
                return Err(unnamed("`bq_fqn` is not `project.dataset.table`"));
            };
            TableReference {
                project_id: (*project).to_owned(),
                dataset_id: (*dataset).to_owned(),
                table_id: (*table).to_owned(),
            }
        }
        None => TableReference {
            project_id: config.project()?.to_owned(),
            dataset_id: given(&row.bucket).ok_or_else(|| unnamed("`bucket`, its dataset, is not set"))?,
            table_id: given(&row.source_table).ok_or_else(|| unnamed("`source_table` is not set"))?,
        },
    };
    let named = |name: &str| RelaxedName::parse(name).is_ok();
    if GcpProject::parse(&reference.project_id).is_err() || !named(&reference.dataset_id) || !named(&reference.table_id)
    {
        return Err(unnamed("one of its parts holds other characters than names have"));
    }
    Ok(reference)
}
