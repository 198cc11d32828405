//! A Storage API of our own, on plain sockets: it keeps every request as it came in, byte by
//! byte, serves exports in gzipped slices, and fails as it is told to.

mod exports;
mod slices;

use std::collections::{BTreeMap, HashMap};
use std::io::BufReader;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use agnes_core::testing::Request;
use serde_json::{Value, json};

use crate::wire::{Answer, decoded};

/// The one token it takes.
pub(crate) const TOKEN: &str = "1234-56789-SuperSecretStorageToken";
/// What opens slices; never to be seen anywhere else.
pub(crate) const SIGNATURE: &str = "sig%2Bsecret";
pub(crate) const S3_KEY: &str = "AKIDTEST";
pub(crate) const S3_SECRET: &str = "secretsecretsecret";

/// A row, and when it was changed last, Unix seconds.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) values: Vec<String>,
    pub(crate) changed: i64,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Table {
    pub(crate) columns: Vec<String>,
    /// Base type of each column that has one.
    pub(crate) types: Vec<(String, String)>,
    pub(crate) primary_key: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// `lastImportDate` and `lastChangeDate`.
    pub(crate) stamp: Option<String>,
    pub(crate) alias: bool,
}

/// Where the slices of an export are.
#[derive(Debug, Clone, Default)]
pub(crate) enum Store {
    /// Here, by signed addresses.
    #[default]
    Signed,
    /// Here, as Google's and Azure's stores are asked.
    Google,
    Azure,
    /// In a real S3 server whose files are in this folder: bucket `exports`.
    S3(PathBuf),
    /// In a real server of Azure's storage, opened by this signature: container `box`.
    Blobs {
        port: u16,
        account: &'static str,
        sas: String,
    },
}

/// How a request that begins so is answered instead: status, headers, body; so many times.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) begins: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) times: u32,
    /// Requests that pass before it.
    pub(crate) after: u32,
}

/// What is done to the slices of the next exports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Damage {
    #[default]
    None,
    /// The body ends before it is whole.
    CutBody,
    /// The stored object itself is cut: its length is announced right.
    CutObject,
    /// One bit is another.
    Flipped,
    /// The manifest leaves the last slice out.
    Missing,
    /// A line has one value more.
    Wide,
    /// MD5 of another body is announced.
    WrongMd5,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) requests: Vec<Request>,
    pub(crate) tables: BTreeMap<String, Table>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) store: Store,
    pub(crate) damage: Damage,
    /// How often the damage is served before slices are whole.
    pub(crate) damaged_times: u32,
    /// Looks at a job before it is done.
    pub(crate) polls: u32,
    /// No job is done before so many were asked for.
    pub(crate) polls_until_exports: usize,
    /// Most jobs at a time.
    pub(crate) most_running: usize,
    /// The words a job fails with.
    pub(crate) job_fails: Option<String>,
    pub(crate) slices: usize,
    /// Whether slices are gzipped.
    pub(crate) plain: bool,
    pub(crate) unsliced: bool,
    /// Whether lines end with CR LF, the last too.
    pub(crate) crlf: bool,
    /// Whether the last line of every slice has an end: the official client relies on it.
    pub(crate) ended: bool,
    /// Whether jobs say how many rows there are.
    pub(crate) counts: bool,
    /// Whether these are the rows of the table, whatever was asked for.
    pub(crate) counts_table: bool,
    pub(crate) project: u64,
    /// Which signature opens slices now: earlier ones expired.
    pub(crate) generation: u32,
    /// Done to a table just before its next export.
    pub(crate) before_export: Option<fn(&mut Table)>,
    /// Done to a table when its next export is asked for.
    pub(crate) at_export: Option<fn(&mut Table)>,
    /// Bytes of slices that were sent.
    pub(crate) sent: u64,
    /// Whether files come with credentials that are not those of the S3 server.
    pub(crate) wrong_s3_secret: bool,
    /// Told when the next slice is asked for, which never comes.
    pub(crate) held: Option<tokio::sync::oneshot::Sender<()>>,
    /// How long each slice takes.
    pub(crate) slice_delay: Duration,
    jobs: HashMap<u64, (u32, u64, u64)>,
    running: std::collections::HashSet<u64>,
    files: HashMap<u64, Vec<(String, Vec<u8>)>>,
    next: u64,
}

/// The server; it ends with the process.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = State { slices: 3, counts: true, project: 4711, next: 1, ..State::default() };
        let fake = Self { url, state: Arc::new(Mutex::new(state)) };
        let serving = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let fake = serving.clone();
                std::thread::spawn(move || fake.serve(stream));
            }
        });
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// A table `in.c-shop.<name>` of these columns (`name` or `name:TYPE`); the first is its key.
    pub(crate) fn table(&self, name: &str, columns: &[&str], rows: &[&[&str]]) -> String {
        let id = format!("in.c-shop.{name}");
        let named = |column: &&str| column.split(':').next().unwrap().to_owned();
        let table = Table {
            columns: columns.iter().map(named).collect(),
            types: columns
                .iter()
                .filter_map(|c| c.split_once(':').map(|(n, t)| (n.to_owned(), t.to_owned())))
                .collect(),
            primary_key: vec![named(&columns[0])],
            rows: rows
                .iter()
                .map(|row| Row { values: row.iter().map(ToString::to_string).collect(), changed: 0 })
                .collect(),
            stamp: None,
            alias: false,
        };
        self.state().tables.insert(id.clone(), table);
        id
    }

    /// Inserts rows or replaces them by their first value, changed at `changed`.
    pub(crate) fn upsert(&self, id: &str, changed: i64, rows: &[&[&str]]) {
        let mut state = self.state();
        let table = state.tables.get_mut(id).unwrap();
        for row in rows {
            table.rows.retain(|old| old.values[0] != row[0]);
            table.rows.push(Row { values: row.iter().map(ToString::to_string).collect(), changed });
        }
    }

    pub(crate) fn fault(&self, begins: &str, status: u16, headers: &[(&str, &str)], body: &str, times: u32) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (begins, body) = (begins.to_owned(), body.to_owned());
        self.state().faults.push(Fault { begins, status, headers, body, times, after: 0 });
    }

    /// Requests of the Storage API so far, `METHOD target` each.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.state().requests.iter().map(|r| format!("{} {}", r.method, r.target)).collect()
    }

    /// Lets nothing go wrong any more, and all jobs end well.
    pub(crate) fn mend(&self, tables: BTreeMap<String, Table>) {
        let mut state = self.state();
        state.tables = tables;
        state.faults.clear();
        (state.damage, state.damaged_times, state.polls, state.job_fails) = (Damage::None, 0, 0, None);
        (state.at_export, state.slice_delay) = (None, Duration::ZERO);
        state.jobs.values_mut().for_each(|(polls, ..)| *polls = 0);
    }

    pub(crate) fn forget_requests(&self) {
        self.state().requests.clear();
    }

    /// The bodies of all exports asked for.
    pub(crate) fn exports(&self) -> Vec<String> {
        let state = self.state();
        let exports = state.requests.iter().filter(|r| r.target.ends_with("/export-async"));
        exports.map(|r| String::from_utf8_lossy(&r.body).into_owned()).collect()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        while let Some(request) = Request::read(&mut reader) {
            let answer = self.answer(&request);
            let close = answer.cut.is_some();
            if answer.write(&mut stream).is_err() || close {
                return;
            }
        }
    }

    fn answer(&self, request: &Request) -> Answer {
        let mut state = self.state();
        let line = format!("{} {}", request.method, request.target);
        let blob =
            ["/blob/", "/storage/v1/", "/download/", "/account/"].iter().any(|begin| request.target.starts_with(begin));
        if !blob {
            state.requests.push(request.clone());
        }
        if let Some(fault) = state.faults.iter_mut().find(|fault| fault.times > 0 && line.starts_with(&fault.begins)) {
            if fault.after > 0 {
                fault.after -= 1;
            } else {
                fault.times -= 1;
                let (body, headers) = (fault.body.clone().into_bytes(), fault.headers.clone());
                return Answer { status: fault.status, headers, body, cut: None };
            }
        }
        if blob
            && !request.target.contains("/manifest")
            && let Some(held) = state.held.take()
        {
            drop(state);
            let _ = held.send(());
            loop {
                std::thread::park();
            }
        }
        if blob {
            let delay = state.slice_delay;
            let answer = state.blob(request);
            drop(state);
            std::thread::sleep(delay);
            return answer;
        }
        let Some(path) = request.target.strip_prefix("/v2/storage/") else {
            return Answer::error(404, "no such route");
        };
        if request.header("X-StorageApi-Token") != Some(TOKEN) {
            let words = format!("Invalid access token {}", request.header("X-StorageApi-Token").unwrap_or("(none)"));
            return Answer::error(401, &words);
        }
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let query = decoded(query);
        let parts: Vec<String> = path.split('/').map(decoded).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["tokens", "verify"]) => {
                let owner = json!({"id": state.project, "name": "Shop"});
                Answer::json(&json!({"id": "1", "description": "tests", "isExpired": false, "owner": owner}))
            }
            ("GET", ["buckets"]) => Answer::json(&json!([{"id": "in.c-shop", "name": "c-shop", "stage": "in"}])),
            ("GET", ["tables"]) if query == "include=columns,buckets" => {
                Answer::json(&state.tables.iter().map(|(id, table)| table.describe(id, false)).collect())
            }
            ("GET", ["buckets", bucket, "tables"]) if query == "include=columns" => {
                let inside = state.tables.iter().filter(|(id, _)| id.starts_with(&format!("{bucket}.")));
                Answer::json(&inside.map(|(id, table)| table.describe(id, false)).collect())
            }
            ("GET", ["tables", id]) => match state.tables.get(*id) {
                Some(table) => Answer::json(&table.describe(id, true)),
                None => Answer::error(404, &format!("The table \"{id}\" was not found in the bucket")),
            },
            ("POST", ["tables", id, "export-async"]) => state.export(&self.url, id, &request.body),
            ("POST", ["tables", id, "columns", column, "metadata"]) => match state.tables.get(*id) {
                Some(table) if table.columns.iter().any(|known| known == column) => {
                    Answer { status: 201, ..Answer::json(&json!([])) }
                }
                _ => Answer::error(404, "The column was not found"),
            },
            ("GET", ["jobs", id]) => state.job(id.parse().unwrap_or(0)),
            ("GET", ["files", id]) if query.starts_with("federationToken=") => {
                state.file(&self.url, id.parse().unwrap_or(0))
            }
            _ => Answer::error(404, "no such route"),
        }
    }
}

impl Table {
    fn describe(&self, id: &str, whole: bool) -> Value {
        let (bucket, name) = id.rsplit_once('.').unwrap();
        let mut out = json!({
            "id": id, "name": name, "displayName": name, "columns": self.columns, "primaryKey": self.primary_key,
            "rowsCount": self.rows.len(), "dataSizeBytes": 1000, "isAlias": self.alias,
            "lastImportDate": self.stamp, "lastChangeDate": self.stamp, "bucket": {"id": bucket, "name": "c-shop"},
        });
        if whole {
            let mut metadata = serde_json::Map::new();
            for (column, kind) in &self.types {
                let (kind, length) = kind.split_once('(').unwrap_or((kind, ""));
                let mut said = vec![json!({"key": "KBC.datatype.basetype", "value": kind, "provider": "storage"})];
                if !length.is_empty() {
                    let length = length.trim_end_matches(')');
                    said.push(json!({"key": "KBC.datatype.length", "value": length, "provider": "storage"}));
                }
                metadata.insert(column.clone(), json!(said));
            }
            // The real server is written in PHP.
            let metadata = if metadata.is_empty() { json!([]) } else { Value::Object(metadata) };
            out[if self.alias { "sourceTable" } else { "columnMetadata" }] =
                if self.alias { json!({"id": "x", "columnMetadata": metadata}) } else { metadata };
        }
        out
    }
}

impl Fake {
    /// Bytes of the slices of a file.
    pub(crate) fn stored(&self, file: u64) -> u64 {
        self.state().files.get(&file).map_or(0, |slices| slices.iter().map(|(_, bytes)| bytes.len() as u64).sum())
    }
}
