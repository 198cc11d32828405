//! Which rows and columns are left.

use agnes_core::policy::{ColumnRule, Keep, PolicyRules};
use agnes_core::rbac::ResourceType;

use super::support::{Shop, columns, in_each_runtime, only, owner, publish, rows};

in_each_runtime!(filters_of_several_groups, user_variables_and_mapping_tables, masks, hidden_columns_do_not_exist,);

async fn filters_of_several_groups(shop: Shop) {
    assert_eq!(shop.ids("ann").await, "1,2,3,4,5");
    shop.policy("eu", rows("region = 'EU'")).await;
    assert_eq!(shop.ids("ann").await, "1,2,3", "from the next query on");
    assert_eq!(shop.ids("bob").await, "1,2,3,4,5", "his group has none");
    assert_eq!(shop.ids("cy").await, "1,2,3,4,5", "a grant without a filter opens every row");
    let us = shop.policy("us", rows("region = 'US' AND amount > 0")).await;
    assert_eq!((shop.ids("bob").await, shop.ids("cy").await), ("5".to_owned(), "1,2,3,5".to_owned()));
    let everyone = shop.policy("Everyone", only("amount <> 20")).await;
    assert_eq!((shop.ids("ann").await, shop.ids("cy").await), ("1,3".to_owned(), "1,3,5".to_owned()));
    assert_eq!(shop.ids("dan").await, "1,2,3,4,5", "an Admin bypasses");

    // Changes and removals count from the next query on.
    let policies = shop.engine.policies();
    policies.update(&owner(), &us, rows("id = 4"), Some(1)).await.unwrap();
    assert_eq!(shop.ids("bob").await, "4");
    let late = policies.update(&owner(), &us, rows("id = 5"), Some(1)).await;
    assert_eq!(late.unwrap_err().code(), "policy_changed");
    policies.remove(&owner(), &everyone[..6]).await.unwrap();
    assert_eq!(shop.ids("ann").await, "1,2,3");
    let history = policies.history(&owner(), &us).await.unwrap();
    assert_eq!(history.iter().map(|v| v.version).collect::<Vec<_>>(), [2, 1]);
    // Leaving the group, and taking the grant back, leaves nothing.
    shop.engine.identity().remove_member(&owner(), "eu", "ann@acme.example").await.unwrap();
    assert_eq!(shop.try_ask(&shop.ctx("ann").await, "FROM orders").await.unwrap_err().code(), "relation_denied");
}

async fn user_variables_and_mapping_tables(shop: Shop) {
    let id = shop.policy("eu", rows("email = $user_email -- theirs")).await;
    assert_eq!(shop.ids("ann").await, "1");
    let policies = shop.engine.policies();
    let mapped = PolicyRules {
        mapping_tables: vec!["Teams".to_owned()],
        ..rows("region IN (SELECT area FROM teams WHERE who = $user_email)")
    };
    policies.update(&owner(), &id, mapped, None).await.unwrap();
    assert_eq!(shop.ids("ann").await, "1,2,3");
    policies.update(&owner(), &id, rows("list_contains($user_groups, lower(region))"), None).await.unwrap();
    assert_eq!(shop.ids("ann").await, "1,2,3");
    let whose = shop.ctx("ann").await.principal().user_id().to_owned();
    policies.update(&owner(), &id, rows(&format!("$user_id = '{whose}' AND id = 2")), None).await.unwrap();
    assert_eq!(shop.ids("ann").await, "2");
    // The mapping table itself is nobody's business.
    assert!(shop.try_ask(&shop.ctx("ann").await, "FROM teams").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_mapping_table_counts() {
    let shop = Shop::open().await;
    let mapped = PolicyRules {
        mapping_tables: vec!["teams".to_owned()],
        ..rows("region IN (SELECT area FROM teams WHERE who = $user_email)")
    };
    shop.policy("eu", mapped).await;
    assert_eq!(shop.ids("ann").await, "1,2,3");
    let teams = "SELECT 'ann@acme.example' AS who, 'US' AS area";
    publish(&shop.engine, shop.folder.path(), &[("orders", super::support::ORDERS), ("teams", teams)]).await;
    assert_eq!(shop.ids("ann").await, "4,5");
    // Without it nothing is open.
    publish(&shop.engine, shop.folder.path(), &[("orders", super::support::ORDERS)]).await;
    let gone = shop.try_ask(&shop.ctx("ann").await, "FROM orders").await.unwrap_err();
    assert_eq!(gone.code(), "policy_failed");
    assert_eq!(shop.ids("bob").await, "1,2,3,4,5");
    let checks = shop.engine.policies().check(&owner(), None).await.unwrap();
    assert!(!checks[0].ok && checks[0].problem.as_ref().unwrap().contains("teams"), "{checks:?}");
    let listed = shop.engine.catalog().tables(&shop.ctx("ann").await).await.unwrap();
    assert!(listed.iter().all(|table| table.name != "orders"));
}

async fn masks(shop: Shop) {
    let rules = columns(&[
        ("email", ColumnRule::Hash),
        ("code", ColumnRule::Partial { keep: 3, from: Keep::End }),
        ("region", ColumnRule::Partial { keep: 1, from: Keep::Start }),
        ("day", ColumnRule::Null),
        ("AMOUNT", ColumnRule::Expression { sql: "round(amount, -2) + length(region)".to_owned() }),
    ]);
    shop.policy("eu", rules).await;
    let mut seen = shop.ask("ann", "SELECT id, region, amount, code, day FROM orders ORDER BY id").await;
    assert_eq!(seen.remove(0), "1 E*** 2 *** null");
    assert_eq!(seen[2], "4 U*** 2 ***ret null");
    assert_eq!(seen[3], "5 U*** 102 *** null");
    let kinds = "SELECT DISTINCT typeof(amount), typeof(day), typeof(email) FROM orders";
    assert_eq!(shop.ask("ann", kinds).await, ["INTEGER DATE VARCHAR"]);
    // Equal values have equal hashes, null stays null, and the hash is none that anybody can make.
    let hashes = shop.ask("ann", "SELECT id, coalesce(email, '-') AS h FROM orders ORDER BY id").await;
    let hash = |n: usize| hashes[n].split(' ').nth(1).unwrap();
    assert_eq!(hash(1), hash(4));
    assert_ne!(hash(0), hash(1));
    assert_eq!((hash(0).len(), hash(2)), (64, "-"));
    let known = shop.ask("ann", "SELECT count(*) FROM orders WHERE email = sha256('bob@acme.example')").await;
    assert_eq!(known, ["0"]);
    // What is masked cannot be filtered by, joined or guessed.
    for sql in [
        "SELECT count(*) FROM orders WHERE email LIKE '%acme%'",
        "SELECT count(*) FROM orders WHERE code = 'hidden-secret'",
        "SELECT count(*) FROM orders WHERE day IS NOT NULL",
        "SELECT count(*) FROM orders WHERE region = 'EU'",
    ] {
        assert_eq!(shop.ask("ann", sql).await, ["0"], "{sql}");
    }
    // Another group that sees the column shows it.
    assert_eq!(shop.ask("cy", "SELECT email FROM orders WHERE id = 5").await, ["bob@acme.example"]);
}

async fn hidden_columns_do_not_exist(shop: Shop) {
    shop.policy("eu", columns(&[("email", ColumnRule::Hidden), ("Day", ColumnRule::Hidden)])).await;
    let left = ["id", "region", "amount", "code"];
    let named =
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'orders' ORDER BY ordinal_position";
    assert_eq!(shop.ask("ann", named).await, left);
    assert_eq!(shop.ask("ann", "SELECT column_name FROM (DESCRIBE orders)").await, left);
    assert_eq!(shop.ask("ann", "SELECT column_name FROM (SUMMARIZE orders)").await, left);
    assert_eq!(shop.ask("ann", "SELECT count(DISTINCT COLUMNS(*)) FROM orders").await, ["5 2 5 5"]);
    for sql in
        ["SELECT email FROM orders", "SELECT id FROM orders WHERE day IS NULL", "FROM orders ORDER BY orders.email"]
    {
        let error = shop.try_ask(&shop.ctx("ann").await, sql).await.unwrap_err();
        assert_eq!(error.code(), "query_binder", "{sql}: {error}");
        assert!(!error.to_string().contains("Candidate bindings: \"email"), "{error}");
    }
    let ann = shop.ctx("ann").await;
    let catalog = shop.engine.catalog();
    let schema = catalog.schema(&ann, "orders").await.unwrap();
    assert_eq!(schema.columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), left);
    let table = catalog.tables(&ann).await.unwrap().into_iter().find(|t| t.name == "orders").unwrap();
    assert_eq!(table.columns, Some(4));
    let sample = catalog.sample(&ann, "orders", 5).await.unwrap();
    assert_eq!(sample.rows[0].keys().collect::<Vec<_>>(), left);
    let profile = catalog.profile(&ann, "orders").await.unwrap().to_string();
    assert!(!profile.contains("email") && !profile.contains("\"day\"") && profile.contains("\"code\""));
    assert!(shop.ask("dan", named).await.contains(&"email".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn admins_are_narrowed_where_it_says_so() {
    let shop = Shop::open().await;
    shop.policy("Admin", PolicyRules { applies_to_admin: true, ..rows("id < 3") }).await;
    assert_eq!(shop.ids("dan").await, "1,2");
    let all = shop.try_ask(&owner(), "SELECT count(*) FROM orders").await.unwrap();
    assert_eq!(all[0][0], 2, "the owner of the folder counts as an Admin");
    assert_eq!(shop.ids("ann").await, "1,2,3,4,5");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_policy() {
    let shop = Shop::open().await;
    let policies = shop.engine.policies();
    let refused = async |table: &str, rules: PolicyRules, code: &str, says: &str| {
        let error = policies.create(&owner(), "eu", table, rules).await.unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.to_string().contains(says), "{error}");
    };
    refused("orders", PolicyRules::default(), "policy_empty", "").await;
    refused("nothing", rows("true"), "policy_table_not_found", "nothing").await;
    refused("agnes_audit", rows("true"), "policy_on_internal_table", "").await;
    refused("orders", rows("regoin = 'EU'"), "policy_invalid", "regoin").await;
    refused("orders", rows("true) OR (true"), "policy_invalid", "more than one").await;
    refused("orders", rows("day > current_date - 7"), "policy_invalid", "tomorrow").await;
    refused("orders", rows("region IN (SELECT area FROM teams)"), "policy_invalid", "mapping").await;
    refused("orders", rows("count(*) > 1"), "policy_invalid", "").await;
    refused("orders", rows("EXISTS (FROM read_csv('/etc/passwd'))"), "policy_invalid", "").await;
    refused("orders", columns(&[("emial", ColumnRule::Hash)]), "policy_invalid", "`email`").await;
    let keep = ColumnRule::Partial { keep: 0, from: Keep::Start };
    refused("orders", columns(&[("email", keep)]), "policy_invalid", "1 to").await;
    let all = ["id", "region", "email", "amount", "code", "day"].map(|c| (c, ColumnRule::Hidden));
    refused("orders", columns(&all), "policy_invalid", "no column").await;
    let mapping = PolicyRules { mapping_tables: vec!["nobody".to_owned()], ..rows("true") };
    refused("orders", mapping, "policy_invalid", "nobody").await;
    // It is tried on the data, and no value is told.
    let error = policies.create(&owner(), "eu", "orders", rows("code::INTEGER > 1")).await.unwrap_err();
    assert_eq!(error.code(), "policy_invalid");
    assert!(error.to_string().contains("converted") && !error.to_string().contains("hidden"), "{error}");
    shop.policy("eu", rows("true")).await;
    refused("orders", rows("false"), "policy_exists", "eu").await;
    let ann = shop.ctx("ann").await;
    assert_eq!(policies.list(&ann, None, None).await.unwrap_err().code(), "admin_required");
    shop.engine.identity().grant(&owner(), "us", ResourceType::Table, "teams").await.unwrap();
    assert_eq!(shop.ids("ann").await, "1,2,3,4,5");
}
