//! Reads an extract as what it is: somebody else's file. Nothing in it is executed, only
//! base tables are scanned, and the engine that opens it can reach nothing else.

use std::collections::HashMap;
use std::path::Path;

use super::ExtractError;
use crate::error::Result;
use crate::ident::quote_literal;

/// Most rows read of `_meta` and `_remote_attach`.
const MAX_ROWS: usize = 20_000;
/// Longest text read of them, in characters.
const MAX_TEXT: usize = 8_192;

/// One row of `_meta`, as it is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractMeta {
    /// Name of the view; not checked yet.
    pub table_name: String,
    /// For people.
    pub description: Option<String>,
    /// Rows, as the producer says.
    pub rows: i64,
    /// Bytes, as the producer says.
    pub size_bytes: i64,
    /// When the source was read, microseconds since the epoch.
    pub extracted_at_us: Option<i64>,
    /// `local`, `remote` or `materialized`; not checked yet.
    pub query_mode: String,
}

/// One row of `_remote_attach`, as it is written there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtractAttach {
    /// Attach alias; not checked yet.
    pub alias: String,
    /// Engine extension; not checked yet.
    pub extension: String,
    /// URL or DSN; not checked yet.
    pub url: String,
    /// Name of an environment variable; not checked yet.
    pub token_env: String,
}

/// An object that exists in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExtractObject {
    /// A base table with rows of its own.
    Table,
    /// A view; its SQL is text to look at, never to run.
    View(String),
}

/// What an extract says of itself.
#[derive(Debug, Clone, Default)]
pub struct ExtractContent {
    /// Rows of `_meta`, by name; of several with one name the last.
    pub meta: Vec<ExtractMeta>,
    /// Rows of `_remote_attach`.
    pub attaches: Vec<ExtractAttach>,
    /// Objects by lower-case name.
    pub objects: HashMap<String, ExtractObject>,
}

/// Reads `extract.duckdb` in the folder `extract`. Blocks.
///
/// # Errors
/// `extract_unreadable` when it is no DuckDB file or somebody writes it, `extract_meta`
/// when `_meta` is missing or not what the contract says.
pub fn read_extract(extract: &Path) -> Result<ExtractContent> {
    let file = extract.join("extract.duckdb");
    let conn = attach(&file).map_err(|error| {
        tracing::debug!("an extract cannot be opened: {error}");
        ExtractError::Unreadable
    })?;
    read(&conn)
}

/// Names and types of a view's columns as they were when Agnes wrote the extract, in order;
/// nothing is bound for it. Blocks.
///
/// # Errors
/// `extract_unreadable`.
pub(crate) fn view_columns(extract: &Path, view: &str) -> Result<Vec<(String, String)>> {
    let read = || -> ::duckdb::Result<Vec<(String, String)>> {
        let conn = attach(&extract.join("extract.duckdb"))?;
        let mut statement = conn.prepare(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE database_name = 'src' AND schema_name = 'main' \
             AND lower(table_name) = lower(?) ORDER BY column_index",
        )?;
        let rows = statement.query_map([view], |row| Ok((row.get(0)?, row.get(1)?)))?;
        rows.collect()
    };
    read().map_err(|error| {
        tracing::debug!("an extract cannot be read: {error}");
        ExtractError::Unreadable.into()
    })
}

/// Whether a table's definition only stores: the expression of a generated column would be
/// the producer's own code, run by whoever reads the table.
pub(crate) fn only_stores(definition: &str) -> bool {
    !definition.to_ascii_uppercase().contains("GENERATED ALWAYS")
}

fn attach(file: &Path) -> ::duckdb::Result<::duckdb::Connection> {
    let config = ::duckdb::Config::default()
        .with("autoinstall_known_extensions", "false")?
        .with("autoload_known_extensions", "false")?
        .with("memory_limit", "256MB")?
        .threads(1)?;
    let conn = ::duckdb::Connection::open_in_memory_with_flags(config)?;
    conn.execute_batch(&format!(
        "{} ATTACH {} AS src (READ_ONLY); SET enable_external_access=false; SET lock_configuration=true;",
        crate::duck::utc(),
        quote_literal(&file.to_string_lossy())
    ))?;
    Ok(conn)
}

fn read(conn: &::duckdb::Connection) -> Result<ExtractContent> {
    let unreadable = |error: ::duckdb::Error| {
        tracing::debug!("an extract cannot be read: {error}");
        ExtractError::Unreadable
    };
    let mut content = ExtractContent::default();
    let mut columns: HashMap<String, Vec<String>> = HashMap::new();
    let list =
        |sql: &str, row: &mut dyn FnMut(&::duckdb::Row<'_>) -> ::duckdb::Result<()>| -> Result<(), ExtractError> {
            let mut statement = conn.prepare(sql).map_err(unreadable)?;
            let mut rows = statement.query([]).map_err(unreadable)?;
            while let Some(found) = rows.next().map_err(unreadable)? {
                row(found).map_err(unreadable)?;
            }
            Ok(())
        };
    list(
        "SELECT table_name, sql FROM duckdb_tables() WHERE database_name = 'src' AND schema_name = 'main'",
        &mut |row| {
            if row.get::<_, Option<String>>(1)?.is_some_and(|sql| only_stores(&sql)) {
                content.objects.insert(row.get::<_, String>(0)?.to_lowercase(), ExtractObject::Table);
            }
            Ok(())
        },
    )?;
    list(
        "SELECT view_name, sql FROM duckdb_views() WHERE database_name = 'src' AND schema_name = 'main' AND NOT internal",
        &mut |row| {
            let sql: String = row.get::<_, Option<String>>(1)?.unwrap_or_default();
            content.objects.insert(row.get::<_, String>(0)?.to_lowercase(), ExtractObject::View(sql));
            Ok(())
        },
    )?;
    list(
        "SELECT lower(table_name), lower(column_name) FROM duckdb_columns() WHERE database_name = 'src' \
         AND schema_name = 'main' AND lower(table_name) IN ('_meta', '_remote_attach')",
        &mut |row| {
            columns.entry(row.get(0)?).or_default().push(row.get(1)?);
            Ok(())
        },
    )?;
    let bad = |reason: &str| ExtractError::BadMeta { reason: reason.to_owned() };
    // A view named `_meta`, or a column that is computed, would run the producer's SQL.
    if content.objects.get("_meta") != Some(&ExtractObject::Table) {
        return Err(bad("it is missing or not a table of stored columns").into());
    }
    let meta_columns = columns.remove("_meta").unwrap_or_default();
    for needed in ["table_name", "query_mode"] {
        if !meta_columns.iter().any(|column| column == needed) {
            return Err(bad(&format!("it has no column `{needed}`")).into());
        }
    }
    // Whatever type a column has, it is read as text and cut.
    let text = |column: &str| match meta_columns.iter().any(|known| known == column) {
        true => format!("left(TRY_CAST(\"{column}\" AS VARCHAR), {MAX_TEXT})"),
        false => "NULL".to_owned(),
    };
    let sql = format!(
        "SELECT {}, {}, TRY_CAST({} AS BIGINT), TRY_CAST({} AS BIGINT), epoch_us(TRY_CAST({} AS TIMESTAMP)), {} \
         FROM src.main._meta LIMIT {}",
        text("table_name"),
        text("description"),
        text("rows"),
        text("size_bytes"),
        text("extracted_at"),
        text("query_mode"),
        MAX_ROWS + 1
    );
    list(&sql, &mut |row| {
        let name: Option<String> = row.get(0)?;
        content.meta.push(ExtractMeta {
            table_name: name.unwrap_or_default(),
            description: row.get(1)?,
            rows: row.get::<_, Option<i64>>(2)?.unwrap_or(0),
            size_bytes: row.get::<_, Option<i64>>(3)?.unwrap_or(0),
            extracted_at_us: row.get(4)?,
            query_mode: row.get::<_, Option<String>>(5)?.unwrap_or_else(|| "local".to_owned()),
        });
        Ok(())
    })?;
    if content.meta.len() > MAX_ROWS {
        return Err(bad(&format!("it has more than {MAX_ROWS} rows")).into());
    }
    let mut last: HashMap<String, usize> = HashMap::new();
    for (n, row) in content.meta.iter().enumerate() {
        last.insert(row.table_name.to_lowercase(), n);
    }
    let mut n = 0;
    content.meta.retain(|row| {
        n += 1;
        last.get(&row.table_name.to_lowercase()) == Some(&(n - 1))
    });
    content.meta.sort_by(|a, b| a.table_name.cmp(&b.table_name));

    let attach_columns = columns.remove("_remote_attach").unwrap_or_default();
    if content.objects.get("_remote_attach") == Some(&ExtractObject::Table)
        && ["alias", "extension", "url", "token_env"].iter().all(|c| attach_columns.iter().any(|known| known == c))
    {
        let text = |column: &str| format!("coalesce(left(TRY_CAST(\"{column}\" AS VARCHAR), {MAX_TEXT}), '')");
        let sql = format!(
            "SELECT {}, {}, {}, {} FROM src.main._remote_attach ORDER BY 1 LIMIT 100",
            text("alias"),
            text("extension"),
            text("url"),
            text("token_env")
        );
        list(&sql, &mut |row| {
            content.attaches.push(ExtractAttach {
                alias: row.get(0)?,
                extension: row.get(1)?,
                url: row.get(2)?,
                token_env: row.get(3)?,
            });
            Ok(())
        })?;
    }
    Ok(content)
}
