//! Many files as one table, and reading only what changed.

use agnes_core::registry::SyncStrategy;
use serde_json::json;

use crate::support::Bench;

#[tokio::test]
async fn only_changed_files_are_read() {
    let bench = Bench::new();
    bench.put("d/a.csv", "id,n\n1,a\n");
    bench.put("d/b.csv", "id,n\n2,b\n");
    let mut request = bench.request("d/*.csv");
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    assert_eq!(bench.rows(), ["1|a", "2|b"]);
    assert!(bench.run(&request, &json!({})).await.unwrap().unchanged);

    // A new file, a changed one and a removed one.
    bench.put("d/c.csv", "id,n,extra\n3,c,true\n");
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    assert_eq!(bench.rows(), ["1|a|-", "2|b|-", "3|c|true"]);
    std::fs::remove_file(bench.input().join("d/a.csv")).unwrap();
    bench.put("d/b.csv", "id,n\n20,bb\n");
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    assert_eq!(bench.rows(), ["3|c|true", "20|bb|-"]);
    assert!(bench.run(&request, &json!({})).await.unwrap().unchanged);
    request.full = true;
    assert!(!bench.run(&request, &json!({})).await.unwrap().unchanged);
    // Other settings: everything is read again.
    request.full = false;
    assert!(!bench.run(&request, &json!({"columns": {"id": "VARCHAR"}})).await.unwrap().unchanged);
    assert_eq!(bench.columns()[0], "id VARCHAR");
}

#[tokio::test]
async fn types_widen_over_all_parts() {
    let bench = Bench::new();
    bench.put("d/a.csv", "id,n,d\n1,1,\n");
    bench.put("d/b.csv", "id,n,d\n2,2.5,2024-01-01\n");
    let mut request = bench.request("d/*.csv");
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    assert_eq!(bench.columns(), ["id BIGINT", "n DOUBLE", "d DATE"]);
    bench.put("d/c.csv", "id,N,d\nx,3,\n");
    let report = bench.run(&request, &json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id VARCHAR", "n DOUBLE", "d DATE"]);
    assert_eq!(bench.rows(), ["1|1.0|-", "2|2.5|2024-01-01", "x|3.0|-"]);
    assert!(report.notes.iter().any(|note| note == "column `id` is VARCHAR now, was BIGINT"), "{:?}", report.notes);
}

#[tokio::test]
async fn rejected_rows_of_unchanged_files_stay() {
    let bench = Bench::new();
    bench.put("d/a.csv", "id,n\n1,a\nx,b\n");
    let settings = json!({"columns": {"id": "BIGINT"}});
    let mut request = bench.request("d/*.csv");
    request.cursor = bench.run(&request, &settings).await.unwrap().cursor;
    assert_eq!(bench.rejected(), ["d/a.csv|3|id"]);
    bench.put("d/b.csv", "id,n\n2,b\n");
    let report = bench.run(&request, &settings).await.unwrap();
    assert_eq!((report.rejected_rows, bench.rejected()), (1, vec!["d/a.csv|3|id".to_owned()]));
    assert_eq!(bench.rows(), ["1|a", "2|b"]);
    assert!(bench.run(&request, &settings).await.is_ok());
}

#[tokio::test]
async fn empty_files_among_others_are_left_out() {
    let bench = Bench::new();
    bench.put("d/a.csv", "id\n1\n");
    bench.put("d/b.csv", "");
    let report = bench.read("d/*", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1"]);
    assert!(report.notes.iter().any(|note| note.contains("`d/b.csv` is empty")), "{:?}", report.notes);
    bench.put("d/b.csv.gz", "not gzip");
    assert_eq!(bench.read("d/*", json!({})).await.unwrap_err().code(), "file_damaged");
}

#[tokio::test]
async fn one_part_for_each_value_of_a_column() {
    let mut bench = Bench::new();
    bench.strategy = SyncStrategy::Partitioned;
    bench.put("a.csv", "id,Region,v\n1,eu,x\n2,us,y\n3,eu,z\n");
    bench.put("b.csv", "id,region,v\n4,us,w\n5,,bad\n");
    let mut request = bench.request("*.csv");
    request.table.partition_by = Some("region".to_owned());
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    assert_eq!(bench.query("t", "count(*), count(DISTINCT \"Region\")"), ["5|2"]);
    assert!(bench.run(&request, &json!({})).await.unwrap().unchanged);
    request.table.partition_by = Some("regoin".to_owned());
    let error = bench.run(&request, &json!({})).await.unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref()), ("column_not_found", Some("did you mean `Region`?")));
}

#[cfg(unix)]
#[tokio::test]
async fn links_may_not_lead_out() {
    let bench = Bench::new();
    std::fs::write(bench.root.path().join("outside.csv"), "secret\n1\n").unwrap();
    std::os::unix::fs::symlink(bench.root.path().join("outside.csv"), bench.input().join("link.csv")).unwrap();
    bench.put("real.csv", "id\n1\n");
    std::os::unix::fs::symlink(bench.input().join("real.csv"), bench.input().join("alias.csv")).unwrap();
    std::os::unix::fs::symlink(bench.input(), bench.input().join("loop")).unwrap();
    assert_eq!(bench.read("link.csv", json!({})).await.unwrap_err().code(), "no_files");
    bench.read("alias.csv", json!({})).await.unwrap();
    bench.read("link.csv", json!({"follow_symlinks": true})).await.unwrap();
    assert_eq!(bench.columns(), ["secret BIGINT"]);
}

#[tokio::test]
async fn a_cancelled_run_says_so() {
    let bench = Bench::with("a.csv", "id\n1\n");
    bench.cancel.cancel();
    assert_eq!(bench.read("a.csv", json!({})).await.unwrap_err().code(), "cancelled");
}
