//! Whole tables, types, queries, and what changed, on each kind of database.

use agnes_core::connector::Connector;

use crate::support::{Bench, Source};

fn all() -> Vec<Bench> {
    [Source::postgres(), Source::mariadb(), Source::sqlite()].into_iter().flatten().map(Bench::new).collect()
}

/// Statements one by one: SQLite's are run by another engine.
fn run(bench: &Bench, statements: &[&str]) {
    statements.iter().for_each(|sql| bench.source.sql(sql));
}

const ORDERS: [&str; 2] = [
    "CREATE TABLE orders (id BIGINT PRIMARY KEY, customer VARCHAR(40), price DECIMAL(10,2), updated_at TIMESTAMP NULL)",
    "INSERT INTO orders VALUES (1, 'Ada', 10.50, '2024-01-01 10:00:00'), (2, 'Bob', 20.00, '2024-01-01 10:00:00'), \
     (3, NULL, 5.25, NULL)",
];

fn table(bench: &Bench, name: &str) -> String {
    match bench.source.connector.kind() {
        "postgres" => format!("public.{name}"),
        "mysql" => format!("shop.{name}"),
        _ => name.to_owned(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_read_and_the_rest_is_kept() {
    for bench in all() {
        run(&bench, &ORDERS);
        let mut request = bench.incremental(&table(&bench, "orders"), "updated_at", &["id"]);
        let look = "SELECT id, customer, price::DOUBLE, strftime(updated_at, '%d %H:%M') FROM {t} ORDER BY id";
        bench.run(&mut request).await.unwrap();
        assert_eq!(bench.rows(look), "1,Ada,10.5,01 10:00\n2,Bob,20.0,01 10:00\n3,NULL,5.25,NULL");
        // A row joins the moment that was the newest; one changes; one goes inside the window.
        run(
            &bench,
            &[
                "INSERT INTO orders VALUES (4, 'Cyd', 1, '2024-01-01 10:00:00')",
                "UPDATE orders SET customer = 'Bea', updated_at = '2024-01-02 00:00:00' WHERE id = 2",
                "DELETE FROM orders WHERE id = 1",
            ],
        );
        assert!(!bench.run(&mut request).await.unwrap().unchanged);
        assert_eq!(
            bench.rows("SELECT string_agg(id || coalesce(customer, '-'), ' ' ORDER BY id) FROM {t}"),
            "2Bea 3- 4Cyd"
        );
        // Rows without a moment are read each time; without them nothing is.
        run(&bench, &["DELETE FROM orders WHERE id = 3"]);
        assert!(!bench.run(&mut request).await.unwrap().unchanged);
        assert!(bench.run(&mut request).await.unwrap().unchanged);
        assert_eq!(bench.rows("SELECT count(*) FROM {t}"), "2");
        // A new column: everything is read again.
        run(&bench, &["ALTER TABLE orders ADD COLUMN note VARCHAR(10)"]);
        assert!(!bench.run(&mut request).await.unwrap().unchanged);
        assert_eq!(bench.rows("SELECT count(*) FROM {t} WHERE note IS NULL"), "2");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_of_a_wrong_clock_hides_no_others() {
    for bench in all() {
        let kind = bench.source.connector.kind();
        // The last year that all of them know.
        for column in ["TIMESTAMP NULL", "DATE"] {
            run(
                &bench,
                &[
                    &format!("CREATE TABLE seen (id BIGINT PRIMARY KEY, seen {column})"),
                    "INSERT INTO seen VALUES (1, '2024-01-01'), (2, '2037-01-01')",
                ],
            );
            let mut request = bench.incremental(&table(&bench, "seen"), "seen", &["id"]);
            bench.run(&mut request).await.unwrap();
            run(&bench, &["INSERT INTO seen VALUES (3, '2024-01-02'), (4, '2036-01-01')"]);
            assert!(!bench.run(&mut request).await.unwrap().unchanged, "{kind} {column}");
            assert_eq!(bench.rows("SELECT string_agg(id, ' ' ORDER BY id) FROM {t}"), "1 2 3 4", "{kind} {column}");
            assert!(bench.run(&mut request).await.unwrap().unchanged, "{kind} {column}");
            run(&bench, &["DROP TABLE seen"]);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_have_one_order_whatever_the_source_thinks() {
    // For MariaDB `b` comes before `Z`, and `z` is `Z`.
    for bench in all() {
        run(
            &bench,
            &[
                "CREATE TABLE codes (id BIGINT PRIMARY KEY, code VARCHAR(20))",
                "INSERT INTO codes VALUES (1, 'Z'), (2, 'A')",
            ],
        );
        let mut request = bench.incremental(&table(&bench, "codes"), "code", &["id"]);
        bench.run(&mut request).await.unwrap();
        run(&bench, &["INSERT INTO codes VALUES (3, 'b')"]);
        assert!(!bench.run(&mut request).await.unwrap().unchanged);
        assert_eq!(bench.rows("SELECT string_agg(code, '' ORDER BY id) FROM {t}"), "ZAb");
        assert!(bench.run(&mut request).await.unwrap().unchanged);
        run(&bench, &["INSERT INTO codes VALUES (4, 'z')"]);
        assert!(!bench.run(&mut request).await.unwrap().unchanged);
        assert_eq!(bench.rows("SELECT string_agg(code, '' ORDER BY id) FROM {t}"), "ZAbz");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_compared_when_it_is_time() {
    for bench in all() {
        run(&bench, &["CREATE TABLE n (id BIGINT PRIMARY KEY, at_number BIGINT)"]);
        let values: Vec<_> = (1..=3000).map(|i| format!("({i}, {i})")).collect();
        run(&bench, &[&format!("INSERT INTO n VALUES {}", values.join(", "))]);
        let mut request = bench.incremental(&table(&bench, "n"), "at_number", &["id"]);
        request.table.options = Some(serde_json::json!({"overlap": 10, "reconcile_hours": 1}));
        bench.run(&mut request).await.unwrap();
        run(&bench, &["DELETE FROM n WHERE id = 7", "INSERT INTO n VALUES (9001, 1)"]);
        assert!(bench.run(&mut request).await.unwrap().unchanged, "no cursor shows it");
        let mut cursor = request.cursor.take().unwrap();
        cursor["mark"]["reconciled"] = "2024-01-01T00:00:00Z".into();
        request.cursor = Some(cursor);
        let report = bench.run(&mut request).await.unwrap();
        assert!(report.notes.iter().any(|note| note.contains("ranges of keys differed")), "{:?}", report.notes);
        assert_eq!(
            bench.rows("SELECT count(*), count(*) FILTER (id = 7), count(*) FILTER (id = 9001) FROM {t}"),
            "3000,0,1"
        );
        assert!(bench.run(&mut request).await.unwrap().unchanged);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_cut_by_months_or_by_values() {
    for bench in all() {
        run(&bench, &ORDERS);
        run(
            &bench,
            &["INSERT INTO orders VALUES (4, 'Ada', 1, '2024-02-29 23:59:59'), (5, 'Ada', 1, '2024-03-01 00:00:00')"],
        );
        let mut request = bench.request(&table(&bench, "orders"));
        request.table.sync_strategy = agnes_core::registry::SyncStrategy::Partitioned;
        let parts = |bench: &Bench| -> Vec<String> {
            let folder = std::fs::read_dir(bench.extract_folder().join("data/t")).unwrap().flatten();
            let mut names: Vec<_> = folder.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        request.table.partition_by = Some("updated_at".to_owned());
        bench.run(&mut request).await.unwrap();
        assert_eq!(parts(&bench), ["2024-01.parquet", "2024-02.parquet", "2024-03.parquet", "null.parquet"]);
        assert_eq!(bench.rows("SELECT count(*), sum(id)::BIGINT FROM {t}"), "5,15");
        request.table.partition_by = Some("customer".to_owned());
        bench.run(&mut request).await.unwrap();
        assert_eq!(parts(&bench), ["Ada.parquet", "Bob.parquet", "null.parquet"]);
        assert_eq!(bench.rows("SELECT count(*), sum(id)::BIGINT FROM {t}"), "5,15");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_runs_at_the_source_and_cannot_write() {
    for bench in all() {
        run(&bench, &ORDERS);
        let sum = "SELECT customer, sum(price) AS total FROM orders WHERE customer IS NOT NULL GROUP BY customer;";
        bench.run(&mut bench.query(sum)).await.unwrap();
        assert_eq!(
            bench.rows("SELECT string_agg(customer || total::DOUBLE, ' ' ORDER BY customer) FROM {t}"),
            "Ada10.5 Bob20.0"
        );
        for bad in [
            "SELEKT 1",
            "DELETE FROM orders",
            "SELECT 1; DELETE FROM orders",
            "SELECT 1) TO '/tmp/agnes-test-out'; --",
            "DELETE FROM orders RETURNING id",
            "",
        ] {
            let error = bench.run(&mut bench.query(bad)).await.unwrap_err();
            assert!(
                ["source_query_refused", "invalid_config"].contains(&error.code()),
                "{bad}: {} {error}",
                error.code()
            );
        }
        if bench.source.connector.kind() == "sqlite" {
            let file = bench.extract_folder().join("../../secret.csv");
            std::fs::write(&file, "a\n1").unwrap();
            let bad = format!("SELECT * FROM read_csv('{}')", file.display());
            let error = bench.run(&mut bench.query(&bad)).await.unwrap_err();
            assert_eq!(error.code(), "source_query_refused");
            assert!(!error.to_string().contains("secret.csv"), "{error}");
        }
        bench.run(&mut bench.request(&table(&bench, "orders"))).await.unwrap();
        assert_eq!(bench.rows("SELECT count(*) FROM {t}"), "3", "nothing was written");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn types_of_postgresql_arrive() {
    let Some(source) = Source::postgres() else { return };
    let bench = Bench::new(source);
    bench.source.sql(
        "CREATE TABLE kinds (a smallint, b bigint, c numeric(12,3), d numeric, e timestamptz, f timestamp, g date, h time, \
         i uuid, j jsonb, k text[], l bytea, m boolean, n double precision, o interval, p varchar(3), x numeric(50,10)); \
         INSERT INTO kinds VALUES (1, 9223372036854775807, 123456789.125, 0.5, '2024-03-31 01:30:00+02', '2024-03-31 02:30', \
         '0044-03-15', '23:59:59.999999', '6f9619ff-8b86-d011-b42d-00c04fc964ff', '{\"a\": [1]}', '{x,\"y z\",NULL}', '\\x00ff', \
         true, 'NaN', '1 mon 2 days', 'ab', 2.5), (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    );
    let report = bench.run(&mut bench.request("public.kinds")).await.unwrap();
    assert_eq!(report.notes, ["`d`, `x` may have more digits at the source than any type here, and is DOUBLE"]);
    assert_eq!(
        bench.rows("SELECT a, b, c, d, e, f, g, h, i, j, k[2], l, m, n, o, p, x FROM {t} WHERE a = 1"),
        "1,9223372036854775807,123456789.125,0.5,2024-03-30 23:30:00+00,2024-03-31 02:30:00,0044-03-15,23:59:59.999999,\
         6f9619ff-8b86-d011-b42d-00c04fc964ff,{\"a\": [1]},y z,\\x00\\xFF,true,nan,1 month 2 days,ab,2.5"
    );
    assert_eq!(bench.rows("SELECT count(*) FROM {t}"), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_period_without_end_is_a_part() {
    let Some(source) = Source::postgres() else { return };
    let bench = Bench::new(source);
    bench.source.sql(
        "CREATE TABLE prices (id bigint, until date, seen timestamptz); INSERT INTO prices VALUES \
         (1, '2024-02-03', '2024-02-03 10:00+00'), (2, 'infinity', 'infinity'), (3, '-infinity', '-infinity'), (4, NULL, NULL)",
    );
    for column in ["until", "seen"] {
        let mut request = bench.request("public.prices");
        request.table.sync_strategy = agnes_core::registry::SyncStrategy::Partitioned;
        request.table.partition_by = Some(column.to_owned());
        bench.run(&mut request).await.unwrap();
        assert_eq!(bench.rows("SELECT string_agg(id, ' ' ORDER BY id) FROM {t}"), "1 2 3 4", "{column}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_that_are_rounded_are_told() {
    let Some(source) = Source::mariadb() else { return };
    let bench = Bench::new(source);
    bench.source.sql("CREATE TABLE prices (a DECIMAL(60,5), b DECIMAL(38,5)); INSERT INTO prices VALUES (0.5, 0.5)");
    let report = bench.run(&mut bench.request("shop.prices")).await.unwrap();
    assert_eq!(report.notes, ["`a` may have more digits at the source than any type here, and is DOUBLE"]);
    assert_eq!(bench.rows("SELECT typeof(a), a, typeof(b) FROM {t}"), "DOUBLE,0.5,DECIMAL(38,5)");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_differ_in_case_alone_are_two_tables() {
    for bench in all().into_iter().filter(|bench| bench.source.connector.kind() != "sqlite") {
        let quoted =
            |sql: &str| if bench.source.connector.kind() == "mysql" { sql.replace('"', "`") } else { sql.to_owned() };
        for table in ["Orders", "orders", "ORDERS"] {
            bench.source.sql(&quoted(&format!(
                "CREATE TABLE \"{table}\" (id BIGINT PRIMARY KEY, \"{table}_name\" VARCHAR(9))"
            )));
            bench.source.sql(&quoted(&format!("INSERT INTO \"{table}\" VALUES (1, '{table}')")));
        }
        for name in ["Orders", "orders", "ORDERS"] {
            let place = table(&bench, name);
            bench.run(&mut bench.request(&place)).await.unwrap();
            assert_eq!(
                bench.rows(&format!("SELECT id, \"{name}_name\" FROM {t}", t = "{t}")),
                format!("1,{name}"),
                "{place}"
            );
            let mut request = bench.incremental(&place, "id", &["id"]);
            bench.run(&mut request).await.unwrap();
            bench.source.sql(&quoted(&format!("INSERT INTO \"{name}\" VALUES (2, 'more')")));
            assert!(!bench.run(&mut request).await.unwrap().unchanged);
            assert!(bench.run(&mut request).await.unwrap().unchanged);
            let names = bench.rows(&format!("SELECT string_agg(\"{name}_name\", ' ' ORDER BY id) FROM {t}", t = "{t}"));
            assert_eq!(names, format!("{name} more"), "{place}");
            if bench.source.connector.kind() == "postgres" {
                continue;
            }
            let mut remote = bench.request(&place);
            remote.table.query_mode = agnes_core::registry::QueryMode::Remote;
            assert_eq!(bench.run(&mut remote).await.unwrap_err().code(), "invalid_config");
        }
        let found = bench.source.connector.discover(&bench.context()).await.unwrap();
        let mut names: Vec<_> = found.iter().map(|table| table.name.to_string()).collect();
        names.sort();
        assert_eq!(names, ["orders", "orders_2", "orders_3"]);
    }
}
