//! DuckDB's own parser, on sealed connections with threads of their own.
//!
//! The threads have large stacks: parser, serialiser and tree recurse with the nesting of
//! the text. Nothing is attached here, nothing can be read or loaded, and text arrives as a
//! bind parameter, so that no statement of a caller is ever executed.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use serde_json::Value;
use tokio::sync::oneshot;

use super::error::SandboxError;
use crate::duck::{Bind, MemoryConn, MemoryDb};
use crate::error::{Error, Result};

const STACK_BYTES: usize = 64 << 20;
/// A tree of [`super::MAX_DEPTH`] nodes nests about four times as deep in JSON.
const MAX_JSON_DEPTH: usize = 1000;

type Job = Box<dyn FnOnce(&Parser) + Send>;

/// Hands work to the parser threads.
#[derive(Clone)]
pub(super) struct ParserPool {
    jobs: Sender<Job>,
}

impl std::fmt::Debug for ParserPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ParserPool")
    }
}

impl ParserPool {
    /// Starts so many threads; also the names of the functions the pristine engine has.
    pub(super) fn start(threads: usize) -> Result<(Self, Vec<String>)> {
        let (jobs, inbox) = channel::<Job>();
        let inbox = Arc::new(Mutex::new(inbox));
        let start = |parser: Option<Parser>| {
            let inbox = inbox.clone();
            // Whoever waits for the first need not wait for the others.
            let work = move || match parser.map_or_else(Parser::open, Ok) {
                Ok(parser) => serve(&parser, &inbox),
                Err(error) => tracing::error!(%error, "a parser did not start: those that run do its work"),
            };
            let thread = std::thread::Builder::new().name("agnes-parser".to_owned()).stack_size(STACK_BYTES);
            thread.spawn(work).map_err(|e| Error::io("start a parser thread", e))
        };
        for _ in 1..threads {
            start(None)?;
        }
        let first = Parser::open()?;
        let functions = first.functions()?;
        start(Some(first))?;
        Ok((Self { jobs }, functions))
    }

    /// Runs `work` on a parser thread.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Parser) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |parser| {
            let _ = reply.send(work(parser));
        });
        self.jobs.send(job).map_err(|_| Error::internal("reach the parser", "its threads are gone"))?;
        answer.await.map_err(|e| Error::internal("parse a query", e))?
    }
}

fn serve(parser: &Parser, inbox: &Mutex<Receiver<Job>>) {
    loop {
        let job = inbox.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A panic fails one request (its reply is dropped), not the parser.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(parser)));
    }
}

/// One sealed connection.
pub(super) struct Parser {
    conn: MemoryConn,
}

/// What the parser made of a text.
pub(super) enum Tree {
    /// The statements as JSON.
    Statements(Vec<Value>),
    /// It is SQL, but not all of it is queries.
    NotAQuery,
}

impl Parser {
    fn open() -> Result<Self> {
        let conn = MemoryDb::open(&[
            ("threads", "1"),
            ("autoinstall_known_extensions", "false"),
            ("autoload_known_extensions", "false"),
        ])?
        .connect()?;
        conn.execute(
            "SET memory_limit='256MB'; SET temp_directory=''; SET enable_external_access=false; \
             SET lock_configuration=true",
        )?;
        Ok(Self { conn })
    }

    fn functions(&self) -> Result<Vec<String>> {
        match super::functions::listed(&self.version()?) {
            Some(names) => Ok(names),
            None => self.asked_functions(),
        }
    }

    fn version(&self) -> Result<String> {
        Ok(texts(&self.conn.rows("SELECT version()")?).concat())
    }

    fn asked_functions(&self) -> Result<Vec<String>> {
        let batches = self.conn.rows(
            "SELECT DISTINCT function_name FROM duckdb_functions() \
             WHERE function_type NOT IN ('table', 'table_macro', 'pragma') ORDER BY ALL",
        )?;
        Ok(texts(&batches))
    }

    /// The answer of a function of text that gives text.
    fn call(&self, sql: &str, text: &str) -> Result<String> {
        let mut stream = self.conn.stream(sql, &|_| Some(Bind::Text(text)))?;
        let batch = stream.next()?;
        let answer = batch.as_ref().map(std::slice::from_ref).map(texts).and_then(|mut texts| texts.pop());
        answer.ok_or_else(|| Error::internal("ask the parser", "no answer"))
    }

    /// The syntax tree of `text`.
    pub(super) fn parse(&self, text: &str) -> Result<Tree> {
        let json = self.call("SELECT json_serialize_sql(CAST(? AS VARCHAR))", text)?;
        let mut tree = read_json(&json)?;
        if tree["error"] == Value::Bool(false)
            && let Value::Array(statements) = tree["statements"].take()
        {
            return Ok(Tree::Statements(statements));
        }
        let kind = tree["error_type"].as_str().unwrap_or_default();
        let message = tree["error_message"].as_str().unwrap_or_default();
        // The second: a PIVOT without values whose source has parameters.
        if kind == "not implemented" && message.starts_with("Only SELECT")
            || message.starts_with("PIVOT statements with pivot elements extracted from the data")
        {
            return Ok(Tree::NotAQuery);
        }
        if message.contains("A CTE needs a SELECT") {
            return Err(SandboxError::Unsupported { what: "a CTE that is not a query".to_owned() }.into());
        }
        let mut message = crate::ident::printable(message, 300);
        if let Some(at) = tree["position"].as_str().and_then(|at| at.parse::<usize>().ok()) {
            let line = 1 + text.as_bytes().iter().take(at).filter(|b| **b == b'\n').count();
            message = format!("{message} (line {line})");
        }
        Err(SandboxError::Syntax { message }.into())
    }

    /// SQL of a statement's tree.
    pub(super) fn render(&self, statement: &Value) -> Result<String> {
        let tree = serde_json::json!({ "error": false, "statements": [statement] }).to_string();
        self.call("SELECT json_deserialize_sql(CAST(? AS JSON))", &tree)
    }
}

/// The first column, which is of type VARCHAR.
fn texts(batches: &[RecordBatch]) -> Vec<String> {
    let columns = batches.iter().filter_map(|batch| batch.columns().first()?.as_string_opt::<i32>());
    columns.flat_map(|column| column.iter().flatten().map(str::to_owned)).collect()
}

/// A container that is still open.
enum Open {
    Array(Vec<Value>),
    Object(serde_json::Map<String, Value>, Option<String>),
}

/// Reads JSON without recursion, up to [`MAX_JSON_DEPTH`]: `serde_json` stops at 128 levels,
/// fewer than a query of some length has.
fn read_json(json: &str) -> Result<Value> {
    let bad = || Error::internal("read the syntax tree", "it is not JSON");
    let bytes = json.as_bytes();
    let mut open: Vec<Open> = Vec::new();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let start = at;
        at += 1;
        let value = match byte {
            b' ' | b'\n' | b'\r' | b'\t' | b',' | b':' => continue,
            b'{' | b'[' => {
                if open.len() == MAX_JSON_DEPTH {
                    return Err(SandboxError::TooComplex { what: "it nests too deep" }.into());
                }
                open.push(if byte == b'{' {
                    Open::Object(serde_json::Map::new(), None)
                } else {
                    Open::Array(Vec::new())
                });
                continue;
            }
            b'}' | b']' => match open.pop().ok_or_else(bad)? {
                Open::Array(items) => Value::Array(items),
                Open::Object(map, _) => Value::Object(map),
            },
            b'"' => {
                while *bytes.get(at).ok_or_else(bad)? != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
                serde_json::from_str(&json[start..at]).map_err(|_| bad())?
            }
            _ => {
                at += bytes[at..].iter().take_while(|b| !matches!(b, b',' | b'}' | b']')).count();
                // `1e999` is infinite, for which JSON has no word and the engine writes its own.
                if matches!(json[start..at].trim_end().trim_start_matches('-'), "Infinity" | "NaN") {
                    let what = "a number too large for DOUBLE: write `'infinity'::DOUBLE`".to_owned();
                    return Err(SandboxError::Unsupported { what }.into());
                }
                serde_json::from_str(&json[start..at]).map_err(|_| bad())?
            }
        };
        match open.last_mut() {
            None => return Ok(value),
            Some(Open::Array(items)) => items.push(value),
            Some(Open::Object(map, key)) => match (key.take(), value) {
                (Some(key), value) => drop(map.insert(key, value)),
                (None, Value::String(text)) => *key = Some(text),
                _ => return Err(bad()),
            },
        }
    }
    Err(bad())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    #[cfg(not(feature = "bundled"))]
    fn the_listed_functions_are_those_of_the_engine() {
        let parser = Parser::open().unwrap();
        let (version, names) = (parser.version().unwrap(), parser.asked_functions().unwrap());
        assert!(names.len() > 500, "{names:?}");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/sandbox/functions.txt");
            return std::fs::write(file, format!("{version}\n{}\n", names.join("\n"))).unwrap();
        }
        let listed = crate::sandbox::functions::listed(&version);
        assert!(listed == Some(names), "the engine has others; `UPDATE_GOLDEN=1` writes them to functions.txt");
    }

    #[test]
    fn reads_what_serde_reads() {
        for json in [r#"{"a":[1,-2.5e3,"x\"y\\",null,true,{}],"b":{"c":[]},"é\u00e9":"{"}"#, "[]", "3", r#""s""#] {
            assert_eq!(read_json(json).unwrap(), serde_json::from_str::<Value>(json).unwrap(), "{json}");
        }
        assert!(read_json(&format!("{}1{}", "[".repeat(900), "]".repeat(900))).is_ok());
        assert!(read_json(&format!("{}1{}", "[".repeat(1100), "]".repeat(1100))).is_err());
        // As the engine writes `1e999`.
        for json in [r#"{"value":Infinity}"#, "[-Infinity ]", "[NaN,1]"] {
            assert_eq!(read_json(json).unwrap_err().code(), "unsupported_sql", "{json}");
        }
        for json in ["{", "\"", "{1:2}", "", "[\"\\"] {
            assert!(read_json(json).is_err(), "{json}");
        }
    }
}
