//! Rows in every format, on standard output and in files.

use std::io::Write;
use std::process::Stdio;

use serde_json::json;

use crate::{Folder, text};

#[test]
fn csv_is_quoted_and_keeps_nulls_empty() {
    let folder = Folder::synced();
    let out = folder.ok(&["query", "select * from people order by id", "-f", "csv"]);
    assert_eq!(out, "id,name\n1,\"Ann \"\"A\"\", née B\"\n2,Bob\n");
    let out = folder.ok(&["query", "select id, amount from orders where id = 4", "-f", "csv"]);
    assert_eq!(out, "id,amount\n4,\n");
    assert_eq!(folder.ok(&["query", "select id from orders where false", "-f", "csv"]), "id\n");
    let nested = folder.ok(&["query", "select [1, 2] as l, {'a': 1} as s", "-f", "csv"]);
    assert!(nested.starts_with("l,s\n\"[1, 2]\","), "{nested}");
}

#[test]
fn json_and_ndjson() {
    let folder = Folder::synced();
    let sql = "select id, status, amount from orders where id in (1, 4) order by id";
    let rows = json!([{"id": 1, "status": "paid", "amount": 10.5}, {"id": 4, "status": "lost", "amount": null}]);
    assert_eq!(folder.json(&["query", sql]), rows);
    let lines = folder.ok(&["query", sql, "-f", "ndjson"]);
    let lines: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(json!(lines), rows);
    assert_eq!(folder.json(&["query", "select id from orders where false"]), json!([]));
}

#[test]
fn the_widest_numbers_are_whole() {
    let folder = Folder::synced();
    let most = i128::MAX.to_string();
    let sql = format!("select {most}::hugeint as n, [-{most}::hugeint] as l");
    assert_eq!(folder.ok(&["query", &sql, "-f", "csv"]), format!("n,l\n{most},[-{most}]\n"));
    assert_eq!(folder.ok(&["query", &sql, "-f", "ndjson"]), format!("{{\"n\":\"{most}\",\"l\":[\"-{most}\"]}}\n"));
    assert!(folder.ok(&["query", &sql]).contains(&format!("{most}  [-{most}]")));
    let out = folder.ok(&["query", "select md5_number('b') as n, md5_number('b')::varchar as text", "-f", "csv"]);
    let (number, told) = out.strip_prefix("n,text\n").unwrap().trim().split_once(',').unwrap();
    assert!(number == told && number.len() == 39 && !number.starts_with('-'), "{out}");
}

#[test]
fn tables_when_piped_are_plain_and_aligned() {
    let folder = Folder::synced();
    let out = folder.ok(&["query", "select id, status from orders order by id limit 2"]);
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["id", "status"], ["1", "paid"], ["2", "open"]]);
    let many = folder.ok(&["query", "select i from range(2500) t(i) order by i", "--limit", "0"]);
    assert_eq!(many.lines().count(), 2501);
    assert_eq!(many.lines().last().map(str::trim), Some("2499"));
}

#[test]
fn binary_formats_and_files() {
    let folder = Folder::synced();
    for (name, rows) in [("all.parquet", 4), ("all.arrow", 4), ("all.csv", 4), ("all.ndjson", 4), ("all.json", 4)] {
        let output = folder.run(&["query", "select * from orders", "--output", name]);
        assert!(output.status.success(), "{name}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
        assert!(text(&output.stderr).contains(&format!("{rows} rows")), "{}", text(&output.stderr));
        assert!(std::fs::metadata(folder.path(name)).unwrap().len() > 0);
    }
    let parquet = std::fs::File::open(folder.path("all.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(parquet).unwrap();
    assert_eq!(reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
    let stream = folder.run(&["query", "select * from orders", "-f", "arrow"]).stdout;
    let reader = arrow::ipc::reader::StreamReader::try_new(std::io::Cursor::new(stream), None).unwrap();
    assert_eq!(reader.map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 4);
}

#[test]
fn dates_without_end_and_intervals_are_written_in_every_format() {
    let folder = Folder::synced();
    let sql = "select 'infinity'::timestamp as t, date '5881580-07-10' as d, [date '-infinity'] as l, \
               interval 14 month as i, [interval 1 day] as li";
    let text = "infinity,+5881580-07-10,[-infinity],14 mons,[1 days]";
    assert_eq!(folder.ok(&["query", sql, "-f", "csv"]).lines().nth(1), Some(text));
    let row = json!([{"t": "infinity", "d": "+5881580-07-10", "l": ["-infinity"], "i": "14 mons", "li": ["1 days"]}]);
    assert_eq!(folder.json(&["query", sql]), row);
    assert!(folder.ok(&["query", sql]).contains("+5881580-07-10"));
    folder.ok(&["query", sql, "--output", "odd.parquet"]);
    let file = std::fs::File::open(folder.path("odd.parquet")).unwrap();
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    assert_eq!(reader.build().unwrap().map(|batch| batch.unwrap().num_rows()).sum::<usize>(), 1);
}

#[test]
fn a_file_is_not_called_what_it_is_not() {
    let folder = Folder::synced();
    for name in ["a.xlsx", "a.csv.gz", "a.tsv"] {
        let told = folder.fails(2, &["query", "select * from orders", "--output", name]);
        assert!(told.contains("no format is called") && told.contains("--format csv"), "{told}");
        assert!(!folder.path(name).exists());
        folder.ok(&["query", "select * from orders", "--output", name, "-f", "csv"]);
    }
    for name in ["a", "a.txt"] {
        folder.ok(&["query", "select id from orders", "--output", name]);
        assert!(std::fs::read_to_string(folder.path(name)).unwrap().starts_with("id\n"), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_file_is_as_readable_as_its_owner_says() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = Folder::synced();
    let write = |umask: &str, name: &str| {
        let agnes = folder.command(&["query", "select * from orders", "--output", name]);
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &format!("umask {umask}; exec \"$0\" \"$@\"")]).arg(agnes.get_program());
        shell.args(agnes.get_args()).current_dir(folder.path("")).env("DATA_DIR", folder.data());
        let output = shell.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
        folder.path(name).metadata().unwrap().permissions().mode() & 0o777
    };
    assert_eq!((write("022", "a.csv"), write("077", "b.csv")), (0o644, 0o600));
    std::fs::set_permissions(folder.path("a.csv"), std::fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(write("022", "a.csv"), 0o640, "as it was before");
}

#[test]
fn a_file_appears_only_when_it_is_complete() {
    let folder = Folder::synced();
    std::fs::write(folder.path("out.csv"), "as it was").unwrap();
    // Fails on some row, after the header was written.
    let sql = "select 1 // (i - 5000) as x, error(case when i = 200000 then 'no' end) from range(300000) t(i)";
    assert!(!folder.run(&["query", sql, "--output", "out.csv"]).status.success());
    assert_eq!(std::fs::read_to_string(folder.path("out.csv")).unwrap(), "as it was");
    let left: Vec<_> =
        crate::listing(&folder.path(".")).into_iter().filter(|p| p.to_string_lossy().contains(".agnes-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn limits_are_told() {
    let folder = Folder::synced();
    let output = folder.run(&["query", "select * from orders", "--limit", "2", "-f", "csv"]);
    assert_eq!(text(&output.stdout).lines().count(), 3);
    assert!(text(&output.stderr).contains("there is more"), "{}", text(&output.stderr));
    let output = folder.run(&["query", "select * from orders", "--limit", "4"]);
    assert!(!text(&output.stderr).contains("there is more"), "{}", text(&output.stderr));
    let output = folder.run(&["query", "select i from range(5000) t(i)", "-f", "csv"]);
    assert_eq!(text(&output.stdout).lines().count(), 1001);
    let output = folder.run(&["query", "select i from range(5000) t(i)", "-f", "csv", "--limit", "0"]);
    assert_eq!(text(&output.stdout).lines().count(), 5001);
}

#[test]
fn parameters_by_position_and_by_name() {
    let folder = Folder::synced();
    let ids = |args: &[&str]| {
        folder.ok(&[&["query", "-f", "csv"], args].concat()).lines().skip(1).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        ids(&["select id from orders where id > ? and status = ? order by id", "--param", "1", "--param", "paid"]),
        ["3"]
    );
    assert_eq!(ids(&["select id from orders where status = $s order by id", "--param", "s=paid"]), ["1", "3"]);
    assert_eq!(ids(&["select id from orders where status = ?", "--param", "x' or 1=1 --"]), Vec::<String>::new());
    assert_eq!(ids(&["select ? = 'a=b'", "--param", "\"a=b\""]), ["true"]);
    folder.fails(2, &["query", "select $a, ?", "--param", "a=1", "--param", "2"]);
    folder.fails(2, &["query", "select $a", "--param", "a=1", "--param", "a=2"]);
    assert!(!folder.run(&["query", "select ?"]).status.success());
}

#[test]
fn sql_comes_from_a_file_or_standard_input() {
    let folder = Folder::synced();
    std::fs::write(folder.path("q.sql"), "select count(*) as n\nfrom orders -- all\n").unwrap();
    assert_eq!(folder.json(&["query", "--file", "q.sql"]), json!([{"n": 4}]));
    folder.fails(1, &["query", "--file", "missing.sql"]);
    let ask = |input: &str| {
        let mut child = folder
            .command(&["query", "--stdin", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap_or_default())
    };
    assert_eq!(ask("select count(*) as n from orders"), (Some(0), json!([{"n": 4}])));
    assert_eq!(ask(r#"{"sql": "select count(*) as n from orders"}"#), (Some(0), json!([{"n": 4}])));
    for wrong in ["{}", "{\"sql\": 1}", "{\"sql\": \"select 1\", \"x\": 1}", "{\"sql\""] {
        assert_eq!(ask(wrong).0, Some(2), "{wrong}");
    }
}
