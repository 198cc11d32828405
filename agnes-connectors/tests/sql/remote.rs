//! Tables that are asked where they are: the answers are those of a copy, whatever the source thinks
//! of texts, and no policy depends on what it thinks.

use agnes_core::connector::{Connector, Progress};
use agnes_core::policy::{FilterMode, PolicyRules, RowFilter};
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, ResourceType};
use agnes_core::registry::{NewSource, QueryMode};
use agnes_core::sync::{SyncRequest, TableStatus};
use agnes_core::{CallContext, Engine};
use serde_json::json;

use crate::engine::{ask, open, owner, schema};
use crate::support::Source;

/// `people`, copied, and `live`, asked where it is: the same rows, whose names differ in case,
/// accents and spaces at the end alone.
async fn site(source: &Source) -> (Engine, tempfile::TempDir) {
    let kind = source.connector.kind();
    // What databases are often set up with.
    let name = match kind {
        "postgres" => "name TEXT COLLATE \"en-x-icu\"",
        "mysql" => "name VARCHAR(20) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
        _ => "name VARCHAR(20) COLLATE NOCASE",
    };
    source.sql(&format!("CREATE TABLE people (id BIGINT PRIMARY KEY, {name}, age BIGINT, born DATE)"));
    source.sql(
        "INSERT INTO people VALUES (1, 'ada', 30, '1990-01-01'), (2, 'Ada', 31, '1991-01-01'), (3, 'ADA ', 32, NULL), \
         (4, '\u{e1}da', 33, NULL), (5, 'Zoe', 34, '1980-05-05'), (6, NULL, 35, NULL), (7, 'zoe', NULL, '2000-02-29'), (8, '', 1, NULL)",
    );
    let place = tempfile::tempdir().unwrap();
    let engine = open(source, place.path()).await;
    let mut settings = source.config.clone();
    let table = format!("{}.people", schema(kind));
    settings["tables"] = json!({"people": {"table": table}, "live": {"table": table, "mode": "remote"}});
    let new = NewSource { name: "shop".to_owned(), kind: kind.to_owned(), config: settings, schedule: None };
    engine.sources().add(&owner(), new).await.unwrap();
    synced(&engine).await;
    (engine, place)
}

async fn synced(engine: &Engine) {
    let run = engine.sync().run(&owner(), SyncRequest::default(), Progress::default()).await.unwrap();
    let tables = run.outcome.unwrap().tables;
    assert!(tables.iter().all(|table| table.status != TableStatus::Error), "{tables:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_table_answers_as_its_copy_does() {
    for source in [Source::postgres(), Source::mariadb(), Source::sqlite()].into_iter().flatten() {
        let (engine, _place) = site(&source).await;
        for sql in [
            "SELECT id FROM {t} WHERE name = 'ada' ORDER BY id",
            "SELECT id FROM {t} WHERE name <> 'ada' ORDER BY id",
            "SELECT id FROM {t} WHERE name IN ('ADA', 'ZOE', 'Zoe') ORDER BY id",
            "SELECT id FROM {t} WHERE name NOT IN ('ada', 'zoe') ORDER BY id",
            "SELECT id FROM {t} WHERE name = 'ADA' ORDER BY id",
            "SELECT id FROM {t} WHERE name > 'Z' ORDER BY id",
            "SELECT id FROM {t} WHERE name BETWEEN 'A' AND 'Z' ORDER BY id",
            "SELECT id FROM {t} WHERE name LIKE 'ad%' ORDER BY id",
            "SELECT id FROM {t} WHERE starts_with(name, 'A') ORDER BY id",
            "SELECT id FROM {t} WHERE name = '' OR name IS NULL ORDER BY id",
            "SELECT id FROM {t} WHERE name IS NOT DISTINCT FROM 'ada' ORDER BY id",
            "SELECT id FROM {t} WHERE name >= 'Zo' AND age > 30 AND born < DATE '1999-01-01' ORDER BY id",
            "SELECT DISTINCT name FROM {t} ORDER BY name NULLS FIRST",
            "SELECT name, count(*) FROM {t} GROUP BY name ORDER BY name NULLS FIRST",
            "SELECT min(name), max(name), count(DISTINCT name) FROM {t}",
            "SELECT id FROM {t} ORDER BY name DESC NULLS LAST, id LIMIT 3",
            "SELECT a.id, b.id FROM {t} a JOIN {t} b USING (name) ORDER BY ALL",
            "SELECT id FROM {t} WHERE name IN (SELECT name FROM people WHERE id IN (2, 7)) ORDER BY id",
            "SELECT count(*) FROM {t} WHERE age BETWEEN 31 AND 34",
        ] {
            let told = ask(&engine, &owner(), &sql.replace("{t}", "live")).await;
            let copy = ask(&engine, &owner(), &sql.replace("{t}", "people")).await;
            assert_eq!(told, copy, "{}: {sql}", source.connector.kind());
        }
        engine.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_policy_is_left_to_what_a_source_thinks_of_texts() {
    for source in [Source::postgres(), Source::mariadb(), Source::sqlite()].into_iter().flatten() {
        let (engine, _place) = site(&source).await;
        let identity = engine.identity();
        identity.create_group(&owner(), "clerks", None).await.unwrap();
        identity.add_user(&owner(), "ann@acme.example", None).await.unwrap();
        identity.add_member(&owner(), "clerks", "ann@acme.example").await.unwrap();
        for table in ["people", "live"] {
            identity.grant(&owner(), "clerks", ResourceType::Table, table).await.unwrap();
        }
        let ann = CallContext::new(identity.principal_of(&owner(), "ann@acme.example", ClientKind::Api).await.unwrap());
        let rules = || PolicyRules {
            filter: Some(RowFilter { predicate: "name = 'ada'".to_owned(), mode: FilterMode::default() }),
            ..PolicyRules::default()
        };
        // There is none on a table that a source answers for.
        let refused = engine.policies().create(&owner(), "clerks", "live", rules()).await.unwrap_err();
        assert_eq!(refused.code(), "policy_on_remote_table");
        // On a copy it is the engine that compares.
        engine.policies().create(&owner(), "clerks", "people", rules()).await.unwrap();
        assert_eq!(ask(&engine, &ann, "SELECT id FROM people").await, "1", "{}", source.connector.kind());
        // A table that is asked where it is from now on answers nobody whom a policy narrows.
        let mut row = engine.registry().get(&owner(), "people").await.unwrap();
        (row.query_mode, row.options) = (QueryMode::Remote, None);
        row.source_table = Some(format!("{}.people", schema(source.connector.kind())));
        engine.registry().update(&owner(), row).await.unwrap();
        synced(&engine).await;
        let refused = engine.query(&ann, Query::new("SELECT id FROM people")).await.err().unwrap();
        assert_eq!(refused.code(), "policy_on_remote_table", "{}: {refused}", source.connector.kind());
        let all = ask(&engine, &owner(), "SELECT count(*) FROM people WHERE name = 'ada'").await;
        assert_eq!(all, "1", "{}", source.connector.kind());
        engine.close().await.unwrap();
    }
}
