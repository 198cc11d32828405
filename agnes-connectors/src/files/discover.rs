//! Which tables a folder holds.
//!
//! A file that lies directly in the folder is a table; a workbook is one for each visible
//! sheet. A folder below it is one table when its files share a format and their columns,
//! else each file is one.

use std::collections::{BTreeMap, HashSet};

use agnes_core::connector::{DiscoveredTable, SourceContext};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use agnes_core::error::Result;
use agnes_core::ident::{TableName, printable};
use agnes_core::registry::SyncStrategy;
use agnes_core::uploads::file_stem;
use serde_json::json;

use super::config::{FilesConfig, Format, TableOptions};
use super::formats::xlsx;
use super::infer::names;
use super::listing::{self, FileEntry};

/// Files of a folder whose columns are compared.
const COMPARED: usize = 20;

/// Lists the tables of a source.
pub(crate) fn discover(source: &SourceContext) -> Result<Vec<DiscoveredTable>> {
    let config = FilesConfig::parse(&source.config)?;
    let listing = listing::list(&config, source)?;
    let mut found = Found { taken: config.table_names().map(str::to_owned).collect(), tables: Vec::new() };
    let mut used: HashSet<String> = HashSet::new();
    for name in config.table_names() {
        let options = config.options_of(name, None)?;
        let patterns = options.files.as_ref().map(|files| files.as_slice().to_vec()).unwrap_or_default();
        let files = listing.matching(&patterns)?;
        used.extend(files.iter().map(|file| file.rel.clone()));
        let one = matches!(&patterns[..], [only] if listing.files.contains_key(only.as_str()));
        found.tables.push(table(TableName::parse(name)?, patterns.join(", "), &options, &files, !one, None));
    }
    let defaults = config.options_of("", None)?;
    let known: Vec<&FileEntry> = listing
        .files
        .values()
        .filter(|file| !used.contains(&file.rel) && (defaults.format.is_some() || Format::of(&file.rel).is_some()))
        .collect();
    if let Some(files) = &defaults.files {
        // The settings name the files of the one table there is.
        let files_found = listing.matching(files.as_slice())?;
        let one = matches!(files.as_slice(), [only] if listing.files.contains_key(only.as_str()));
        found.add(source.name.as_str(), files.as_slice().join(", "), &defaults, &files_found, !one, json!({}));
        return Ok(found.tables);
    }
    if config.combine == Some(true) && !listing.single && !known.is_empty() {
        let files: Vec<_> = known.into_iter().cloned().collect();
        found.add(source.name.as_str(), "all files".to_owned(), &defaults, &files, true, json!({ "files": "**" }));
        return Ok(found.tables);
    }
    let mut folders: BTreeMap<String, Vec<FileEntry>> = BTreeMap::new();
    for file in known {
        match file.rel.split_once('/') {
            Some((folder, _)) if config.combine.is_none() => {
                folders.entry(folder.to_owned()).or_default().push(file.clone())
            }
            _ => found.single(file, &defaults),
        }
    }
    for (folder, files) in folders {
        source.cancel.check()?;
        let format = |file: &FileEntry| defaults.format.or_else(|| Format::of(&file.rel));
        let first = format(&files[0]);
        if files.iter().all(|file| format(file) == first) && alike(source, &files, first, &defaults)? {
            let own = json!({ "files": patterns_of(&folder, &files) });
            found.add(&folder, format!("{folder}/"), &defaults, &files, true, own);
        } else {
            for file in &files {
                found.single(file, &defaults);
            }
        }
    }
    Ok(found.tables)
}

/// Globs for all files of a folder with the same endings, so that later ones belong to the
/// table too.
fn patterns_of(folder: &str, files: &[FileEntry]) -> Vec<String> {
    let format = files.first().and_then(|file| Format::of(&file.rel));
    let usual: &[&str] = match format {
        Some(Format::Csv) => &["csv", "csv.gz", "csv.zst"],
        Some(Format::Tsv) => &["tsv", "tsv.gz", "tsv.zst"],
        Some(Format::Json) => &["json", "json.gz", "json.zst"],
        Some(Format::Ndjson) => &["ndjson", "jsonl", "ndjson.gz", "jsonl.gz", "ndjson.zst", "jsonl.zst"],
        Some(Format::Parquet) => &["parquet"],
        Some(Format::Xlsx) => &["xlsx"],
        None => &[],
    };
    let folder = globset::escape(folder);
    let mut patterns: Vec<String> = usual.iter().map(|ending| format!("{folder}/**/*.{ending}")).collect();
    for file in files {
        let covered =
            patterns.iter().filter_map(|pattern| listing::glob(pattern).ok()).any(|glob| glob.is_match(&file.rel));
        if !covered {
            patterns.push(globset::escape(&file.rel));
        }
    }
    patterns
}

/// Whether the files of a folder have the same columns, or nearly so.
fn alike(source: &SourceContext, files: &[FileEntry], format: Option<Format>, options: &TableOptions) -> Result<bool> {
    let Some(format) = format else { return Ok(false) };
    if files.len() == 1 {
        return Ok(true);
    }
    let db = ScratchDb::open(&source.scratch, &ScratchLimits::default())?;
    source.cancel.interrupts(db.interrupter());
    let mut first: Option<HashSet<String>> = None;
    let step = files.len().div_ceil(COMPARED);
    for (index, file) in files.iter().enumerate().step_by(step) {
        source.cancel.check()?;
        file.fetch()?;
        if format == Format::Xlsx && options.sheet.is_none() && xlsx::sheets(file).is_ok_and(|sheets| sheets.len() > 1)
        {
            return Ok(false);
        }
        // A file that cannot be read now says nothing about the others.
        let Ok(found) = super::inspect(&db, file, format, options, index, &source.cancel) else { continue };
        let columns: HashSet<_> = found.columns.iter().map(|column| column.name.to_lowercase()).collect();
        match &first {
            None => first = Some(columns),
            Some(known) => {
                let shared = known.intersection(&columns).count();
                if shared * 2 < known.len().min(columns.len()) {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

struct Found {
    taken: HashSet<String>,
    tables: Vec<DiscoveredTable>,
}

impl Found {
    /// One table of one file, or of each visible sheet of a workbook.
    fn single(&mut self, file: &FileEntry, options: &TableOptions) {
        let wish = file_stem(&file.rel);
        let is_workbook = options.format.or_else(|| Format::of(&file.rel)) == Some(Format::Xlsx);
        // A workbook that cannot be opened becomes a table whose sync says why.
        let sheets = if is_workbook && options.sheet.is_none() && file.fetch().is_ok() {
            xlsx::sheets(file).unwrap_or_default()
        } else {
            Vec::new()
        };
        if sheets.len() < 2 {
            self.add(&wish, file.rel.clone(), options, std::slice::from_ref(file), false, json!({ "files": file.rel }));
            return;
        }
        for sheet in sheets {
            let shown = format!("{}, sheet {}", file.rel, sheet);
            let own = json!({ "files": file.rel, "sheet": sheet });
            self.add(&format!("{wish}_{sheet}"), shown, options, std::slice::from_ref(file), false, own);
        }
    }

    fn add(
        &mut self,
        wish: &str,
        shown: String,
        options: &TableOptions,
        files: &[FileEntry],
        many: bool,
        own: serde_json::Value,
    ) {
        let slug = names::table(wish);
        let name = names::free(&slug, &mut self.taken);
        let note = (name != slug).then(|| format!(" (named `{name}`: `{slug}` is taken)"));
        let Ok(parsed) = TableName::parse(&name) else { return };
        let mut found = table(parsed, shown, options, files, many, note);
        found.options = own.as_object().is_some_and(|own| !own.is_empty()).then_some(own);
        self.tables.push(found);
    }
}

fn table(
    name: TableName,
    shown: String,
    options: &TableOptions,
    files: &[FileEntry],
    many: bool,
    note: Option<String>,
) -> DiscoveredTable {
    let strategy = match (options.strategy, &options.partition_by) {
        (Some(strategy), _) => strategy,
        (None, Some(_)) => SyncStrategy::Partitioned,
        (None, None) if many => SyncStrategy::Incremental,
        (None, None) => SyncStrategy::FullRefresh,
    };
    let made = format!("From {}{}", printable(&shown, 200), note.unwrap_or_default());
    DiscoveredTable {
        description: Some(options.description.clone().unwrap_or(made)),
        sync_strategy: strategy,
        partition_by: options.partition_by.clone(),
        primary_key: options.primary_key.clone(),
        size_bytes: Some(files.iter().map(|file| file.signature.size).sum()),
        ..DiscoveredTable::new(name, shown)
    }
}
