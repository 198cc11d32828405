//! Which codes operations fail with. The description of every failure is made from this table,
//! and tests hold answers of a running server against it.

/// Where a line of the table holds.
#[derive(Debug, Clone, Copy)]
enum At {
    /// Every operation that answers with this status.
    All,
    /// Those that need somebody.
    Signed,
    /// Those that can be asked for in the place of somebody else.
    SeeAs,
    /// Those with a body.
    Body,
    /// Addresses that are one of these, or, where it ends in `*`, begin like it; after a method
    /// and a blank, of that method alone.
    Paths(&'static [&'static str]),
}

/// Operations that are for admins; elsewhere `admin_required` is for who looks on.
const ADMINS: At = At::Paths(&[
    "/api/admin/*",
    "/api/users*",
    "/api/permissions*",
    "/auth/admin/*",
    "/api/access-requests/*",
    "/api/sync/trigger",
    "/api/sync/runs*",
    "/api/v2/metadata-cache/refresh",
    "/api/upload/data",
    "POST /api/catalog/profile/*",
    "/metrics",
    "/first-time-setup",
    "/api/query/hybrid",
    "/webhooks/jira/health",
]);

/// Operations on people, groups and grants, which the service may not call, and those on the
/// caller, which it is nobody for.
const PEOPLE: At = At::Paths(&[
    "/api/admin/g*",
    "/api/admin/users/*",
    "/api/admin/access-overview",
    "/api/admin/policies*",
    "/api/admin/welcome-template*",
    "/api/admin/workspace-prompt-template*",
    "/api/admin/initial-workspace*",
    "/api/welcome",
    "/api/admin/server-config",
    "/api/admin/configure",
    "POST /api/admin/sources",
    "DELETE /api/admin/sources/*",
    "/api/admin/observability/views*",
    "/api/users*",
    "/api/permissions*",
    "/api/access-requests*",
    "/api/me/*",
    "/auth/*",
    "/dashboard",
    "/home",
    "/cli/auth/start",
    "/desktop/link",
    "/api/desktop/authorize",
    "/oauth/authorize",
]);

/// Operations on one table.
const TABLES: At = At::Paths(&[
    "/api/v2/s*",
    "/api/catalog/profile/*",
    "/api/data/*",
    "/api/admin/metadata/*",
    "/api/admin/registry/*",
    "/api/settings/dataset",
]);

/// Operations that read rows.
const ROWS: At = At::Paths(&["/api/query", "/api/query/replay", "/api/v2/s*", "/api/catalog/profile/*"]);

/// Ways to sign in by a password, or to set one.
const PASSWORDS: At = At::Paths(&["/auth/token", "/auth/password/*", "/auth/bootstrap", "/login/password"]);

/// Deliveries of sources that tell of their changes by themselves.
const WEBHOOKS: At = At::Paths(&["POST /webhooks/*", "/api/jira/webhook"]);

const JIRA: At = At::Paths(&["/api/admin/run-jira*"]);

const SOURCES: At = At::Paths(&["/api/admin/re*", "/api/admin/discover*", "/api/admin/sources*"]);

const DESKTOP: At = At::Paths(&["/api/desktop/*", "/desktop/*"]);

/// The table: a status, where it holds, the codes.
const KNOWN: &[(u16, At, &[&str])] = &[
    (400, At::Body, &["bad_request"]),
    (400, At::Paths(&["/api/upload/*"]), &["bad_request"]),
    (400, At::Paths(&["/oauth/authorize"]), &["invalid_client", "invalid_request"]),
    (400, At::Paths(&["POST /oauth/authorize"]), &["unsupported_response_type", "invalid_scope", "invalid_target"]),
    (400, At::Paths(&["/oauth/register"]), &["invalid_redirect_uri", "invalid_client_metadata"]),
    (
        400,
        At::Paths(&["/oauth/token"]),
        &["invalid_grant", "invalid_request", "invalid_target", "unsupported_grant_type"],
    ),
    (400, At::Paths(&["/oauth/revoke"]), &["invalid_request"]),
    (400, At::Paths(&["/api/upload/sessions"]), &["invalid_gzip", "invalid_upload_name"]),
    (
        400,
        At::Paths(&["/api/upload/data"]),
        &[
            "invalid_name",
            "invalid_config",
            "column_not_found",
            "file_empty",
            "file_damaged",
            "file_without_columns",
            "sheet_not_found",
            "too_many_rejected",
            "unknown_format",
            "bad_batch",
        ],
    ),
    (400, At::Paths(&["/api/query/hybrid"]), &["bad_alias", "hybrid_failed"]),
    (400, At::Paths(&["/api/query/replay"]), &["receipt_forged"]),
    (400, At::Paths(&["/api/admin/sources"]), &["invalid_config", "invalid_name"]),
    (400, At::Paths(&["/api/admin/bigquery/*"]), &["not_configured"]),
    (
        400,
        At::Paths(&["/api/query", "/api/query/replay"]),
        &[
            "wrong_parameters",
            "receipt_unsupported",
            "rows_not_writable",
            "bad_frame",
            "frame_name_taken",
            "frames_too_large",
        ],
    ),
    (
        400,
        At::Paths(&["/api/query", "/api/query/replay", "/api/v2/scan"]),
        &[
            "sql_syntax",
            "sql_too_long",
            "empty_query",
            "several_statements",
            "not_a_query",
            "unsupported_sql",
            "query_too_complex",
            "nul_character",
            "backtick_name",
            "relation_unknown",
            "engine_relation",
            "file_relation",
            "internal_tables_mixed",
            "function_denied",
            "function_unknown",
            "table_function_denied",
            "pivot_empty",
            "pivot_too_wide",
            "not_materialized_yet",
            "not_published_yet",
            "query_binder",
            "query_failed",
            "query_memory",
            "query_spill",
            "remote_too_large",
            "remote_scan_too_large",
            "remote_estimate_failed",
        ],
    ),
    (400, At::Paths(&["/api/admin/welcome-template*", "/api/admin/workspace-prompt-template*"]), &["template_invalid"]),
    (
        400,
        At::Paths(&["POST /api/admin/initial-workspace*"]),
        &["private_url", "git_not_available", "initial_workspace_invalid"],
    ),
    (400, At::Paths(&["POST /api/admin/initial-workspace"]), &["bad_branch", "settings_not_kept"]),
    (400, At::Paths(&["/cli/download"]), &["platform_unknown"]),
    (400, WEBHOOKS, &["webhook_invalid"]),
    (400, JIRA, &["push_not_configured"]),
    (400, At::Paths(&["/api/v2/scan*"]), &["validator_rejected", "unknown_column", "bad_order", "scan_limit"]),
    (400, PASSWORDS, &["password_too_short", "password_too_long", "invalid_email"]),
    (400, At::Paths(&["/auth/password/setup*", "/auth/password/reset/confirm"]), &["token_invalid_or_expired"]),
    (400, At::Paths(&["/api/users/{user_id}/set-password"]), &["password_too_short", "password_too_long"]),
    (400, At::Paths(&["POST /api/users"]), &["invalid_email"]),
    (400, At::Paths(&["/api/desktop/token", "/cli/auth/exchange"]), &["code_invalid_or_expired"]),
    (400, At::Paths(&["POST /auth/tokens"]), &["name_required", "bad_expiry", "unknown_scope"]),
    (400, At::Paths(&["/api/admin/groups*"]), &["name_required"]),
    (400, At::Paths(&["/api/admin/grants"]), &["unknown_resource_type", "resource_id_required"]),
    (400, At::Paths(&["/api/access-requests"]), &["reason_too_long", "resource_id_required", "unknown_resource_type"]),
    (400, At::Paths(&["/api/access-requests/*"]), &["reason_too_long"]),
    (400, At::Paths(&["/api/permissions*", "/api/admin/policies*"]), &["ambiguous_reference", "resource_id_required"]),
    (
        400,
        At::Paths(&["/api/admin/policies*"]),
        &["policy_empty", "policy_invalid", "policy_on_remote_table", "policy_on_internal_table"],
    ),
    (400, At::Paths(&["/api/admin/metadata/{table_id}/push"]), &["metadata_push_unsupported"]),
    (400, SOURCES, &["invalid_name", "invalid_source_field", "invalid_config", "unsupported_query_mode"]),
    (400, At::Paths(&["/api/admin/observability/views"]), &["invalid_view"]),
    (
        400,
        At::Paths(&["/api/admin/server-config", "/api/admin/configure"]),
        &[
            "unknown_section",
            "confirm_danger_required",
            "private_url",
            "set_by_environment",
            "settings_not_kept",
            "source_not_offered",
            "connection_failed",
        ],
    ),
    (
        401,
        At::Signed,
        &[
            "auth_required",
            "token_invalid",
            "token_expired",
            "token_revoked",
            "token_unknown",
            "token_mismatch",
            "session_revoked",
            "account_deactivated",
            "inactive_user",
            "user_not_found",
            "service_user_missing",
        ],
    ),
    (401, WEBHOOKS, &["webhook_signature_invalid"]),
    (401, PASSWORDS, &["invalid_credentials", "external_auth_only", "account_deactivated"]),
    (401, At::Paths(&["/auth/email/verify"]), &["link_invalid_or_expired"]),
    (403, At::Signed, &["scope_denied", "csrf_failed"]),
    (403, At::Body, &["csrf_failed"]),
    (403, At::Paths(&["/auth/logout"]), &["csrf_failed"]),
    (403, At::Paths(&["POST /*", "PUT /*", "PATCH /*", "DELETE /*", "/api/users*"]), &["read_only_view"]),
    (403, At::SeeAs, &["admin_required", "service_forbidden", "read_only_view"]),
    (403, ADMINS, &["admin_required"]),
    (403, At::Paths(&["POST /api/admin/sources"]), &["source_for_operators"]),
    (403, PEOPLE, &["service_forbidden"]),
    (
        403,
        At::Paths(&[
            "POST /auth/tokens",
            "/auth/logout-all",
            "/auth/password/change",
            "/cli/auth/start",
            "/desktop/link",
            "/api/desktop/authorize",
            "/oauth/authorize",
        ]),
        &["session_required"],
    ),
    (403, TABLES, &["access_denied"]),
    (403, At::Paths(&["/api/query", "/api/query/replay", "/api/v2/scan"]), &["relation_denied"]),
    (
        403,
        At::Paths(&["/api/query", "/api/query/replay"]),
        &["bq_path_not_registered", "bq_path_access_denied", "bq_path_cross_project"],
    ),
    (403, At::Paths(&["/api/v2/scan*"]), &["access_denied"]),
    (403, At::Paths(&["/api/data/*"]), &["not_distributable"]),
    (403, PASSWORDS, &["provider_disabled"]),
    (403, At::Paths(&["/auth/email/*", "/login/email"]), &["provider_disabled"]),
    (403, At::Paths(&["/auth/token", "/auth/password/login"]), &["password_change_required"]),
    (403, At::Paths(&["/auth/password/setup*", "/auth/password/reset*"]), &["account_deactivated"]),
    (403, At::Paths(&["/auth/bootstrap"]), &["bootstrap_closed", "bootstrap_token_invalid"]),
    (404, At::SeeAs, &["user_not_found"]),
    (404, At::Paths(&["/static/*", "/docs/*", "/api/debug/throw"]), &["not_found"]),
    (404, At::Paths(&["/profile/sessions/*"]), &["session_not_found"]),
    (404, DESKTOP, &["desktop_off"]),
    (
        404,
        At::Paths(&[
            "DELETE /api/admin/initial-workspace",
            "/api/admin/initial-workspace/sync",
            "/api/initial-workspace.zip",
        ]),
        &["initial_workspace_not_configured"],
    ),
    (404, At::Paths(&["/cli/download", "/cli/artifact/*", "/cli/install.sh"]), &["cli_not_offered"]),
    (404, At::Paths(&["/api/desktop/unlink"]), &["token_not_found"]),
    (404, At::Paths(&["/auth/tokens/*", "/auth/admin/tokens/*"]), &["token_not_found"]),
    (404, At::Paths(&["/auth/refresh-groups", "/me/profile/refetch-groups"]), &["group_sync_off"]),
    (404, At::Paths(&["/me/profile/refetch-groups"]), &["not_found"]),
    (
        404,
        At::Paths(&["/api/admin/g*", "/api/admin/users/{user_id}/memberships*", "/api/permissions*"]),
        &["group_not_found"],
    ),
    (
        404,
        At::Paths(&["/api/admin/users/*", "/api/users/*", "/api/permissions/check", "/api/permissions"]),
        &["user_not_found"],
    ),
    (404, At::Paths(&["POST /api/users", "/api/access-requests/*"]), &["group_not_found"]),
    (
        404,
        At::Paths(&[
            "/api/admin/groups/{group_id}/members*",
            "DELETE /api/admin/users/{user_id}/memberships/{group_id}",
        ]),
        &["user_not_found", "no_removable_membership"],
    ),
    (404, At::Paths(&["DELETE /api/admin/grants/*", "DELETE /api/permissions/*"]), &["grant_not_found"]),
    (404, At::Paths(&["/api/admin/observability/views/*"]), &["view_not_found"]),
    (404, At::Paths(&["/api/admin/policies/*"]), &["policy_not_found"]),
    (404, At::Paths(&["POST /api/admin/policies"]), &["group_not_found", "policy_table_not_found", "table_not_found"]),
    (
        404,
        At::Paths(&["/api/admin/policies/dry-run"]),
        &["group_not_found", "user_not_found", "grant_not_found", "policy_table_not_found", "table_not_found"],
    ),
    (404, At::Paths(&["/api/access-requests*"]), &["access_requests_off", "request_not_found"]),
    (404, At::Paths(&["/api/sync/runs/*"]), &["run_not_found"]),
    (404, At::Paths(&["/api/sync/trigger"]), &["table_not_found", "source_not_found"]),
    (404, SOURCES, &["source_not_found", "table_not_found"]),
    (404, TABLES, &["table_not_found"]),
    (404, At::Paths(&["/api/v2/s*", "POST /api/catalog/profile/*", "/api/data/*"]), &["no_data"]),
    (404, At::Paths(&["GET /api/catalog/profile/*"]), &["no_profile"]),
    (404, At::Paths(&["/api/data/*"]), &["no_such_part"]),
    (404, At::Paths(&["/api/sync/assets/*"]), &["asset_not_found"]),
    (404, At::Paths(&["/api/data/{table_id}/attachments/*"]), &["attachment_not_found"]),
    (406, At::All, &["not_acceptable"]),
    (408, At::All, &["query_timeout", "request_timeout"]),
    (409, JIRA, &["already_running"]),
    (409, At::Paths(&["/api/admin/run-bq-metadata-refresh"]), &["metadata_refresh_running"]),
    (400, At::Paths(&["/api/v2/metadata-cache/refresh"]), &["not_in_a_warehouse"]),
    (404, At::Paths(&["/api/v2/metadata-cache/refresh"]), &["table_not_found"]),
    (409, At::Paths(&["/api/admin/groups*"]), &["group_exists", "system_group_rename", "google_managed_readonly"]),
    (409, At::Paths(&["DELETE /api/admin/groups/{group_id}"]), &["system_group_delete"]),
    (
        409,
        At::Paths(&["/api/admin/groups/{group_id}/members*", "/api/admin/users/{user_id}/memberships*"]),
        &["already_member", "last_admin", "google_managed_readonly", "service_account"],
    ),
    (409, At::Paths(&["/api/admin/grants", "/api/permissions"]), &["grant_exists"]),
    (409, At::Paths(&["/api/admin/policies*"]), &["policy_exists"]),
    (409, At::Paths(&["PUT /api/admin/policies/*", "/api/admin/policies/dry-run"]), &["policy_changed"]),
    (409, At::Paths(&["/api/admin/policies/dry-run"]), &["grant_exists"]),
    (409, At::Paths(&["/api/admin/observability/views"]), &["view_exists", "too_many_views"]),
    (409, At::Paths(&["/api/admin/server-config", "/api/admin/configure"]), &["overlay_corrupt"]),
    (409, At::Paths(&["/api/access-requests"]), &["already_pending", "already_granted"]),
    (409, At::Paths(&["/api/access-requests/*"]), &["not_pending", "google_managed_readonly"]),
    (409, At::Paths(&["/api/sync/trigger", "/api/upload/data", "/first-time-setup"]), &["sync_already_in_progress"]),
    (409, At::Paths(&["/api/upload/data", "/api/admin/register-table"]), &["table_exists"]),
    (409, At::Paths(&["POST /api/admin/sources"]), &["source_exists"]),
    (409, At::Paths(&["DELETE /api/admin/sources/*"]), &["sync_already_in_progress"]),
    (409, At::Paths(&["POST /api/users"]), &["user_exists", "google_managed_readonly"]),
    (409, At::Paths(&["/api/users/*"]), &["self_target", "last_admin", "sso_managed", "service_account"]),
    (409, At::Paths(&["/auth/bootstrap"]), &["service_account"]),
    (409, At::Paths(&["/auth/refresh-groups"]), &["last_admin"]),
    (413, At::All, &["body_too_large"]),
    (413, At::Paths(&["/api/upload/*"]), &["upload_too_large", "upload_quota_exceeded"]),
    (415, At::All, &["unsupported_media_type"]),
    (416, At::All, &["range_not_satisfiable"]),
    (422, At::All, &["validation_failed"]),
    (422, SOURCES, &["invalid_field", "unknown_connector", "source_not_configured"]),
    (
        422,
        At::Paths(&["/api/admin/metadata/*", "/api/users*", "/api/admin/groups*", "/api/admin/initial-workspace"]),
        &["invalid_field"],
    ),
    (
        422,
        At::Paths(&["/api/admin/server-config", "/api/admin/configure"]),
        &["invalid_setting", "settings_would_not_start"],
    ),
    (422, At::Paths(&["/api/v2/sample/*"]), &["bad_sample_size"]),
    (422, At::Paths(&["/api/sync/*", "/api/sync-settings"]), &["too_many_entries"]),
    (429, At::Body, &["rate_limited"]),
    (429, At::Paths(&["/auth/*", "POST /api/catalog/profile/*"]), &["rate_limited"]),
    (429, At::Paths(&["/auth/token", "/auth/password/*"]), &["sign_in_busy"]),
    (429, At::Paths(&["/api/access-requests"]), &["too_many_requests_pending"]),
    (429, At::Paths(&["/api/upload/*"]), &["too_many_uploads"]),
    (429, ROWS, &["too_many_queries"]),
    (429, At::Paths(&["/api/v2/scan"]), &["quota_exceeded"]),
    (429, At::Paths(&["/api/admin/bigquery/*"]), &["bigquery_quota"]),
    (
        429,
        At::Paths(&["/api/query/hybrid"]),
        &["too_many_queries", "daily_byte_cap_exceeded", "concurrent_slot_exceeded"],
    ),
    (429, ROWS, &["daily_byte_cap_exceeded", "concurrent_slot_exceeded"]),
    (500, At::All, &["internal"]),
    (502, At::Paths(&["POST /api/admin/initial-workspace*"]), &["git_failed"]),
    (502, At::All, &["source_failed"]),
    (
        502,
        At::All,
        &[
            "bigquery_auth_failed",
            "bigquery_token_refused",
            "bigquery_forbidden",
            "bigquery_project_forbidden",
            "bigquery_refused",
            "bigquery_not_found",
            "bigquery_unavailable",
            "bigquery_unreachable",
            "bigquery_answer_invalid",
            "bigquery_job_failed",
        ],
    ),
    (503, At::Signed, &["interrupted", "disk_full"]),
    (503, WEBHOOKS, &["push_not_configured", "disk_full", "inbox_closed"]),
    (
        503,
        ROWS,
        &["query_worker_lost", "query_worker_start", "query_cancelled", "remote_unavailable", "sandbox_self_test"],
    ),
    (503, At::Paths(&["/api/initial-workspace.zip"]), &["initial_workspace_not_synced"]),
    (503, At::Paths(&["/auth/refresh-groups"]), &["group_check_unavailable"]),
    (503, At::Paths(&["/api/users/{user_id}/set-password"]), &["interrupted"]),
    (504, At::All, &["discovery_timeout", "warehouse_timeout"]),
];

/// What the table asks of an operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// `GET` and so on.
    pub(crate) method: &'a str,
    /// As it is described, with the names of its pieces in braces.
    pub(crate) path: &'a str,
    /// Whether it needs somebody.
    pub(crate) signed: bool,
    /// Whether it can be asked for in the place of somebody else.
    pub(crate) see_as: bool,
    /// Whether it takes a body.
    pub(crate) body: bool,
}

impl At {
    fn holds(self, asked: Asked<'_>) -> bool {
        match self {
            Self::All => true,
            Self::Signed => asked.signed,
            Self::SeeAs => asked.see_as,
            Self::Body => asked.body,
            Self::Paths(places) => places.iter().any(|place| {
                let (method, path) = place.split_once(' ').unwrap_or((asked.method, place));
                let fits = path.strip_suffix('*').map_or(path == asked.path, |start| asked.path.starts_with(start));
                method == asked.method && fits
            }),
        }
    }
}

/// The codes that an operation fails with under a status, by name.
pub(crate) fn codes(asked: Asked<'_>, status: u16) -> Vec<&'static str> {
    let lines = KNOWN.iter().filter(|(of, at, _)| *of == status && at.holds(asked));
    let mut codes: Vec<&str> = lines.flat_map(|(_, _, codes)| codes.iter().copied()).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

#[cfg(test)]
pub(crate) fn table() -> impl Iterator<Item = (u16, &'static str)> {
    KNOWN.iter().flat_map(|(status, _, codes)| codes.iter().map(|code| (*status, *code)))
}
