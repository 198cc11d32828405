//! A rebuild costs what changed. Run it built for release:
//! `cargo test --release -p agnes-core --test orchestrator -- --ignored --nocapture`.

use std::time::{Duration, Instant};

use crate::support::{Site, ask, rebuild, sql, write_meta};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures time: run it alone, built for release"]
async fn twenty_sources_of_fifty_tables() {
    let site = Site::new();
    let engine = site.open().await;
    let seed = site.outside().join("seed");
    std::fs::create_dir_all(&seed).unwrap();
    let columns: String = (0..10).map(|n| format!(", i * {n} AS c{n}")).collect();
    let tables = |n: usize| (0..50).map(|t| format!("t_{n}_{t}")).collect::<Vec<_>>();
    for n in 0..20 {
        let data = site.extract(&format!("s{n}")).join("data");
        std::fs::create_dir_all(&data).unwrap();
        for name in tables(n) {
            sql(
                None,
                &format!(
                    "COPY (SELECT '{name}' AS who{columns} FROM range(100) r(i)) TO '{}' (FORMAT parquet)",
                    data.join(format!("{name}.parquet")).display()
                ),
            );
        }
        write_meta(&site.extract(&format!("s{n}")), &tables(n).iter().map(String::as_str).collect::<Vec<_>>());
    }
    let timed = |what: &'static str, started: Instant| {
        let took = started.elapsed();
        eprintln!("{what}: {took:?}");
        took
    };
    let started = Instant::now();
    assert!(rebuild(&engine).await.published);
    let full = timed("1000 tables of 20 sources", started);

    let started = Instant::now();
    assert!(!rebuild(&engine).await.published);
    timed("nothing changed", started);

    site.data("s7", "t_7_3", "SELECT 'new' AS who");
    let started = Instant::now();
    assert!(rebuild(&engine).await.published);
    let one = timed("one table of one source changed", started);

    site.data("s7", "t_7_3", "SELECT 'newer' AS who");
    let started = Instant::now();
    engine.orchestrator().rebuild_source(&crate::support::owner(), "s7").await.unwrap();
    timed("the same, that source alone", started);
    assert_eq!(ask(&engine, "SELECT who FROM t_7_3").await.unwrap(), ["newer"]);
    assert!(full < Duration::from_secs(3), "{full:?}");
    assert!(one < (full / 10).max(Duration::from_millis(150)), "{one:?} of {full:?}");
}
