//! Settings of a BigQuery source.

use std::time::Duration;

use agnes_core::error::Result;
use agnes_core::ident::{EnvName, GcpProject, nearest, printable};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::BigQueryError;

const REST: &str = "https://bigquery.googleapis.com";
const STORAGE: &str = "https://bigquerystorage.googleapis.com";
/// How long a job may take unless the settings say.
const JOB_SECONDS: u64 = 600;
/// How long rows on their way may keep one waiting unless the settings say.
const FETCH_SECONDS: u64 = 900;
/// Bytes that the query of one table may read unless the settings say.
const MOST_BYTES: u64 = 10 << 30;
const KEYS: [&str; 10] = [
    "project",
    "billing_project",
    "location",
    "key_env",
    "datasets",
    "max_bytes_per_materialize",
    "query_timeout_seconds",
    "fetch_timeout_seconds",
    "endpoint",
    "storage_endpoint",
];

/// Settings of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct BigQueryConfig {
    /// Where the data is.
    #[serde(skip_serializing_if = "Option::is_none")]
    project: Option<String>,
    /// Who pays; the data's own project unless set.
    #[serde(skip_serializing_if = "Option::is_none")]
    billing_project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) location: Option<String>,
    /// Name of the variable with a key: its file, or its JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_env: Option<String>,
    /// Only these datasets are looked into for tables.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) datasets: Vec<String>,
    /// 0 sets no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes_per_materialize: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_timeout_seconds: Option<u64>,
    /// 0 sets no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    fetch_timeout_seconds: Option<u64>,
    /// BigQuery's address, when not the public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<String>,
    /// The Storage API's address, when not the public one.
    #[serde(skip_serializing_if = "Option::is_none")]
    storage_endpoint: Option<String>,
}

impl BigQueryConfig {
    /// Reads and checks the settings.
    pub(crate) fn parse(config: &Value) -> Result<Self> {
        let object = config.as_object().ok_or_else(|| BigQueryError::invalid("config", "it is not an object"))?;
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let suggestion = nearest(key, KEYS).map(str::to_owned);
            return Err(BigQueryError::UnknownSetting { key: printable(key, 64), suggestion }.into());
        }
        let mut config: Self = read(object)?;
        for (key, project) in [("project", &config.project), ("billing_project", &config.billing_project)] {
            if project.as_deref().is_some_and(|project| GcpProject::parse(project).is_err()) {
                return Err(BigQueryError::invalid(key, "it is not the id of a project").into());
            }
        }
        let simple = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        if config.location.as_deref().is_some_and(|location| !simple(location)) {
            return Err(BigQueryError::invalid("location", "it is a name such as `EU` or `europe-west3`").into());
        }
        if config.key_env.as_deref().is_some_and(|name| EnvName::parse(name).is_err()) {
            let reason = "give the name of a variable, not the key itself";
            return Err(BigQueryError::invalid("key_env", reason).into());
        }
        if config.query_timeout_seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
            return Err(BigQueryError::invalid("query_timeout_seconds", "it is 1 to 86400").into());
        }
        if config.fetch_timeout_seconds.is_some_and(|seconds| seconds > 86_400) {
            return Err(BigQueryError::invalid("fetch_timeout_seconds", "it is 0 to 86400").into());
        }
        for (key, url) in [("endpoint", &mut config.endpoint), ("storage_endpoint", &mut config.storage_endpoint)] {
            if let Some(text) = url {
                let parsed = url::Url::parse(text).ok().filter(|url| url.host().is_some() && url.path() == "/");
                let parsed = parsed.filter(|url| url.username().is_empty() && url.query().is_none());
                let parsed = parsed.ok_or_else(|| BigQueryError::invalid(key, "use `https://HOST`"))?;
                *url = Some(parsed.origin().ascii_serialization());
            }
        }
        Ok(config)
    }

    /// The settings as they should be stored.
    pub(crate) fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The project of the data.
    pub(crate) fn project(&self) -> Result<&str, BigQueryError> {
        let missing = || BigQueryError::NotConfigured { missing: "no `project` is set".to_owned() };
        self.project.as_deref().ok_or_else(missing)
    }

    /// The project that pays.
    pub(crate) fn billing(&self) -> Result<&str, BigQueryError> {
        self.billing_project.as_deref().map_or_else(|| self.project(), Ok)
    }

    /// Most bytes of one query, where there is a limit.
    pub(crate) fn most_bytes(&self) -> Option<u64> {
        Some(self.max_bytes_per_materialize.unwrap_or(MOST_BYTES)).filter(|most| *most > 0)
    }

    /// How long a job may take.
    pub(crate) fn job_timeout(&self) -> Duration {
        Duration::from_secs(self.query_timeout_seconds.unwrap_or(JOB_SECONDS))
    }

    /// How long rows on their way may keep one waiting, where there is a limit.
    pub(crate) fn fetch_timeout(&self) -> Option<Duration> {
        let seconds = self.fetch_timeout_seconds.unwrap_or(FETCH_SECONDS);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    /// Whether the addresses are not the public ones.
    pub(crate) fn has_own_endpoint(&self) -> bool {
        self.endpoint.is_some() || self.storage_endpoint.is_some()
    }

    /// Address of the REST API.
    pub(crate) fn rest(&self) -> &str {
        self.endpoint.as_deref().unwrap_or(REST)
    }

    /// Address of the Storage API.
    pub(crate) fn storage(&self) -> &str {
        self.storage_endpoint.as_deref().unwrap_or(STORAGE)
    }

    /// What will cost people time later; each a sentence.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let mut out = Vec::new();
        let (Some(project), location) = (&self.project, &self.location) else { return out };
        match &self.billing_project {
            Some(billing) if billing != project && location.is_none() => {
                out.push(
                    "data and jobs are in different projects: set `location`, or jobs may not find the data".to_owned(),
                );
            }
            None if ["warehouse", "dwh", "-data"].iter().any(|sign| project.contains(sign)) => {
                out.push(
                    "the project looks like a warehouse: set `billing_project` if jobs may not run in it".to_owned(),
                );
            }
            _ => {}
        }
        out
    }
}

fn read(object: &Map<String, Value>) -> Result<BigQueryConfig, BigQueryError> {
    let given: Map<_, _> = object.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
    for (name, value) in &given {
        let alone = Value::Object(Map::from_iter([(name.clone(), value.clone())]));
        if let Err(error) = serde_json::from_value::<BigQueryConfig>(alone) {
            return Err(BigQueryError::invalid(name.clone(), printable(&error.to_string(), 120)));
        }
    }
    serde_json::from_value(Value::Object(given)).map_err(|_| BigQueryError::invalid("config", "it cannot be read"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_are_checked_and_stable() {
        let good = json!({"project": "acme-data", "billing_project": "acme-jobs", "location": "EU",
            "key_env": "BQ_KEY", "datasets": ["sales"], "endpoint": "https://bigquery.example/"});
        let parsed = BigQueryConfig::parse(&good).unwrap();
        assert_eq!((parsed.project().unwrap(), parsed.billing().unwrap()), ("acme-data", "acme-jobs"));
        assert_eq!(BigQueryConfig::parse(&parsed.to_value()).unwrap(), parsed);
        assert_eq!(parsed.rest(), "https://bigquery.example");
        for (key, value) in [
            ("project", json!("no good")),
            ("location", json!("EU; drop")),
            ("key_env", json!("{\"type\": 1}")),
            ("datasets", json!("sales")),
            ("endpoint", json!("https://u:p@h")),
            ("query_timeout_seconds", json!(0)),
            ("fetch_timeout_seconds", json!(86_401)),
            ("projekt", json!("x")),
        ] {
            let mut config = good.clone();
            config[key] = value;
            let error = BigQueryConfig::parse(&config).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(key), "{error}");
        }
        assert_eq!(
            BigQueryConfig::default().project().unwrap_err().to_string(),
            "BigQuery is not configured: no `project` is set"
        );
    }

    #[test]
    fn projects_that_will_cost_time_are_told() {
        let warnings = |config: Value| BigQueryConfig::parse(&config).unwrap().warnings().len();
        assert_eq!(warnings(json!({"project": "acme-data1", "billing_project": "acme-jobs"})), 1);
        assert_eq!(warnings(json!({"project": "acme-data1", "billing_project": "acme-jobs", "location": "EU"})), 0);
        assert_eq!(warnings(json!({"project": "acme-warehouse"})), 1);
        assert_eq!(warnings(json!({"project": "acme-shop"})), 0);
    }
}
