//! JSON in its shapes, and Parquet.

use agnes_core::duck::{ScratchDb, ScratchLimits};
use serde_json::json;

use crate::support::Bench;

#[tokio::test]
async fn arrays_lines_and_single_objects() {
    for (name, text) in [
        ("a.json", r#"[{"a":1,"b":{"c":[1,2]}},{"a":2,"d":"x"}]"#),
        ("a.json", "{\"a\":1,\"b\":{\"c\":[1,2]}}\n{\"a\":2,\"d\":\"x\"}\n"),
        ("a.ndjson", "{\"a\":1,\"b\":{\"c\":[1,2]}}\n{\"a\":2,\"d\":\"x\"}"),
        ("a.jsonl.gz", ""),
    ] {
        let mut bytes = text.as_bytes().to_vec();
        if name.ends_with(".gz") {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut encoder, b"{\"a\":1,\"b\":{\"c\":[1,2]}}\n{\"a\":2,\"d\":\"x\"}").unwrap();
            bytes = encoder.finish().unwrap();
        }
        let bench = Bench::with(name, bytes);
        bench.read(name, json!({})).await.unwrap();
        assert_eq!(bench.columns(), ["a BIGINT", "b STRUCT(c BIGINT[])", "d VARCHAR"], "{name}");
        assert_eq!(bench.rows(), ["1|{'c': [1, 2]}|-", "2|-|x"], "{name}");
    }
    let bench = Bench::with("a.json", "\u{feff}[{\"a\":1},{\"a\":2}]");
    bench.read("a.json", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1", "2"]);
    let bench = Bench::with("a.json", "{\n \"a\": 1,\n \"b\": null\n}");
    bench.read("a.json", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1|-"]);
}

#[tokio::test]
async fn malformed_lines_are_put_aside() {
    let bench = Bench::with("a.ndjson", b"{\"a\":1}\n{\"a\":2\n{\"a\":3}\n{\"a\":\"\xff\"}\n");
    let report = bench.read("a.ndjson", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1", "3"]);
    assert_eq!(report.rejected_rows, 2);
    assert_eq!(bench.rejected(), ["a.ndjson|2|-", "a.ndjson|4|-"]);
    let bench = Bench::with("a.json", "[{\"a\":1},{\"a\":");
    assert_eq!(bench.read("a.json", json!({})).await.unwrap_err().code(), "file_damaged");
    let bench = Bench::with("a.json", "hello");
    assert_eq!(bench.read("a.json", json!({})).await.unwrap_err().code(), "file_damaged");
}

#[tokio::test]
async fn late_keys_and_mixed_types_are_not_lost() {
    let mut text: String = (0..30_000).map(|i| format!("{{\"a\":{i}}}\n")).collect();
    text += "{\"a\":\"text\",\"late\":1}\n";
    let bench = Bench::with("a.ndjson", text);
    bench.read("a.ndjson", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["a VARCHAR", "late BIGINT"]);
    assert_eq!(bench.query("t", "count(*), max(a), max(late)"), ["30001|text|1"]);
}

#[tokio::test]
async fn declared_types_put_misfits_aside() {
    let bench = Bench::with("a.json", r#"[{"a":"1","d":"2024-01-01"},{"a":"x","d":"2024-01-02"},{"a":null,"d":null}]"#);
    let report = bench.read("a.json", json!({"columns": {"a": "INTEGER"}})).await.unwrap();
    assert_eq!(bench.columns(), ["a INTEGER", "d DATE"]);
    assert_eq!(bench.rows(), ["1|2024-01-01", "-|-"]);
    assert_eq!((report.rejected_rows, bench.rejected()), (1, vec!["a.json|-|a".to_owned()]));
}

#[tokio::test]
async fn empty_answers() {
    let bench = Bench::with("a.json", "");
    assert_eq!(bench.read("a.json", json!({})).await.unwrap_err().code(), "file_empty");
    bench.put("a.json", "[]");
    assert_eq!(bench.read("a.json", json!({})).await.unwrap_err().code(), "file_without_columns");
    // Once its columns are known, an empty array is an answer.
    bench.put("a.json", r#"[{"a":1}]"#);
    let mut request = bench.request("a.json");
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    bench.put("a.json", "[]");
    bench.run(&request, &json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["a BIGINT"]);
    assert!(bench.rows().is_empty());
}

#[tokio::test]
async fn names_that_differ_in_case_and_big_numbers() {
    let bench = Bench::with("a.json", r#"[{"id":1,"ID":2,"it's \"x\"":3}]"#);
    bench.read("a.json", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1|2|3"]);
    let bench = Bench::with("a.json", r#"[{"n":18446744073709551616}]"#);
    bench.read("a.json", json!({})).await.unwrap();
    assert!(
        ["18446744073709551616", "1.8446744073709552e+19"].contains(&bench.rows()[0].as_str()),
        "{:?}",
        bench.rows()
    );
}

#[tokio::test]
async fn parquet_whole_damaged_and_drifting() {
    let bench = Bench::new();
    bench.put_parquet(
        "p/a.parquet",
        "SELECT 1 AS id, 'x' AS n, [1,2] AS l, 170141183460469231731687303715884105727::HUGEINT AS h",
    );
    bench.put_parquet("p/b.parquet", "SELECT 2::BIGINT AS id, 5 AS n, NULL::INTEGER[] AS l, DATE '2024-01-01' AS d");
    bench.read("p/*", json!({})).await.unwrap();
    assert_eq!(bench.query("t", "id, n, l, d"), ["1|x|[1, 2]|-", "2|5|-|2024-01-01"]);
    let whole = std::fs::read(bench.input().join("p/a.parquet")).unwrap();
    for damaged in [&whole[..whole.len() / 2], b"PAR1", b""] {
        bench.put("p/a.parquet", damaged);
        let code = bench.read("p/a.parquet", json!({})).await.unwrap_err().code().to_owned();
        assert_eq!(code, if damaged.is_empty() { "file_empty" } else { "file_damaged" });
    }
}

impl Bench {
    fn put_parquet(&self, name: &str, select: &str) {
        let db = ScratchDb::open(&self.root.path().join("make"), &ScratchLimits::default()).unwrap();
        let path = self.input().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        db.execute(&format!("COPY ({select}) TO '{}' (FORMAT parquet)", path.display())).unwrap();
    }
}

#[tokio::test]
async fn nesting_without_end_costs_a_line_or_the_file_not_the_process() {
    let deep = format!("{}1{}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    let bench = Bench::with("a.json", &deep);
    assert_eq!(bench.read("a.json", json!({})).await.unwrap_err().code(), "file_damaged");
    bench.put("a.json", format!("{}{}", "[".repeat(5_000), "]".repeat(5_000)));
    assert_eq!(bench.read("a.json", json!({})).await.unwrap_err().code(), "file_damaged");
    bench.put("a.ndjson", format!("{{\"a\":1}}\n{deep}\n"));
    bench.read("a.ndjson", json!({})).await.unwrap();
    assert_eq!((bench.rows(), bench.rejected()), (vec!["1".to_owned()], vec!["a.ndjson|2|-".to_owned()]));
    let bench = Bench::new();
    bench.put("a.json", format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100)));
    bench.read("a.json", json!({})).await.unwrap();
    assert_eq!(bench.rows().len(), 1);
}

#[tokio::test]
async fn lines_with_a_key_twice_or_without_an_object_are_put_aside() {
    let bench = Bench::with("a.ndjson", "{\"a\":1}\n{\"a\":2,\"a\":3}\n5\n{\"a\":4}\n");
    let report = bench.read("a.ndjson", json!({})).await.unwrap();
    assert_eq!((bench.rows(), report.rejected_rows), (vec!["1".to_owned(), "4".to_owned()], 2));
    let bench = Bench::with("a.ndjson", "{\"a\":1}\n{\"a\":2,\"a\":3}\n");
    assert_eq!(bench.read("a.ndjson", json!({})).await.unwrap().rejected_rows, 1);
    let bench = Bench::with("a.json", r#"[{"a":1},5]"#);
    bench.read("a.json", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["5", "{\"a\":1}"]);
}

#[tokio::test]
async fn structs_that_differ_between_files_become_one_that_holds_both() {
    let bench = Bench::new();
    bench.put("d/a.json", r#"[{"id":1,"b":{"n":1,"note":null,"tags":[],"in":{"x":1}}},{"id":2,"b":null}]"#);
    bench.put("d/b.json", r#"[{"id":3,"b":{"n":2.5,"Note":"it's","tags":["t"],"in":{"y":"2024-01-01"}}}]"#);
    let report = bench.read("d/*.json", json!({})).await.unwrap();
    assert_eq!(
        bench.columns(),
        ["id BIGINT", "b STRUCT(n DOUBLE, note VARCHAR, tags VARCHAR[], \"in\" STRUCT(x BIGINT, y DATE))"]
    );
    assert_eq!(
        bench.query("t", "id, b.n, b.note, b.tags, b.\"in\".x, b.\"in\".y"),
        ["1|1.0|-|[]|1|-", "2|-|-|-|-|-", "3|2.5|it's|[t]|-|2024-01-01"]
    );
    assert_eq!((report.rejected_rows, report.notes), (0, vec![]));

    // A later file brings a field; parts that were read before get it too.
    let mut request = bench.request("d/*.json");
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    bench.put("d/c.json", r#"[{"id":4,"b":{"n":"many","new":true}}]"#);
    let report = bench.run(&request, &json!({})).await.unwrap();
    assert!(report.notes[0].starts_with("column `b` is STRUCT(n VARCHAR, note VARCHAR"), "{:?}", report.notes);
    assert_eq!(bench.query("t", "id, b.n, b.new"), ["1|1|-", "2|-|-", "3|2.5|-", "4|many|true"]);
}

#[tokio::test]
async fn a_part_that_differs_in_kind_is_json_text_where_it_is() {
    let bench = Bench::new();
    bench.put("d/a.json", r#"[{"id":1,"b":{"k":1,"v":"x"}}]"#);
    bench.put("d/b.json", r#"[{"id":2,"b":{"k":2,"v":{"deep":[1]}}}]"#);
    bench.put("d/c.json", r#"[{"id":3,"b":{}},{"id":4}]"#);
    let report = bench.read("d/*.json", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id BIGINT", "b STRUCT(k BIGINT, v JSON)"]);
    assert_eq!(bench.query("t", "id, b.k, b.v"), ["1|1|\"x\"", "2|2|{\"deep\":[1]}", "3|-|-", "4|-|-"]);
    assert_eq!(report.notes, [""; 0]);
    // Nothing but text holds an object and a number: that is said.
    bench.put("d/d.json", r#"[{"id":5,"b":7}]"#);
    let report = bench.read("d/*.json", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id BIGINT", "b VARCHAR"]);
    assert_eq!(bench.query("t", "id, b")[..2], [r#"1|{"k":1,"v":"x"}"#, r#"2|{"k":2,"v":{"deep":[1]}}"#]);
    assert_eq!(bench.query("t", "id, b")[2..], ["3|{}", "4|-", "5|7"]);
    assert!(report.notes.contains(&"column `b` is JSON text: its files disagree on what it holds".to_owned()));
}

#[tokio::test]
async fn structs_of_parquet_and_json_go_together() {
    let bench = Bench::new();
    bench.put_parquet("d/a.parquet", "SELECT 1 AS id, {'x': 1::INTEGER, 'm': 1.25::DECIMAL(30,2)} AS b");
    bench.put_parquet("d/b.parquet", "SELECT 2 AS id, {'X': 5::BIGINT, 'y': DATE '2024-01-01'} AS b");
    bench.put("d/c.json", r#"[{"id":3,"b":{"x":7,"y":null}}]"#);
    bench.read("d/*", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id BIGINT", "b STRUCT(x BIGINT, m DECIMAL(30,2), y DATE)"]);
    assert_eq!(bench.query("t", "id, b.x, b.m, b.y"), ["1|1|1.25|-", "2|5|-|2024-01-01", "3|7|-|-"]);
    // Values of Parquet are cast, and a cast makes no JSON text of a part: the column is text.
    bench.put("d/c.json", r#"[{"id":3,"b":{"x":{"z":7}}}]"#);
    bench.read("d/*", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id BIGINT", "b VARCHAR"]);
    assert_eq!(bench.query("t", "b")[2], r#"{"x":{"z":7}}"#);
}

#[tokio::test]
async fn a_column_of_nulls_takes_the_type_of_the_others() {
    let bench = Bench::new();
    bench.put("d/a.json", r#"[{"id":1,"n":null,"s":null}]"#);
    bench.put("d/b.json", r#"[{"id":2,"n":5,"s":{"x":1}}]"#);
    bench.read("d/*.json", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id BIGINT", "n BIGINT", "s STRUCT(x BIGINT)"]);
    assert_eq!(bench.rows(), ["1|-|-", "2|5|{'x': 1}"]);
}
