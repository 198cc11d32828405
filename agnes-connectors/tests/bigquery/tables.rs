//! Tables that are found, copied and left where they are.

use agnes_core::connector::Connector;
use agnes_core::registry::QueryMode;

use crate::emulator::Site;

const SHOP: [&str; 3] = [
    "CREATE SCHEMA shop",
    "CREATE TABLE shop.orders (id INT64, customer STRING, price NUMERIC, ratio FLOAT64, paid BOOL, day DATE, \
     at TIMESTAMP, noted DATETIME, raw BYTES, tags ARRAY<STRING>, who STRUCT<age INT64, city STRING>)",
    "INSERT INTO shop.orders VALUES (1, 'Ada', NUMERIC '10.5', 0.5, true, DATE '2024-02-29', \
     TIMESTAMP '2024-02-29 10:00:00+00', DATETIME '2024-02-29 10:00:00', b'\\x00\\xff', ['a', 'b'], STRUCT(36, 'Brno')), \
     (2, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, [], NULL)",
];

const LOOK: &str =
    "SELECT id, customer, price, ratio, paid, day, \"at\", noted, raw, tags, who.age, who.city FROM {t} ORDER BY id";
const ROWS: [&str; 2] = [
    "1|Ada|10.500000000|0.5|true|2024-02-29|2024-02-29 10:00:00+00|2024-02-29 10:00:00|\\x00\\xFF|[a, b]|36|Brno",
    "2|NULL|NULL|NULL|NULL|NULL|NULL|NULL|NULL|[]|NULL|NULL",
];

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_checked_and_its_tables_found() {
    let Some(site) = Site::new(&SHOP).await else { return };
    let items = site.connector.check(&site.source()).await.unwrap();
    assert!(items.iter().all(|item| item.ok), "{items:?}");
    let found = site.connector.discover(&site.source()).await.unwrap();
    let orders = found.iter().find(|table| table.source_table == "orders").unwrap();
    assert_eq!((orders.name.as_str(), orders.bucket.as_deref()), ("shop_orders", Some("shop")));
    assert_eq!((orders.query_mode, orders.rows), (QueryMode::Remote, Some(2)));
    let columns: Vec<String> = orders.columns.iter().map(|(name, kind)| format!("{name} {kind}")).collect();
    assert_eq!(
        columns[..9],
        [
            "id BIGINT",
            "customer VARCHAR",
            "price DECIMAL(38,9)",
            "ratio DOUBLE",
            "paid BOOLEAN",
            "day DATE",
            "at TIMESTAMP WITH TIME ZONE",
            "noted TIMESTAMP",
            "raw BLOB"
        ]
    );
    // One token for all of it.
    let asked = site.google.requests().iter().filter(|(what, _)| what == "POST /token").count();
    assert_eq!(asked, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_and_a_query_are_copied() {
    let Some(mut site) = Site::new(&SHOP).await else { return };
    let report = site.run(&site.request("shop.orders", None)).await.unwrap();
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(site.ask(LOOK), ROWS);
    let sql = "SELECT customer, sum(price) AS total FROM shop.orders GROUP BY customer HAVING customer IS NOT NULL";
    site.run(&site.request("shop.totals", Some(sql))).await.unwrap();
    assert_eq!(site.ask("SELECT customer, total::DOUBLE FROM {t}"), ["Ada|10.5"]);
    let report = site.run(&site.request("shop.none", Some("SELECT * FROM shop.orders WHERE id > 9"))).await.unwrap();
    assert_eq!(report.notes, ["there are no rows"]);
    assert_eq!(site.ask("SELECT count(*) FROM {t}"), ["0"]);
    let error = site.run(&site.request("shop.bad", Some("SELEKT 1"))).await.unwrap_err();
    assert_eq!(error.code(), "bigquery_query_invalid", "{error}");
    assert_eq!(site.ask("SELECT count(*) FROM {t}"), ["0"], "the last good data stays");
    // Also where bytes are no matter.
    for limit in [1 << 30, 0] {
        site.settings["max_bytes_per_materialize"] = limit.into();
        for sql in ["DELETE FROM shop.orders WHERE true", "CREATE TABLE shop.mine AS SELECT 1 AS n"] {
            let error = site.run(&site.request("shop.bad", Some(sql))).await.unwrap_err();
            assert_eq!(error.code(), "bigquery_query_writes", "{sql}: {error}");
        }
    }
    let report = site.run(&site.request("shop.orders", None)).await.unwrap();
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(site.ask(LOOK), ROWS);
    assert!(site.connector.discover(&site.source()).await.unwrap().iter().all(|table| table.source_table != "mine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_rows_come_by_several_streams() {
    let Some(site) = Site::new(&["CREATE SCHEMA shop"]).await else { return };
    let sql = "SELECT n, CONCAT('row ', CAST(n AS STRING)) AS name FROM UNNEST(GENERATE_ARRAY(1, 300000)) AS n";
    site.run(&site.request("shop.many", Some(sql))).await.unwrap();
    assert_eq!(
        site.ask("SELECT count(*), count(DISTINCT n), sum(n), max(length(name)) FROM {t}"),
        ["300000|300000|45000150000|10"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_can_stay_in_bigquery() {
    let Some(site) = Site::new(&SHOP).await else { return };
    let mut request = site.request("shop.orders", None);
    request.table.query_mode = QueryMode::Remote;
    site.run(&request).await.unwrap();
    let extract = agnes_core::extract::read_extract(&site.folder()).unwrap();
    let attach = &extract.attaches[0];
    assert_eq!((attach.alias.as_str(), attach.extension.as_str()), ("bq", "bigquery"));
    assert_eq!((attach.url.as_str(), attach.token_env.as_str()), ("project=agnes-test", ""));
    assert_eq!(extract.meta[0].query_mode, "remote");
}
