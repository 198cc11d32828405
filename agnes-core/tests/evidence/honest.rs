//! What analysts ask: all of it is accepted, and the answer is DuckDB's own.

use agnes_core::query::Params;

use crate::support::{Installation, Making, data, lines, maker_with, rows, texts};

/// Statements of the corpus that need no more than an answer.
const NOT_COMPARED: [&str; 3] = ["/*volatile*/", "/*sample*/", "/*unordered*/"];

struct Outcome {
    asked: usize,
    wrong: Vec<String>,
}

async fn compare(at: &Installation, sql: &str, out: &mut Outcome) {
    out.asked += 1;
    let params = sql.strip_prefix("/*params:").and_then(|rest| rest.split_once("*/"));
    let (given, raw_sql) = match params {
        Some((json, rest)) => {
            let json: serde_json::Value = serde_json::from_str(json).unwrap();
            at.raw.execute_batch(&format!("PREPARE asked AS {rest}")).unwrap();
            (Params::try_from(json.clone()).unwrap(), format!("EXECUTE asked({})", arguments(&json)))
        }
        None => (Params::None, sql.to_owned()),
    };
    let got = match at.ask(sql, given).await {
        Ok(got) => got,
        Err(e) => return out.wrong.push(format!("{}: {e}\n    {sql}", e.code())),
    };
    if NOT_COMPARED.iter().any(|mark| sql.starts_with(mark)) {
        return;
    }
    match at.ask_raw(&raw_sql) {
        Ok(expected) => {
            if let Some(difference) = got.difference(&expected) {
                out.wrong.push(format!("different: {difference}\n    {sql}"));
            }
        }
        Err(e) => out.wrong.push(format!("DuckDB does not answer this ({e})\n    {sql}")),
    }
}

/// Parameters as `EXECUTE` takes them.
fn arguments(json: &serde_json::Value) -> String {
    fn literal(value: &serde_json::Value) -> String {
        match value {
            serde_json::Value::String(text) => format!("'{}'", text.replace('\'', "''")),
            serde_json::Value::Array(items) => {
                format!("[{}]", items.iter().map(literal).collect::<Vec<_>>().join(", "))
            }
            other => other.to_string(),
        }
    }
    let list: Vec<String> = match json {
        serde_json::Value::Array(items) => items.iter().map(literal).collect(),
        serde_json::Value::Object(map) => map.iter().map(|(k, v)| format!("{k} := {}", literal(v))).collect(),
        _ => Vec::new(),
    };
    list.join(", ")
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_sql_gives_what_duckdb_gives() {
    let maker = maker_with(None).unwrap();
    maker.execute_batch(&std::fs::read_to_string(data("data.sql")).unwrap()).unwrap();
    let at = Making::default().publish(&maker, |_| true).await;
    let mut out = Outcome { asked: 0, wrong: Vec::new() };
    let mut files: Vec<_> = std::fs::read_dir(data("honest")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        if file.extension().is_some_and(|end| end == "tsv") {
            for [_, sql] in rows(&text) {
                compare(&at, &sql, &mut out).await;
            }
        } else if file.extension().is_some_and(|end| end == "sql") {
            for sql in lines(&text) {
                compare(&at, sql, &mut out).await;
            }
        }
    }
    assert!(out.asked >= 500, "{} statements", out.asked);
    assert!(out.wrong.is_empty(), "{} of {}\n{}", out.wrong.len(), out.asked, out.wrong.join("\n"));
}

/// The queries of a benchmark that an extension carries, over data it generates.
async fn benchmark(extension: &str, generate: &str, queries: &str, count: usize) {
    let Some(maker) = maker_with(Some(extension)) else { return };
    maker.execute_batch(generate).unwrap();
    let at = Making::default().publish(&maker, |_| true).await;
    let queries = texts(&maker, queries);
    assert_eq!(queries.len(), count);
    let mut out = Outcome { asked: 0, wrong: Vec::new() };
    for sql in &queries {
        compare(&at, sql, &mut out).await;
    }
    assert!(out.wrong.is_empty(), "{} of {count}\n{}", out.wrong.len(), out.wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_tpc_h_gives_what_duckdb_gives() {
    benchmark("tpch", "CALL dbgen(sf=0.01)", "SELECT query FROM tpch_queries() ORDER BY query_nr", 22).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_tpc_ds_gives_what_duckdb_gives() {
    benchmark("tpcds", "CALL dsdgen(sf=0.01)", "SELECT query FROM tpcds_queries() ORDER BY query_nr", 99).await;
}

/// The examples of DuckDB's own documentation of each function. A function that is refused
/// has to stand in the list of those that are.
#[tokio::test(flavor = "multi_thread")]
async fn every_documented_function_is_answered_or_refused_on_purpose() {
    let maker = maker_with(None).unwrap();
    maker.execute_batch("CREATE TABLE nothing(a INT)").unwrap();
    let at = Making::default().publish(&maker, |_| true).await;
    let found = texts(
        &maker,
        "SELECT DISTINCT function_name || '|' || unnest(examples) FROM duckdb_functions() \
         WHERE function_type IN ('scalar', 'aggregate', 'macro') ORDER BY 1",
    );
    let text = std::fs::read_to_string(data("honest/refused_functions.txt")).unwrap();
    let mut on_purpose: std::collections::BTreeSet<&str> = lines(&text).collect();
    let listed = on_purpose.clone();
    let (mut answered, mut wrong) = (0, Vec::new());
    for (name, example) in found.iter().filter_map(|found| found.split_once('|')) {
        let sql = format!("SELECT {example}");
        // Many examples name columns that are not there.
        let Ok(expected) = at.ask_raw(&sql) else { continue };
        match at.ask(&sql, Params::None).await {
            Ok(got) => {
                answered += 1;
                let volatile = ["random", "uuid", "now", "today", "current", "transaction_timestamp", "version"];
                if !volatile.iter().any(|word| name.contains(word))
                    && let Some(difference) = got.difference(&expected)
                {
                    wrong.push(format!("{sql}: {difference}"));
                }
            }
            Err(e) if e.code() == "function_denied" && listed.contains(name) => {
                on_purpose.remove(name);
            }
            Err(e) => wrong.push(format!("{sql}: {} {e}", e.code())),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(answered > 300, "{answered}");
    assert!(on_purpose.is_empty(), "not refused: {on_purpose:?}");
}
