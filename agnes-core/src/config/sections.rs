//! The sections that the engine uses, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use super::{DevConfig, DirectoryConfig, EmailConfig, OidcConfig, SiteConfig};

/// The whole configuration of an engine, validated.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Config {
    /// Name of the installation.
    pub instance_name: Option<String>,
    /// Limits of queries.
    pub query: QueryConfig,
    /// What extracts may ask to attach.
    pub attach: AttachConfig,
    /// Programs of others that write extracts.
    pub connectors: ConnectorsConfig,
    /// Sync runs.
    pub sync: SyncConfig,
    /// The source that the configuration itself names.
    pub data_source: DataSourceConfig,
    /// How long published catalogs are kept.
    pub generations: GenerationsConfig,
    /// Profiles.
    pub profiler: ProfilerConfig,
    /// Queries that ask remote sources.
    pub remote_query: RemoteQueryConfig,
    /// BigQuery, as far as its sources do not say otherwise.
    pub bigquery: BigQueryDefaults,
    /// Cache lifetimes.
    pub cache: CacheConfig,
    /// Scans.
    pub scan: ScanConfig,
    /// Slices of narrowed tables, and receipts.
    pub policy: PolicyConfig,
    /// Signing in.
    pub auth: AuthConfig,
    /// What the installation is called and where it is found.
    pub site: SiteConfig,
    /// How mails leave.
    pub email: EmailConfig,
    /// A developer's machine, where nobody has to sign in.
    pub dev: Option<DevConfig>,
    /// Identity providers people may sign in at.
    pub oidc: Vec<OidcConfig>,
    /// The directory that says who is in which group.
    pub directory: DirectoryConfig,
    /// Hosts, as they stand in a URL, that may be private and may be called by `http`.
    pub allowed_private_hosts: Vec<String>,
    /// Access requests.
    pub access_requests: AccessRequestsConfig,
    /// Files that people upload.
    pub uploads: UploadsConfig,
    /// Days audit rows are kept; 0 keeps them for ever.
    pub audit_retention_days: u32,
}

/// Limits of queries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryConfig {
    /// Longest SQL, bytes.
    pub max_sql_bytes: usize,
    /// Wall clock of one query.
    pub timeout: Duration,
    /// Memory of one instance, bytes.
    pub memory_bytes: u64,
    /// Threads of one instance, beside the one that reads a result.
    pub threads: usize,
    /// Spill of one instance, bytes.
    pub spill_bytes: u64,
    /// Queries of one user at a time.
    pub max_per_user: usize,
    /// Queries in all at a time.
    pub max_total: usize,
    /// How long a query waits for its turn.
    pub wait: Duration,
    /// Grant sets whose instances are kept.
    pub instances: usize,
    /// Where queries run.
    pub isolation: IsolationMode,
    /// Whether queries are refused where less is guaranteed than `isolation` promises.
    pub strict: bool,
}

/// Where queries run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum IsolationMode {
    /// In confined worker processes where the platform and the program allow it, else in
    /// this process.
    #[default]
    Auto,
    /// In confined worker processes, or not at all.
    Process,
    /// In this process.
    InProcess,
}

impl Default for QueryConfig {
    fn default() -> Self {
        Self {
            max_sql_bytes: 64 << 10,
            timeout: Duration::from_secs(60),
            memory_bytes: 2 << 30,
            threads: 2,
            spill_bytes: 10 << 30,
            max_per_user: 4,
            max_total: 16,
            wait: Duration::from_secs(5),
            instances: 32,
            isolation: IsolationMode::Auto,
            strict: false,
        }
    }
}

/// What extracts may ask to attach; a list that is set replaces the default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachConfig {
    /// Extensions.
    pub extensions: Option<Vec<String>>,
    /// Environment variables with tokens.
    pub token_envs: Option<Vec<String>>,
    /// Hosts of URLs.
    pub hosts: Vec<String>,
    /// `host:port` of databases.
    pub database_hosts: Vec<String>,
    /// Folders in which SQLite files may lie.
    pub sqlite_folders: Vec<PathBuf>,
    /// Folder with extension files.
    pub extension_folder: Option<PathBuf>,
    /// Whether extensions may be installed from the network.
    pub allow_install: bool,
}

/// Programs of others that write extracts: each folder below `folder` with an executable
/// `extractor` is a source, run by every sync of everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectorsConfig {
    /// Where they are; none runs none.
    pub folder: Option<PathBuf>,
    /// Longest time for one.
    pub timeout: Duration,
    /// Which environment variables which of them gets: `program=VARIABLE`.
    pub env: Vec<String>,
}

impl Default for ConnectorsConfig {
    fn default() -> Self {
        Self { folder: None, timeout: Duration::from_secs(600), env: Vec::new() }
    }
}

/// Sync runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncConfig {
    /// Longest time for one table.
    pub table_timeout: Duration,
    /// Attempts at one table where an error may pass.
    pub attempts: u32,
    /// Sources read at a time.
    pub parallel_sources: usize,
    /// Schedule of materialized tables that have none, of their own or of their source.
    pub materialized_schedule: String,
    /// Age from which the lock of a copy that is made counts for nothing where its owner is gone.
    pub materialize_lock_ttl: Duration,
}

impl Default for SyncConfig {
    fn default() -> Self {
        let materialized_schedule = "every 1h".to_owned();
        let materialize_lock_ttl = Duration::from_secs(86_400);
        let table_timeout = Duration::from_secs(3600);
        Self { table_timeout, attempts: 3, parallel_sources: 2, materialized_schedule, materialize_lock_ttl }
    }
}

/// The source that the configuration itself names: the section `data_source`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataSourceConfig {
    /// Kind of the primary source; none where it is `local`.
    pub primary: Option<String>,
    /// Settings by kind, without secrets.
    pub settings: std::collections::BTreeMap<&'static str, serde_json::Map<String, serde_json::Value>>,
    /// Where the source `jira` keeps what it was told; below its extract unless it is set.
    pub jira_raw: Option<std::path::PathBuf>,
}

/// How long published catalogs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationsConfig {
    /// At most this many.
    pub keep: usize,
    /// Not longer than this; the published one stays whatever its age.
    pub max_age: Duration,
}

impl Default for GenerationsConfig {
    fn default() -> Self {
        Self { keep: 3, max_age: Duration::from_secs(30 * 86_400) }
    }
}

/// Profiles.
#[derive(Debug, Clone, PartialEq)]
pub struct ProfilerConfig {
    /// Rows looked at; larger tables are sampled.
    pub sample_size: u64,
    /// Most distinct values of a column whose top values are listed.
    pub max_categorical_distinct: u64,
    /// Top values listed.
    pub top_values_limit: usize,
    /// Bins of a histogram.
    pub histogram_bins: usize,
    /// Sample rows.
    pub sample_rows_limit: usize,
    /// Sample values of a column.
    pub sample_values_limit: usize,
    /// Alert `high_missing` above this percentage of nulls.
    pub alert_high_missing_pct: f64,
    /// Alert `missing` above this percentage of nulls.
    pub alert_missing_pct: f64,
    /// Alert `imbalance` above this share of the top value.
    pub alert_imbalance_pct: f64,
    /// Alert `high_cardinality` above this many distinct texts.
    pub alert_high_cardinality: u64,
    /// Memory, bytes; at most 4 GiB.
    pub memory_bytes: u64,
}

impl Default for ProfilerConfig {
    fn default() -> Self {
        Self {
            sample_size: 500_000,
            max_categorical_distinct: 50,
            top_values_limit: 10,
            histogram_bins: 15,
            sample_rows_limit: 5,
            sample_values_limit: 5,
            alert_high_missing_pct: 30.0,
            alert_missing_pct: 5.0,
            alert_imbalance_pct: 60.0,
            alert_high_cardinality: 50,
            memory_bytes: 2 << 30,
        }
    }
}

/// Queries that ask remote sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteQueryConfig {
    /// Wall clock.
    pub timeout: Duration,
    /// Rows moved from the source for one relation.
    pub max_rows: u64,
    /// Bytes moved from the source for one query.
    pub max_bytes: u64,
    /// Rows of the answer to a hybrid query.
    pub max_result_rows: usize,
}

impl Default for RemoteQueryConfig {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(300), max_rows: 500_000, max_bytes: 2048 << 20, max_result_rows: 100_000 }
    }
}

/// BigQuery, as far as its sources do not say otherwise.
#[derive(Debug, Clone, PartialEq)]
pub struct BigQueryDefaults {
    /// Project of the data.
    pub project: Option<String>,
    /// Project that runs and pays for jobs.
    pub billing_project: Option<String>,
    /// Region.
    pub location: Option<String>,
    /// Most bytes that the query of one materialized table may read; 0 sets no limit.
    pub max_bytes_per_materialize: Option<u64>,
    /// Most bytes that one query of a person may read; 0 sets no limit.
    pub max_scan_bytes: u64,
    /// How long a job may take; 0 for the connector's own limit.
    pub query_timeout: Duration,
    /// How long rows on their way may keep one waiting; 0 sets no limit.
    pub fetch_timeout: Duration,
    /// What 2^40 bytes cost, for estimates.
    pub cost_per_tb_usd: f64,
}

impl Default for BigQueryDefaults {
    fn default() -> Self {
        Self {
            project: None,
            billing_project: None,
            location: None,
            max_bytes_per_materialize: None,
            max_scan_bytes: 5 << 30,
            query_timeout: Duration::from_secs(600),
            fetch_timeout: Duration::from_secs(900),
            cost_per_tb_usd: 5.0,
        }
    }
}

impl BigQueryDefaults {
    /// As settings of a source.
    pub(crate) fn settings(&self) -> Vec<(String, serde_json::Value)> {
        let text = |value: &Option<String>| value.clone().map(serde_json::Value::from);
        let seconds = Some(self.query_timeout.as_secs()).filter(|seconds| *seconds > 0);
        let all = [
            ("project", text(&self.project)),
            ("billing_project", text(&self.billing_project)),
            ("location", text(&self.location)),
            ("max_bytes_per_materialize", self.max_bytes_per_materialize.map(Into::into)),
            ("query_timeout_seconds", seconds.map(Into::into)),
            ("fetch_timeout_seconds", Some(self.fetch_timeout.as_secs().into())),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }
}

/// Slices of narrowed tables, and receipts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyConfig {
    /// Largest slice, bytes of Parquet.
    pub slice_max_bytes: u64,
    /// Longest time for making one.
    pub slice_timeout: Duration,
    /// How long a receipt keeps the data it was made of.
    pub receipt_lease: Duration,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        Self {
            slice_max_bytes: 10 << 30,
            slice_timeout: Duration::from_secs(300),
            receipt_lease: Duration::from_secs(7 * 86_400),
        }
    }
}

/// Names of the ways to sign in.
pub const PROVIDERS: [&str; 5] = ["google", "oidc", "password", "email", "desktop"];

/// Signing in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// Domains, lower case, whose people may sign in elsewhere or by mail; none or `*` for
    /// everybody who is a user.
    pub allowed_domains: Vec<String>,
    /// Ways to sign in that are switched off: some of [`PROVIDERS`].
    pub disabled_providers: Vec<String>,
    /// Whether opening a mailed link signs in without another click.
    pub magic_link_one_click: bool,
    /// Whether a sign-in by password says that an account has none.
    pub reveal_provider: bool,
    /// Whether a directory alone decides who of its people is active.
    pub directory_lifecycle: bool,
    /// `iss` of desktop tokens.
    pub desktop_issuer: String,
    /// Scheme of the links that open the desktop application.
    pub desktop_url_scheme: String,
}

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            allowed_domains: Vec::new(),
            disabled_providers: Vec::new(),
            magic_link_one_click: false,
            reveal_provider: false,
            directory_lifecycle: false,
            desktop_issuer: "data-analyst".to_owned(),
            desktop_url_scheme: "data-analyst".to_owned(),
        }
    }
}

impl AuthConfig {
    /// Whether the domain of this address may sign in elsewhere or by mail.
    #[must_use]
    pub fn allows(&self, email: &str) -> bool {
        let domain = email.trim().rsplit('@').next().unwrap_or_default().to_lowercase();
        self.allowed_domains.is_empty()
            || self.allowed_domains.iter().any(|allowed| allowed == "*" || *allowed == domain)
    }

    /// Whether a way to sign in is switched on.
    #[must_use]
    pub fn offers(&self, provider: &str) -> bool {
        !self.disabled_providers.iter().any(|off| off == provider)
    }
}

/// Access requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessRequestsConfig {
    /// Whether people may ask.
    pub enabled: bool,
    /// Whether they see names and descriptions of what they may ask for.
    pub show_locked: bool,
}

impl Default for AccessRequestsConfig {
    fn default() -> Self {
        Self { enabled: true, show_locked: false }
    }
}

/// Files that people upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadsConfig {
    /// Largest file, bytes.
    pub max_bytes: u64,
    /// Bytes that one person may keep here in all: sessions, artefacts, notes.
    pub quota_bytes: u64,
}

impl Default for UploadsConfig {
    fn default() -> Self {
        Self { max_bytes: 50 << 20, quota_bytes: 2 << 30 }
    }
}

/// Cache lifetimes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheConfig {
    /// Samples.
    pub sample: Duration,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self { sample: Duration::from_secs(3600) }
    }
}

/// Scans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanConfig {
    /// Most rows of one.
    pub max_limit: u64,
    /// Most bytes of one, as Arrow has them.
    pub max_result_bytes: u64,
    /// Scans of one person at a time.
    pub max_concurrent_per_user: usize,
    /// Bytes of one person a day, as Arrow has them; the day begins at midnight UTC.
    pub max_daily_bytes_per_user: u64,
    /// Wall clock of one.
    pub timeout: Duration,
}

impl Default for ScanConfig {
    fn default() -> Self {
        Self {
            max_limit: 10_000_000,
            max_result_bytes: 2 << 30,
            max_concurrent_per_user: 5,
            max_daily_bytes_per_user: 50 << 30,
            timeout: Duration::from_secs(300),
        }
    }
}
