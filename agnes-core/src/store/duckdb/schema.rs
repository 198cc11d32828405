//! The state's schema, version by version.

use ::duckdb::Connection;
use chrono::{DateTime, Utc};

use super::values::stamp;
use super::{StateError, checkpoint, transaction};
use crate::duck::engine_error;
use crate::error::Result;
use crate::store::STATE_SCHEMA_VERSION;

/// Every table, as a fresh installation makes it. No foreign keys: with them DuckDB refuses
/// updates of referenced rows, so the repositories keep integrity in their transactions.
pub(super) const TABLES: &[(&str, &str)] = &[
    ("schema_version", "version INTEGER NOT NULL, applied_at TIMESTAMP DEFAULT current_timestamp"),
    (
        "users",
        "id VARCHAR PRIMARY KEY, email VARCHAR NOT NULL UNIQUE, name VARCHAR, password_hash VARCHAR, setup_token VARCHAR, \
         setup_token_created TIMESTAMP, reset_token VARCHAR, reset_token_created TIMESTAMP, active BOOLEAN NOT NULL DEFAULT true, \
         deactivated_at TIMESTAMP, deactivated_by VARCHAR, created_at TIMESTAMP DEFAULT current_timestamp, updated_at TIMESTAMP, \
         onboarded BOOLEAN NOT NULL DEFAULT false, last_pull_at TIMESTAMP, login_token VARCHAR, login_token_created TIMESTAMP, \
         sessions_valid_after TIMESTAMP, kept_session VARCHAR, must_change_password BOOLEAN NOT NULL DEFAULT false",
    ),
    (
        "user_groups",
        "id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL UNIQUE, description TEXT, is_system BOOLEAN DEFAULT false, \
         created_at TIMESTAMP DEFAULT current_timestamp, created_by VARCHAR",
    ),
    (
        "user_group_members",
        "user_id VARCHAR NOT NULL, group_id VARCHAR NOT NULL, source VARCHAR NOT NULL, added_at TIMESTAMP DEFAULT current_timestamp, \
         added_by VARCHAR, PRIMARY KEY (user_id, group_id)",
    ),
    (
        "resource_grants",
        "id VARCHAR PRIMARY KEY, group_id VARCHAR NOT NULL, resource_type VARCHAR NOT NULL, resource_id VARCHAR NOT NULL, \
         assigned_at TIMESTAMP DEFAULT current_timestamp, assigned_by VARCHAR, UNIQUE (group_id, resource_type, resource_id)",
    ),
    (
        "personal_access_tokens",
        "id VARCHAR PRIMARY KEY, user_id VARCHAR NOT NULL, name VARCHAR NOT NULL, token_hash VARCHAR NOT NULL, prefix VARCHAR NOT NULL, \
         scopes VARCHAR, created_at TIMESTAMP NOT NULL DEFAULT current_timestamp, expires_at TIMESTAMP, last_used_at TIMESTAMP, \
         last_used_ip VARCHAR, revoked_at TIMESTAMP, revoked_by VARCHAR",
    ),
    (
        "desktop_tokens",
        "id VARCHAR PRIMARY KEY, user_id VARCHAR NOT NULL, name VARCHAR NOT NULL, token_hash VARCHAR NOT NULL, prefix VARCHAR NOT NULL, \
         scopes VARCHAR, created_at TIMESTAMP NOT NULL DEFAULT current_timestamp, expires_at TIMESTAMP, last_used_at TIMESTAMP, \
         last_used_ip VARCHAR, revoked_at TIMESTAMP, revoked_by VARCHAR",
    ),
    ("revoked_sessions", "jti VARCHAR PRIMARY KEY, exp TIMESTAMP NOT NULL"),
    (
        "one_shot_codes",
        "code_hash VARCHAR PRIMARY KEY, purpose VARCHAR NOT NULL, user_id VARCHAR, created_at TIMESTAMP NOT NULL, \
         expires_at TIMESTAMP NOT NULL",
    ),
    (
        "oauth_clients",
        "id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, redirect_uris VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, \
         last_used_at TIMESTAMP",
    ),
    (
        "oauth_codes",
        "code_hash VARCHAR PRIMARY KEY, client_id VARCHAR NOT NULL, user_id VARCHAR NOT NULL, redirect_uri VARCHAR NOT NULL, \
         challenge VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, expires_at TIMESTAMP NOT NULL, token_id VARCHAR",
    ),
    (
        "oauth_tokens",
        "refresh_hash VARCHAR PRIMARY KEY, token_id VARCHAR NOT NULL, client_id VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, \
         expires_at TIMESTAMP NOT NULL, replaced_at TIMESTAMP",
    ),
    (
        "access_requests",
        "id VARCHAR PRIMARY KEY, user_id VARCHAR NOT NULL, resource_type VARCHAR NOT NULL, resource_id VARCHAR NOT NULL, reason TEXT, \
         status VARCHAR NOT NULL, created_at TIMESTAMP NOT NULL, reviewed_by VARCHAR, reviewed_at TIMESTAMP, review_note TEXT, \
         group_id VARCHAR",
    ),
    (
        "table_registry",
        "id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, source_type VARCHAR, bucket VARCHAR, source_table VARCHAR, source_query TEXT, \
         sync_strategy VARCHAR DEFAULT 'full_refresh', query_mode VARCHAR DEFAULT 'local', sync_schedule VARCHAR, \
         profile_after_sync BOOLEAN DEFAULT true, primary_key VARCHAR, folder VARCHAR, description TEXT, registered_by VARCHAR, \
         registered_at TIMESTAMP DEFAULT current_timestamp, incremental_window_days INTEGER, max_history_days INTEGER, \
         incremental_column VARCHAR, where_filters VARCHAR, partition_by VARCHAR, partition_granularity VARCHAR, \
         initial_load_chunk_days INTEGER, bq_fqn VARCHAR, source VARCHAR, server_only BOOLEAN DEFAULT false, options JSON",
    ),
    (
        "sync_state",
        "table_id VARCHAR PRIMARY KEY, last_sync TIMESTAMP, rows BIGINT, file_size_bytes BIGINT, uncompressed_size_bytes BIGINT, \
         columns INTEGER, hash VARCHAR, status VARCHAR DEFAULT 'ok', error TEXT, parts JSON, cursor JSON, drift JSON",
    ),
    (
        "sync_history",
        "id VARCHAR PRIMARY KEY, table_id VARCHAR NOT NULL, synced_at TIMESTAMP NOT NULL, rows BIGINT, duration_ms INTEGER, \
         status VARCHAR, error TEXT",
    ),
    (
        "user_sync_settings",
        "user_id VARCHAR NOT NULL, dataset VARCHAR NOT NULL, enabled BOOLEAN DEFAULT false, table_mode VARCHAR DEFAULT 'all', \
         tables JSON, updated_at TIMESTAMP, PRIMARY KEY (user_id, dataset)",
    ),
    (
        "view_ownership",
        "view_name VARCHAR PRIMARY KEY, source_name VARCHAR NOT NULL, registered_at TIMESTAMP NOT NULL DEFAULT current_timestamp",
    ),
    (
        "table_profiles",
        "table_id VARCHAR PRIMARY KEY, profile JSON NOT NULL, profiled_at TIMESTAMP DEFAULT current_timestamp, content_hash VARCHAR",
    ),
    (
        "column_metadata",
        "table_id VARCHAR NOT NULL, column_name VARCHAR NOT NULL, basetype VARCHAR, description VARCHAR, \
         confidence VARCHAR DEFAULT 'manual', source VARCHAR DEFAULT 'manual', updated_at TIMESTAMP DEFAULT current_timestamp, \
         PRIMARY KEY (table_id, column_name)",
    ),
    (
        "metric_definitions",
        "id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, display_name VARCHAR NOT NULL, category VARCHAR NOT NULL, description TEXT, \
         type VARCHAR DEFAULT 'sum', unit VARCHAR, grain VARCHAR DEFAULT 'monthly', table_name VARCHAR, tables VARCHAR[], \
         expression VARCHAR, time_column VARCHAR, dimensions VARCHAR[], filters VARCHAR[], synonyms VARCHAR[], notes VARCHAR[], \
         sql TEXT NOT NULL, sql_variants JSON, validation JSON, source VARCHAR DEFAULT 'manual', \
         created_at TIMESTAMP DEFAULT current_timestamp, updated_at TIMESTAMP DEFAULT current_timestamp",
    ),
    (
        "bq_metadata_cache",
        "table_id VARCHAR PRIMARY KEY, rows BIGINT, size_bytes BIGINT, partition_by VARCHAR, clustered_by JSON, entity_type VARCHAR, \
         known_columns JSON, refreshed_at TIMESTAMP, error_at TIMESTAMP, error_msg VARCHAR",
    ),
    (
        "audit_log",
        "id VARCHAR PRIMARY KEY, timestamp TIMESTAMP NOT NULL DEFAULT current_timestamp, user_id VARCHAR, action VARCHAR NOT NULL, \
         resource VARCHAR, params JSON, result VARCHAR, duration_ms INTEGER, params_before JSON, client_ip VARCHAR, \
         client_kind VARCHAR, correlation_id VARCHAR",
    ),
    (
        "knowledge_items",
        "id VARCHAR PRIMARY KEY, title VARCHAR NOT NULL, content TEXT, category VARCHAR, tags JSON, status VARCHAR DEFAULT 'pending', \
         contributors JSON, source_user VARCHAR, audience VARCHAR, confidence DOUBLE, domain VARCHAR, entities JSON, \
         source_type VARCHAR DEFAULT 'claude_local_md', source_ref VARCHAR, valid_from TIMESTAMP, valid_until TIMESTAMP, \
         supersedes VARCHAR, sensitivity VARCHAR DEFAULT 'internal', is_personal BOOLEAN DEFAULT false, \
         created_at TIMESTAMP DEFAULT current_timestamp, updated_at TIMESTAMP",
    ),
    (
        "knowledge_contradictions",
        "id VARCHAR PRIMARY KEY, item_a_id VARCHAR NOT NULL, item_b_id VARCHAR NOT NULL, explanation TEXT, severity VARCHAR, \
         suggested_resolution TEXT, resolved BOOLEAN DEFAULT false, resolved_by VARCHAR, resolved_at TIMESTAMP, resolution VARCHAR, \
         detected_at TIMESTAMP DEFAULT current_timestamp",
    ),
    (
        "knowledge_item_relations",
        "item_a_id VARCHAR NOT NULL, item_b_id VARCHAR NOT NULL, relation_type VARCHAR NOT NULL, score DOUBLE, \
         resolved BOOLEAN DEFAULT false, resolved_by VARCHAR, resolved_at TIMESTAMP, resolution VARCHAR, \
         created_at TIMESTAMP DEFAULT current_timestamp, PRIMARY KEY (item_a_id, item_b_id, relation_type)",
    ),
    (
        "knowledge_votes",
        "item_id VARCHAR NOT NULL, user_id VARCHAR NOT NULL, vote INTEGER, voted_at TIMESTAMP DEFAULT current_timestamp, \
         PRIMARY KEY (item_id, user_id)",
    ),
    (
        "knowledge_item_user_dismissed",
        "user_id VARCHAR NOT NULL, item_id VARCHAR NOT NULL, dismissed_at TIMESTAMP DEFAULT current_timestamp, \
         PRIMARY KEY (user_id, item_id)",
    ),
    (
        "verification_evidence",
        "id VARCHAR PRIMARY KEY, item_id VARCHAR NOT NULL, source_user VARCHAR, source_ref VARCHAR, detection_type VARCHAR, \
         user_quote TEXT, created_at TIMESTAMP DEFAULT current_timestamp",
    ),
    (
        "session_processor_state",
        "processor_name VARCHAR NOT NULL, session_file VARCHAR NOT NULL, username VARCHAR NOT NULL, \
         processed_at TIMESTAMP DEFAULT current_timestamp, items_extracted INTEGER DEFAULT 0, file_hash VARCHAR, \
         PRIMARY KEY (processor_name, session_file)",
    ),
    (
        "usage_events",
        "id VARCHAR PRIMARY KEY, session_id VARCHAR NOT NULL, session_file VARCHAR NOT NULL, username VARCHAR NOT NULL, \
         event_uuid VARCHAR, parent_uuid VARCHAR, event_type VARCHAR NOT NULL, tool_name VARCHAR, skill_name VARCHAR, \
         subagent_type VARCHAR, command_name VARCHAR, is_error BOOLEAN DEFAULT false, source VARCHAR NOT NULL, ref_id VARCHAR, \
         model VARCHAR, cwd VARCHAR, occurred_at TIMESTAMP NOT NULL, processor_version INTEGER NOT NULL, \
         extracted_at TIMESTAMP DEFAULT current_timestamp, friction_tags JSON, user_id VARCHAR",
    ),
    (
        "usage_session_summary",
        "session_file VARCHAR PRIMARY KEY, session_id VARCHAR NOT NULL, username VARCHAR NOT NULL, started_at TIMESTAMP, \
         ended_at TIMESTAMP, active_seconds INTEGER, wall_seconds INTEGER, user_messages INTEGER DEFAULT 0, \
         assistant_messages INTEGER DEFAULT 0, tool_calls INTEGER DEFAULT 0, tool_errors INTEGER DEFAULT 0, \
         skill_invocations INTEGER DEFAULT 0, subagent_dispatches INTEGER DEFAULT 0, mcp_calls INTEGER DEFAULT 0, \
         slash_commands INTEGER DEFAULT 0, distinct_tools INTEGER DEFAULT 0, distinct_skills INTEGER DEFAULT 0, \
         primary_model VARCHAR, processor_version INTEGER NOT NULL, extracted_at TIMESTAMP DEFAULT current_timestamp, \
         input_tokens BIGINT DEFAULT 0, output_tokens BIGINT DEFAULT 0, cache_read_tokens BIGINT DEFAULT 0, \
         cache_creation_tokens BIGINT DEFAULT 0, user_id VARCHAR",
    ),
    (
        "usage_tool_daily",
        "day DATE NOT NULL, tool_name VARCHAR NOT NULL, source VARCHAR NOT NULL, invocations INTEGER DEFAULT 0, \
         error_count INTEGER DEFAULT 0, distinct_users INTEGER DEFAULT 0, distinct_sessions INTEGER DEFAULT 0, \
         PRIMARY KEY (day, tool_name, source)",
    ),
    (
        "usage_marketplace_item_daily",
        "day DATE NOT NULL, source VARCHAR NOT NULL, type VARCHAR NOT NULL, parent_plugin VARCHAR NOT NULL DEFAULT '', \
         name VARCHAR NOT NULL, count INTEGER NOT NULL DEFAULT 0, distinct_users INTEGER NOT NULL DEFAULT 0, \
         error_count INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (day, source, type, parent_plugin, name)",
    ),
    (
        "usage_marketplace_item_window",
        "period_label VARCHAR NOT NULL, source VARCHAR NOT NULL, type VARCHAR NOT NULL, parent_plugin VARCHAR NOT NULL DEFAULT '', \
         name VARCHAR NOT NULL, invocations INTEGER NOT NULL DEFAULT 0, distinct_users INTEGER NOT NULL DEFAULT 0, \
         refreshed_at TIMESTAMP DEFAULT current_timestamp, PRIMARY KEY (period_label, source, type, parent_plugin, name)",
    ),
    (
        "user_observability_views",
        "id VARCHAR PRIMARY KEY, user_id VARCHAR NOT NULL, name VARCHAR NOT NULL, query_json JSON NOT NULL, \
         created_at TIMESTAMP DEFAULT current_timestamp, UNIQUE (user_id, name)",
    ),
    (
        "marketplace_registry",
        "id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, url VARCHAR NOT NULL, branch VARCHAR, token_env VARCHAR, description TEXT, \
         registered_by VARCHAR, registered_at TIMESTAMP DEFAULT current_timestamp, last_synced_at TIMESTAMP, \
         last_commit_sha VARCHAR, last_error TEXT, curator_name VARCHAR, curator_email VARCHAR",
    ),
    (
        "marketplace_plugins",
        "marketplace_id VARCHAR NOT NULL, name VARCHAR NOT NULL, description TEXT, version VARCHAR, author_name VARCHAR, \
         homepage VARCHAR, category VARCHAR, source_type VARCHAR, source_spec JSON, raw JSON, \
         created_at TIMESTAMP DEFAULT current_timestamp, updated_at TIMESTAMP DEFAULT current_timestamp, cover_photo_url VARCHAR, \
         video_url VARCHAR, doc_links JSON, is_system BOOLEAN DEFAULT false, PRIMARY KEY (marketplace_id, name)",
    ),
    (
        "user_plugin_optouts",
        "user_id VARCHAR NOT NULL, marketplace_id VARCHAR NOT NULL, plugin_name VARCHAR NOT NULL, \
         opted_out_at TIMESTAMP DEFAULT current_timestamp, PRIMARY KEY (user_id, marketplace_id, plugin_name)",
    ),
    (
        "store_entities",
        "id VARCHAR PRIMARY KEY, owner_user_id VARCHAR NOT NULL, owner_username VARCHAR NOT NULL, \
         type VARCHAR NOT NULL CHECK (type IN ('skill', 'agent', 'plugin')), name VARCHAR NOT NULL, description TEXT, \
         category VARCHAR, version VARCHAR NOT NULL, photo_path VARCHAR, video_url VARCHAR, doc_paths JSON, file_size BIGINT, \
         install_count BIGINT NOT NULL DEFAULT 0, visibility_status VARCHAR NOT NULL DEFAULT 'pending' \
         CHECK (visibility_status IN ('pending', 'approved', 'hidden', 'archived')), archived_at TIMESTAMP, archived_by VARCHAR, \
         version_no INTEGER NOT NULL DEFAULT 1, version_history JSON DEFAULT '[]', title VARCHAR NOT NULL, tagline VARCHAR, \
         synthetic_name VARCHAR NOT NULL, created_at TIMESTAMP DEFAULT current_timestamp, \
         updated_at TIMESTAMP DEFAULT current_timestamp, UNIQUE (owner_user_id, name)",
    ),
    (
        "user_store_installs",
        "user_id VARCHAR NOT NULL, entity_id VARCHAR NOT NULL, installed_at TIMESTAMP DEFAULT current_timestamp, \
         PRIMARY KEY (user_id, entity_id)",
    ),
    (
        "store_submissions",
        "id VARCHAR PRIMARY KEY, entity_id VARCHAR, submitter_id VARCHAR NOT NULL, submitter_email VARCHAR, type VARCHAR NOT NULL, \
         name VARCHAR NOT NULL, version VARCHAR, status VARCHAR NOT NULL, inline_checks JSON, llm_findings JSON, \
         reviewed_by_model VARCHAR, override_by VARCHAR, override_reason TEXT, file_size BIGINT, bundle_sha256 VARCHAR, \
         bundle_purged_at TIMESTAMP, created_at TIMESTAMP DEFAULT current_timestamp, updated_at TIMESTAMP DEFAULT current_timestamp",
    ),
    (
        "instance_templates",
        "key VARCHAR PRIMARY KEY, content TEXT, previous_content TEXT, updated_at TIMESTAMP, updated_by VARCHAR",
    ),
    (
        "news_template",
        "id VARCHAR PRIMARY KEY, version INTEGER NOT NULL UNIQUE, intro TEXT, content TEXT, published BOOLEAN NOT NULL DEFAULT false, \
         created_at TIMESTAMP NOT NULL DEFAULT current_timestamp, updated_at TIMESTAMP NOT NULL DEFAULT current_timestamp, \
         created_by VARCHAR, published_at TIMESTAMP, published_by VARCHAR",
    ),
    (
        "setup_banner",
        "id INTEGER PRIMARY KEY DEFAULT 1 CHECK (id = 1), content TEXT, updated_at TIMESTAMP, updated_by VARCHAR",
    ),
    (
        "script_registry",
        "id VARCHAR PRIMARY KEY, name VARCHAR NOT NULL, owner VARCHAR, schedule VARCHAR, source TEXT NOT NULL, \
         deployed_at TIMESTAMP DEFAULT current_timestamp, last_run TIMESTAMP, last_status VARCHAR",
    ),
    (
        "telegram_links",
        "user_id VARCHAR PRIMARY KEY, chat_id BIGINT NOT NULL, linked_at TIMESTAMP DEFAULT current_timestamp",
    ),
    (
        "pending_codes",
        "code VARCHAR PRIMARY KEY, chat_id BIGINT NOT NULL, created_at TIMESTAMP DEFAULT current_timestamp",
    ),
    (
        "sources",
        "name VARCHAR PRIMARY KEY, kind VARCHAR NOT NULL, config JSON NOT NULL, schedule VARCHAR, \
         created_at TIMESTAMP DEFAULT current_timestamp, created_by VARCHAR",
    ),
    (
        "table_policies",
        "id VARCHAR PRIMARY KEY, group_id VARCHAR NOT NULL, table_id VARCHAR NOT NULL, rules JSON NOT NULL, \
         version INTEGER NOT NULL, created_at TIMESTAMP DEFAULT current_timestamp, created_by VARCHAR, updated_at TIMESTAMP, \
         updated_by VARCHAR",
    ),
    (
        "table_policy_versions",
        "policy_id VARCHAR NOT NULL, version INTEGER NOT NULL, rules JSON, changed_at TIMESTAMP, changed_by VARCHAR, \
         PRIMARY KEY (policy_id, version)",
    ),
    ("scan_usage", "user_id VARCHAR NOT NULL, day DATE NOT NULL, bytes UBIGINT NOT NULL, PRIMARY KEY (user_id, day)"),
    (
        "jobs",
        "id VARCHAR PRIMARY KEY, kind VARCHAR NOT NULL, payload JSON NOT NULL, state VARCHAR NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, \
         max_attempts INTEGER NOT NULL DEFAULT 1, idempotency_key VARCHAR, concurrency_key VARCHAR, lease_owner VARCHAR, \
         lease_until TIMESTAMP, run_after TIMESTAMP NOT NULL, created_at TIMESTAMP NOT NULL, started_at TIMESTAMP, \
         finished_at TIMESTAMP, outcome JSON, error TEXT, created_by VARCHAR, seq BIGINT NOT NULL",
    ),
];

/// Indexes: name, table, columns.
pub(super) const INDEXES: &[(&str, &str, &str)] = &[
    ("idx_audit_timestamp", "audit_log", "timestamp"),
    ("idx_audit_user", "audit_log", "user_id, timestamp"),
    ("idx_audit_action", "audit_log", "action, timestamp"),
    ("idx_relations_resolved", "knowledge_item_relations", "resolved"),
    ("idx_dismissed_user", "knowledge_item_user_dismissed", "user_id"),
    ("idx_evidence_item", "verification_evidence", "item_id"),
    ("idx_usage_session", "usage_events", "session_id"),
    ("idx_usage_username", "usage_events", "username, occurred_at"),
    ("idx_usage_tool", "usage_events", "tool_name"),
    ("idx_usage_skill", "usage_events", "skill_name"),
    ("idx_usage_ref", "usage_events", "source, ref_id"),
    ("idx_usage_user", "usage_events", "user_id"),
    ("idx_summary_username", "usage_session_summary", "username"),
    ("idx_summary_started", "usage_session_summary", "started_at"),
    ("idx_summary_user", "usage_session_summary", "user_id"),
    ("idx_item_daily", "usage_marketplace_item_daily", "source, type, parent_plugin, name"),
    ("idx_item_window", "usage_marketplace_item_window", "period_label, source, type"),
    ("idx_views_user", "user_observability_views", "user_id, created_at"),
    ("idx_submissions_status", "store_submissions", "status"),
    ("idx_submissions_entity", "store_submissions", "entity_id"),
    ("idx_news_published", "news_template", "published, version"),
];

/// Indexes that let no value in twice.
const UNIQUE_INDEXES: &[(&str, &str, &str)] = &[("idx_entities_synthetic_name", "store_entities", "synthetic_name")];

/// The version a file says it has; 0 without the table.
pub(super) fn version(conn: &Connection) -> ::duckdb::Result<i32> {
    let tables: i64 = conn.query_row(
        "SELECT count(*) FROM duckdb_tables() WHERE table_name = 'schema_version' AND schema_name = 'main' \
         AND database_name = current_database()",
        [],
        |row| row.get(0),
    )?;
    if tables == 0 {
        return Ok(0);
    }
    conn.query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))
}

/// Makes a fresh file, leaves a current one. Older and newer ones never come here.
pub(super) fn bring_up_to_date(conn: &Connection, now: DateTime<Utc>) -> Result<()> {
    let found = version(conn).map_err(|e| engine_error("read the state's version", &e))?;
    if found > STATE_SCHEMA_VERSION {
        return Err(StateError::TooNew { found }.into());
    }
    if found < STATE_SCHEMA_VERSION {
        transaction(conn, |conn| create(conn, now).map_err(|e| engine_error("make the state's schema", &e)))?;
        checkpoint(conn)?;
    }
    seed(conn, now)
}

pub(super) fn create(conn: &Connection, now: DateTime<Utc>) -> ::duckdb::Result<()> {
    for (table, columns) in TABLES {
        conn.execute_batch(&format!("CREATE TABLE IF NOT EXISTS {table} ({columns})"))?;
    }
    for (kind, indexes) in [("INDEX", INDEXES), ("UNIQUE INDEX", UNIQUE_INDEXES)] {
        for (index, table, columns) in indexes {
            conn.execute_batch(&format!("CREATE {kind} IF NOT EXISTS {index} ON {table} ({columns})"))?;
        }
    }
    conn.execute_batch("DELETE FROM schema_version")?;
    conn.execute(
        "INSERT INTO schema_version VALUES (?, ?::TIMESTAMP)",
        ::duckdb::params![STATE_SCHEMA_VERSION, stamp(now)],
    )?;
    Ok(())
}

/// Templates that somebody may fill.
const TEMPLATES: [&str; 3] = ["welcome", "claude_md", "home"];

/// What everybody reads of the installation itself, and how it is described.
const INTERNAL: [(&str, &str); 3] = [
    ("agnes_sessions", "Your sessions with an assistant; admins see everybody's"),
    ("agnes_telemetry", "Events of your sessions; admins see everybody's"),
    ("agnes_audit", "What you did in Agnes; admins see everybody's"),
];

/// Writes the rows that exist on every start, where they are not as they must be: most
/// starts only look.
fn seed(conn: &Connection, now: DateTime<Utc>) -> Result<()> {
    if seeded(conn).map_err(|e| engine_error("look at the seed of the state", &e))? {
        return Ok(());
    }
    transaction(conn, |conn| write_seed(conn, now).map_err(|e| engine_error("seed the state", &e)))
}

fn seeded(conn: &Connection) -> ::duckdb::Result<bool> {
    let templates: usize = conn.query_row(
        "SELECT count(*) FROM instance_templates WHERE key IN (?, ?, ?)",
        ::duckdb::params_from_iter(TEMPLATES),
        |row| row.get(0),
    )?;
    let mut internal = conn.prepare(
        "SELECT id, description, id = name AND (source_type, query_mode, bucket, registered_by) \
         = ('internal', 'internal', 'Agnes Internal', 'system_seed') \
         AND coalesce(source, source_table, source_query, sync_schedule) IS NULL \
         FROM table_registry WHERE source_type = 'internal' OR id IN (?, ?, ?)",
    )?;
    let mut rows = internal.query(::duckdb::params_from_iter(INTERNAL.map(|(id, _)| id)))?;
    let mut right = 0;
    while let Some(row) = rows.next()? {
        let (id, description): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        let known = INTERNAL.iter().any(|(name, text)| id == *name && description.as_deref() == Some(text));
        if !known || row.get::<_, Option<bool>>(2)? != Some(true) {
            return Ok(false);
        }
        right += 1;
    }
    Ok(right == INTERNAL.len() && templates == TEMPLATES.len())
}

fn write_seed(conn: &Connection, now: DateTime<Utc>) -> ::duckdb::Result<()> {
    for key in TEMPLATES {
        conn.execute("INSERT INTO instance_templates (key) VALUES (?) ON CONFLICT DO NOTHING", [key])?;
    }
    conn.execute(
        "DELETE FROM table_registry WHERE source_type = 'internal' AND id NOT IN (?, ?, ?)",
        ::duckdb::params_from_iter(INTERNAL.map(|(id, _)| id)),
    )?;
    for (id, description) in INTERNAL {
        // Whatever is there under this id: everybody may read it, so it must be ours.
        conn.execute(
            "INSERT INTO table_registry (id, name, source_type, query_mode, bucket, registered_by, registered_at, description) \
             VALUES (?, ?, 'internal', 'internal', 'Agnes Internal', 'system_seed', ?::TIMESTAMP, ?) \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name, source_type = excluded.source_type, \
             query_mode = excluded.query_mode, bucket = excluded.bucket, registered_by = excluded.registered_by, \
             description = excluded.description, source = NULL, source_table = NULL, source_query = NULL, sync_schedule = NULL",
            ::duckdb::params![id, id, stamp(now), description],
        )?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn open(path: &std::path::Path) -> Connection {
        let conn = Connection::open(path).unwrap();
        bring_up_to_date(&conn, Utc::now()).unwrap();
        conn
    }

    /// Rows of every start are mended whatever happened to them; where nothing did, none is written.
    #[test]
    fn the_seed_is_mended_and_otherwise_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.duckdb");
        let conn = open(&path);
        let all = |conn: &Connection| -> String {
            let sql = "SELECT concat((SELECT list(key ORDER BY key) FROM instance_templates)::VARCHAR, \
                       (SELECT list(t::VARCHAR ORDER BY id) FROM (SELECT * EXCLUDE (registered_at) FROM table_registry) t)::VARCHAR)";
            conn.query_row(sql, [], |row| row.get(0)).unwrap()
        };
        let right = all(&conn);
        assert!(seeded(&conn).unwrap());
        for change in [
            "DELETE FROM instance_templates WHERE key = 'home'",
            "DELETE FROM table_registry WHERE id = 'agnes_audit'",
            "UPDATE table_registry SET description = 'x' WHERE id = 'agnes_audit'",
            "UPDATE table_registry SET description = NULL WHERE id = 'agnes_audit'",
            "UPDATE table_registry SET source_query = 'SELECT 1' WHERE id = 'agnes_audit'",
            "UPDATE table_registry SET source_type = 'keboola' WHERE id = 'agnes_audit'",
            "UPDATE table_registry SET query_mode = NULL WHERE id = 'agnes_audit'",
            "INSERT INTO table_registry (id, name, source_type, query_mode) VALUES ('more', 'more', 'internal', 'internal')",
        ] {
            conn.execute_batch(change).unwrap();
            assert!(!seeded(&conn).unwrap(), "{change}");
            bring_up_to_date(&conn, Utc::now()).unwrap();
            assert_eq!(all(&conn), right, "{change}");
        }
    }

    /// What may change of a row with unique or indexed columns, in one transaction, also
    /// after a restart: DuckDB's indexes are known for refusing more than they should.
    #[test]
    fn constraints_hold_and_indexed_columns_can_be_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.duckdb");
        let entity = |id: &str, name: &str| {
            format!(
                "INSERT INTO store_entities (id, owner_user_id, owner_username, type, name, version, title, synthetic_name) \
                 VALUES ('{id}', 'u1', 'ann', 'skill', '{id}', '1', 't', '{name}')"
            )
        };
        let news =
            |id: &str, version: i32| format!("INSERT INTO news_template (id, version) VALUES ('{id}', {version})");
        let conn = open(&path);
        for sql in [
            entity("a", "one"),
            entity("b", "two"),
            news("n1", 1),
            news("n2", 2),
            "INSERT INTO setup_banner (content) VALUES ('x')".to_owned(),
            "INSERT INTO store_submissions (id, submitter_id, type, name, status) VALUES ('s', 'u1', 'skill', 'x', 'new')".to_owned(),
            "INSERT INTO usage_session_summary (session_file, session_id, username, processor_version) VALUES ('f', 's', 'ann', 1)"
                .to_owned(),
        ] {
            conn.execute_batch(&sql).unwrap();
        }
        for broken in [
            entity("c", "one"),
            entity("c", "three").replace("'skill'", "'film'"),
            "UPDATE store_entities SET synthetic_name = 'two' WHERE id = 'a'".to_owned(),
            "UPDATE store_entities SET visibility_status = 'gone' WHERE id = 'a'".to_owned(),
            news("n3", 2),
            "INSERT INTO setup_banner (id) VALUES (2)".to_owned(),
            "INSERT INTO setup_banner (content) VALUES ('y')".to_owned(),
        ] {
            assert!(conn.execute_batch(&broken).is_err(), "{broken}");
        }
        let changes = [
            "UPDATE store_entities SET synthetic_name = 'one again', install_count = install_count + 1 WHERE id = 'a'",
            "UPDATE store_entities SET synthetic_name = 'one', visibility_status = 'approved' WHERE id = 'a'",
            "UPDATE store_entities SET title = 'other' WHERE id = 'a'",
            "UPDATE news_template SET published = true, published_at = now()::TIMESTAMP WHERE id = 'n2'",
            "UPDATE news_template SET published = false WHERE id = 'n2'",
            "UPDATE news_template SET content = 'c' WHERE id = 'n2'",
            "UPDATE store_submissions SET status = 'checked' WHERE id = 's'",
            "UPDATE store_submissions SET status = 'approved', entity_id = 'a' WHERE id = 's'",
            "UPDATE usage_session_summary SET ended_at = now()::TIMESTAMP, user_id = 'u1' WHERE session_file = 'f'",
            "UPDATE usage_session_summary SET username = 'anna', started_at = now()::TIMESTAMP WHERE session_file = 'f'",
            "UPDATE setup_banner SET content = 'z' WHERE id = 1",
        ];
        let mut conn = conn;
        for restart in [false, true] {
            if restart {
                conn.close().unwrap();
                conn = open(&path);
            }
            for change in changes {
                conn.execute_batch(change).unwrap_or_else(|e| panic!("{change}: {e}"));
            }
            transaction(&conn, |conn| {
                for change in changes {
                    conn.execute_batch(change).unwrap_or_else(|e| panic!("in one transaction: {change}: {e}"));
                }
                Ok(())
            })
            .unwrap();
        }
    }

    /// A registry row that took the place of an internal table, which everybody may read.
    #[test]
    fn internal_tables_are_ours_at_every_start() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system.duckdb");
        let conn = open(&path);
        conn.execute_batch(
            "UPDATE table_registry SET name = 'salaries', source_type = 'files', query_mode = 'local', source = 'hr' \
             WHERE id = 'agnes_audit'; \
             INSERT INTO table_registry (id, name, source_type) VALUES ('agnes_old', 'agnes_old', 'internal')",
        )
        .unwrap();
        conn.close().unwrap();
        let conn = open(&path);
        let ours: i64 = conn
            .query_row(
                "SELECT count(*) FROM table_registry WHERE name = id AND source_type = 'internal' AND query_mode = 'internal' \
                 AND source IS NULL",
                [],
                |row| row.get(0),
            )
            .unwrap();
        let all: i64 = conn.query_row("SELECT count(*) FROM table_registry", [], |row| row.get(0)).unwrap();
        assert_eq!((ours, all), (3, 3));
    }
}
