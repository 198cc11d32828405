//! The Storage Read API: rows as Arrow over gRPC, several streams at a time, each gone on with
//! where it broke off. The few messages it takes are written out here.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use agnes_core::error::{Error, Result};
use agnes_core::secret::Secret;
use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamDecoder;
use tokio::sync::mpsc;
use tonic::Code;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};
use tonic_prost::ProstCodec;

use super::api::{Api, is_refused};
use super::error::BigQueryError;
use super::model::TableReference;
use super::plain;
use crate::calls::until_cancelled;

/// Streams that are read at a time. How many there are is up to BigQuery: rows of small ones are
/// written while others are on their way.
const AT_ONCE: usize = 4;
/// One message may be larger than the usual 4 MiB.
const MESSAGE: usize = 256 << 20;
/// Batches that wait to be written.
const QUEUE: usize = 8;
/// How often one stream is opened before its failure counts.
const ATTEMPTS: u32 = 5;
const CONNECT: Duration = Duration::from_secs(10);
/// How often a connection is asked whether it is still there, and how long it may take to say so.
const KEEP_ALIVE: Duration = Duration::from_secs(60);
const ALIVE: Duration = Duration::from_secs(20);
/// How often a stream may fall silent without a row in between.
const STALLS: u32 = 2;
/// Bytes on their way that one stream, and all of them, may have: much can be between here and there.
const STREAM_WINDOW: u32 = 8 << 20;
const WINDOW: u32 = 32 << 20;
const SERVICE: &str = "/google.cloud.bigquery.storage.v1.BigQueryRead";
const ARROW: i32 = 2;
/// The end of a stream of Arrow's messages.
const END: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

#[derive(Clone, PartialEq, prost::Message)]
struct CreateReadSession {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(message, optional, tag = "2")]
    read_session: Option<ReadSession>,
    #[prost(int32, tag = "3")]
    max_stream_count: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadSession {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int32, tag = "3")]
    data_format: i32,
    #[prost(message, optional, tag = "5")]
    arrow_schema: Option<ArrowSchema>,
    #[prost(string, tag = "6")]
    table: String,
    #[prost(message, repeated, tag = "10")]
    streams: Vec<ReadStream>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadStream {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ArrowSchema {
    #[prost(bytes = "vec", tag = "1")]
    serialized_schema: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadRows {
    #[prost(string, tag = "1")]
    read_stream: String,
    #[prost(int64, tag = "2")]
    offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ReadRowsAnswer {
    #[prost(message, optional, tag = "4")]
    arrow_record_batch: Option<ArrowRecordBatch>,
    #[prost(int64, tag = "6")]
    row_count: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct ArrowRecordBatch {
    #[prost(bytes = "vec", tag = "1")]
    serialized_record_batch: Vec<u8>,
}

/// Rows on their way: their columns, then batches until the channel closes.
pub(crate) struct Incoming {
    pub(crate) schema: SchemaRef,
    pub(crate) batches: mpsc::Receiver<Result<RecordBatch>>,
}

/// A read session that was opened. Only what calls for its rows send is
/// [billed](https://cloud.google.com/bigquery/pricing#data_extraction_pricing).
pub(crate) struct Session {
    channel: Channel,
    opened: ReadSession,
}

/// Opens a read session over a table and reads all its streams; `ordered`: in the table's order,
/// which only a single stream keeps.
pub(crate) async fn read(api: &Api, table: &TableReference, ordered: bool) -> Result<Incoming> {
    open(api, table, ordered).await?.read(api)
}

/// Opens a read session over a table; `ordered`: of a single stream, which keeps the table's order.
pub(crate) async fn open(api: &Api, table: &TableReference, ordered: bool) -> Result<Session> {
    let channel = until_cancelled(&api.cancel, connect(api)).await?;
    let parent = format!("projects/{}", api.config.billing()?);
    let path = format!("projects/{}/datasets/{}/tables/{}", table.project_id, table.dataset_id, table.table_id);
    let session = ReadSession { data_format: ARROW, table: path.clone(), ..ReadSession::default() };
    let max_stream_count = i32::from(ordered);
    let wanted = CreateReadSession { parent, read_session: Some(session), max_stream_count };
    let route = format!("read_session.table={}", crate::calls::encoded(&path));
    let opened = api.with_token(|token| {
        let (mut grpc, request) = (client(channel.clone()), authorised(api, &token, wanted.clone(), &route));
        async move {
            grpc.ready().await.map_err(|error| away(&error.to_string()))?;
            let answer = grpc.unary(request?, method("CreateReadSession"), ProstCodec::default()).await;
            let refused = |status| Error::from(refused(api, "open a read session", &status));
            answer.map(tonic::Response::into_inner).map_err(refused)
        }
    });
    let opened = until_cancelled(&api.cancel, opened);
    let opened = unless_silent(api.config.fetch_timeout(), &mut 0, opened).await?;
    Ok(Session { channel, opened })
}

impl Session {
    /// Reads all its streams.
    pub(crate) fn read(self, api: &Api) -> Result<Incoming> {
        let Self { channel, opened } = self;
        let bytes = opened.arrow_schema.unwrap_or_default().serialized_schema;
        let mut decoder = StreamDecoder::new();
        // Of a message without a body the decoder takes notice when the next one begins.
        let whole = [bytes.as_slice(), &END].concat();
        decoder.decode(&mut Buffer::from(whole)).map_err(|_| misread())?;
        let given = decoder.schema().ok_or_else(misread)?;
        let schema = plain::written(&given);
        let (send, batches) = mpsc::channel(QUEUE);
        let readers = opened.streams.len().min(AT_ONCE);
        let streams = Arc::new(Mutex::new(opened.streams.into_iter()));
        for _ in 0..readers {
            let (api, channel, send, streams) = (api.clone(), channel.clone(), send.clone(), streams.clone());
            let (bytes, schema) = (bytes.clone(), schema.clone());
            tokio::spawn(async move {
                while !send.is_closed() {
                    let next = streams.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(stream) = next else { return };
                    if let Err(error) = stream_of(&api, channel.clone(), &stream.name, &bytes, &schema, &send).await {
                        return drop(send.send(Err(error)).await);
                    }
                }
            });
        }
        Ok(Incoming { schema, batches })
    }
}

async fn connect(api: &Api) -> Result<Channel> {
    let url = api.config.storage();
    // The same rules as for every other call out of this process.
    api.outbound.check(url).await.map_err(Error::from)?;
    let endpoint = Endpoint::from_shared(url.to_owned()).map_err(|error| away(&error.to_string()))?;
    let endpoint = endpoint.connect_timeout(CONNECT).keep_alive_while_idle(true);
    let endpoint = endpoint.http2_keep_alive_interval(KEEP_ALIVE).keep_alive_timeout(ALIVE);
    let endpoint = endpoint.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(WINDOW);
    let endpoint = match url.starts_with("https://") {
        true => {
            endpoint.tls_config(ClientTlsConfig::new().with_native_roots()).map_err(|error| away(&error.to_string()))?
        }
        false => endpoint,
    };
    endpoint.connect().await.map_err(|_| away("no connection to its address can be made"))
}

fn client(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel).max_decoding_message_size(MESSAGE)
}

fn method(name: &str) -> PathAndQuery {
    PathAndQuery::try_from(format!("{SERVICE}/{name}")).unwrap_or_else(|_| PathAndQuery::from_static("/"))
}

fn authorised<T>(api: &Api, token: &Secret, message: T, route: &str) -> Result<tonic::Request<T>> {
    let mut request = tonic::Request::new(message);
    let bad = || Error::from(BigQueryError::AuthFailed { reason: "the token cannot be in a header".to_owned() });
    let mut token: MetadataValue<_> = format!("Bearer {}", token.expose()).parse().map_err(|_| bad())?;
    token.set_sensitive(true);
    request.metadata_mut().insert("authorization", token);
    if let Ok(billing) = api.config.billing()?.parse() {
        request.metadata_mut().insert("x-goog-user-project", billing);
    }
    if let Ok(route) = route.parse() {
        request.metadata_mut().insert("x-goog-request-params", route);
    }
    Ok(request)
}

/// How far one stream was read.
#[derive(Debug, Default)]
struct Place {
    /// Rows that were given on.
    given: i64,
    /// Read from its first row again, without those: the server does not know any more that it sent
    /// them.
    again: AtomicBool,
    /// How often nothing came for too long since the last row.
    stalls: u32,
}

/// Reads one stream to its end, from where it broke off when it does.
async fn stream_of(
    api: &Api,
    channel: Channel,
    name: &str,
    schema_bytes: &[u8],
    schema: &SchemaRef,
    send: &mpsc::Sender<Result<RecordBatch>>,
) -> Result<()> {
    let (mut place, mut attempt, mut renewed) = (Place::default(), 1, false);
    loop {
        let (before, token) = (place.given, api.access.shown());
        let done = part(api, channel.clone(), name, &mut place, schema_bytes, schema, send).await;
        let offset = place.given;
        if offset > before {
            (attempt, renewed, place.stalls) = (0, false, 0);
        }
        match done {
            Ok(()) => return Ok(()),
            Err(error) if is_refused(&error) && !renewed => {
                renewed = true;
                until_cancelled(&api.cancel, api.access.renew(&token)).await?;
            }
            Err(error)
                if error.is_retryable()
                    && attempt < ATTEMPTS
                    && place.stalls < STALLS
                    && !api.cancel.is_cancelled() =>
            {
                tracing::warn!(attempt, offset, code = error.code(), "a stream of rows broke off: {error}");
                attempt += 1;
                tokio::time::sleep(Duration::from_millis(200) * attempt).await;
            }
            Err(error) => return Err(error),
        }
    }
}

async fn part(
    api: &Api,
    channel: Channel,
    name: &str,
    place: &mut Place,
    schema_bytes: &[u8],
    schema: &SchemaRef,
    send: &mpsc::Sender<Result<RecordBatch>>,
) -> Result<()> {
    let Place { given, again, stalls } = place;
    let again = &*again;
    let offset = if again.load(Relaxed) { 0 } else { *given };
    let mut skip = *given - offset;
    let failed = |status: &tonic::Status| match status.code() {
        Code::FailedPrecondition | Code::OutOfRange if offset > 0 => {
            again.store(true, Relaxed);
            away("where it broke off is not known any more")
        }
        _ => Error::from(refused(api, "read the rows", status)),
    };
    let mut grpc = client(channel);
    let wanted = ReadRows { read_stream: name.to_owned(), offset };
    let silence = api.config.fetch_timeout();
    let opened = until_cancelled(&api.cancel, async {
        grpc.ready().await.map_err(|error| away(&error.to_string()))?;
        let request =
            authorised(api, &api.access.shown(), wanted, &format!("read_stream={}", crate::calls::encoded(name)))?;
        let codec: ProstCodec<ReadRows, ReadRowsAnswer> = ProstCodec::default();
        let answer = grpc.server_streaming(request, method("ReadRows"), codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| failed(&status))
    });
    let mut answers = unless_silent(silence, stalls, opened).await?;
    let mut decoder = StreamDecoder::new();
    decoder.decode(&mut Buffer::from(schema_bytes.to_vec())).map_err(|_| misread())?;
    loop {
        let next = until_cancelled(&api.cancel, async { answers.message().await.map_err(|status| failed(&status)) });
        let Some(answer) = unless_silent(silence, stalls, next).await? else { return Ok(()) };
        let Some(batch) = answer.arrow_record_batch else { continue };
        let mut buffer = Buffer::from(batch.serialized_record_batch);
        while !buffer.is_empty() {
            let Some(batch) = decoder.decode(&mut buffer).map_err(|_| misread())? else { continue };
            let known = usize::try_from(skip).unwrap_or(0).min(batch.num_rows());
            skip -= known as i64;
            let batch = batch.slice(known, batch.num_rows() - known);
            *given += batch.num_rows() as i64;
            if batch.num_rows() == 0 {
                continue;
            }
            if send.send(Ok(plain::fit(batch, schema).ok_or_else(misread)?)).await.is_err() {
                // Nobody writes any more: that side says why.
                return Ok(());
            }
        }
    }
}

/// What comes, unless nothing does for so long.
async fn unless_silent<T>(
    silence: Option<Duration>,
    stalls: &mut u32,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    let Some(silence) = silence else { return work.await };
    tokio::time::timeout(silence, work).await.unwrap_or_else(|_| {
        *stalls += 1;
        Err(away(&format!("nothing came for {} s", silence.as_secs())))
    })
}

fn away(reason: &str) -> Error {
    BigQueryError::Away { call: "read the rows", reason: agnes_core::ident::printable(reason, 120) }.into()
}

fn misread() -> Error {
    BigQueryError::NotUnderstood { call: "read the rows", reason: "it is not Arrow" }.into()
}

fn refused(api: &Api, call: &'static str, status: &tonic::Status) -> BigQueryError {
    let words = api.clean(status.message());
    let number = match status.code() {
        Code::Unauthenticated => 401,
        Code::PermissionDenied => 403,
        Code::NotFound => 404,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        _ => return BigQueryError::Away { call, reason: words },
    };
    let words = if words.is_empty() { words } else { format!(": {words}") };
    BigQueryError::Refused { call, status: number, reason: String::new(), words, retry_after: None }
}
