//! Every key that exists, whether this build uses it or a later frontend does.

/// Sections and their keys, dotted; a trailing `.*` allows any keys below.
pub(super) const KNOWN: &[&str] = &[
    "config_version",
    "instance.name",
    "instance.subtitle",
    "instance.copyright",
    "instance.brand",
    "instance.workspace_dir",
    "instance.logo_svg",
    "instance.overview",
    "instance.sync_interval",
    "instance.admin_email",
    "instance.home_route",
    "instance.home.show_automode",
    "instance.home.show_status_frame",
    "instance.gws.client_id",
    "instance.gws.client_secret",
    "instance.gws.project_id",
    "instance.gws.oauthlib_insecure_transport",
    "instance.atlassian.base_url",
    "server.hostname",
    "server.host",
    "server.app_dir",
    "server.ssh_alias",
    "server.ssh_key",
    "server.project_dir",
    "admins",
    "deployment.method",
    "deployment.repo_url",
    "deployment.branch",
    "auth.allowed_domain",
    "auth.webapp_secret_key",
    "auth.google_client_id",
    "auth.google_client_secret",
    "auth.username_strip_domain",
    "auth.username_prefix",
    "auth.disabled_providers",
    "auth.magic_link_one_click",
    "auth.reveal_provider",
    "auth.sso_lifecycle",
    "access_requests.enabled",
    "access_requests.show_locked",
    "audit.retention_days",
    "theme.*",
    "data_source.type",
    "data_source.keboola.storage_token",
    "data_source.keboola.stack_url",
    "data_source.keboola.project_id",
    "data_source.keboola.token_env",
    "data_source.bigquery.project",
    "data_source.bigquery.location",
    "data_source.bigquery.billing_project",
    "data_source.bigquery.max_bytes_per_materialize",
    "data_source.bigquery.bq_max_scan_bytes",
    "data_source.bigquery.query_timeout_ms",
    "data_source.bigquery.session_pool_size",
    "data_source.bigquery.materialize_fetch_timeout_seconds",
    "materialize.lock_ttl_seconds",
    "openmetadata.url",
    "openmetadata.token",
    "openmetadata.cache_ttl_seconds",
    "openmetadata.verify_ssl",
    "email.from_address",
    "email.from_name",
    "email.smtp_host",
    "email.smtp_port",
    "email.smtp_user",
    "email.smtp_password",
    "desktop.jwt_issuer",
    "desktop.jwt_secret",
    "desktop.url_scheme",
    "telegram.bot_token",
    "telegram.bot_username",
    "telegram.domain_suffix",
    "jira.domain",
    "jira.email",
    "jira.api_token",
    "jira.webhook_secret",
    "jira.sla_email",
    "jira.sla_api_token",
    "jira.cloud_id",
    "ai.provider",
    "ai.api_key",
    "ai.base_url",
    "ai.model",
    "ai.structured_output",
    "guardrails.*",
    "corporate_memory.*",
    "groups.*",
    "users.*",
    "username_mapping.*",
    "datasets.*",
    "catalog.categories.*",
    "catalog.order",
    "profiler.sample_size",
    "profiler.max_categorical_distinct",
    "profiler.top_values_limit",
    "profiler.histogram_bins",
    "profiler.sample_rows_limit",
    "profiler.sample_values_limit",
    "profiler.alert_high_missing_pct",
    "profiler.alert_missing_pct",
    "profiler.alert_imbalance_pct",
    "profiler.alert_high_cardinality",
    "profiler.memory_mb",
    "remote_query.timeout_seconds",
    "remote_query.max_result_rows",
    "remote_query.max_bq_registration_rows",
    "remote_query.max_memory_mb",
    "remote_query.default_format",
    "remote_query.output_dir",
    "api.scan.max_limit",
    "api.scan.max_result_bytes",
    "api.scan.max_concurrent_per_user",
    "api.scan.max_daily_bytes_per_user",
    "api.scan.bq_cost_per_tb_usd",
    "api.scan.request_timeout_seconds",
    "api.catalog_cache_ttl_seconds",
    "api.schema_cache_ttl_seconds",
    "api.sample_cache_ttl_seconds",
    "query.max_sql_bytes",
    "query.timeout_seconds",
    "query.memory_mb",
    "query.threads",
    "query.spill_mb",
    "query.max_per_user",
    "query.max_total",
    "query.wait_seconds",
    "query.instances",
    "query.isolation",
    "query.strict",
    "remote_attach.extensions",
    "remote_attach.token_envs",
    "remote_attach.hosts",
    "remote_attach.database_hosts",
    "remote_attach.sqlite_folders",
    "remote_attach.extension_folder",
    "remote_attach.allow_install",
    "sync.table_timeout_seconds",
    "sync.attempts",
    "sync.parallel_sources",
    "policy.slice_max_mb",
    "policy.slice_timeout_seconds",
    "policy.receipt_lease_hours",
    "generations.keep",
    "generations.max_age_days",
];

/// Required when a file is present.
pub(super) const REQUIRED: &[&str] = &["instance.name", "auth.allowed_domain", "server.host", "server.hostname"];

/// Whether `key` is known, lies below an open section, or is itself a section.
pub(super) fn is_known(key: &str) -> bool {
    KNOWN.iter().any(|known| match known.strip_suffix(".*") {
        Some(open) => key == open || key.strip_prefix(open).is_some_and(|rest| rest.starts_with('.')),
        None => *known == key || known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')),
    })
}

/// Whether `key` has keys below it that are known one by one.
pub(super) fn is_section(key: &str) -> bool {
    KNOWN
        .iter()
        .any(|known| !known.ends_with(".*") && known.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
}

/// The known key nearest to `key`: of its own section first.
pub(super) fn nearest(key: &str) -> Option<String> {
    let (section, name) = key.rsplit_once('.').unwrap_or(("", key));
    let siblings: Vec<&str> = KNOWN
        .iter()
        .filter_map(|known| {
            let rest = if section.is_empty() { known } else { known.strip_prefix(section)?.strip_prefix('.')? };
            rest.split('.').next()
        })
        .collect();
    crate::ident::nearest(name, siblings)
        .map(|near| if section.is_empty() { near.to_owned() } else { format!("{section}.{near}") })
        .or_else(|| crate::ident::nearest(key, KNOWN.iter().copied()).map(str::to_owned))
}
