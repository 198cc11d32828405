//! Reads one source's extract into tables that a generation can publish.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use chrono::DateTime;
use sha2::{Digest, Sha256};

use super::attach::{self, AttachPolicy};
use super::blobs::{Interner, hex};
use super::remote_view::remote_view;
use super::{Column, Part, PublishedTable, RemoteAttach, RemoteTable, SkippedRow, SourceGeneration};
use crate::error::{Coded, Error, Result};
use crate::extract::{self, ExtractContent, ExtractMeta, ExtractObject, fsio};
use crate::ident::{SourceName, TableName, printable};
use crate::layout::{self, DataFolder};
use crate::rbac::INTERNAL_TABLES;
use crate::registry::{QueryMode, RegisteredTable};
use crate::secret::SecretSource;

/// What a rebuild reads sources with.
pub(super) struct Reader<'a> {
    pub(super) folder: &'a DataFolder,
    pub(super) scratch: &'a Path,
    pub(super) policy: &'a AttachPolicy,
    pub(super) secrets: &'a dyn SecretSource,
    /// Sources that Agnes writes itself.
    pub(super) own: &'a HashSet<String>,
    /// Those of them that answer queries themselves.
    pub(super) native: &'a HashSet<String>,
    /// Where sources are, by their own settings.
    pub(super) addresses: &'a HashMap<String, String>,
    /// Registered tables, for materialized files without a `_meta` row.
    pub(super) registry: &'a [Arc<RegisteredTable>],
}

/// A source as it was read, before anybody asked who owns its names.
pub(super) struct Read {
    pub(super) generation: SourceGeneration,
    pub(super) skipped: Vec<SkippedRow>,
    pub(super) alerts: Vec<SkippedRow>,
}

pub(super) fn note(table: &str, reason: &str, detail: impl Into<String>) -> SkippedRow {
    SkippedRow { table: printable(table, 64), reason: reason.to_owned(), detail: detail.into() }
}

impl Reader<'_> {
    /// Reads a source. `last` is what it contributed before.
    pub(super) fn read(
        &self,
        source: &SourceName,
        signature: &str,
        last: Option<&SourceGeneration>,
        interner: &mut Interner<'_>,
    ) -> Result<Read> {
        let extract = self.folder.extract(source);
        if !self.own.contains(source.as_str()) {
            fsio::open_beneath(&extract, Path::new("extract.duckdb"))?;
        }
        let content = extract::read_extract(&extract)?;
        let known: HashMap<&str, &PublishedTable> =
            last.into_iter().flat_map(|l| &l.tables).map(|t| (t.name.as_str(), t)).collect();
        let mut out = Read {
            generation: SourceGeneration {
                signature: signature.to_owned(),
                degraded: false,
                attaches: Vec::new(),
                tables: Vec::new(),
            },
            skipped: Vec::new(),
            alerts: Vec::new(),
        };
        let policy = self.policy.of_source(self.addresses.get(source.as_str()).map(String::as_str));
        for row in &content.attaches {
            match policy.check(row) {
                // An alias that is there already is skipped quietly.
                Ok(attach) if out.generation.attaches.iter().any(|a| a.alias.eq_ignore_ascii_case(&attach.alias)) => {}
                Ok(attach) => out.generation.attaches.push(attach),
                Err(error) => {
                    tracing::warn!(
                        source = source.as_str(),
                        code = error.code(),
                        "a remote attachment is refused: {error}"
                    );
                    out.skipped.push(note(&row.alias, error.code(), error.to_string()));
                }
            }
        }
        let mut exposed = HashSet::new();
        for row in &content.meta {
            let Ok(name) = TableName::parse(&row.table_name) else {
                out.skipped.push(note(&row.table_name, "unsafe_name", "its name is not a strict identifier"));
                continue;
            };
            if INTERNAL_TABLES.contains(&name.as_str().to_lowercase().as_str()) {
                let detail = "tables of Agnes's own state have this name";
                out.skipped.push(note(&row.table_name, "reserved_name", detail));
                continue;
            }
            let Some(object) = content.objects.get(&row.table_name.to_lowercase()) else {
                out.skipped.push(note(&row.table_name, "no_object", "the extract has no view or table of this name"));
                continue;
            };
            let known = known.get(name.as_str()).copied();
            match self.table(source, &extract, row, &name, object, &content, known, &mut out, interner) {
                Ok(Some(table)) => {
                    exposed.insert(name.as_str().to_lowercase());
                    out.generation.tables.push(table);
                }
                Ok(None) => {}
                Err(error) if error.code() == "disk_full" => return Err(error),
                Err(error) => self.keep_last(known, &name, &error, &mut out),
            }
        }
        self.materialized_files(source, &extract, &exposed, &known, &mut out, interner)?;
        out.generation.tables.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(out)
    }

    /// A table that cannot be read now keeps its last good blobs.
    fn keep_last(&self, known: Option<&PublishedTable>, name: &TableName, error: &Error, out: &mut Read) {
        let kept = if known.is_some() { "; its last good data is kept" } else { "" };
        out.skipped.push(note(name.as_str(), "unreadable_data", format!("{error}{kept}")));
        if let Some(table) = known {
            out.generation.degraded = true;
            out.generation.tables.push(table.clone());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one row with all that is known about it")]
    fn table(
        &self,
        source: &SourceName,
        extract: &Path,
        row: &ExtractMeta,
        name: &TableName,
        object: &ExtractObject,
        content: &ExtractContent,
        known: Option<&PublishedTable>,
        out: &mut Read,
        interner: &mut Interner<'_>,
    ) -> Result<Option<PublishedTable>> {
        let mode = match QueryMode::parse(&row.query_mode) {
            Some(QueryMode::Internal) | None => {
                out.skipped.push(note(
                    name.as_str(),
                    "bad_query_mode",
                    "its query mode is not local, remote or materialized",
                ));
                return Ok(None);
            }
            Some(mode) => mode,
        };
        if mode == QueryMode::Remote {
            return Ok(self.remote(source, row, name, object, content, known, out));
        }
        let (partitioned, parts) = match extract::table_files(extract, name)? {
            Some(files) => (files.partitioned, self.parts(source, extract, &files.files, known, interner)?),
            None if *object == ExtractObject::Table => {
                let path = format!("{name}.parquet");
                let known = known.and_then(|t| t.parts.first());
                (false, vec![interner.table(extract, name.as_str(), &path, self.scratch, known)?])
            }
            None => {
                let kept = if known.is_some() { "; its last good data is kept" } else { "" };
                out.skipped.push(note(name.as_str(), "missing_data", format!("its Parquet files are missing{kept}")));
                out.generation.degraded |= known.is_some();
                return Ok(known.cloned());
            }
        };
        let table = self.published(source, row, name, mode, partitioned, parts);
        if table.rows == 0 && known.is_some_and(|k| k.rows > 0) {
            let before = known.map_or(0, |k| k.rows);
            out.alerts.push(note(name.as_str(), "zero_rows", format!("it has no rows now, and had {before}")));
        }
        Ok(Some(table))
    }

    fn published(
        &self,
        source: &SourceName,
        row: &ExtractMeta,
        name: &TableName,
        mode: QueryMode,
        partitioned: bool,
        parts: Vec<Part>,
    ) -> PublishedTable {
        let mut content = Sha256::new();
        let mut rollup = md5::Md5::new();
        for part in &parts {
            content.update(format!("{}\n{}\n", part.path, part.sha256));
            rollup.update(format!("{}\n{}\n", part.path, part.md5));
        }
        PublishedTable {
            name: name.clone(),
            source: source.clone(),
            mode,
            description: row.description.clone(),
            columns: Vec::new(),
            rows: parts.iter().map(|p| p.rows).sum(),
            size_bytes: parts.iter().map(|p| p.size_bytes).sum(),
            manifest_hash: match parts.as_slice() {
                [only] if !partitioned => only.md5.clone(),
                _ => hex(&rollup.finalize()),
            },
            parts,
            partitioned,
            remote: None,
            extracted_at: row.extracted_at_us.and_then(DateTime::from_timestamp_micros),
            content_hash: hex(&content.finalize()),
        }
    }

    fn parts(
        &self,
        source: &SourceName,
        extract: &Path,
        files: &[std::path::PathBuf],
        known: Option<&PublishedTable>,
        interner: &mut Interner<'_>,
    ) -> Result<Vec<Part>> {
        let own = self.own.contains(source.as_str());
        let data = extract.join("data");
        let known: HashMap<&str, &Part> =
            known.into_iter().flat_map(|t| &t.parts).map(|p| (p.path.as_str(), p)).collect();
        let parts = files
            .iter()
            .map(|file| {
                let relative = file.strip_prefix(&data).unwrap_or(file);
                let path = relative.components().map(|c| c.as_os_str().to_string_lossy()).collect::<Vec<_>>().join("/");
                interner.intern(extract, &path, own, known.get(path.as_str()).copied())
            })
            .collect::<Result<Vec<Part>>>()?;
        if parts.len() > 1 {
            // Binding a view over parts that do not go together works; asking it fails.
            extract::columns_of(&parts.iter().map(|part| self.folder.blob(&part.sha256)).collect::<Vec<_>>())?;
        }
        Ok(parts)
    }

    #[expect(clippy::too_many_arguments, reason = "one row with all that is known about it")]
    fn remote(
        &self,
        source: &SourceName,
        row: &ExtractMeta,
        name: &TableName,
        object: &ExtractObject,
        content: &ExtractContent,
        known: Option<&PublishedTable>,
        out: &mut Read,
    ) -> Option<PublishedTable> {
        let ExtractObject::View(sql) = object else {
            out.skipped.push(note(name.as_str(), "bad_remote_view", "a remote table is a view"));
            return None;
        };
        let all: Vec<String> = content.attaches.iter().map(|a| a.alias.clone()).collect();
        let Some(remote) = remote_view(sql, &all) else {
            let detail = "its view is not a SELECT of columns from one relation of an attached source";
            out.skipped.push(note(name.as_str(), "bad_remote_view", detail));
            return None;
        };
        let Some(attach) = out.generation.attaches.iter().find(|a| a.alias == remote.alias).cloned() else {
            out.skipped.push(note(name.as_str(), "attach_refused", format!("`{}` is not attached", remote.alias)));
            return None;
        };
        let columns = match self.native.contains(source.as_str()) {
            // What its connector wrote down: the engine has no way there.
            true => extract::view_columns(&self.folder.extract(source), name.as_str())
                .map(|columns| {
                    let column = |(name, data_type)| Column { name, data_type, nullable: true };
                    columns.into_iter().map(column).collect()
                })
                .map_err(|_| attach::AttachError::Failed { alias: remote.alias.clone() }),
            false => self.remote_columns(&attach, &remote),
        };
        match columns {
            Ok(columns) => {
                let mut table = self.published(source, row, name, QueryMode::Remote, false, Vec::new());
                table.content_hash = hex(&Sha256::digest(format!("{}\n{}", attach.url, remote.select).as_bytes()));
                table.manifest_hash = String::new();
                table.columns = columns;
                table.remote = Some(remote);
                Some(table)
            }
            Err(error) => {
                let kept = if known.is_some() { "; its last definition is kept" } else { "" };
                out.skipped.push(note(name.as_str(), error.code(), format!("{error}{kept}")));
                out.generation.degraded |= known.is_some();
                known.cloned()
            }
        }
    }

    /// Asks the source for the columns of a remote table.
    fn remote_columns(&self, remote: &RemoteAttach, table: &RemoteTable) -> Result<Vec<Column>, attach::AttachError> {
        let failed = |_| attach::AttachError::Failed { alias: remote.alias.clone() };
        let conn = ::duckdb::Connection::open_in_memory().map_err(failed)?;
        conn.execute_batch(&format!(
            "SET autoinstall_known_extensions=false; SET autoload_known_extensions=false; {}",
            crate::duck::utc()
        ))
        .map_err(failed)?;
        attach::attach(&conn, remote, self.policy, self.secrets)?;
        let ask = || -> ::duckdb::Result<Vec<Column>> {
            let mut statement = conn.prepare(&format!("DESCRIBE {}", table.select))?;
            let rows = statement.query_map([], |row| {
                Ok(Column {
                    name: row.get(0)?,
                    data_type: row.get(1)?,
                    nullable: row.get::<_, Option<String>>(2)?.as_deref() != Some("NO"),
                })
            })?;
            rows.collect()
        };
        ask().map_err(failed)
    }

    /// Step 9 of a rebuild: files of materialized tables that their registry row exposes
    /// though `_meta` does not. Any other file is an orphan and stays unseen.
    fn materialized_files(
        &self,
        source: &SourceName,
        extract: &Path,
        exposed: &HashSet<String>,
        known: &HashMap<&str, &PublishedTable>,
        out: &mut Read,
        interner: &mut Interner<'_>,
    ) -> Result<()> {
        for row in self.registry {
            let mine = row.query_mode == QueryMode::Materialized && row.source_name() == Some(source.as_str());
            let Ok(name) = TableName::parse(&row.name) else { continue };
            let file = layout::single_file(extract, &name);
            if !mine || exposed.contains(&row.name.to_lowercase()) || !file.is_file() {
                continue;
            }
            let meta = ExtractMeta {
                table_name: row.name.clone(),
                description: row.description.clone(),
                rows: 0,
                size_bytes: 0,
                extracted_at_us: None,
                query_mode: "materialized".to_owned(),
            };
            let known = known.get(name.as_str()).copied();
            match self.parts(source, extract, &[file], known, interner) {
                Ok(parts) => {
                    let table = self.published(source, &meta, &name, QueryMode::Materialized, false, parts);
                    out.generation.tables.push(table);
                }
                Err(error) if error.code() == "disk_full" => return Err(error),
                Err(error) => self.keep_last(known, &name, &error, out),
            }
        }
        Ok(())
    }
}
