//! What the emulator can send: a read session like that of the connector, whose streams are
//! read as many at a time, and whose rows nobody looks at.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::bytes::Buf as _;
use tonic::Status;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::{ProstCodec, ProstEncoder};

/// Streams that are read at a time, as by the connector. How many there are is up to the emulator.
const AT_ONCE: usize = 4;
/// `DataFormat.ARROW`.
const ARROW: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
struct Create {
    #[prost(string, tag = "1")]
    parent: String,
    #[prost(message, optional, tag = "2")]
    session: Option<Session>,
    #[prost(int32, tag = "3")]
    streams: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Session {
    #[prost(int32, tag = "3")]
    format: i32,
    #[prost(string, tag = "6")]
    table: String,
    #[prost(message, repeated, tag = "10")]
    streams: Vec<Stream>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Stream {
    #[prost(string, tag = "1")]
    name: String,
}

/// Sends requests as they are; of an answer it keeps how long it is.
#[derive(Default)]
struct Thrown;

impl Codec for Thrown {
    type Encode = Stream;
    type Decode = usize;
    type Encoder = ProstEncoder<Stream>;
    type Decoder = Self;
    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::default()
    }
    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Decoder for Thrown {
    type Item = usize;
    type Error = Status;
    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let length = bytes.remaining();
        bytes.advance(length);
        Ok(Some(length))
    }
}

fn client(channel: Channel) -> Grpc<Channel> {
    Grpc::new(channel).max_decoding_message_size(usize::MAX)
}

fn method(name: &'static str) -> PathAndQuery {
    PathAndQuery::from_static(name)
}

/// From the call for a session to the last byte of its last stream; and the bytes.
pub(super) async fn read(rpc: &str, table: &str) -> Result<(Duration, u64), Box<dyn std::error::Error>> {
    let started = Instant::now();
    let channel = Endpoint::from_shared(rpc.to_owned())?.connect().await?;
    let (project, rest) = table.split_once('.').ok_or("a table has a project")?;
    let (dataset, name) = rest.split_once('.').ok_or("a table has a dataset")?;
    let path = format!("projects/{project}/datasets/{dataset}/tables/{name}");
    let session = Session { format: ARROW, table: path, streams: Vec::new() };
    let wanted = Create { parent: format!("projects/{project}"), session: Some(session), streams: 0 };
    let mut grpc = client(channel.clone());
    grpc.ready().await?;
    let codec: ProstCodec<Create, Session> = ProstCodec::default();
    let create = method("/google.cloud.bigquery.storage.v1.BigQueryRead/CreateReadSession");
    let session = grpc.unary(tonic::Request::new(wanted), create, codec).await?.into_inner();
    let streams = Arc::new(Mutex::new(session.streams.into_iter()));
    let readers: Vec<_> = (0..AT_ONCE).map(|_| tokio::spawn(some(channel.clone(), streams.clone()))).collect();
    let mut bytes = 0;
    for reader in readers {
        bytes += reader.await?.map_err(|status| status.message().to_owned())?;
    }
    Ok((started.elapsed(), bytes))
}

/// Reads one stream after the other, as long as there are any.
async fn some(channel: Channel, streams: Arc<Mutex<std::vec::IntoIter<Stream>>>) -> Result<u64, Status> {
    let mut bytes = 0;
    loop {
        let next = streams.lock().unwrap_or_else(PoisonError::into_inner).next();
        let Some(stream) = next else { return Ok(bytes) };
        let mut grpc = client(channel.clone());
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        // A request for rows has the name of the stream where a stream has it.
        let rows = method("/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows");
        let mut answers = grpc.server_streaming(tonic::Request::new(stream), rows, Thrown).await?.into_inner();
        while let Some(length) = answers.message().await? {
            bytes += length as u64;
        }
    }
}
