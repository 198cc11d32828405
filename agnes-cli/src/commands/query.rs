//! `agnes query`: SQL in, rows out, in the format that was asked for.

use std::io::{self, BufWriter, Read, Write};
use std::path::Path;
use std::sync::Arc;

use agnes_connectors::server::ServerClient;
use agnes_core::local::{ReplayReceipt, Rows};
use agnes_core::policy::RowScope;
use agnes_core::query::{Params, Query, ReplayedOn};
use agnes_core::workspace::{Answerable, Workspace};
use arrow::datatypes::SchemaRef;
use serde_json::{Map, Value};

use crate::app::App;
use crate::args::{Format, QueryArgs, ReplayArgs, Scope};
use crate::failure::{Failure, Outcome};
use crate::output::batches::{self, Written};
use crate::output::text::{count, plural, safe};
use crate::place::{self, Meant};

/// Rows on a screen, unless `--limit` says otherwise.
const DEFAULT_LIMIT: u64 = 1000;

pub(super) async fn run(app: &Arc<App>, args: QueryArgs) -> Outcome {
    if args.has_no_text() {
        return super::shell::run(app, args).await;
    }
    let (sql, given) = text(&args)?;
    let format = format(app, &args)?;
    let params = if args.param.is_empty() { given } else { params(&args.param)? };
    let params = Params::try_from(params).map_err(agnes_core::Error::from)?;
    let mut query = Query::new(sql).params(params);
    query.limit = most_rows(&args);
    query.receipt = args.receipt.is_some();
    let mut rows = rows_of(app, query, &args).await?;
    let schema = rows.schema();
    let written = match &args.output {
        Some(file) => to_file(app, format, &mut rows, file).await?,
        None => {
            let mut out = BufWriter::new(io::stdout());
            let written = batches::write(app.out, format, &mut rows, &mut out).await?;
            out.flush()?;
            written
        }
    };
    if let Some(file) = &args.output {
        app.out.note(&format!("{} in {}", plural(written.rows, "row"), file.display()));
    }
    if let Some(file) = &args.receipt {
        let receipt = rows
            .receipt()
            .ok_or_else(|| Failure::usage("the holder of the data folder is too old to write receipts"))?;
        let text = serde_json::to_string_pretty(receipt).map_err(io::Error::from)?;
        std::fs::write(file, text + "\n").map_err(|e| Failure::file(&format!("write `{}`", file.display()), &e))?;
        app.out.note(&format!("the receipt is in {}", file.display()));
    }
    remark(app, &schema, written, format, "`--limit N` gives more, `--limit 0` all");
    Ok(())
}

/// Most rows that a query gives; none for all.
pub(super) fn most_rows(args: &QueryArgs) -> Option<usize> {
    let limit = args.limit.or(args.output.is_none().then_some(DEFAULT_LIMIT)).filter(|limit| *limit > 0);
    limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Says what is to be known of rows that were shown: what policies took, and whether there are more.
pub(super) fn remark(app: &App, schema: &SchemaRef, written: Written, format: Format, more: &str) {
    for scope in RowScope::of_schema(schema) {
        app.out.note(&narrowed(&scope));
    }
    if written.truncated {
        app.out.note(&format!("there is more: these are the first {}", plural(written.rows, "row")));
        app.out.hint(more);
    } else if matches!(format, Format::Table | Format::Expanded) && app.out.terminal {
        app.out.note(&plural(written.rows, "row"));
    }
}

/// Where queries of a command line are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// In the data folder.
    Folder,
    /// By the server.
    Server,
    /// From the files of the workspace.
    Workspace,
    /// From these files where they are enough, else by the server.
    Either,
}

/// Where the queries of this command line are answered.
pub(super) fn place_of(app: &App, args: &QueryArgs) -> Outcome<At> {
    let Meant::Server { is_named, .. } = place::meant(&app.global, &app.account)? else {
        return Ok(if args.remote || args.scope == Some(Scope::Remote) { At::Server } else { At::Folder });
    };
    Ok(match args.scope {
        _ if args.remote || args.who.as_user.is_some() => At::Server,
        Some(Scope::Remote) => At::Server,
        Some(Scope::Local) => At::Workspace,
        Some(Scope::Auto) => At::Either,
        // Where there are no files of it, whoever names a server means that.
        None if is_named && files(app).is_err() => At::Server,
        None => At::Workspace,
    })
}

/// The workspace, where its files may answer this command line.
pub(super) fn files(app: &App) -> Outcome<Workspace> {
    place::files(&app.global, &app.account)
}

/// Rows from wherever they are: a data folder, the files of the workspace, a server.
pub(super) async fn rows_of(app: &App, query: Query, args: &QueryArgs) -> Outcome<Rows> {
    match place_of(app, args)? {
        At::Folder => app.query_as(query, &args.who).await,
        At::Server => remote(app, &query, args, None).await,
        At::Workspace => {
            let workspace = files(app)?;
            if query.receipt {
                let hint = "`--remote` has the server write one";
                return Err(Failure::usage_hint("files here give no receipt", hint));
            }
            match workspace.query(query.clone()).await {
                Err(error) if error.code() == "table_not_here" && app.out.can_ask() => {
                    super::pull::offer(app, &workspace, error).await?;
                    Ok(workspace.query(query.clone()).await?)
                }
                rows => Ok(rows?),
            }
        }
        At::Either => {
            let Ok(workspace) = files(app) else {
                let why =
                    if place::here().is_ok() { "the files here are of another server" } else { "this is no workspace" };
                return remote(app, &query, args, Some(why.to_owned())).await;
            };
            if query.receipt {
                return remote(app, &query, args, Some("a receipt is the server's to write".to_owned())).await;
            }
            match workspace.can_answer(&query.sql).await? {
                Answerable::Here => {
                    let state = workspace.state()?;
                    let rows = workspace.query(query.clone()).await?;
                    app.out.note(&format!("answered here, from generation {}", state.generation));
                    Ok(rows)
                }
                Answerable::Elsewhere(why) => remote(app, &query, args, Some(why.to_string())).await,
                Answerable::Unknown => remote(app, &query, args, Some("not all of it is here".to_owned())).await,
            }
        }
    }
}

/// The server, asked as whom `--as` names.
pub(super) fn server(app: &App, args: &QueryArgs) -> Outcome<ServerClient> {
    let server = app.server()?;
    Ok(match &args.who.as_user {
        Some(user) => server.seeing_as(user),
        None => server,
    })
}

/// Rows of the server; `why` not those of here, where that is worth a word.
async fn remote(app: &App, query: &Query, args: &QueryArgs, why: Option<String>) -> Outcome<Rows> {
    let server = server(app, args)?;
    if let Some(why) = why {
        app.out.note(&format!("{why}: asking {}", server.server()));
    }
    Ok(server.query(query).await?)
}

/// What a policy took from a table of the query.
fn narrowed(scope: &RowScope) -> String {
    let rows =
        if scope.rows_filtered { "rows of it that you may not see are left out" } else { "all its rows are there" };
    let masked = match scope.masked_columns.as_slice() {
        [] => String::new(),
        columns => format!(", masked: {}", safe(&columns.join(", "))),
    };
    format!("a policy narrows `{}`: {rows}{masked}", safe(&scope.table))
}

/// Asks the query of a receipt again; an answer that differs is a failure.
pub(super) async fn replay(app: &App, args: ReplayArgs) -> Outcome {
    let file = args.receipt.display();
    let text = std::fs::read(&args.receipt).map_err(|e| Failure::file(&format!("read `{file}`"), &e))?;
    let receipt = serde_json::from_slice(&text).map_err(|_| Failure::usage(format!("`{file}` is not a receipt")))?;
    let replay = app.ask_as(ReplayReceipt { receipt }, &args.who).await?;
    app.out.show(&replay, |out| {
        let on = match replay.data {
            ReplayedOn::Receipt => "the data it was made of",
            ReplayedOn::Current => "the data as it is now",
        };
        match replay.equal {
            true => writeln!(out, "equal: {} rows, on {on}", count(replay.rows))?,
            false => {
                writeln!(out, "different: {} rows, not {}, on {on}", count(replay.rows), count(replay.receipt_rows))?
            }
        }
        for change in &replay.changes {
            writeln!(out, "changed: {}", safe(change))?;
        }
        Ok(())
    })?;
    if replay.equal { Ok(()) } else { Err(Failure::Partial) }
}

/// The file appears under its name only when it is complete.
async fn to_file(app: &App, format: Format, rows: &mut Rows, file: &Path) -> Outcome<Written> {
    let told = |e: &io::Error| Failure::file(&format!("write `{}`", file.display()), e);
    let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut beside = tempfile::Builder::new();
    #[cfg(unix)]
    beside.permissions(permissions(file));
    let temporary = beside.prefix(".agnes-").tempfile_in(folder).map_err(|e| told(&e))?;
    let mut out = BufWriter::new(temporary);
    let mut plain = app.out;
    plain.terminal = false;
    plain.color = false;
    let written = batches::write(plain, format, rows, &mut out).await?;
    let temporary = out.into_inner().map_err(|e| told(e.error()))?;
    temporary.as_file().sync_all().map_err(|e| told(&e))?;
    temporary.persist(file).map_err(|e| told(&e.error))?;
    Ok(written)
}

/// Who may read a result: as of the file that it replaces, else as of any new file, which the `umask` says.
#[cfg(unix)]
fn permissions(file: &Path) -> std::fs::Permissions {
    use std::os::unix::fs::PermissionsExt as _;
    let before = std::fs::metadata(file).map(|before| before.permissions().mode() & 0o777);
    std::fs::Permissions::from_mode(before.unwrap_or(0o666))
}

/// The format: `-f`, else `--json`, else what the file is named like, else a table.
pub(super) fn format(app: &App, args: &QueryArgs) -> Outcome<Format> {
    let ending = args.output.as_deref().and_then(Path::extension).map(|ending| ending.to_string_lossy());
    let named = ending.as_deref().and_then(by_ending);
    if let Some(ending) = ending.filter(|_| named.is_none() && args.format.is_none() && !app.out.json) {
        let hint = "name one: `--format csv`, `json`, `ndjson`, `parquet`, `arrow`, `table` or `expanded`";
        return Err(Failure::usage_hint(format!("no format is called `{}`", safe(&ending)), hint));
    }
    let format = match (args.format, app.out.json) {
        (Some(format), false) => format,
        (None | Some(Format::Json), true) => Format::Json,
        (Some(_), true) => return Err(Failure::usage("`--json` and `--format` say different things")),
        (None, false) => named.unwrap_or(Format::Table),
    };
    if matches!(format, Format::Parquet | Format::Arrow) && args.output.is_none() && app.out.terminal {
        return Err(Failure::usage_hint("this format is not for a terminal", "add `--output FILE`, or pipe it"));
    }
    Ok(format)
}

fn by_ending(ending: &str) -> Option<Format> {
    Some(match ending.to_ascii_lowercase().as_str() {
        "txt" => Format::Table,
        "csv" => Format::Csv,
        "json" => Format::Json,
        "ndjson" | "jsonl" => Format::Ndjson,
        "parquet" | "pq" => Format::Parquet,
        "arrow" | "arrows" | "ipc" => Format::Arrow,
        _ => return None,
    })
}

/// The SQL, and the parameters that came with it.
fn text(args: &QueryArgs) -> Outcome<(String, Value)> {
    if let Some(sql) = args.positional.as_ref().or(args.sql.as_ref()) {
        return Ok((sql.clone(), Value::Null));
    }
    if let Some(file) = &args.file {
        let sql =
            std::fs::read_to_string(file).map_err(|e| Failure::file(&format!("read `{}`", file.display()), &e))?;
        return Ok((sql, Value::Null));
    }
    let mut sql = String::new();
    io::stdin().read_to_string(&mut sql).map_err(|e| Failure::file("read standard input", &e))?;
    from_stdin(&sql)
}

/// Standard input holds SQL, or a JSON object with `sql` and, if wanted, `params`.
fn from_stdin(text: &str) -> Outcome<(String, Value)> {
    if !text.trim_start().starts_with('{') {
        return Ok((text.to_owned(), Value::Null));
    }
    let wrong = || {
        Failure::usage_hint(
            "standard input is not what `--stdin` reads",
            "send SQL, or JSON such as {\"sql\": \"select 1\"}",
        )
    };
    let Ok(Value::Object(mut object)) = serde_json::from_str(text) else { return Err(wrong()) };
    let Some(Value::String(sql)) = object.remove("sql") else { return Err(wrong()) };
    let params = object.remove("params").unwrap_or_default();
    if object.is_empty() { Ok((sql, params)) } else { Err(wrong()) }
}

/// `--param` values: all by position, or all by name.
fn params(texts: &[String]) -> Outcome<Value> {
    let mut positional = Vec::new();
    let mut named = Map::new();
    for text in texts {
        match text.split_once('=').filter(|(name, _)| is_name(name)) {
            Some((name, value)) => {
                if named.insert(name.to_owned(), value_of(value)?).is_some() {
                    return Err(Failure::usage(format!("the parameter `{}` is given twice", safe(name))));
                }
            }
            None => positional.push(value_of(text)?),
        }
    }
    match (positional.is_empty(), named.is_empty()) {
        (false, false) => Err(Failure::usage_hint(
            "some parameters have a name and others do not",
            "name all of them or none; quote a value that holds `=`: --param '\"a=b\"'",
        )),
        (true, false) => Ok(Value::Object(named)),
        _ => Ok(Value::Array(positional)),
    }
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// A JSON scalar, or the text itself.
fn value_of(text: &str) -> Outcome<Value> {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Array(_) | Value::Object(_)) | Err(_) => Ok(Value::String(text.to_owned())),
        Ok(scalar) => Ok(scalar),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    fn given(texts: &[&str]) -> Outcome<Value> {
        params(&texts.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn parameters_are_by_position_or_by_name() {
        assert_eq!(
            given(&["1", "x", "1.5", "true", "null", "\"42\"", "[1"]).unwrap(),
            json!([1, "x", 1.5, true, null, "42", "[1"])
        );
        assert_eq!(given(&["a=1", "b=x=y"]).unwrap(), json!({"a": 1, "b": "x=y"}));
        assert_eq!(given(&["2 = 2", "\"a=b\""]).unwrap(), json!(["2 = 2", "a=b"]));
        assert!(given(&["a=1", "2"]).is_err());
        assert!(given(&["a=1", "a=2"]).is_err());
    }

    #[test]
    fn standard_input_is_sql_or_json() {
        assert_eq!(from_stdin("select 1").unwrap(), ("select 1".to_owned(), Value::Null));
        assert_eq!(from_stdin(r#" {"sql": "select ?", "params": [1]}"#).unwrap(), ("select ?".to_owned(), json!([1])));
        for wrong in ["{", "{}", r#"{"sql": 1}"#, r#"{"sql": "select 1", "sqll": 2}"#] {
            assert!(from_stdin(wrong).is_err(), "{wrong}");
        }
    }
}
