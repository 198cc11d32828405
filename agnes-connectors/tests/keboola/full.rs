//! Whole tables: requests, types, slices of every kind, filters.

use agnes_core::connector::Connector;
use agnes_core::registry::QueryMode;
use serde_json::json;

use crate::fake::{SIGNATURE, Store, TOKEN};
use crate::support::Site;

const COLUMNS: [&str; 9] = [
    "id:INTEGER",
    "name",
    "amount:NUMERIC(12,2)",
    "score:FLOAT",
    "active:BOOLEAN",
    "day:DATE",
    "at:TIMESTAMP",
    "at_tz:TIMESTAMP_TZ",
    "nothing:BIGINT",
];

fn shop(site: &Site) -> String {
    site.fake.table(
        "orders",
        &COLUMNS,
        &[
            &[
                "1",
                "O'Neil, \"Ann\"\nsecond line",
                "12.30",
                "0.5",
                "true",
                "2024-02-29",
                "2024-02-29 10:00:00",
                "2024-02-29 10:00:00+02:00",
                "",
            ],
            &["2", "", "", "", "", "", "", "", ""],
            &[
                "3",
                "žluťoučký 🐎",
                "-0.01",
                "1e10",
                "No",
                "2024-01-01",
                "2024-01-01 00:00:00.123456",
                "2024-01-01T00:00:00Z",
                "",
            ],
            &[
                "9007199254740993",
                "\\",
                "9999999999.99",
                "-3",
                "1",
                "1999-12-31",
                "1999-12-31",
                "1999-12-31 23:59:59-01:00",
                "",
            ],
        ],
    )
}

const ROWS: [&str; 4] = [
    "1|O'Neil, \"Ann\"\nsecond line|12.30|0.5|true|2024-02-29|2024-02-29 10:00:00|2024-02-29 08:00:00+00|NULL",
    "2||NULL|NULL|NULL|NULL|NULL|NULL|NULL",
    "3|žluťoučký 🐎|-0.01|10000000000.0|false|2024-01-01|2024-01-01 00:00:00.123456|2024-01-01 00:00:00+00|NULL",
    "9007199254740993|\\|9999999999.99|-3.0|true|1999-12-31|1999-12-31 00:00:00|2000-01-01 00:59:59+00|NULL",
];

#[tokio::test]
async fn an_export_becomes_typed_parquet() {
    let site = Site::new();
    let id = shop(&site);
    site.fake.state().polls = 2;
    let report = site.run(&mut site.request(&id)).await.unwrap();
    assert!(report.notes.is_empty(), "{:?}", report.notes);
    assert_eq!(site.all(), ROWS);
    assert_eq!(
        site.types(),
        [
            "id|BIGINT",
            "name|VARCHAR",
            "amount|DECIMAL(12,2)",
            "score|DOUBLE",
            "active|BOOLEAN",
            "day|DATE",
            "at|TIMESTAMP",
            "at_tz|TIMESTAMP WITH TIME ZONE",
            "nothing|BIGINT"
        ]
    );
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn requests_are_what_they_should_be_byte_by_byte() {
    let site = Site::new();
    let id = shop(&site);
    site.run(&mut site.request(&id)).await.unwrap();
    assert_eq!(
        site.fake.asked(),
        [
            "GET /v2/storage/tokens/verify",
            "GET /v2/storage/tables/in.c-shop.orders",
            "POST /v2/storage/tables/in.c-shop.orders/export-async",
            "GET /v2/storage/jobs/1",
            "GET /v2/storage/tables/in.c-shop.orders",
            "GET /v2/storage/files/2?federationToken=1",
        ]
    );
    let state = site.fake.state();
    let host = site.fake.url.strip_prefix("http://").unwrap();
    let agent = concat!("agnes/", env!("CARGO_PKG_VERSION"));
    for request in &state.requests {
        let mut lines: Vec<String> = request.head.trim_end().lines().map(str::to_lowercase).collect();
        let first = lines.remove(0);
        assert!(first.ends_with(" http/1.1"), "{first}");
        lines.sort_unstable();
        let mut expected = vec![
            "accept: application/json".to_owned(),
            format!("host: {host}"),
            format!("user-agent: {agent}"),
            format!("x-storageapi-token: {}", TOKEN.to_lowercase()),
        ];
        if request.method == "POST" {
            assert_eq!(request.body, b"gzip=1");
            expected
                .extend(["content-length: 6".to_owned(), "content-type: application/x-www-form-urlencoded".to_owned()]);
        }
        expected.sort_unstable();
        assert_eq!(lines, expected, "of {}", request.target);
    }
}

#[tokio::test]
async fn slices_of_every_store_are_read_in_their_order() {
    for store in [Store::Signed, Store::Google, Store::Azure] {
        for plain in [false, true] {
            let site = Site::new();
            let id = site.fake.table("many", &["id:INTEGER", "n"], &[]);
            let rows: Vec<[String; 2]> = (0..97).map(|n| [n.to_string(), format!("row {n}")]).collect();
            for row in &rows {
                site.fake.upsert(&id, 0, &[&[row[0].as_str(), row[1].as_str()]]);
            }
            {
                let mut state = site.fake.state();
                (state.slices, state.plain, state.store) = (12, plain, store.clone());
            }
            site.run(&mut site.request(&id)).await.unwrap();
            assert_eq!(
                site.ask("SELECT count(*), sum(id), count(DISTINCT n) FROM {t}"),
                ["97|4656|97"],
                "{store:?} {plain}"
            );
        }
    }
}

#[tokio::test]
async fn one_file_has_a_header() {
    let site = Site::new();
    let id = shop(&site);
    site.fake.state().unsliced = true;
    site.run(&mut site.request(&id)).await.unwrap();
    assert_eq!(site.all(), ROWS);
}

#[tokio::test]
async fn lines_may_end_with_cr_lf() {
    for unsliced in [false, true] {
        let site = Site::new();
        let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"], &["2", ""], &["3", "c,d"]]);
        {
            let mut state = site.fake.state();
            (state.crlf, state.unsliced) = (true, unsliced);
        }
        site.run(&mut site.request(&id)).await.unwrap();
        assert_eq!(site.all(), ["1|a", "2|", "3|c,d"]);
    }
}

#[tokio::test]
async fn a_table_without_rows_keeps_its_columns() {
    let site = Site::new();
    let id = site.fake.table("empty", &["id:INTEGER", "day:DATE"], &[]);
    site.run(&mut site.request(&id)).await.unwrap();
    assert_eq!(site.types(), ["id|BIGINT", "day|DATE"]);
    assert!(site.all().is_empty());
}

#[tokio::test]
async fn values_that_are_none_of_their_type_are_told() {
    let site = Site::new();
    let id = site.fake.table(
        "odd",
        &["id:INTEGER", "n:INTEGER", "day:DATE", "flag:BOOLEAN", "never:TIMESTAMP", "huge:BIGINT"],
        &[
            &["1", "1.5", "0000-00-00", "maybe", "soon", "9223372036854775808"],
            &["2", "2.0", "2024-01-01", "YES", "later", "9223372036854775807"],
            &["3", "1e3", "", "0", "", ""],
        ],
    );
    let report = site.run(&mut site.request(&id)).await.unwrap();
    assert_eq!(
        site.all(),
        ["1|NULL|NULL|NULL|soon|NULL", "2|2|2024-01-01|true|later|9223372036854775807", "3|NULL|NULL|false||NULL"]
    );
    let told = report.notes.join("\n");
    for words in [
        "`n`: 2 values are no BIGINT and became null, such as `1.5`, `1e3`",
        "`day`: 1 values",
        "`flag`: 1 values",
        "`never` stays text",
        "`huge`: 1 values",
    ] {
        assert!(told.contains(words), "{words} in {told}");
    }
}

#[tokio::test]
async fn a_table_that_did_not_change_is_not_exported_again() {
    let site = Site::new();
    let id = shop(&site);
    site.fake.state().tables.get_mut(&id).unwrap().stamp = Some("2024-01-01T00:00:00+0100".to_owned());
    let mut request = site.request(&id);
    assert!(!site.run(&mut request).await.unwrap().unchanged);
    assert!(site.run(&mut request).await.unwrap().unchanged);
    assert_eq!(site.fake.exports().len(), 1);
    // A change that is seconds old may be followed by another in the same second.
    let now = chrono::Utc::now().format("%Y-%m-%dT%H:%M:%S+0000").to_string();
    site.fake.state().tables.get_mut(&id).unwrap().stamp = Some(now);
    for _ in 0..2 {
        assert!(!site.run(&mut request).await.unwrap().unchanged);
    }
    site.fake.state().tables.get_mut(&id).unwrap().stamp = Some("2024-01-02T00:00:00+0100".to_owned());
    site.run(&mut request).await.unwrap();
    assert!(site.run(&mut request).await.unwrap().unchanged);
    request.full = true;
    assert!(!site.run(&mut request).await.unwrap().unchanged);
}

#[tokio::test]
async fn rows_that_leave_a_window_go_though_nothing_changed() {
    let site = Site::new();
    let id = shop(&site);
    site.fake.state().tables.get_mut(&id).unwrap().stamp = Some("2024-01-01T00:00:00+0100".to_owned());
    let mut request = site.request(&id);
    request.table.query_mode = QueryMode::Materialized;
    for (since, unchanged) in [("2020-01-01", true), ("-2 days", false)] {
        request.table.source_query = Some(json!({"changed_since": since, "file_type": "csv"}).to_string());
        assert!(!site.run(&mut request).await.unwrap().unchanged, "{since}");
        assert_eq!(site.run(&mut request).await.unwrap().unchanged, unchanged, "{since}");
    }
}

#[tokio::test]
async fn filters_and_columns_are_form_fields() {
    let site = Site::new();
    let id = shop(&site);
    let mut request = site.request(&id);
    request.table.where_filters = Some(json!([
        {"column": "day", "operator": "ge", "values": ["2024-01-01"]},
        {"column": "name", "operator": "ne", "values": ["", "{{today}}"]},
    ]));
    request.table.options = Some(json!({"columns": ["id", "name"]}));
    site.run(&mut request).await.unwrap();
    let today = chrono::Utc::now().format("%Y-%m-%d");
    assert_eq!(
        site.fake.exports(),
        [format!(
            "gzip=1&whereFilters%5B0%5D%5Bcolumn%5D=day&whereFilters%5B0%5D%5Boperator%5D=ge\
             &whereFilters%5B0%5D%5Bvalues%5D%5B0%5D=2024-01-01&whereFilters%5B1%5D%5Bcolumn%5D=name\
             &whereFilters%5B1%5D%5Boperator%5D=ne&whereFilters%5B1%5D%5Bvalues%5D%5B0%5D=\
             &whereFilters%5B1%5D%5Bvalues%5D%5B1%5D={today}&columns=id%2Cname"
        )]
    );
    assert_eq!(site.ask("SELECT id FROM {t} ORDER BY id"), ["1", "3"]);
    request.table.where_filters = Some(json!([{"column": "dya", "values": ["x"]}]));
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.hint().as_deref()), ("column_not_found", Some("did you mean `day`?")));
    request.table.where_filters = Some(json!([{"column": "day", "values": ["{{tomorrow}}"]}]));
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_placeholder_unknown");
}

#[tokio::test]
async fn a_materialized_table_asks_by_its_query() {
    let site = Site::new();
    let id = shop(&site);
    let mut request = site.request(&id);
    request.table.query_mode = QueryMode::Materialized;
    request.table.source_query = Some(
        json!({"where_filters": [{"column": "id", "operator": "in", "values": [1, 3]}], "columns": ["id", "day"],
               "changed_until": "2030-01-01", "limit": 1, "file_type": "csv"})
        .to_string(),
    );
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all(), ["1|2024-02-29"]);
    let export = site.fake.exports().remove(0);
    assert!(export.starts_with("gzip=1&changedUntil=1893456000&whereFilters"), "{export}");
    assert!(export.ends_with("&columns=id%2Cday&limit=1"), "{export}");
    request.table.source_query = Some("SELECT 1".to_owned());
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_query_invalid");
    // Without a query its row's own filters and columns hold.
    request.table.source_query = None;
    request.table.where_filters = Some(json!([{"column": "id", "values": ["3"]}]));
    request.table.options = Some(json!({"columns": ["day"], "file_type": "csv"}));
    request.table.sync_strategy = agnes_core::registry::SyncStrategy::Incremental;
    let report = site.run(&mut request).await.unwrap();
    assert_eq!(site.all(), ["2024-01-01"]);
    assert_eq!(report.notes, ["it is materialized, so read whole: `sync_strategy` is for local tables"]);
}

#[tokio::test]
async fn parquet_is_read_as_csv_is() {
    for unsliced in [false, true] {
        let site = Site::new();
        let id = shop(&site);
        {
            let mut state = site.fake.state();
            (state.unsliced, state.slices) = (unsliced, 3);
        }
        let mut request = site.request(&id);
        // What a materialized table without a query asks for.
        request.table.query_mode = QueryMode::Materialized;
        let report = site.run(&mut request).await.unwrap();
        assert!(report.notes.is_empty(), "{:?}", report.notes);
        assert_eq!(site.fake.exports(), ["fileType=parquet"]);
        assert_eq!(site.all(), ROWS);
        let parquet = site.types();
        request.table.source_query = Some(json!({"file_type": "csv"}).to_string());
        site.run(&mut request).await.unwrap();
        assert_eq!((site.all(), site.types()), (ROWS.map(str::to_owned).to_vec(), parquet));
        assert_eq!(site.left(), 0);
    }
}

#[tokio::test]
async fn a_table_can_stay_in_keboola() {
    let site = Site::new();
    let id = shop(&site);
    let mut request = site.request(&id);
    request.table.query_mode = QueryMode::Remote;
    site.run(&mut request).await.unwrap();
    assert!(site.fake.exports().is_empty());
    let extract = agnes_core::extract::read_extract(&site.folder()).unwrap();
    let attach = &extract.attaches[0];
    assert_eq!((attach.alias.as_str(), attach.extension.as_str()), ("kbc", "keboola"));
    assert_eq!((attach.url.as_str(), attach.token_env.as_str()), (site.fake.url.as_str(), "KEBOOLA_STORAGE_TOKEN"));
    assert_eq!((extract.meta[0].table_name.as_str(), extract.meta[0].query_mode.as_str()), ("t", "remote"));
    let view = format!("{:?}", extract.objects["t"]);
    assert!(view.contains("kbc") && view.contains("in.c-shop") && view.contains("orders"), "{view}");
}

#[tokio::test]
async fn a_token_is_checked_by_whose_it_is() {
    let mut site = Site::new();
    shop(&site);
    let items = site.connector.check(&site.source()).await.unwrap();
    assert!(items.iter().all(|item| item.ok), "{items:?}");
    assert!(items[0].detail.contains("project 4711 (`Shop`)"), "{items:?}");
    site.settings["project_id"] = json!(1);
    let items = site.connector.check(&site.source()).await.unwrap();
    assert!(!items[0].ok && items[0].detail.contains("belongs to project 4711, not to 1"), "{items:?}");
    let error = site.connector.discover(&site.source()).await.unwrap_err();
    assert_eq!(error.code(), "keboola_wrong_project");
    site.settings["project_id"] = json!("4711");
    site.token = "wrong-token".to_owned();
    let items = site.connector.check(&site.source()).await.unwrap();
    assert!(!items[0].ok && !items[0].detail.contains("wrong-token"), "{items:?}");
}

#[tokio::test]
async fn only_variables_that_the_operator_lists_are_sent() {
    let mut site = Site::new();
    let id = shop(&site);
    site.settings["token_env"] = json!("SOMEBODY_ELSES_SECRET");
    let error = site.run(&mut site.request(&id)).await.unwrap_err();
    assert_eq!(error.code(), "attach_token_env_not_allowed");
    assert!(error.hint().unwrap().contains("AGNES_REMOTE_ATTACH_TOKEN_ENVS"));
    assert!(site.fake.asked().is_empty());
}

#[tokio::test]
async fn tables_are_found_also_bucket_by_bucket() {
    let site = Site::new();
    shop(&site);
    site.fake.table("orders-2024", &["id"], &[]);
    let stamp = Some("2026-01-02T03:04:05+0100".to_owned());
    site.fake.state().tables.get_mut("in.c-shop.orders").unwrap().stamp.clone_from(&stamp);
    let found = site.connector.discover(&site.source()).await.unwrap();
    assert!(found.iter().all(|table| table.bucket.as_deref() == Some("in.c-shop")));
    assert!(found.iter().all(|table| table.query_mode == QueryMode::Materialized && table.source_query.is_none()));
    assert!(found.iter().all(|table| table.description.as_deref().unwrap().ends_with("found by discovery")));
    let names: Vec<_> = found.iter().map(|t| (t.name.to_string(), t.source_table.clone())).collect();
    assert_eq!(
        names,
        [
            ("in_c_shop_orders".to_owned(), "orders".to_owned()),
            ("in_c_shop_orders_2024".to_owned(), "orders-2024".to_owned())
        ]
    );
    assert_eq!(found[0].primary_key.as_deref(), Some(&["id".to_owned()][..]));
    assert_eq!((found[0].rows, found[0].columns.len()), (Some(4), 9));
    assert_eq!(found[0].columns[2], ("amount".to_owned(), "DECIMAL(12,2)".to_owned()));
    let told = |table: &agnes_core::connector::DiscoveredTable| {
        [table.bucket_name.clone(), table.last_change.clone(), table.last_import.clone()]
    };
    assert_eq!(told(&found[0]), [Some("c-shop".to_owned()), stamp.clone(), stamp]);
    // What is known of the columns holds for a day.
    site.fake.forget_requests();
    assert_eq!(site.connector.discover(&site.source()).await.unwrap(), found);
    assert_eq!(site.fake.asked(), ["GET /v2/storage/tokens/verify", "GET /v2/storage/tables?include=columns,buckets"]);
    site.fake.fault("GET /v2/storage/tables?", 403, &[], r#"{"error": "You don't have access"}"#, 1);
    assert_eq!(site.connector.discover(&site.source()).await.unwrap(), found);
    // A failure that may pass is no reason to look elsewhere.
    site.fake.fault("GET /v2/storage/tables?", 500, &[], "", 9);
    assert_eq!(site.connector.discover(&site.source()).await.unwrap_err().code(), "keboola_unavailable");
}

#[tokio::test]
async fn the_columns_of_all_tables_are_told() {
    let site = Site::new();
    for n in 0..250 {
        site.fake.table(&format!("t{n}"), &["id:INTEGER", "n"], &[]);
    }
    // One that cannot be described is told with the names that are listed.
    site.fake.fault("GET /v2/storage/tables/in.c-shop.t7", 403, &[], "{}", 1);
    let found = site.connector.discover(&site.source()).await.unwrap();
    assert_eq!(found.len(), 250);
    let typed = found.iter().filter(|table| table.columns[0] == ("id".to_owned(), "BIGINT".to_owned())).count();
    assert_eq!(typed, 249);
    assert!(found.iter().all(|table| table.columns.len() == 2 && table.columns[1].0 == "n"), "{found:?}");
}

#[tokio::test]
async fn no_secret_is_in_an_extract() {
    let site = Site::new();
    let id = shop(&site);
    site.run(&mut site.request(&id)).await.unwrap();
    let mut files = 0;
    for entry in walkdir::WalkDir::new(site.root.path()).into_iter().flatten().filter(|e| e.file_type().is_file()) {
        let bytes = std::fs::read(entry.path()).unwrap();
        for secret in [TOKEN, SIGNATURE] {
            assert!(!bytes.windows(secret.len()).any(|part| part == secret.as_bytes()), "{:?}", entry.path());
        }
        files += 1;
    }
    assert!(files >= 2);
}
