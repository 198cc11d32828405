//! Rows put aside: collected over all files of a run, with file, line and reason.

use std::path::Path;

use agnes_core::duck::ScratchDb;
use agnes_core::error::Result;
use agnes_core::ident::quote_literal;

use super::formats::csv::{self, Dialect, REJECTS, SCANS};

/// Rejected rows whose line number is looked up in the file; beyond, the reader's own count
/// stands (it counts a row with line breaks in quotes as one line).
const MAX_NUMBERED: usize = 200_000;

/// Makes the table of rejected rows, or empties it.
pub(crate) fn reset(db: &ScratchDb) -> Result<()> {
    db.execute(
        "CREATE OR REPLACE TEMP TABLE agnes_rejected (file VARCHAR, line UBIGINT, \"column\" VARCHAR, reason VARCHAR, raw VARCHAR)",
    )?;
    forget(db)
}

/// Drops what the reader of the last statement rejected.
pub(crate) fn forget(db: &ScratchDb) -> Result<()> {
    Ok(db.execute(&format!("DROP TABLE IF EXISTS {REJECTS}; DROP TABLE IF EXISTS {SCANS}"))?)
}

/// What the reader rejected in one file.
#[derive(Debug, Default)]
pub(crate) struct Rejected {
    /// Rows.
    pub(crate) rows: u64,
    /// Rows by the column whose value does not fit its type.
    pub(crate) by_column: Vec<(String, u64)>,
    /// Offsets of lines at which a quote opens that is never closed.
    pub(crate) unclosed: Vec<u64>,
    /// Whether a line was longer than the reader expected.
    pub(crate) too_long: bool,
}

fn of_file(path: &Path) -> String {
    format!(
        "(SELECT e.* FROM {REJECTS} AS e JOIN {SCANS} AS s ON e.scan_id = s.scan_id AND e.file_id = s.file_id WHERE s.file_path = {})",
        quote_literal(&path.to_string_lossy())
    )
}

/// Looks at what the last statement rejected in the file at `path`.
pub(crate) fn look(db: &ScratchDb, path: &Path) -> Result<Rejected> {
    let errors = of_file(path);
    let mut found = Rejected::default();
    // The reader makes its tables with the first rejected row or scan.
    let known =
        db.rows(&format!("SELECT count(*) FROM duckdb_tables() WHERE table_name IN ('{REJECTS}', '{SCANS}')"))?;
    if known != [[Some("2".to_owned())]] {
        return Ok(found);
    }
    let number = |cell: &Option<String>| cell.as_deref().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let counts = db.rows(&format!(
        "SELECT count(DISTINCT line_byte_position), count(*) FILTER (error_type = 'LINE SIZE OVER MAXIMUM') FROM {errors}"
    ))?;
    if let Some([rows, long]) = counts.first().map(Vec::as_slice) {
        found.rows = number(rows);
        found.too_long = number(long) > 0;
    }
    if found.rows > 0 {
        let by_column =
            db.rows(&format!("SELECT column_name, count(*) FROM {errors} WHERE error_type = 'CAST' GROUP BY ALL"))?;
        found.by_column =
            by_column.iter().filter_map(|row| Some((row.first()?.clone()?, number(row.get(1)?)))).collect();
        let unclosed = db.rows(&format!(
            "SELECT DISTINCT line_byte_position - 1 FROM {errors} WHERE error_type = 'UNQUOTED VALUE' AND contains(csv_line, chr(10)) ORDER BY 1"
        ))?;
        found.unclosed = unclosed.iter().filter_map(|row| row.first()).map(number).collect();
    }
    Ok(found)
}

/// Adds what the last statement rejected in the file at `path` to the table.
pub(crate) fn collect(db: &ScratchDb, path: &Path, file: &str, rows: u64, dialect: &Dialect) -> Result<()> {
    let errors = of_file(path);
    let rows = usize::try_from(rows).unwrap_or(usize::MAX);
    db.execute("CREATE OR REPLACE TEMP TABLE agnes_lines (start_at UBIGINT, line UBIGINT)")?;
    if rows <= MAX_NUMBERED {
        let found = db.rows(&format!(
            "SELECT line_byte_position, min(line) FROM {errors} GROUP BY line_byte_position ORDER BY line_byte_position"
        ))?;
        let number = |cell: Option<String>| cell.and_then(|text| text.parse::<u64>().ok()).unwrap_or(1);
        let (offsets, counted): (Vec<u64>, Vec<u64>) = found
            .into_iter()
            .filter_map(|row| <[_; 2]>::try_from(row).ok())
            .map(|[offset, line]| (number(offset), number(line)))
            .unzip();
        let lines = match &dialect.gaps {
            Some(gaps) => csv::original_lines(counted, gaps),
            None => {
                // The reader counts offsets from 1.
                let zero_based: Vec<u64> = offsets.iter().map(|offset| offset.saturating_sub(1)).collect();
                let gone: Vec<u64> = dialect.cut.iter().map(|(line, _)| *line).collect();
                csv::original_lines(csv::line_numbers(path, &zero_based)?, &gone)
            }
        };
        for chunk in offsets.iter().zip(lines).collect::<Vec<_>>().chunks(2_000) {
            let values: Vec<_> = chunk.iter().map(|(at, line)| format!("({at},{line})")).collect();
            db.execute(&format!("INSERT INTO agnes_lines VALUES {}", values.join(",")))?;
        }
    }
    db.execute(&format!(
        "INSERT INTO agnes_rejected SELECT {}, coalesce(any_value(n.line), min(e.line)), arg_min(e.column_name, e.column_idx), \
         arg_min(lower(e.error_type::VARCHAR) || ': ' || e.error_message, coalesce(e.column_idx, 0)), any_value(left(e.csv_line, 10000)) \
         FROM {errors} AS e LEFT JOIN agnes_lines AS n ON n.start_at = e.line_byte_position GROUP BY e.line_byte_position",
        quote_literal(file)
    ))?;
    Ok(())
}

/// Adds rows that were put aside before the engine saw them: `(line, reason, raw)`.
pub(crate) fn add(db: &ScratchDb, file: &str, rows: &[(u64, String, String)]) -> Result<()> {
    for chunk in rows.chunks(500) {
        let values: Vec<_> = chunk
            .iter()
            .map(|(line, reason, raw)| {
                format!(
                    "({}, {line}, NULL, {}, {})",
                    quote_literal(file),
                    quote_literal(reason),
                    quote_literal(&raw.replace('\0', "\u{fffd}"))
                )
            })
            .collect();
        db.execute(&format!("INSERT INTO agnes_rejected VALUES {}", values.join(", ")))?;
    }
    Ok(())
}

/// How many rows were put aside in `file`, or in all.
pub(crate) fn count(db: &ScratchDb, file: Option<&str>) -> Result<u64> {
    let filter = file.map(|file| format!(" WHERE file = {}", quote_literal(file))).unwrap_or_default();
    let rows = db.rows(&format!("SELECT count(*) FROM agnes_rejected{filter}"))?;
    Ok(rows.first().and_then(|row| row.first()?.as_deref()?.parse().ok()).unwrap_or(0))
}

/// The first rejected row, for messages: line and reason.
pub(crate) fn first(db: &ScratchDb) -> Result<(String, String)> {
    let rows = db.rows("SELECT line, reason FROM agnes_rejected ORDER BY file, line LIMIT 1")?;
    let mut cells = rows.into_iter().next().unwrap_or_default().into_iter();
    let mut next = |other: &str| cells.next().flatten().unwrap_or_else(|| other.to_owned());
    Ok((next("?"), agnes_core::ident::printable(&next("?"), 200)))
}

/// SQL of the whole table.
pub(crate) const ALL: &str = "SELECT file, line, \"column\", reason, raw FROM agnes_rejected ORDER BY file, line";
