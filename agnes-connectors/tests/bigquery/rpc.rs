//! The Storage Read API as far as it is used here, over plain HTTP/2: a server that breaks off
//! and refuses when told to, and keeps what it was asked. And a door to another such server that
//! falls shut once.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::ipc::writer::StreamWriter;
use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::google::Google;

/// Rows of one message.
pub(crate) const MESSAGE: i64 = 100;

/// A message of the protocol, as far as the tests look into it or fill it: `read_rows_*` of a
/// request for rows, the rest of a request for a session and of a session.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct CreateSession {
    #[prost(string, tag = "1")]
    pub(crate) parent: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) session: Option<Session>,
    #[prost(int32, tag = "3")]
    pub(crate) max_stream_count: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Session {
    #[prost(int32, tag = "3")]
    pub(crate) data_format: i32,
    #[prost(message, optional, tag = "5")]
    arrow_schema: Option<Serialized>,
    #[prost(string, tag = "6")]
    pub(crate) table: String,
    #[prost(message, repeated, tag = "10")]
    streams: Vec<Named>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Serialized {
    #[prost(bytes = "vec", tag = "1")]
    bytes: Vec<u8>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ReadRows {
    #[prost(string, tag = "1")]
    pub(crate) stream: String,
    #[prost(int64, tag = "2")]
    pub(crate) offset: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Rows {
    #[prost(message, optional, tag = "4")]
    batch: Option<Serialized>,
    #[prost(int64, tag = "6")]
    count: i64,
}

/// How a stream of rows ends too soon.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cut {
    /// With a status, as a server that is restarted.
    Status,
    /// By a reset of the stream.
    Reset,
    /// In the middle of a message, with the whole connection.
    Connection,
    /// With a status; what was sent is not known any more, and only the first row is a place to begin.
    Forgotten,
    /// With a status, as the token has ended.
    Token,
    /// It does not: nothing comes any more.
    Silence,
}

/// What it was asked.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked {
    pub(crate) sessions: Vec<CreateSession>,
    pub(crate) reads: Vec<ReadRows>,
    /// Values of one header of all calls.
    pub(crate) headers: BTreeMap<String, Vec<String>>,
}

struct State {
    streams: i64,
    rows: i64,
    /// How the next calls for rows end, after so many messages.
    cuts: Mutex<Vec<(usize, Cut)>>,
    /// It knows nothing of what it sent.
    forgets: bool,
    /// Code and words of the answer to requests for a session.
    refusal: Option<(u8, &'static str)>,
    /// Who says which token opens it, if not any.
    google: Mutex<Option<Google>>,
    asked: Mutex<Asked>,
    gone: Notify,
}

/// A server of one table, `n` and `text`, whose rows are in streams of the same length.
#[derive(Clone)]
pub(crate) struct Rpc {
    pub(crate) url: String,
    state: Arc<State>,
}

impl Rpc {
    /// `rows` in each of so many streams; calls for rows end too soon as `cuts` say, in turn.
    pub(crate) async fn start(streams: i64, rows: i64, cuts: &[(usize, Cut)]) -> Self {
        Self::with(streams, rows, cuts, None).await
    }

    /// One that opens no session.
    pub(crate) async fn refusing(code: u8, words: &'static str) -> Self {
        Self::with(0, 0, &[], Some((code, words))).await
    }

    async fn with(streams: i64, rows: i64, cuts: &[(usize, Cut)], refusal: Option<(u8, &'static str)>) -> Self {
        let forgets = cuts.iter().any(|(_, cut)| *cut == Cut::Forgotten);
        let (cuts, asked) = (Mutex::new(cuts.iter().rev().copied().collect()), Mutex::default());
        let (google, gone) = (Mutex::default(), Notify::new());
        let state = Arc::new(State { streams, rows, cuts, forgets, refusal, google, asked, gone });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rpc = Self { url: format!("http://{}", listener.local_addr().unwrap()), state: state.clone() };
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(connection(socket, state.clone()));
            }
        });
        rpc
    }

    /// Opens nothing any more but to the token that is valid there.
    pub(crate) fn open_to(&self, google: &Google) {
        *self.state.google.lock().unwrap() = Some(google.clone());
    }

    pub(crate) fn asked(&self) -> Asked {
        self.state.asked.lock().unwrap().clone()
    }
}

async fn connection(socket: TcpStream, state: Arc<State>) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    let gone = state.gone.notified();
    tokio::pin!(gone);
    loop {
        tokio::select! {
            () = &mut gone => return,
            next = connection.accept() => {
                let Some(Ok((request, respond))) = next else { return };
                tokio::spawn(answer(request, respond, state.clone()));
            }
        }
    }
}

async fn answer(request: Request<h2::RecvStream>, respond: SendResponse<Bytes>, state: Arc<State>) {
    let (parts, mut body) = request.into_parts();
    let mut bytes = BytesMut::new();
    while let Some(Ok(chunk)) = body.data().await {
        drop(body.flow_control().release_capacity(chunk.len()));
        bytes.extend_from_slice(&chunk);
    }
    for (name, value) in &parts.headers {
        let mut asked = state.asked.lock().unwrap();
        asked.headers.entry(name.to_string()).or_default().push(value.to_str().unwrap_or_default().to_owned());
    }
    let message = bytes.split_off(5).freeze();
    let shown = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let google = state.google.lock().unwrap().clone();
    if google.is_some_and(|google| shown != format!("Bearer {}", google.valid())) {
        return end(begin(respond), 16, "Request had invalid authentication credentials.");
    }
    match parts.uri.path() {
        "/google.cloud.bigquery.storage.v1.BigQueryRead/CreateReadSession" => session(&message, respond, &state),
        "/google.cloud.bigquery.storage.v1.BigQueryRead/ReadRows" => rows(&message, respond, &state).await,
        path => panic!("{path}"),
    }
}

fn begin(mut respond: SendResponse<Bytes>) -> h2::SendStream<Bytes> {
    let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    respond.send_response(head, false).unwrap()
}

fn end(mut send: h2::SendStream<Bytes>, code: u8, words: &str) {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", code.to_string().parse().unwrap());
    trailers.insert("grpc-message", words.parse().unwrap());
    drop(send.send_trailers(trailers));
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// The rows from `from` on, as the message of a schema and that of a batch.
fn arrow(from: i64, rows: i64) -> (Vec<u8>, Vec<u8>) {
    let fields = vec![Field::new("n", DataType::Int64, true), Field::new("text", DataType::Utf8, true)];
    let schema = Arc::new(Schema::new(fields));
    let n = Arc::new(Int64Array::from_iter_values(from..from + rows));
    let text = Arc::new(StringArray::from_iter_values((from..from + rows).map(|n| format!("row {n}"))));
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    let head = writer.get_ref().clone();
    writer.write(&RecordBatch::try_new(schema, vec![n, text]).unwrap()).unwrap();
    let batch = writer.get_ref()[head.len()..].to_vec();
    (head, batch)
}

fn session(message: &[u8], respond: SendResponse<Bytes>, state: &State) {
    let asked = CreateSession::decode(message).unwrap();
    state.asked.lock().unwrap().sessions.push(asked.clone());
    let mut send = begin(respond);
    if let Some((code, words)) = state.refusal {
        return end(send, code, words);
    }
    let wanted = i64::from(asked.max_stream_count);
    let streams = if wanted == 0 { state.streams } else { state.streams.min(wanted) };
    let answer = Session {
        arrow_schema: Some(Serialized { bytes: arrow(0, 0).0 }),
        streams: (0..streams).map(|n| Named { name: format!("stream/{n}") }).collect(),
        ..Session::default()
    };
    send.send_data(framed(&answer), false).unwrap();
    end(send, 0, "");
}

async fn rows(message: &[u8], respond: SendResponse<Bytes>, state: &State) {
    let asked = ReadRows::decode(message).unwrap();
    state.asked.lock().unwrap().reads.push(asked.clone());
    let cut = state.cuts.lock().unwrap().pop();
    let stream: i64 = asked.stream.strip_prefix("stream/").unwrap().parse().unwrap();
    let mut send = begin(respond);
    if state.forgets && asked.offset > 0 {
        return end(send, 9, "the offset has not been allocated yet");
    }
    let (mut offset, mut sent) = (asked.offset, 0);
    while offset < state.rows {
        let count = MESSAGE.min(state.rows - offset);
        let batch = Some(Serialized { bytes: arrow(stream * state.rows + offset, count).1 });
        let message = framed(&Rows { batch, count });
        match cut.filter(|(after, _)| *after == sent) {
            None => drop(send.send_data(message, false)),
            Some((_, Cut::Status | Cut::Forgotten)) => return end(send, 14, "the server is being restarted"),
            Some((_, Cut::Token)) => {
                if let Some(google) = &*state.google.lock().unwrap() {
                    google.end_token();
                }
                return end(send, 16, "Request had invalid authentication credentials.");
            }
            Some((_, Cut::Silence)) => return std::future::pending().await,
            Some((_, Cut::Reset)) => return send.send_reset(h2::Reason::INTERNAL_ERROR),
            Some((_, Cut::Connection)) => {
                drop(send.send_data(message.slice(..message.len() / 2), false));
                // What was sent before should have left, or nothing is in the middle.
                for _ in 0..20 {
                    tokio::task::yield_now().await;
                }
                return state.gone.notify_waiters();
            }
        }
        (offset, sent) = (offset + count, sent + 1);
    }
    end(send, 0, "");
}

/// A door to `server` whose first connection falls shut after so many bytes from there; its
/// address, and how many connections it had.
pub(crate) async fn door(server: &str, bytes: usize) -> (String, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server: SocketAddr = server.trim_start_matches("http://").parse().unwrap();
    let connections = Arc::new(Mutex::new(0));
    let count = connections.clone();
    tokio::spawn(async move {
        while let Ok((here, _)) = listener.accept().await {
            let left = {
                let mut count = count.lock().unwrap();
                *count += 1;
                if *count == 1 { bytes } else { usize::MAX }
            };
            tokio::spawn(through(here, server, left));
        }
    });
    (url, connections)
}

async fn through(mut here: TcpStream, server: SocketAddr, mut left: usize) {
    let mut there = TcpStream::connect(server).await.unwrap();
    let (mut asks, mut tells) = (vec![0; 16 << 10], vec![0; 16 << 10]);
    while left > 0 {
        let done = tokio::select! {
            read = here.read(&mut asks) => match read {
                Ok(n) if n > 0 => there.write_all(&asks[..n]).await.is_err(),
                _ => true,
            },
            read = there.read(&mut tells) => match read {
                Ok(n) if n > 0 => {
                    let n = n.min(left);
                    left -= n;
                    here.write_all(&tells[..n]).await.is_err()
                }
                _ => true,
            },
        };
        if done {
            return;
        }
    }
}
