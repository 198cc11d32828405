//! What the Storage API answers, as far as it is used. The server is written in PHP: an empty
//! object comes as `[]`, and a number now and then as text.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use serde_json::Value;

/// `GET /tokens/verify`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TokenInfo {
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) is_expired: bool,
    pub(crate) owner: Owner,
}

/// A project.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Owner {
    #[serde(deserialize_with = "text")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
}

/// One of `GET /buckets`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// One of `GET /tables`, or `GET /tables/{id}`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Table {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) display_name: Option<String>,
    #[serde(default)]
    pub(crate) bucket: Option<Bucket>,
    #[serde(default)]
    pub(crate) columns: Vec<String>,
    #[serde(default, deserialize_with = "count")]
    pub(crate) rows_count: Option<u64>,
    #[serde(default, deserialize_with = "count")]
    pub(crate) data_size_bytes: Option<u64>,
    #[serde(default)]
    pub(crate) primary_key: Vec<String>,
    #[serde(default)]
    pub(crate) is_alias: bool,
    #[serde(default)]
    pub(crate) last_import_date: Option<String>,
    #[serde(default)]
    pub(crate) last_change_date: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) column_metadata: BTreeMap<String, Vec<Metadata>>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) source_table: SourceTable,
}

/// The table an alias stands for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SourceTable {
    #[serde(deserialize_with = "lenient")]
    pub(crate) column_metadata: BTreeMap<String, Vec<Metadata>>,
}

/// One statement about a column.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) key: String,
    #[serde(deserialize_with = "text")]
    pub(crate) value: String,
    #[serde(default)]
    pub(crate) provider: String,
}

/// A job.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Job {
    #[serde(deserialize_with = "text")]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) status: String,
    #[serde(default)]
    pub(crate) results: Value,
    #[serde(default)]
    pub(crate) error: Value,
}

impl Job {
    /// The file with the exported rows.
    pub(crate) fn file(&self) -> Option<String> {
        let id = self.results.pointer("/file/id").or_else(|| self.results.get("fileId"))?;
        id.as_str().map(str::to_owned).or_else(|| id.as_u64().map(|id| id.to_string()))
    }

    /// Exported rows, where the job says so.
    pub(crate) fn rows(&self) -> Option<u64> {
        ["totalRowsCount", "rowsCount"].iter().find_map(|key| {
            let value = self.results.get(*key)?;
            value.as_u64().or_else(|| value.as_str()?.parse().ok())
        })
    }

    /// Why it failed.
    pub(crate) fn words(&self) -> String {
        let said = ["message", "code", "exceptionId"].iter().filter_map(|key| self.error.get(*key)?.as_str());
        let words = said.collect::<Vec<_>>().join(", ");
        if words.is_empty() { "it does not say why".to_owned() } else { words }
    }
}

/// `GET /files/{id}`: where the exported rows are, and what opens them.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct FileDetail {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) url: String,
    #[serde(default)]
    pub(crate) is_sliced: bool,
    #[serde(default)]
    pub(crate) region: Option<String>,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) s3_path: S3Path,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) credentials: S3Credentials,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) gcs_credentials: GcsCredentials,
    #[serde(default, deserialize_with = "lenient")]
    pub(crate) abs_credentials: AbsCredentials,
}

/// Where a file is in S3.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct S3Path {
    pub(crate) bucket: Option<String>,
}

/// What opens a file in S3 for a while.
#[derive(Clone, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct S3Credentials {
    pub(crate) access_key_id: Option<String>,
    pub(crate) secret_access_key: Option<String>,
    pub(crate) session_token: Option<String>,
}

/// What opens a file in Google Cloud Storage for a while.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct GcsCredentials {
    pub(crate) access_token: Option<String>,
}

/// What opens a file in Azure for a while.
#[derive(Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AbsCredentials {
    #[serde(rename = "SASConnectionString")]
    pub(crate) sas_connection_string: Option<String>,
}

/// A manifest of slices.
#[derive(Deserialize)]
pub(crate) struct Manifest {
    pub(crate) entries: Vec<Entry>,
}

/// One slice.
#[derive(Deserialize)]
pub(crate) struct Entry {
    pub(crate) url: Option<String>,
}

/// An id or value that is text or a number.
fn text<'de, D: Deserializer<'de>>(de: D) -> Result<String, D::Error> {
    match Value::deserialize(de)? {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(flag) => Ok(flag.to_string()),
        Value::Null => Ok(String::new()),
        _ => Err(D::Error::custom("neither text nor a number")),
    }
}

fn count<'de, D: Deserializer<'de>>(de: D) -> Result<Option<u64>, D::Error> {
    let value = Value::deserialize(de)?;
    Ok(value.as_u64().or_else(|| value.as_str()?.parse().ok()))
}

/// An object, or nothing where it is `[]` or null.
fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned + Default>(de: D) -> Result<T, D::Error> {
    match Value::deserialize(de)? {
        value @ Value::Object(_) => serde_json::from_value(value).map_err(|_| D::Error::custom("of another shape")),
        _ => Ok(T::default()),
    }
}
