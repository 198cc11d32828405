//! Settings of a source of files and of its tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use agnes_core::error::Result;
use agnes_core::ident::{TableName, nearest};
use agnes_core::registry::SyncStrategy;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::FilesError;
use super::infer::types;
use super::objects::{Place, Storage};

/// Keys of one table; at the top level they are the defaults of all tables.
const TABLE_KEYS: [&str; 20] = [
    "files",
    "format",
    "delimiter",
    "header",
    "skip",
    "encoding",
    "decimal",
    "thousands",
    "quote",
    "escape",
    "null_values",
    "date_format",
    "timestamp_format",
    "columns",
    "sheet",
    "partition_by",
    "strategy",
    "primary_key",
    "description",
    "max_rejected",
];
/// Keys of the source alone.
const SOURCE_KEYS: [&str; 5] = ["path", "storage", "tables", "combine", "follow_symlinks"];

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Csv,
    Tsv,
    Json,
    #[serde(alias = "jsonl")]
    Ndjson,
    Parquet,
    #[serde(alias = "xlsm")]
    Xlsx,
}

impl Format {
    /// By the ending of a file name, `.gz` and `.zst` left aside.
    pub(crate) fn of(file: &str) -> Option<Self> {
        let name = file.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")).unwrap_or(&name);
        Some(match name.rsplit_once('.')?.1 {
            "csv" => Self::Csv,
            "tsv" | "tab" => Self::Tsv,
            "json" => Self::Json,
            "ndjson" | "jsonl" => Self::Ndjson,
            "parquet" | "pq" => Self::Parquet,
            "xlsx" | "xlsm" => Self::Xlsx,
            _ => return None,
        })
    }
}

/// One text or several.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    pub(crate) fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// How many rejected rows a table bears: a fraction (`0.05`) or a count (`100`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum MaxRejected {
    Count(u64),
    Fraction(f64),
}

/// Settings of one table.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct TableOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) files: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) format: Option<Format>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) delimiter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) skip: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) encoding: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) decimal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) thousands: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) quote: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) escape: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) null_values: Option<OneOrMany>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) date_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) timestamp_format: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) columns: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sheet: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) partition_by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) strategy: Option<SyncStrategy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) primary_key: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) description: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_rejected: Option<MaxRejected>,
}

/// Settings of a source.
#[derive(Debug, Clone)]
pub(crate) struct FilesConfig {
    /// A file, a folder or a glob; absolute.
    pub(crate) path: PathBuf,
    /// Where it is, when `path` is an address.
    pub(crate) place: Option<Place>,
    /// All files one table (`true`), each its own (`false`), or as they lie.
    pub(crate) combine: Option<bool>,
    /// Whether links may lead out of the folder.
    pub(crate) follow_symlinks: bool,
    /// Tables that are named in the settings, with their own settings only.
    tables: BTreeMap<String, Map<String, Value>>,
    /// Settings all tables share.
    defaults: Map<String, Value>,
}

impl FilesConfig {
    /// Reads and checks the settings.
    pub(crate) fn parse(config: &Value) -> Result<Self> {
        let object = as_object("config", config)?;
        check_keys("", object, SOURCE_KEYS.iter().chain(&TABLE_KEYS).copied())?;
        let text = object.get("path").and_then(Value::as_str).map(str::trim).filter(|path| !path.is_empty());
        let path = text.ok_or_else(|| FilesError::invalid("path", "give a file, a folder or a glob"))?;
        if path.contains('\0') {
            return Err(FilesError::invalid("path", "it holds a NUL").into());
        }
        let storage: Storage = match present(object, "storage") {
            None => Storage::default(),
            Some(storage) => {
                serde_json::from_value(storage.clone()).map_err(|e| FilesError::invalid("storage", e.to_string()))?
            }
        };
        let place = Place::parse(path, storage)?;
        let path = match &place {
            Some(_) => PathBuf::from(path),
            None if present(object, "storage").is_some() => {
                return Err(FilesError::invalid("storage", "`path` is on this machine").into());
            }
            None => std::path::absolute(path).map_err(|_| FilesError::invalid("path", "it cannot be made absolute"))?,
        };
        let mut tables = BTreeMap::new();
        if let Some(named) = present(object, "tables") {
            for (name, options) in as_object("tables", named)? {
                TableName::parse(name)?;
                let key = format!("tables.{name}");
                let options = as_object(&key, options)?;
                check_keys(&format!("{key}."), options, TABLE_KEYS)?;
                if present(options, "files").is_none() {
                    return Err(
                        FilesError::invalid(format!("{key}.files"), "say which files the table is made of").into()
                    );
                }
                if tables.insert(name.to_lowercase(), without_nulls(options)).is_some() {
                    return Err(FilesError::invalid(key, "two tables have this name").into());
                }
            }
        }
        let mut defaults = without_nulls(object);
        for key in SOURCE_KEYS {
            defaults.remove(key);
        }
        let parsed = Self {
            path,
            place,
            combine: flag(object, "combine")?,
            follow_symlinks: flag(object, "follow_symlinks")?.unwrap_or(false),
            tables,
            defaults,
        };
        parsed.options("", &Map::new(), "")?;
        for name in parsed.tables.keys() {
            parsed.options(name, &Map::new(), &format!("tables.{name}."))?;
        }
        Ok(parsed)
    }

    /// The settings as they should be stored.
    pub(crate) fn to_value(&self) -> Value {
        let mut out = self.defaults.clone();
        out.insert("path".to_owned(), self.path.to_string_lossy().into());
        if let Some(place) = self.place.as_ref().filter(|place| place.storage != Storage::default()) {
            out.insert("storage".to_owned(), serde_json::to_value(&place.storage).unwrap_or_default());
        }
        if let Some(combine) = self.combine {
            out.insert("combine".to_owned(), combine.into());
        }
        if self.follow_symlinks {
            out.insert("follow_symlinks".to_owned(), true.into());
        }
        if !self.tables.is_empty() {
            let tables = self.tables.iter().map(|(name, options)| (name.clone(), Value::Object(options.clone())));
            out.insert("tables".to_owned(), Value::Object(tables.collect()));
        }
        Value::Object(out)
    }

    /// Names of the tables in the settings.
    pub(crate) fn table_names(&self) -> impl Iterator<Item = &str> {
        self.tables.keys().map(String::as_str)
    }

    /// What holds for one table: the source's defaults, then those of the table in the
    /// settings, then `own`, its registry row's; `columns` are joined.
    pub(crate) fn options_of(&self, table: &str, own: Option<&Value>) -> Result<TableOptions> {
        let empty = Map::new();
        let own = match own {
            Some(Value::Null) | None => &empty,
            Some(value) => as_object("options", value)?,
        };
        check_keys("options.", own, TABLE_KEYS)?;
        self.options(&table.to_lowercase(), own, "")
    }

    fn options(&self, table: &str, own: &Map<String, Value>, prefix: &str) -> Result<TableOptions> {
        let mut merged = self.defaults.clone();
        for layer in self.tables.get(table).into_iter().chain([own]) {
            for (key, value) in layer.iter().filter(|(_, value)| !value.is_null()) {
                match (merged.get_mut(key), value) {
                    (Some(Value::Object(columns)), Value::Object(more)) => columns.extend(more.clone()),
                    _ => drop(merged.insert(key.clone(), value.clone())),
                }
            }
        }
        // One key at a time, so that the message can name it.
        for (key, value) in &merged {
            let one = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
            serde_json::from_value::<TableOptions>(one)
                .map_err(|e| FilesError::invalid(format!("{prefix}{key}"), e.to_string()))?;
        }
        let options: TableOptions = serde_json::from_value(Value::Object(merged))
            .map_err(|e| FilesError::invalid(prefix.trim_end_matches('.'), e.to_string()))?;
        options.check(prefix)?;
        Ok(options)
    }
}

impl TableOptions {
    fn check(&self, prefix: &str) -> Result<(), FilesError> {
        let invalid = |key: &str, reason: &str| Err(FilesError::invalid(format!("{prefix}{key}"), reason));
        for (key, text) in [
            ("delimiter", &self.delimiter),
            ("decimal", &self.decimal),
            ("thousands", &self.thousands),
            ("quote", &self.quote),
            ("escape", &self.escape),
        ] {
            let Some(text) = text else { continue };
            let may_be_empty = matches!(key, "quote" | "escape" | "thousands");
            let long = text.len() > if key == "delimiter" { 4 } else { 1 };
            if long || (text.is_empty() && !may_be_empty) || text.contains(['\n', '\r', '\0']) || !text.is_ascii() {
                return invalid(key, "use one ASCII character (a delimiter may have up to four)");
            }
        }
        if self.decimal.as_deref().is_some_and(|d| d != "," && d != ".") {
            return invalid("decimal", "use `,` or `.`");
        }
        if self.thousands.is_some() && self.thousands.as_deref() == Some(self.decimal.as_deref().unwrap_or(".")) {
            return invalid("thousands", "it is the decimal separator already");
        }
        if let Some(label) = &self.encoding
            && encoding_rs::Encoding::for_label(label.trim().as_bytes()).is_none()
        {
            return invalid("encoding", "use a name such as utf-8, utf-16, windows-1250, windows-1252, iso-8859-2");
        }
        for (column, wanted) in &self.columns {
            types::parse(wanted).map_err(|reason| FilesError::invalid(format!("{prefix}columns.{column}"), reason))?;
        }
        if let Some(MaxRejected::Fraction(fraction)) = self.max_rejected
            && !(0.0..=1.0).contains(&fraction)
        {
            return invalid("max_rejected", "use a fraction from 0.0 to 1.0, or a whole number of rows");
        }
        if self.files.as_ref().is_some_and(|files| files.as_slice().is_empty()) {
            return invalid("files", "the list is empty");
        }
        for pattern in self.files.iter().flat_map(OneOrMany::as_slice) {
            let outside = Path::new(pattern)
                .components()
                .any(|part| !matches!(part, std::path::Component::Normal(_) | std::path::Component::CurDir));
            if pattern.is_empty() || outside {
                return invalid("files", "use names or globs inside `path`, without `..`");
            }
            if let Err(error) = super::listing::glob(pattern) {
                return invalid("files", &error);
            }
        }
        Ok(())
    }
}

fn present<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

fn without_nulls(object: &Map<String, Value>) -> Map<String, Value> {
    object.iter().filter(|(_, value)| !value.is_null()).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn as_object<'a>(key: &str, value: &'a Value) -> Result<&'a Map<String, Value>, FilesError> {
    value.as_object().ok_or_else(|| FilesError::invalid(key, "it is not an object"))
}

fn flag(object: &Map<String, Value>, key: &str) -> Result<Option<bool>, FilesError> {
    match present(object, key) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(_) => Err(FilesError::invalid(key, "use true or false")),
    }
}

fn check_keys(
    prefix: &str,
    object: &Map<String, Value>,
    known: impl IntoIterator<Item = &'static str>,
) -> Result<(), FilesError> {
    let known: Vec<_> = known.into_iter().collect();
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(FilesError::UnknownSetting {
            key: format!("{prefix}{}", agnes_core::ident::printable(key, 80)),
            suggestion: nearest(key, known.iter().copied()).map(str::to_owned),
        }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_keys_are_refused_with_the_nearest() {
        for (config, near) in [
            (json!({"path": "x", "delimeter": ";"}), "did you mean `delimiter`?"),
            (json!({"path": "x", "tables": {"a": {"files": "a.csv", "colums": {}}}}), "did you mean `columns`?"),
        ] {
            let error = FilesConfig::parse(&config).unwrap_err();
            assert_eq!((error.code(), error.hint().as_deref()), ("invalid_config", Some(near)));
        }
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        for (config, key) in [
            (json!({}), "`path`"),
            (json!({"path": "x", "decimal": ";"}), "`decimal`"),
            (json!({"path": "x", "encoding": "klingon"}), "`encoding`"),
            (json!({"path": "x", "header": "yes"}), "`header`"),
            (json!({"path": "x", "columns": {"a": "INT; DROP TABLE x"}}), "`columns.a`"),
            (json!({"path": "x", "files": "../secret.csv"}), "`files`"),
            (json!({"path": "x", "max_rejected": 1.5}), "`max_rejected`"),
            (json!({"path": "x", "tables": {"a": {}}}), "`tables.a.files`"),
        ] {
            let error = FilesConfig::parse(&config).unwrap_err();
            assert!(error.to_string().contains(key), "{error} for {config}");
        }
    }

    #[test]
    fn layers_are_joined_and_normalising_is_stable() {
        let config = FilesConfig::parse(&json!({
            "path": "data", "delimiter": ";", "columns": {"a": "DATE"}, "combine": null,
            "tables": {"Orders": {"files": "o.csv", "delimiter": "|", "columns": {"b": "bigint"}}},
        }))
        .unwrap();
        let options = config.options_of("orders", Some(&json!({"header": false}))).unwrap();
        assert_eq!(options.delimiter.as_deref(), Some("|"));
        assert_eq!(options.columns.len(), 2);
        assert_eq!(options.header, Some(false));
        let stored = config.to_value();
        assert!(Path::new(stored["path"].as_str().unwrap()).is_absolute());
        assert_eq!(FilesConfig::parse(&stored).unwrap().to_value(), stored);
    }
}
