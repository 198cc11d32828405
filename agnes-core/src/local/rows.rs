//! Rows of a query as they come, from here or from the holder: one Arrow IPC stream.

use std::collections::VecDeque;
use std::io::Cursor;

use arrow::datatypes::{Schema, SchemaRef};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedWriteHalf;

use super::door::Way;
use super::frame::{self, Kind};
use super::{Caller, Door, LocalError};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result, WireError};
use crate::query::{Query, QueryResult, Receipt};

/// Name under which a query is asked of the holder.
pub(super) const QUERY: &str = "query";

/// What follows the last batch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct End {
    truncated: bool,
    #[serde(default)]
    receipt: Option<Receipt>,
}

impl std::convert::From<QueryResult> for Rows {
    fn from(result: QueryResult) -> Self {
        Self::local(result)
    }
}

/// Rows of a query. Dropping them ends the query.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    from: From,
    truncated: bool,
    receipt: Option<Box<Receipt>>,
}

enum From {
    Here(Box<QueryResult>),
    Holder(Box<Incoming>),
    Elsewhere(Box<dyn RowSource>),
    Nowhere,
}

impl std::fmt::Debug for From {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here(_) => "Here",
            Self::Holder(_) => "Holder",
            Self::Elsewhere(_) => "Elsewhere",
            Self::Nowhere => "Nowhere",
        })
    }
}

/// Rows that come from neither here nor a holder: from files of a workspace, from a server.
#[async_trait]
pub trait RowSource: Send {
    /// The next rows; `None` after the last.
    ///
    /// # Errors
    /// Those of the query. Nothing comes after an error.
    async fn next(&mut self) -> Result<Option<RecordBatch>>;

    /// What is known after the last row: whether rows were left out, and the receipt.
    fn end(&mut self) -> (bool, Option<Receipt>);
}

#[derive(Debug)]
struct Incoming {
    stream: UnixStream,
    /// Batches of the last piece that were not given yet.
    waiting: VecDeque<RecordBatch>,
}

impl Rows {
    pub(super) fn local(result: QueryResult) -> Self {
        Self { schema: result.schema(), from: From::Here(Box::new(result)), truncated: false, receipt: None }
    }

    /// Rows of a source, whose columns are known.
    #[must_use]
    pub fn of(schema: SchemaRef, source: Box<dyn RowSource>) -> Self {
        Self { schema, from: From::Elsewhere(source), truncated: false, receipt: None }
    }

    /// The rows a holder sends: first the schema, so that an error of the query itself is
    /// told before anything is shown.
    pub(super) async fn receive(mut stream: UnixStream) -> Result<Self> {
        match frame::read(&mut stream).await? {
            (Kind::Arrow, body) => {
                let (schema, waiting) = decode(body)?;
                Ok(Self {
                    schema,
                    from: From::Holder(Box::new(Incoming { stream, waiting })),
                    truncated: false,
                    receipt: None,
                })
            }
            (Kind::Failure, body) => Err(frame::decode::<WireError>(&body)?.into()),
            _ => Err(LocalError::OtherVersion.into()),
        }
    }

    /// The columns.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// Whether rows were left out; known once [`Rows::next`] gave the last batch.
    #[must_use]
    pub fn truncated(&self) -> bool {
        self.truncated
    }

    /// The receipt that was asked for; known once [`Rows::next`] gave the last batch.
    #[must_use]
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_deref()
    }

    /// The next rows; `None` after the last.
    ///
    /// # Errors
    /// Those of the query; `holder_gone`. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let next = match &mut self.from {
            From::Nowhere => return Ok(None),
            From::Here(result) => match result.next().await {
                Some(batch) => batch.map(Some),
                None => {
                    self.truncated = result.truncated();
                    self.receipt = result.receipt().cloned().map(Box::new);
                    Ok(None)
                }
            },
            From::Elsewhere(source) => {
                let next = source.next().await;
                if let Ok(None) = next {
                    let (truncated, receipt) = source.end();
                    (self.truncated, self.receipt) = (truncated, receipt.map(Box::new));
                }
                next
            }
            From::Holder(incoming) => incoming.next().await.map(|next| match next {
                Ok(batch) => Some(batch),
                Err(end) => {
                    self.truncated = end.truncated;
                    self.receipt = end.receipt.map(Box::new);
                    None
                }
            }),
        };
        if !matches!(next, Ok(Some(_))) {
            self.from = From::Nowhere;
        }
        next
    }
}

impl Door {
    /// Asks a query and gives its rows as they come. Dropping the rows cancels it.
    ///
    /// # Errors
    /// Those of [`Engine::query`]; `holder_gone`.
    pub async fn query(&self, query: Query, caller: &Caller) -> Result<Rows> {
        match self.way().await? {
            Way::Here(engine) => Ok(Rows::local(engine.query(&caller.context(&engine).await?, query).await?)),
            Way::There(connection) => {
                let args = serde_json::to_value(query).map_err(|e| Error::internal("encode a query", e))?;
                Rows::receive(connection.ask(QUERY, args, caller).await?).await
            }
        }
    }
}

impl Incoming {
    async fn next(&mut self) -> Result<std::result::Result<RecordBatch, End>> {
        loop {
            if let Some(batch) = self.waiting.pop_front() {
                return Ok(Ok(batch));
            }
            match frame::read(&mut self.stream).await? {
                (Kind::Arrow, body) => self.waiting = decode(body)?.1,
                (Kind::Reply, body) => return Ok(Err(frame::decode(&body)?)),
                (Kind::Failure, body) => return Err(frame::decode::<WireError>(&body)?.into()),
                _ => return Err(LocalError::OtherVersion.into()),
            }
        }
    }
}

/// Asks the query and sends its rows. A slow client slows the query down: a batch is taken
/// when the one before it is on the socket.
pub(super) async fn send(
    to: &mut OwnedWriteHalf,
    engine: &Engine,
    ctx: &CallContext,
    args: serde_json::Value,
) -> Result<()> {
    let query: Query = serde_json::from_value(args).map_err(|e| LocalError::BadMessage { reason: e.to_string() })?;
    let mut result = engine.query(ctx, query).await?;
    let schema = result.schema();
    frame::write(to, Kind::Arrow, &encode(&schema, None)?).await?;
    while let Some(batch) = result.next().await {
        frame::write(to, Kind::Arrow, &encode(&schema, Some(&batch?))?).await?;
    }
    frame::write_json(to, Kind::Reply, &End { truncated: result.truncated(), receipt: result.receipt().cloned() }).await
}

/// A piece on its own: schema and at most one batch as a whole IPC stream. A few hundred bytes
/// of schema a batch buy that a piece never depends on one before it.
fn encode(schema: &Schema, batch: Option<&RecordBatch>) -> Result<Vec<u8>> {
    let mut writer = StreamWriter::try_new(Vec::new(), schema).map_err(unreadable)?;
    if let Some(batch) = batch {
        writer.write(batch).map_err(unreadable)?;
    }
    writer.into_inner().map_err(unreadable)
}

fn decode(piece: Vec<u8>) -> Result<(SchemaRef, VecDeque<RecordBatch>)> {
    let reader = StreamReader::try_new(Cursor::new(piece), None).map_err(unreadable)?;
    let schema = reader.schema();
    Ok((schema, reader.collect::<Result<_, _>>().map_err(unreadable)?))
}

fn unreadable(cause: arrow::error::ArrowError) -> Error {
    Error::internal("carry rows between processes", cause)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Int32Type};

    use super::*;

    async fn check(batches: Vec<RecordBatch>, schema: Arc<Schema>) {
        let (client, server) = UnixStream::pair().unwrap();
        let (_from, mut to) = server.into_split();
        let sent = batches.clone();
        let sent_schema = schema.clone();
        let sender = tokio::spawn(async move {
            frame::write(&mut to, Kind::Arrow, &encode(&sent_schema, None).unwrap()).await.unwrap();
            for batch in sent {
                frame::write(&mut to, Kind::Arrow, &encode(&sent_schema, Some(&batch)).unwrap()).await.unwrap();
            }
            frame::write_json(&mut to, Kind::Reply, &End { truncated: true, receipt: None }).await.unwrap();
        });
        let mut rows = Rows::receive(client).await.unwrap();
        assert_eq!(rows.schema(), schema);
        for batch in batches {
            assert_eq!(rows.next().await.unwrap().unwrap(), batch);
        }
        assert!(rows.next().await.unwrap().is_none());
        assert!(rows.truncated());
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn batches_arrive_as_they_were_sent() {
        let schema =
            Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true), Field::new("t", DataType::Utf8, true)]));
        let batch = |n: i64| {
            let numbers = Int64Array::from((0..n).map(|i| (i % 7 != 0).then_some(i)).collect::<Vec<_>>());
            let texts = StringArray::from_iter_values((0..n).map(|i| format!("row {i}")));
            RecordBatch::try_new(schema.clone(), vec![Arc::new(numbers), Arc::new(texts)]).unwrap()
        };
        check(vec![batch(3), batch(0), batch(50_000), batch(1)], schema.clone()).await;
        check(vec![], schema.clone()).await;
    }

    #[tokio::test]
    async fn dictionaries_may_change_between_batches() {
        let kind = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        let schema = Arc::new(Schema::new(vec![Field::new("d", kind, true)]));
        let batch = |words: &[&str]| {
            let array: DictionaryArray<Int32Type> = words.iter().copied().collect();
            RecordBatch::try_new(schema.clone(), vec![Arc::new(array)]).unwrap()
        };
        check(vec![batch(&["a", "b", "a"]), batch(&["c"]), batch(&["a", "d"])], schema.clone()).await;
    }

    #[tokio::test]
    async fn a_holder_that_dies_in_the_middle_is_an_error_not_an_end() {
        let (client, server) = UnixStream::pair().unwrap();
        let (_from, mut to) = server.into_split();
        let schema = Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, true)]));
        frame::write(&mut to, Kind::Arrow, &encode(&schema, None).unwrap()).await.unwrap();
        let mut rows = Rows::receive(client).await.unwrap();
        drop((to, _from));
        assert_eq!(rows.next().await.unwrap_err().code(), "holder_gone");
    }
}
