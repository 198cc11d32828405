//! Tables in parts, one Parquet file a day, month or year of a column. The first load walks
//! backwards through windows of time, each kept once it is here; later ones touch only the
//! parts that changed, and those a row moved away from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use agnes_core::connector::ExtractReport;
use agnes_core::duck::{ScratchDb, ScratchLimits, blocking};
use agnes_core::error::{Error, Result};
use agnes_core::extract::TableWriter;
use agnes_core::ident::{nearest, printable, quote_ident, quote_literal};

use super::cursor::Cursor;
use super::delta::Delta;
use super::download::turn;
use super::error::KeboolaError;
use super::extract::{Behind, Run, ended, first_number};
use super::load::Shape;
use super::merge::{Keys, parquet, parquets};
use super::workspace::{Piece, Workspace, sha256};

/// Days of a window, unless the table says otherwise.
const CHUNK_DAYS: i64 = 30;
/// Most windows where no history is set.
const MOST_WINDOWS: i64 = 120;
/// So many empty windows in a row are the end, where no history is set.
const EMPTY_WINDOWS: u32 = 2;
const DAY: i64 = 86_400;
/// Column with the part of a row, while it is sorted.
const PART: &str = "__agnes_part";
/// Column with the window a row was in.
const WINDOW: &str = "__agnes_window";
/// The part of rows whose value is no time.
const UNPARSED: &str = "_unparsed";
/// The part of a table that has none.
const EMPTY: &str = "empty";

/// Brings a table in parts up to date.
pub(crate) async fn run(
    mut run: Run<'_>,
    last: Option<Cursor>,
    writer: TableWriter,
) -> Result<(TableWriter, ExtractReport)> {
    let column = run.request.table.partition_by.clone().unwrap_or_default();
    if !run.columns.iter().any(|known| known.name == column) {
        let suggestion = nearest(&column, run.columns.iter().map(|c| c.name.as_str())).map(str::to_owned);
        return Err(KeboolaError::NoColumn { column: printable(&column, 60), suggestion }.into());
    }
    let format = match run.request.table.partition_granularity.as_deref() {
        Some("day") => "%Y_%m_%d",
        Some("year") => "%Y",
        _ => "%Y_%m",
    };
    let column = quote_ident(&column);
    let part =
        format!("coalesce(strftime(TRY_CAST(CAST({column} AS VARCHAR) AS TIMESTAMP), '{format}'), '{UNPARSED}')");
    let published = writer.published_files()?.is_some_and(|files| files.partitioned);
    match last.filter(|_| published) {
        Some(last) => {
            let delta = run.delta(&last).await?;
            let (shape, started_at, stamp) = (last.shape(), delta.pulled.started_at, delta.pulled.stamp.clone());
            let (unchanged, counted) = (delta.rows == 0, delta.pulled.counted);
            let Delta { pulled, path, .. } = delta;
            let rows = format!("read_parquet({}, file_row_number=true)", quote_literal(&path.to_string_lossy()));
            let rows =
                Rows { sql: rows, order: "file_row_number", extra: "file_row_number", part: part.clone(), unchanged };
            let (mut writer, rows) = write(&mut run, rows, pulled.workspace, false, writer, &shape).await?;
            // Rows that are marked there are not here: their number is not known.
            let known = run.options.deleted_column.is_none();
            let behind = if known { run.behind(rows, counted, &last) } else { Behind::No };
            if behind == Behind::Now {
                writer.restart();
                return first(run, part, writer).await;
            }
            let stamp = stamp.filter(|_| behind == Behind::No);
            let cursor = run.cursor(&shape, started_at, stamp, last.full_at);
            Ok((writer, run.report(unchanged, cursor)))
        }
        None => first(run, part, writer).await,
    }
}

/// The first load.
async fn first(mut run: Run<'_>, part: String, writer: TableWriter) -> Result<(TableWriter, ExtractReport)> {
    let chunk = run.request.table.initial_load_chunk_days.map_or(CHUNK_DAYS, i64::from).max(1);
    let history = run.request.table.max_history_days.map(|days| i64::from(days.max(0)));
    let count = history.map_or(MOST_WINDOWS, |days| (days + chunk - 1) / chunk);
    let shape: Shape = run.columns.iter().map(|column| (column.name.clone(), column.kind.sql())).collect();
    let mut plan = run.pull.workspace(&format!("windows\n{}\n{chunk}", run.settings)).await?;
    if plan.state.columns != run.pull.detail.columns {
        plan = blocking(move || plan.restart().map(|()| plan)).await?;
        plan.state.started_at = run.now.timestamp();
        plan.state.columns.clone_from(&run.pull.detail.columns);
        plan.state.stamp.clone_from(&run.pull.stamp);
        plan.save()?;
    }
    let (anchor, stamp) = (plan.state.started_at, plan.state.stamp.clone());
    let (mut windows, mut empty, mut asked): (Vec<(i64, PathBuf)>, u32, i64) = (Vec::new(), 0, 0);
    for window in 0..count {
        let since = anchor - ((window + 1) * chunk + 1) * DAY;
        let rows = one_window(&mut run, &plan, &mut windows, (window, Some(since)), (anchor, chunk), &shape).await?;
        empty = if rows == 0 { empty + 1 } else { 0 };
        asked = window + 1;
        if history.is_none() && empty >= EMPTY_WINDOWS {
            break;
        }
    }
    if history.is_none() && run.lacks_rows(&windows).await? {
        let rows = one_window(&mut run, &plan, &mut windows, (asked, None), (anchor, chunk), &shape).await?;
        if rows > 0 {
            run.notes.push(format!(
                "{rows} rows changed before {EMPTY_WINDOWS} windows without any: they came in one export"
            ));
        }
    }
    let columns: Vec<String> = shape.iter().map(|(name, _)| quote_ident(name)).collect();
    let each = windows
        .iter()
        .map(|(window, path)| format!("SELECT {}, {window} AS {WINDOW} FROM {}", columns.join(", "), parquet(path)));
    let nothing: Vec<String> =
        shape.iter().map(|(name, kind)| format!("CAST(NULL AS {kind}) AS {}", quote_ident(name))).collect();
    let sql = match windows.is_empty() {
        true => format!("(SELECT {}, 0 AS {WINDOW} WHERE false)", nothing.join(", ")),
        false => format!("({})", each.collect::<Vec<_>>().join(" UNION ALL ")),
    };
    // A row that is in two windows was changed last in the later one, which has the lower number.
    let order = format!("-{WINDOW}");
    let rows = Rows { sql, order: &order, extra: WINDOW, part, unchanged: false };
    let (writer, _) = write(&mut run, rows, plan, true, writer, &shape).await?;
    let cursor = run.cursor(&shape, anchor, stamp, anchor);
    Ok((writer, run.report(false, cursor)))
}

impl Run<'_> {
    /// Whether the table has rows that are in none of these windows, by Keboola's own count of it.
    async fn lacks_rows(&self, windows: &[(i64, PathBuf)]) -> Result<bool> {
        // The rows of a linked table are counted elsewhere.
        let Some(counted) = self.pull.detail.rows_count.filter(|_| !self.pull.detail.is_alias) else {
            return Ok(false);
        };
        if windows.is_empty() {
            return Ok(counted > 0);
        }
        let keys: Vec<String> = self.keys.iter().map(|key| quote_ident(key)).collect();
        let all = parquets(windows.iter().map(|(_, path)| path.as_path()));
        let sql = format!("SELECT count(*) FROM (SELECT DISTINCT {} FROM {all})", keys.join(", "));
        let (scratch, cancel) = (self.source.scratch.clone(), self.source.cancel.clone());
        let _one = turn(&self.connector.convert, &self.source.cancel).await?;
        blocking(move || {
            let db = ScratchDb::open(&scratch, &ScratchLimits::default())?;
            cancel.interrupts(db.interrupter());
            let found = db.rows(&sql);
            cancel.check()?;
            Ok(first_number(&found?) < counted)
        })
        .await
    }
}

/// Brings the rows of one window into the plan's folder, unless they are there, and `windows` where it
/// has any: how many. It ends where the one before began, and begins at `since`; at the beginning of
/// all where there is none.
async fn one_window(
    run: &mut Run<'_>,
    plan: &Workspace,
    windows: &mut Vec<(i64, PathBuf)>,
    (window, since): (i64, Option<i64>),
    (anchor, chunk): (i64, i64),
    shape: &Shape,
) -> Result<u64> {
    let known = format!("{}:{window}", if since.is_some() { "window" } else { "rest" });
    let (rows, file) = match plan.piece(&known) {
        Some(piece) => (piece.rows.unwrap_or(1), piece.file.clone()),
        None => {
            let until = (window > 0).then(|| anchor - (window * chunk - 1) * DAY);
            export_window(run, plan, known, (anchor, since, until), shape).await?
        }
    };
    if rows > 0 {
        windows.push((window, plan.path(&file)));
    }
    Ok(rows)
}

/// Exports one window and keeps its rows in the plan's folder: how many, in which file.
async fn export_window(
    run: &mut Run<'_>,
    plan: &Workspace,
    known: String,
    (anchor, since, until): (i64, Option<i64>, Option<i64>),
    shape: &Shape,
) -> Result<(u64, String)> {
    let spec = run.spec.changed(since, until);
    let what = format!("{}\n{anchor}\n{known}", run.settings);
    let (delta, notes) = run.part(&what, &spec, anchor, shape.clone()).await?;
    for note in notes {
        if !run.notes.contains(&note) {
            run.notes.push(note);
        }
    }
    let file = format!("{}.parquet", known.replace(':', "-"));
    let target = plan.path(&file);
    let rows = delta.rows;
    let piece = blocking(move || {
        let Delta { mut pulled, path, rows } = delta;
        let io = |e| Error::io("keep a window", e);
        std::fs::rename(&path, &target).map_err(io)?;
        let size = target.metadata().map_err(io)?.len();
        let piece =
            Piece { what: known, file, size, sha256: sha256(&target).map_err(io)?, rows: Some(rows), crlf: false };
        pulled.workspace.finish();
        Ok(piece)
    })
    .await?;
    plan.done(&piece)?;
    Ok((rows, piece.file))
}

/// Rows that are to be put into parts.
struct Rows<'a> {
    /// Where they are, as SQL.
    sql: String,
    /// What puts the last word of a row last.
    order: &'a str,
    /// A column of `sql` that is not one of the table.
    extra: &'a str,
    /// The part a row belongs to, as SQL.
    part: String,
    /// There are none: what is published stays, and is only counted.
    unchanged: bool,
}

/// Writes the parts that `rows` touch; all parts when they are `everything`. How many rows the
/// table has then, unless these are `everything`.
async fn write(
    run: &mut Run<'_>,
    rows: Rows<'_>,
    mut folder: Workspace,
    everything: bool,
    mut writer: TableWriter,
    shape: &Shape,
) -> Result<(TableWriter, u64)> {
    let (keys, deleted) = (run.keys.clone(), run.options.deleted_column.clone());
    let (scratch, cancel, shape) = (run.source.scratch.clone(), run.source.cancel.clone(), shape.clone());
    let Rows { sql, order, extra, part, unchanged } = rows;
    let (order, extra) = (order.to_owned(), extra.to_owned());
    let _one = turn(&run.connector.convert, &run.source.cancel).await?;
    let (writer, rows, notes) = blocking(move || {
        let db = ScratchDb::open(&scratch, &ScratchLimits::default())?;
        cancel.interrupts(db.interrupter());
        let keys = Keys { keys: &keys, deleted: deleted.as_deref() };
        let latest = db.folder().join("latest.parquet");
        let sorted = format!(
            "COPY (SELECT * EXCLUDE ({extra}), {part} AS {PART} FROM ({}) ORDER BY {PART}) TO {} (FORMAT parquet, COMPRESSION zstd)",
            keys.last(&sql, &order),
            quote_literal(&latest.to_string_lossy())
        );
        let mut parts = Parts { db: &db, keys: &keys, latest: &latest, shape: &shape, notes: Vec::new() };
        let done = match unchanged {
            true => writer.published_parts().and_then(|keys| parts.rows_of(keys.iter(), &writer)),
            false => {
                db.execute(&sorted).map_err(Error::from).and_then(|()| parts.write(everything, &mut writer))
            }
        };
        let notes = parts.notes;
        let rows = ended(done, &cancel, &mut folder)?;
        folder.finish();
        Ok((writer, rows, notes))
    })
    .await?;
    run.notes.extend(notes);
    Ok((writer, rows))
}

struct Parts<'a> {
    db: &'a ScratchDb,
    keys: &'a Keys<'a>,
    /// The last word of each row, with its part, sorted by part.
    latest: &'a Path,
    shape: &'a Shape,
    notes: Vec<String>,
}

impl Parts<'_> {
    fn write(&mut self, everything: bool, writer: &mut TableWriter) -> Result<u64> {
        let latest = parquet(self.latest);
        let alive = self.keys.alive();
        let new = self.texts(&format!("SELECT DISTINCT {PART} FROM {latest} WHERE {alive}"))?;
        let published = if everything { Vec::new() } else { writer.published_parts()? };
        let mut touched: BTreeSet<String> = new.clone();
        touched.extend(self.moved_from(writer, &published)?);
        let kept: Vec<&String> = published.iter().filter(|key| !touched.contains(*key) && *key != EMPTY).collect();
        let (mut any, mut rows_here) = (!kept.is_empty(), self.rows_of(kept.iter().copied(), writer)?);
        for key in kept {
            writer.keep_part(key)?;
        }
        for key in &touched {
            let rows =
                format!("SELECT * EXCLUDE ({PART}) FROM {latest} WHERE {PART} = {} AND {alive}", quote_literal(key));
            let select = if published.contains(key) {
                let old = self.keys.without(&parquet(&writer.published_part(key)?), &latest);
                format!("SELECT * FROM ({old}) UNION ALL BY NAME {rows}")
            } else {
                rows
            };
            // A part that all rows left is left out.
            if new.contains(key) || self.count(&select)? > 0 {
                let part = writer.write_query(self.db, &select, Some(key))?;
                if key == UNPARSED {
                    self.notes.push(format!("{} rows are in the part `{UNPARSED}`: their value is no time", part.rows));
                }
                (any, rows_here) = (true, rows_here + part.rows);
            }
        }
        if !any {
            let columns: Vec<String> = self
                .shape
                .iter()
                .map(|(name, kind)| format!("CAST(NULL AS {kind}) AS {}", quote_ident(name)))
                .collect();
            writer.write_query(self.db, &format!("SELECT {} WHERE false", columns.join(", ")), Some(EMPTY))?;
        }
        Ok(rows_here)
    }

    /// Rows of the published parts `keys`.
    fn rows_of<'k>(&self, keys: impl Iterator<Item = &'k String>, writer: &TableWriter) -> Result<u64> {
        let paths: Vec<PathBuf> = keys.map(|key| writer.published_part(key)).collect::<Result<_>>()?;
        if paths.is_empty() {
            return Ok(0);
        }
        self.count(&format!("SELECT * FROM {}", parquets(paths.iter().map(PathBuf::as_path))))
    }

    /// Published parts that hold a row that changed.
    fn moved_from(&self, writer: &TableWriter, published: &[String]) -> Result<Vec<String>> {
        if published.is_empty() {
            return Ok(Vec::new());
        }
        let paths: Vec<PathBuf> = published.iter().map(|key| writer.published_part(key)).collect::<Result<_>>()?;
        let all = parquets(paths.iter().map(PathBuf::as_path));
        let found = self.texts(&format!(
            "SELECT DISTINCT filename FROM ({})",
            self.keys.also_in("before.filename", &all, &parquet(self.latest))
        ))?;
        let stem = |path: &String| Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
        Ok(found.iter().filter_map(stem).collect())
    }

    fn texts(&self, select: &str) -> Result<BTreeSet<String>> {
        Ok(self.db.rows(select)?.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    fn count(&self, select: &str) -> Result<u64> {
        let found = self.texts(&format!("SELECT count(*) FROM ({select})"))?;
        Ok(found.first().and_then(|n| n.parse().ok()).unwrap_or(0))
    }
}
