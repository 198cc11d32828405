//! Settings of a Jira source.

use std::collections::BTreeMap;
use std::time::Duration;

use agnes_core::connector::SourceContext;
use agnes_core::error::Result;
use agnes_core::ident::{EnvName, TableName, nearest, printable};
use agnes_core::orchestrator::AttachError;
use agnes_core::secret::{Secret, SecretSource};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::JiraError;

const TOKEN_ENV: &str = "JIRA_API_TOKEN";
const SECRET_ENV: &str = "JIRA_WEBHOOK_SECRET";
const SLA_TOKEN_ENV: &str = "JIRA_SLA_API_TOKEN";
/// Where Atlassian answers for all sites.
const ATLASSIAN: &str = "https://api.atlassian.com";
/// Where sites of the Cloud send on who asks for a file.
const MEDIA: &str = "https://api.media.atlassian.com";
/// Ends the host of a site of the Cloud.
const CLOUD_SITE: &str = ".atlassian.net";
const KEYS: [&str; 15] = [
    "domain",
    "email",
    "token_env",
    "webhook_secret_env",
    "project",
    "cloud_id",
    "sla_email",
    "sla_token_env",
    "sla_pause_seconds",
    "fields",
    "attachments",
    "attachment_hosts",
    "max_attachment_mb",
    "parallelism",
    "atlassian_url",
];

/// Columns of `issues` that come from fields of the site, and which ones these are unless
/// `fields` says otherwise.
pub(crate) const KNOWN_FIELDS: [(&str, &str); 16] = [
    ("request", "customfield_10010"),
    ("severity", "customfield_10004"),
    ("triage", "customfield_10323"),
    ("configuration_item", "customfield_10511"),
    ("participants", "customfield_10156"),
    ("organizations", "customfield_10002"),
    ("spam", "customfield_10365"),
    ("context", "customfield_10330"),
    ("custom_url", "customfield_10325"),
    ("slack_link", "customfield_10350"),
    ("technical_issue_category", "customfield_10676"),
    ("email_address", "customfield_10475"),
    ("satisfaction", "customfield_10157"),
    ("first_response", "customfield_10328"),
    ("time_to_resolution", "customfield_10161"),
    ("l3_team", "customfield_11831"),
];

/// Settings of a source.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct JiraConfig {
    /// `company.atlassian.net`; else what `JIRA_DOMAIN` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) domain: Option<String>,
    /// Whose token it is; else `JIRA_EMAIL`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) token_env: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhook_secret_env: Option<String>,
    /// Only issues of this project; else `JIRA_PROJECT`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) project: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cloud_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sla_email: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sla_token_env: Option<String>,
    /// Between two issues of a poll.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sla_pause_seconds: Option<f64>,
    /// Column to the name or id of a field; null switches a known one off.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) fields: BTreeMap<String, Option<String>>,
    /// Whether files of issues are fetched; they are unless it says no.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attachments: Option<bool>,
    /// Hosts beside the site's and Atlassian's own that may serve such files.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) attachment_hosts: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_attachment_mb: Option<u64>,
    /// Issues that a sync fetches at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) parallelism: Option<usize>,
    /// Where Atlassian answers for all sites, when not at its public address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) atlassian_url: Option<String>,
}

/// The project whose issues alone are wanted, where there is one.
#[derive(Debug, Default)]
pub(crate) struct Project(Option<String>);

impl Project {
    /// The condition that narrows searches to it, with what joins it to another.
    pub(crate) fn clause(&self) -> String {
        match &self.0 {
            Some(project) => format!("project = \"{}\" AND ", project.replace(['"', '\\'], "")),
            None => String::new(),
        }
    }

    /// Whether an issue is one of its; named as in searches, by its key, name or id.
    pub(crate) fn holds(&self, issue: &Value) -> bool {
        let Some(wanted) = &self.0 else { return true };
        let project = &issue["fields"]["project"];
        let key = issue["key"].as_str().and_then(|key| key.split_once('-')).map(|(project, _)| project);
        let names = ["key", "name", "id"].map(|name| project[name].as_str());
        names.into_iter().chain([key]).flatten().any(|name| name.eq_ignore_ascii_case(wanted))
    }
}

/// Who asks.
pub(crate) struct Account {
    pub(crate) email: String,
    pub(crate) token: Secret,
}

fn missing(what: &str) -> JiraError {
    JiraError::NotConfigured { missing: what.to_owned() }
}

fn text(setting: Option<&String>, secrets: &dyn SecretSource, variable: &str) -> Option<String> {
    let text = setting.cloned().or_else(|| secrets.get(variable).map(|value| value.expose().to_owned()));
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

impl JiraConfig {
    /// Reads and checks the settings.
    pub(crate) fn parse(config: &Value) -> Result<Self> {
        let object = config.as_object().ok_or_else(|| JiraError::invalid("config", "it is not an object"))?;
        if let Some(key) = object.keys().find(|key| !KEYS.contains(&key.as_str())) {
            let suggestion = nearest(key, KEYS.iter().copied()).map(str::to_owned);
            return Err(JiraError::UnknownSetting { key: printable(key, 64), suggestion }.into());
        }
        let given: Map<String, Value> =
            object.iter().filter(|(_, value)| !value.is_null()).map(|(k, v)| (k.clone(), v.clone())).collect();
        for (key, value) in &given {
            // The parser names the key only for some mistakes; trying each alone always does.
            let alone = Value::Object(Map::from_iter([(key.clone(), value.clone())]));
            serde_json::from_value::<Self>(alone)
                .map_err(|error| JiraError::invalid(key.clone(), printable(&error.to_string(), 120)))?;
        }
        let mut config: Self = serde_json::from_value(Value::Object(given))
            .map_err(|_| JiraError::invalid("config", "it cannot be read"))?;
        for (key, name) in [
            ("token_env", &config.token_env),
            ("webhook_secret_env", &config.webhook_secret_env),
            ("sla_token_env", &config.sla_token_env),
        ] {
            if name.as_ref().is_some_and(|name| EnvName::parse(name).is_err()) {
                return Err(JiraError::invalid(key, "give the name of a variable, not the secret itself").into());
            }
        }
        if let Some(domain) = &config.domain {
            config.domain = Some(site("domain", domain)?);
        }
        if let Some(url) = &config.atlassian_url {
            config.atlassian_url = Some(site("atlassian_url", url)?);
        }
        for column in config.fields.keys() {
            let known = KNOWN_FIELDS.iter().any(|(name, _)| name == column);
            let usable = TableName::parse(column).is_ok() && !super::columns::is_column_of_issues(column);
            if !known && !usable {
                let reason = format!("`{}` cannot be the name of a further column", printable(column, 64));
                return Err(JiraError::invalid("fields", reason).into());
            }
        }
        let wrong = |project: &&String| project.contains(['"', '\\']) || project.chars().any(char::is_control);
        if config.project.as_ref().filter(wrong).is_some() {
            return Err(JiraError::invalid("project", "give the key of a project").into());
        }
        if config.parallelism.is_some_and(|n| !(1..=32).contains(&n)) {
            return Err(JiraError::invalid("parallelism", "it is 1 to 32").into());
        }
        if config.max_attachment_mb.is_some_and(|n| !(1..=1024).contains(&n)) {
            return Err(JiraError::invalid("max_attachment_mb", "it is 1 to 1024").into());
        }
        if config.sla_pause_seconds.is_some_and(|seconds| !(0.0..=60.0).contains(&seconds)) {
            return Err(JiraError::invalid("sla_pause_seconds", "it is 0 to 60").into());
        }
        Ok(config)
    }

    /// The settings as they should be stored.
    pub(crate) fn to_value(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// Where the site is, without a slash at its end.
    pub(crate) fn base(&self, secrets: &dyn SecretSource) -> Result<String, JiraError> {
        let domain = text(self.domain.as_ref(), secrets, "JIRA_DOMAIN").ok_or_else(|| missing("no `domain` is set"))?;
        let domain = site("domain", &domain)?;
        Ok(if domain.contains("://") { domain } else { format!("https://{domain}") })
    }

    /// Where Atlassian answers for all sites.
    pub(crate) fn atlassian(&self) -> String {
        match &self.atlassian_url {
            None => ATLASSIAN.to_owned(),
            Some(url) if url.contains("://") => url.clone(),
            Some(host) => format!("https://{host}"),
        }
    }

    /// Hosts that may serve files of the site at `base`.
    pub(crate) fn file_hosts(&self, base: &str) -> Vec<String> {
        let host = |url: &str| url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned));
        let cloud = host(base).is_some_and(|host| host.ends_with(CLOUD_SITE)) || self.cloud_id.is_some();
        let known = [Some(base), Some(&self.atlassian()), cloud.then_some(MEDIA)];
        self.attachment_hosts.iter().cloned().chain(known.into_iter().flatten().filter_map(host)).collect()
    }

    /// Who asks the site.
    pub(crate) fn account(&self, source: &SourceContext) -> Result<Account> {
        let secrets = source.secrets.as_ref();
        let email = text(self.email.as_ref(), secrets, "JIRA_EMAIL").ok_or_else(|| missing("no `email` is set"))?;
        Ok(Account { email, token: secret(source, self.token_env.as_deref(), TOKEN_ENV)? })
    }

    /// The secret of deliveries.
    pub(crate) fn webhook_secret(&self, source: &SourceContext) -> Result<Secret> {
        secret(source, self.webhook_secret_env.as_deref(), SECRET_ENV)
    }

    /// Who asks for service levels, and of which site.
    pub(crate) fn sla(&self, source: &SourceContext) -> Result<(String, Account)> {
        let secrets = source.secrets.as_ref();
        let id = text(self.cloud_id.as_ref(), secrets, "JIRA_CLOUD_ID");
        let id = id.filter(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        let id = id.ok_or_else(|| missing("no `cloud_id` is set"))?;
        let email = text(self.sla_email.as_ref(), secrets, "JIRA_SLA_EMAIL");
        let email = email.ok_or_else(|| missing("no `sla_email` is set"))?;
        Ok((id, Account { email, token: secret(source, self.sla_token_env.as_deref(), SLA_TOKEN_ENV)? }))
    }

    /// The project whose issues alone are wanted.
    pub(crate) fn project(&self, secrets: &dyn SecretSource) -> Project {
        Project(text(self.project.as_ref(), secrets, "JIRA_PROJECT"))
    }

    /// Between two issues of a poll.
    pub(crate) fn sla_pause(&self) -> Duration {
        Duration::from_secs_f64(self.sla_pause_seconds.unwrap_or(0.5))
    }

    /// Bytes of the largest file of an issue.
    pub(crate) fn max_attachment(&self) -> u64 {
        self.max_attachment_mb.unwrap_or(50) << 20
    }

    /// Issues that a sync fetches at a time.
    pub(crate) fn parallelism(&self) -> usize {
        self.parallelism.unwrap_or(4)
    }
}

/// A secret of the environment; only names that are usual or on the operator's list.
fn secret(source: &SourceContext, setting: Option<&str>, usual: &'static str) -> Result<Secret> {
    let name = setting.unwrap_or(usual);
    // Who adds a source says where its token goes: not any variable of this process.
    if name != usual && !source.attach.token_envs.iter().any(|allowed| allowed == name) {
        return Err(AttachError::TokenEnvNotAllowed { name: printable(name, 64) }.into());
    }
    let value = source.secrets.get(name).map(|value| Secret::new(value.expose().trim()));
    let value = value.filter(|value| !value.expose().is_empty());
    value.ok_or_else(|| missing(&format!("the variable `{name}` is not set")).into())
}

/// A host, or an address without path.
fn site(key: &str, text: &str) -> Result<String, JiraError> {
    let text = text.trim().trim_end_matches('/');
    let invalid = || JiraError::invalid(key, "give a host such as `company.atlassian.net`");
    let url = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let parsed = url::Url::parse(&url).map_err(|_| invalid())?;
    let plain = matches!(parsed.scheme(), "https" | "http")
        && parsed.host().is_some()
        && parsed.username().is_empty()
        && parsed.password().is_none()
        && parsed.query().is_none()
        && parsed.fragment().is_none()
        && parsed.path().trim_end_matches('/').is_empty();
    if plain { Ok(text.to_ascii_lowercase()) } else { Err(invalid()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use agnes_core::secret::FixedSecrets;
    use serde_json::json;

    use super::*;

    #[test]
    fn settings_are_checked_and_kept_short() {
        let config = JiraConfig::parse(&json!({
            "domain": "Company.atlassian.net/", "email": "a@b.c", "project": null, "fields": {"team": "Team", "spam": null},
        }))
        .unwrap();
        let stored = config.to_value();
        assert_eq!(
            stored,
            json!({"domain": "company.atlassian.net", "email": "a@b.c", "fields": {"team": "Team", "spam": null}})
        );
        assert_eq!(JiraConfig::parse(&stored).unwrap(), config);
        for (wrong, words) in [
            (json!({"domian": "x"}), "`domian` is not known"),
            (json!({"token": "x"}), "`token` is not known"),
            (json!({"token_env": "not-a-name"}), "not the secret itself"),
            (json!({"domain": "https://u:p@x"}), "`domain`"),
            (json!({"domain": "x/rest"}), "`domain`"),
            (json!({"fields": {"issue_key": "x"}}), "`fields`"),
            (json!({"fields": {"a b": "x"}}), "`fields`"),
            (json!({"project": "A\" OR 1=1"}), "`project`"),
            (json!({"parallelism": 0}), "`parallelism`"),
            (json!([]), "`config`"),
        ] {
            let error = JiraConfig::parse(&wrong).unwrap_err();
            assert_eq!(error.code(), "invalid_config");
            assert!(error.to_string().contains(words), "{error} for {wrong}");
        }
    }

    #[test]
    fn only_sites_of_the_cloud_send_on_to_its_host_of_files() {
        let hosts = |config: Value, base: &str| JiraConfig::parse(&config).unwrap().file_hosts(base);
        let media = "api.media.atlassian.com";
        assert_eq!(hosts(json!({}), "https://a.atlassian.net"), ["a.atlassian.net", "api.atlassian.com", media]);
        assert!(hosts(json!({"cloud_id": "1"}), "https://jira.a.example").contains(&media.to_owned()));
        let own = hosts(json!({"attachment_hosts": ["f.example"]}), "https://jira.a.example");
        assert_eq!(own, ["f.example", "jira.a.example", "api.atlassian.com"]);
    }

    #[test]
    fn variables_say_what_settings_do_not() {
        let secrets = FixedSecrets::new([("JIRA_DOMAIN", "a.example"), ("JIRA_PROJECT", "HELP")]);
        let config = JiraConfig::default();
        assert_eq!(config.base(&secrets).unwrap(), "https://a.example");
        let project = config.project(&secrets);
        assert_eq!(project.clause(), "project = \"HELP\" AND ");
        assert!(project.holds(&json!({"key": "HELP-1"})) && !project.holds(&json!({"key": "OPS-1"})));
        let none = FixedSecrets::new([("JIRA_DOMAIN", " ")]);
        assert_eq!(config.base(&none).unwrap_err().to_string(), "Jira is not configured: no `domain` is set");
    }
}
