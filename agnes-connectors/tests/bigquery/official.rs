//! The vendor's official Python client beside ours, on the same data of the same emulator.

use std::process::Command;

use crate::emulator::{PROJECT, Site, tools};

const TYPES: [&str; 3] = [
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.kinds (id INT64, name STRING, price NUMERIC, ratio FLOAT64, paid BOOL, day DATE, \
     noted DATETIME, seen TIMESTAMP, clock TIME, raw BYTES, tags ARRAY<STRING>, who STRUCT<age INT64, city STRING>)",
    "INSERT INTO shop.kinds SELECT n, IF(MOD(n, 5) = 0, NULL, CONCAT('žluť ', CAST(n AS STRING))), \
     CAST(n AS NUMERIC) / 8, n / 3, MOD(n, 2) = 0, DATE_ADD(DATE '1999-12-31', INTERVAL n DAY), \
     DATETIME_ADD(DATETIME '2024-02-29 23:59:59', INTERVAL n SECOND), \
     TIMESTAMP_ADD(TIMESTAMP '2024-02-29 23:59:59+00', INTERVAL n SECOND), TIME '12:34:56.789', b'\\x00\\xff', \
     [CAST(n AS STRING), 'x'], STRUCT(n, 'Brno') FROM UNNEST(GENERATE_ARRAY(1, 5000)) AS n",
];

#[tokio::test(flavor = "multi_thread")]
async fn the_official_client_reads_the_same_rows() {
    let Some(site) = Site::new(&TYPES).await else { return };
    let Some(folder) = tools() else { return };
    let python = folder.join("python/bin/python");
    let ready = Command::new(&python).args(["-c", "import google.cloud.bigquery"]).output().unwrap();
    if !ready.status.success() {
        assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "the official client is missing");
        return eprintln!("SKIPPED: the official client is missing; scripts/fetch-bigquery-emulator.sh gets it");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bigquery/official.py");
    let (rest, rpc) = site.emulator().addresses();
    let sql = "SELECT * FROM shop.kinds";
    for query in [None, Some(sql)] {
        site.run(&site.request("shop.kinds", query)).await.unwrap();
        let theirs = site.root.path().join("theirs.parquet");
        let done = Command::new(&python).args([script, &rest, &rpc, PROJECT, sql]).arg(&theirs).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        let theirs = format!("read_parquet('{}')", theirs.display());
        assert_eq!(site.ask(&format!("SELECT count(*) FROM {theirs}")), ["5000"]);
        for (one, other) in [("{t}", theirs.as_str()), (&theirs, "{t}")] {
            let sql = format!("SELECT count(*) FROM (FROM {one} EXCEPT ALL FROM {other})");
            assert_eq!(site.ask(&sql), ["0"], "{one} without {other}");
        }
        let names = "SELECT string_agg(column_name, ',') FROM (DESCRIBE FROM {t})";
        assert_eq!(site.ask(names), site.ask(&names.replace("{t}", &theirs)));
    }
}
