//! What an answer says, and what it must not say.

use agnes_core::policy::{AccessChange, ColumnRule, Distribution, PolicyRules, ROW_SCOPE_KEY, RowScope};
use agnes_core::query::Query;

use super::support::{Shop, columns, in_each_runtime, owner, rows};

in_each_runtime!(
    no_query_reaches_a_hidden_row,
    errors_quote_no_value,
    an_answer_says_what_it_is_of,
    samples_and_profiles_are_of_the_part,
    what_leaves_the_server,
    a_change_can_be_looked_at_first,
);

async fn no_query_reaches_a_hidden_row(shop: Shop) {
    shop.policy("eu", rows("region = 'EU'")).await;
    // Each of these fails on a hidden row, whatever the order of its filters.
    for sql in [
        "SELECT sum(code::INTEGER) FROM orders",
        "SELECT count(*) FROM orders WHERE code::INTEGER > 0",
        "SELECT sum(100 / amount) FROM orders WHERE 100 // amount > 0",
        "SELECT count(*) FROM orders WHERE CASE WHEN code = 'hidden-secret' THEN error('leak') ELSE true END",
        "SELECT max(code::INTEGER) OVER () FROM orders LIMIT 1",
        "SELECT count(*) FROM orders a JOIN orders b ON a.code::INTEGER = b.code::INTEGER",
    ] {
        shop.ask("ann", sql).await;
    }
    let all = shop.try_ask(&shop.ctx("dan").await, "SELECT sum(code::INTEGER) FROM orders").await.unwrap_err();
    assert!(all.to_string().contains("hidden-secret"), "an Admin is told: {all}");
    for sql in [
        "SELECT count(*) FROM orders WHERE region = 'US'",
        "SELECT count(*) FROM orders WHERE NOT (region = 'EU')",
        "SELECT count(*) FROM (SELECT * FROM orders UNION ALL SELECT * FROM orders) WHERE id > 3",
        "SELECT count(*) FROM orders TABLESAMPLE 100% WHERE id = 4",
    ] {
        assert_eq!(shop.ask("ann", sql).await, ["0"], "{sql}");
    }
    assert_eq!(shop.ask("ann", "SELECT count(*), max(id), sum(amount) FROM orders").await, ["3 3 60"]);
    assert_eq!(shop.ask("ann", "PIVOT orders ON region USING count(*)").await.len(), 3);
    let plan = shop.ask("ann", "EXPLAIN SELECT * FROM orders WHERE id > 3").await.join("\n");
    assert!(!plan.contains("US") && !plan.contains("~5"), "{plan}");
}

async fn errors_quote_no_value(shop: Shop) {
    shop.policy("us", rows("region = 'US'")).await;
    let bob = shop.ctx("bob").await;
    for (sql, code) in [
        ("SELECT code::INTEGER FROM orders", "query_conversion"),
        ("SELECT code::DATE FROM orders ORDER BY 1", "query_conversion"),
        ("SELECT error(code) FROM orders", "query_failed"),
        ("SELECT (amount + 100)::TINYINT + 100::TINYINT FROM orders", ""),
    ] {
        let error = shop.try_ask(&bob, sql).await.unwrap_err();
        assert!(code.is_empty() || error.code() == code, "{sql}: {} {error}", error.code());
        assert!(!error.to_string().contains("hidden"), "{sql}: {error}");
    }
    // Nor does one that comes after rows: more of them than the engine reads ahead.
    let late = "SELECT CASE WHEN i < 25000000 THEN '1' ELSE (SELECT code || 'x' FROM orders LIMIT 1) END::INTEGER \
                FROM range(25000001) t(i)";
    let mut result = shop.engine.query(&bob, Query::new(late)).await.unwrap();
    assert!(result.next().await.unwrap().is_ok());
    let error = result.collect().await.unwrap_err();
    assert_eq!(error.code(), "query_conversion");
    assert!(!error.to_string().contains("hidden"), "{error}");
    let typo = shop.try_ask(&bob, "SELECT regoin FROM orders").await.unwrap_err();
    assert!(typo.to_string().contains("region"), "words that hold no value stay: {typo}");
}

async fn an_answer_says_what_it_is_of(shop: Shop) {
    let rules = PolicyRules {
        columns: columns(&[("email", ColumnRule::Hash), ("day", ColumnRule::Hidden)]).columns,
        ..rows("id < 3")
    };
    shop.policy("eu", rules).await;
    let scope = RowScope { table: "orders".into(), rows_filtered: true, masked_columns: vec!["email".into()] };
    let ann = shop.ctx("ann").await;
    let mut result = shop.engine.query(&ann, Query::new("SELECT 1 FROM orders WHERE false")).await.unwrap();
    assert_eq!(result.row_scope(), std::slice::from_ref(&scope));
    assert!(result.schema().metadata().contains_key(ROW_SCOPE_KEY));
    assert_eq!(RowScope::of_schema(&result.schema()), std::slice::from_ref(&scope));
    while let Some(batch) = result.next().await {
        assert_eq!(batch.unwrap().schema(), result.schema());
    }
    let result = shop.engine.query(&ann, Query::new("SELECT 1")).await.unwrap();
    assert!(result.row_scope().is_empty() && result.schema().metadata().is_empty());
    let catalog = shop.engine.catalog();
    let table = catalog.tables(&ann).await.unwrap().into_iter().find(|t| t.name == "orders").unwrap();
    assert_eq!((table.row_scope, table.rows, table.size_bytes), (Some(scope.clone()), None, None));
    let schema = catalog.schema(&ann, "orders").await.unwrap();
    assert_eq!(schema.row_scope, Some(scope));
    assert_eq!(schema.columns.iter().find(|c| c.name == "email").unwrap().masked.as_deref(), Some("hash"));
    let dan = shop.ctx("dan").await;
    let table = catalog.tables(&dan).await.unwrap().into_iter().find(|t| t.name == "orders").unwrap();
    assert_eq!((table.row_scope, table.rows), (None, Some(5)));
}

async fn samples_and_profiles_are_of_the_part(shop: Shop) {
    shop.policy("eu", rows("region = 'EU'")).await;
    let (ann, bob, catalog) = (shop.ctx("ann").await, shop.ctx("bob").await, shop.engine.catalog());
    let whole = catalog.sample(&bob, "orders", 10).await.unwrap();
    let part = catalog.sample(&ann, "orders", 10).await.unwrap();
    assert_eq!((whole.rows.len(), part.rows.len()), (5, 3));
    assert_eq!(catalog.sample(&bob, "orders", 10).await.unwrap().rows.len(), 5);
    let profile = catalog.profile(&bob, "orders").await.unwrap();
    assert_eq!(profile["row_count"], 5);
    for _ in 0..2 {
        let profile = catalog.profile(&ann, "orders").await.unwrap();
        assert_eq!(profile["row_count"], 3);
        assert_eq!(profile["row_scope"]["rows_filtered"], true);
        assert!(!profile.to_string().contains("secret") && !profile.to_string().contains("US"), "{profile}");
    }
    assert_eq!(catalog.profile(&bob, "orders").await.unwrap()["row_count"], 5);
}

async fn what_leaves_the_server(shop: Shop) {
    let id = shop.policy("eu", rows("region = 'EU'")).await;
    let (ann, bob) = (shop.ctx("ann").await, shop.ctx("bob").await);
    let catalog = shop.engine.catalog();
    let whole = catalog.manifest(&bob).await.unwrap().tables.remove("orders").unwrap();
    let first = catalog.manifest(&ann).await.unwrap();
    let part = &first.tables["orders"];
    assert!(part.slice && !whole.slice);
    assert_eq!((part.rows, whole.rows), (3, 5));
    assert_ne!(part.hash, whole.hash);
    let blob = shop.engine.folder().blob(part.sha256.as_ref().unwrap());
    assert_eq!(blob.metadata().unwrap().len(), part.size_bytes);
    let conn = duckdb::Connection::open_in_memory().unwrap();
    let sql = format!("SELECT string_agg(id::VARCHAR, ',' ORDER BY id) FROM '{}'", blob.display());
    assert_eq!(conn.query_row(&sql, [], |row| row.get::<_, String>(0)).unwrap(), "1,2,3");
    let bytes = std::fs::read(&blob).unwrap();
    assert!(!bytes.windows(6).any(|w| w == b"hidden"), "not even in statistics");
    assert_eq!(catalog.manifest(&ann).await.unwrap().etag, first.etag);
    let stay = PolicyRules { distribution: Distribution::ServerOnly, ..rows("region = 'EU'") };
    shop.engine.policies().update(&owner(), &id, stay, None).await.unwrap();
    assert!(!catalog.manifest(&ann).await.unwrap().tables.contains_key("orders"));
    assert_eq!(shop.ids("ann").await, "1,2,3", "it can be asked here");
    let whole = PolicyRules { distribution: Distribution::ServerOnly, ..PolicyRules::default() };
    shop.engine.policies().update(&owner(), &id, whole, None).await.unwrap();
    assert!(!catalog.manifest(&ann).await.unwrap().tables.contains_key("orders"));
    assert_eq!(shop.ids("ann").await, "1,2,3,4,5");
}

/// Profiles of an older version are of whole tables.
#[tokio::test(flavor = "multi_thread")]
async fn profiles_of_an_older_version_are_for_those_who_see_everything() {
    let shop = Shop::open().await;
    let file = shop.folder.path().join("src_data/metadata/profiles.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, r#"{"orders": {"max": "hidden-secret"}}"#).unwrap();
    let offered = async |who: &str| {
        let manifest = shop.engine.catalog().manifest(&shop.ctx(who).await).await.unwrap();
        manifest.assets.contains_key("profiles")
    };
    assert!(offered("dan").await && !offered("ann").await);
    shop.policy("Admin", PolicyRules { applies_to_admin: true, ..rows("id < 3") }).await;
    assert!(!offered("dan").await);
}

async fn a_change_can_be_looked_at_first(shop: Shop) {
    let policies = shop.engine.policies();
    let rules = PolicyRules { columns: columns(&[("email", ColumnRule::Hidden)]).columns, ..rows("region = 'EU'") };
    let change = AccessChange::CreatePolicy { group: "eu".into(), table: "orders".into(), rules: rules.clone() };
    let preview = policies.preview(&owner(), change).await.unwrap();
    assert_eq!((preview.rows, preview.changes.len(), preview.unchanged), (5, 1, 3), "{preview:?}");
    let ann = &preview.changes[0];
    assert_eq!(ann.email, "ann@acme.example");
    assert_eq!((ann.before.as_ref().unwrap().rows, ann.after.as_ref().unwrap().rows), (Some(5), Some(3)));
    assert_eq!((ann.lost_columns.as_slice(), ann.gained_columns.len()), (&["email".to_owned()][..], 0));
    assert_eq!(shop.ids("ann").await, "1,2,3,4,5", "nothing was changed");
    let id = shop.policy("eu", rules).await;
    let preview = policies.preview(&owner(), AccessChange::RemovePolicy { policy: id.clone() }).await.unwrap();
    assert_eq!(preview.changes[0].gained_columns, ["email"]);
    let update = AccessChange::UpdatePolicy { policy: id, rules: rows("false") };
    let preview = policies.preview(&owner(), update).await.unwrap();
    assert_eq!(preview.changes[0].after.as_ref().unwrap().rows, Some(0));
    let grant = AccessChange::Grant { group: "eu".into(), table: "teams".into() };
    let preview = policies.preview(&owner(), grant).await.unwrap();
    assert_eq!(
        preview.changes.iter().map(|c| c.email.as_str()).collect::<Vec<_>>(),
        ["ann@acme.example", "cy@acme.example"]
    );
    assert!(preview.changes[0].before.is_none());
    let grants = shop.engine.identity().grants(&owner(), Some("us")).await.unwrap();
    let revoke = AccessChange::Revoke { grant: grants[0].grant.id.clone() };
    let preview = policies.preview(&owner(), revoke).await.unwrap();
    let cy = preview.changes.iter().find(|c| c.email.starts_with("cy")).unwrap();
    assert_eq!((cy.before.as_ref().unwrap().rows, cy.after.as_ref().unwrap().rows), (Some(5), Some(3)));
    let change = AccessChange::CreatePolicy { group: "us".into(), table: "orders".into(), rules: rows("nope = 1") };
    assert_eq!(policies.preview(&owner(), change).await.unwrap_err().code(), "policy_invalid");
}
