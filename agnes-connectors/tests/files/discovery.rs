//! Which tables a folder holds.

use agnes_core::registry::SyncStrategy;
use serde_json::json;

use crate::support::Bench;

fn names(found: &[agnes_core::connector::DiscoveredTable]) -> Vec<&str> {
    found.iter().map(|table| table.name.as_str()).collect()
}

#[tokio::test]
async fn files_and_folders_become_tables() {
    let bench = Bench::new();
    for name in ["Objednávky 2024.csv", "orders.json.gz", "orders.tsv", ".hidden.csv", "~$lock.xlsx", "readme.txt"] {
        bench.put(name, "a,b\n1,2\n");
    }
    bench.put("daily/2024-01.csv", "id,n\n1,2\n");
    bench.put("daily/x/2024-02.csv.gz", "broken");
    bench.put("daily/2024-03.csv", "id,n,more\n1,2,3\n");
    bench.put("crm/people.csv", "name,mail\na,b\n");
    bench.put("crm/deals.csv", "id,amount\n1,2\n");
    let found = bench.discover(json!({})).await.unwrap();
    assert_eq!(names(&found), ["objednavky_2024", "orders", "orders_2", "crm_deals", "crm_people", "daily"]);
    assert!(found[2].description.as_deref().unwrap().contains("`orders` is taken"));
    assert_eq!(found[5].sync_strategy, SyncStrategy::Incremental);
    assert_eq!(found[0].sync_strategy, SyncStrategy::FullRefresh);
    assert_eq!(found[0].size_bytes, Some(8));
    // What was discovered can be read as it is registered.
    let mut request = bench.request("unused");
    request.table.options = found[0].options.clone();
    bench.run(&request, &json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1|2"]);
    std::fs::remove_file(bench.input().join("daily/x/2024-02.csv.gz")).unwrap();
    request.table.options = found[5].options.clone();
    bench.run(&request, &json!({})).await.unwrap();
    assert_eq!(bench.query("t_missing", "1"), ["no table"]);
}

#[tokio::test]
async fn settings_name_tables() {
    let bench = Bench::new();
    bench.put("a/x.csv", "id\n1\n");
    bench.put("a/y.csv", "id\n2\n");
    bench.put("z.csv", "id\n2\n");
    let settings = json!({"delimiter": ",", "tables": {"both": {
        "files": "a/*.csv", "partition_by": "id", "primary_key": ["id"], "description": "Both."}}});
    let found = bench.discover(settings.clone()).await.unwrap();
    assert_eq!(names(&found), ["both", "z"]);
    assert_eq!(found[0].sync_strategy, SyncStrategy::Partitioned);
    assert_eq!(found[0].primary_key, Some(vec!["id".to_owned()]));
    assert_eq!(found[0].description.as_deref(), Some("Both."));
    assert_eq!(found[0].options, None);
}

#[tokio::test]
async fn a_file_a_glob_and_all_in_one() {
    let bench = Bench::new();
    bench.put("a.csv", "id\n1\n");
    bench.put("b.csv", "id\n2\n");
    bench.put("c.json", "[]");
    let path = |name: &str| json!({"path": bench.input().join(name)});
    assert_eq!(names(&bench.discover(path("a.csv")).await.unwrap()), ["a"]);
    assert_eq!(names(&bench.discover(path("*.csv")).await.unwrap()), ["a", "b"]);
    let mut all = path("*.csv");
    all["combine"] = json!(true);
    let found = bench.discover(all.clone()).await.unwrap();
    assert_eq!(names(&found), ["shop"]);
    let mut request = bench.request("unused");
    request.table.options = found[0].options.clone();
    bench.run(&request, &all).await.unwrap();
    assert_eq!(bench.rows(), ["1", "2"]);
    assert_eq!(bench.discover(path("gone")).await.unwrap_err().code(), "source_unreadable");
    assert!(bench.discover(path("*.nothing")).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_check_tells_what_is_wrong() {
    let bench = Bench::with("a.csv", "id\n1\n");
    let connector = agnes_connectors::builtin().get("files").unwrap();
    let items = connector.check(&bench.source(&json!({}))).await.unwrap();
    assert!(items.iter().all(|item| item.ok), "{items:?}");
    let items = connector.check(&bench.source(&json!({"path": bench.input().join("gone")}))).await.unwrap();
    assert!(items.iter().any(|item| !item.ok && item.detail.contains("does not exist")), "{items:?}");
}
