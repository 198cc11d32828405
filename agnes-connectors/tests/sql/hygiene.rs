//! What a database may not be reached by, and what nobody may read of it in a message.

use std::time::Duration;

use agnes_core::connector::Connector;
use agnes_core::error::Error;
use serde_json::json;

use crate::support::{Bench, PASSWORD, Source};

fn told(error: &Error) -> String {
    format!("{error} {:?} {:?}", error.hint(), error.facts())
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_the_operator_lists_is_reached() {
    let Some(source) = Source::postgres() else { return };
    let mut bench = Bench::new(source);
    bench.source.policy.database_hosts.clear();
    let error = bench.run(&mut bench.request("public.t")).await.unwrap_err();
    assert_eq!(error.code(), "attach_host_not_allowed");
    let items = bench.source.connector.check(&bench.context()).await.unwrap();
    assert!(items.len() == 1 && !items[0].ok, "{items:?}");
    let Some(source) = Source::sqlite() else { return };
    let mut bench = Bench::new(source);
    bench.source.sql("CREATE TABLE t (a BIGINT)");
    bench.source.policy.sqlite_folders = vec!["/usr/lib".into()];
    let error = bench.run(&mut bench.request("t")).await.unwrap_err();
    assert_eq!(error.code(), "attach_bad_url");
    // A link that leads out of the folder is where it leads.
    let Some(other) = Source::sqlite() else { return };
    let link = tempfile::tempdir().unwrap();
    let path = link.path().join("link.db");
    std::os::unix::fs::symlink(bench.source.config["path"].as_str().unwrap(), &path).unwrap();
    let mut bench = Bench::new(other);
    bench.source.policy.sqlite_folders = vec![link.path().to_owned()];
    bench.source.config["path"] = json!(path);
    assert_eq!(bench.run(&mut bench.request("t")).await.unwrap_err().code(), "attach_bad_url");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_failure_says_whose_move_it_is_and_no_secret() {
    for source in [Source::postgres(), Source::mariadb()].into_iter().flatten() {
        let mut bench = Bench::new(source);
        bench.source.sql("CREATE TABLE t (id BIGINT PRIMARY KEY, v BIGINT)");
        bench.source.sql("INSERT INTO t VALUES (1, 2)");
        let place = if bench.source.connector.kind() == "postgres" { "public.t" } else { "shop.t" };
        let mut failures = Vec::new();
        failures.push(("source_table_missing", bench.run(&mut bench.request("nowhere")).await.unwrap_err()));
        failures.push(("column_not_found", bench.run(&mut bench.incremental(place, "vv", &[])).await.unwrap_err()));
        let mut unnamed = bench.incremental(place, "v", &[]);
        unnamed.table.incremental_column = None;
        failures.push(("invalid_config", bench.run(&mut unnamed).await.unwrap_err()));
        bench.password = "wrong-password".to_owned();
        failures.push(("attach_credentials", bench.run(&mut bench.request(place)).await.unwrap_err()));
        bench.password = PASSWORD.to_owned();
        bench.source.config["password_env"] = json!("NOT_SET");
        failures.push(("attach_token_unset", bench.run(&mut bench.request(place)).await.unwrap_err()));
        bench.source.config["password_env"] = json!("SHOP_PASSWORD");
        bench.source.config["database"] = json!("no_such_database");
        failures.push(("attach_credentials", bench.run(&mut bench.request(place)).await.unwrap_err()));
        bench.source.down();
        failures.push(("attach_unreachable", bench.run(&mut bench.request(place)).await.unwrap_err()));
        let port = bench.source.config["port"].to_string();
        for (code, error) in failures {
            assert_eq!(error.code(), code, "{}", told(&error));
            for hidden in [PASSWORD, "wrong-password", "127.0.0.1", "dbname", "no_such_database", port.as_str()] {
                assert!(!told(&error).contains(hidden), "{}", told(&error));
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_is_told_so() {
    let Some(source) = Source::postgres() else { return };
    let mut bench = Bench::new(source);
    bench.source.sql(&format!(
        "CREATE TABLE wages (v INT); CREATE TABLE open (v INT); CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; \
         GRANT SELECT ON open TO reader"
    ));
    bench.source.config["user"] = json!("reader");
    let error = bench.run(&mut bench.request("public.wages")).await.unwrap_err();
    assert_eq!(error.code(), "source_forbidden", "{error}");
    let found = bench.source.connector.discover(&bench.context()).await.unwrap();
    assert_eq!(found.iter().map(|table| table.name.to_string()).collect::<Vec<_>>(), ["open"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_do_not_fit_are_told_and_can_be_read_as_text() {
    let Some(source) = Source::sqlite() else { return };
    let mut bench = Bench::new(source);
    bench.source.sql("CREATE TABLE odd (id BIGINT, v BIGINT)");
    bench.source.sql("INSERT INTO odd VALUES (1, 'x')");
    let error = bench.run(&mut bench.request("odd")).await.unwrap_err();
    assert_eq!(error.code(), "source_type_mismatch", "{error}");
    bench.source.config["all_text"] = json!(true);
    bench.run(&mut bench.request("odd")).await.unwrap();
    assert_eq!(bench.rows("SELECT id || v FROM {t}"), "1x");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_statement_ends_when_the_run_does() {
    const MINUTE: Duration = Duration::from_secs(60);
    for source in [Source::mariadb(), Source::postgres()].into_iter().flatten() {
        let bench = Bench::new(source);
        let postgres = bench.source.connector.kind() == "postgres";
        let words = if postgres { "pg_sleep(600)" } else { "sleep(600)" };
        let mut request = bench.query(&format!("SELECT {words}, 1 AS one"));
        request.full = true;
        let context = bench.context();
        let writer = agnes_core::extract::TableWriter::new(&bench.extract_folder(), request.name.clone());
        let stop = async {
            while bench.source.running(words) == 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            bench.cancel.cancel();
        };
        let both = async { tokio::join!(bench.source.connector.extract(&context, &request, writer), stop).0 };
        let done = tokio::time::timeout(MINUTE, both).await.expect("it ends before the statement would");
        assert_eq!(done.unwrap_err().code(), "cancelled");
        assert_eq!(bench.scratch(), 0);
    }
    // And when the server itself is told how long: nobody cancels this one.
    let Some(source) = Source::postgres() else { return };
    let bench = Bench::new(source);
    let mut context = bench.context();
    context.timeout = Duration::from_secs(1);
    let request = bench.query("SELECT pg_sleep(600), 1 AS one");
    let writer = agnes_core::extract::TableWriter::new(&bench.extract_folder(), request.name.clone());
    let error = bench.source.connector.extract(&context, &request, writer).await.unwrap_err();
    assert_eq!(error.code(), "source_timeout", "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_breaks_off_is_no_query_that_is_refused() {
    let Some(source) = Source::mariadb() else { return };
    let bench = Bench::new(source);
    bench.source.sql("CREATE TABLE orders (id BIGINT PRIMARY KEY); INSERT INTO orders VALUES (1), (2)");
    // The server ends the statement, by its own limit or because somebody says so.
    bench.source.sql("SET GLOBAL max_statement_time = 1");
    let mut errors = vec![bench.run(&mut bench.query("SELECT sleep(600) AS s FROM orders")).await.unwrap_err()];
    bench.source.sql("SET GLOBAL max_statement_time = 0");
    let mut request = bench.query("SELECT sleep(601) AS s FROM orders");
    let end = async {
        while bench.source.running("sleep(601)") == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let process =
            "SELECT id FROM information_schema.processlist WHERE info LIKE '%sleep(601)%' AND id <> connection_id()";
        for process in bench.source.told(process).lines() {
            bench.source.sql(&format!("KILL {process}"));
        }
    };
    errors.push(tokio::join!(bench.run(&mut request), end).0.unwrap_err());
    for error in errors {
        assert!(error.is_retryable(), "{}", told(&error));
        assert!(["source_read_failed", "source_lost"].contains(&error.code()), "{}", told(&error));
        assert!(!error.to_string().contains("sleep"), "{}", told(&error));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_there_is_listed_with_what_is_known_of_it() {
    for source in [Source::postgres(), Source::mariadb(), Source::sqlite()].into_iter().flatten() {
        let mut bench = Bench::new(source);
        for sql in [
            "CREATE TABLE orders (id BIGINT, line BIGINT, price DECIMAL(10,2), PRIMARY KEY (line, id))",
            "INSERT INTO orders VALUES (1, 1, 2.5), (2, 1, 3.5)",
            "CREATE VIEW cheap AS SELECT id FROM orders WHERE price < 3",
            "CREATE TABLE \"Odd name\" (id BIGINT)",
        ] {
            let sql = if bench.source.connector.kind() == "mysql" { sql.replace('"', "`") } else { sql.to_owned() };
            bench.source.sql(&sql);
        }
        if bench.source.connector.kind() == "postgres" {
            bench.source.sql("COMMENT ON TABLE orders IS 'what people buy'; CREATE SCHEMA eu; CREATE TABLE eu.orders (x INT); ANALYZE");
        }
        bench.source.config["exclude"] = json!(["cheap"]);
        let context = bench.context();
        let found = bench.source.connector.discover(&context).await.unwrap();
        let names: Vec<_> = found.iter().map(|table| table.name.to_string()).collect();
        let orders = match bench.source.connector.kind() {
            "postgres" => {
                assert_eq!(names, ["eu_orders", "odd_name", "public_orders"]);
                let orders = &found[2];
                assert_eq!((orders.rows, orders.description.as_deref()), (Some(2), Some("what people buy")));
                orders
            }
            _ => {
                let mut sorted = names.clone();
                sorted.sort();
                assert_eq!(sorted, ["odd_name", "orders"]);
                found.iter().find(|table| table.name.as_str() == "orders").unwrap()
            }
        };
        assert_eq!(orders.primary_key.as_deref(), Some(&["line".to_owned(), "id".to_owned()][..]));
        assert_eq!(orders.columns.len(), 3, "{:?}", orders.columns);
        assert_eq!(orders.columns[0], ("id".to_owned(), "BIGINT".to_owned()));
        let items = bench.source.connector.check(&context).await.unwrap();
        assert!(items.iter().all(|item| item.ok), "{items:?}");
        // A name that needs quotes is read like any other.
        let odd = found.iter().find(|table| table.name.as_str() == "odd_name").unwrap();
        let mut request = bench.request("x");
        request.table.options.clone_from(&odd.options);
        bench.run(&mut request).await.unwrap();
        assert_eq!(bench.rows("SELECT count(*) FROM {t}"), "0");
    }
}
