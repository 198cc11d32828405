//! Delimited text, tidy and untidy.

use std::sync::{Arc, Mutex};

use agnes_core::connector::{Progress, ProgressEvent};
use agnes_core::duck::{ScratchDb, ScratchLimits};
use serde_json::json;

use crate::support::Bench;

#[tokio::test]
async fn types_are_found_and_names_kept() {
    let bench = Bench::with(
        "a.csv",
        "id,náme of x,amount,day,ok,code\n1,a,1.5,2024-01-31,true,007\n2,b,2,2024-02-29,false,010\n",
    );
    let report = bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(report.rejected_rows, 0);
    assert_eq!(
        bench.columns(),
        ["id BIGINT", "náme of x VARCHAR", "amount DOUBLE", "day DATE", "ok BOOLEAN", "code VARCHAR"]
    );
    assert_eq!(bench.rows(), ["1|a|1.5|2024-01-31|true|007", "2|b|2.0|2024-02-29|false|010"]);
}

#[tokio::test]
async fn bad_rows_are_put_aside_with_line_and_reason() {
    let bench = Bench::with("a.csv", "id,name,amt\n1,\"two\nlines\",1.5\n2,b,x\n3,c\n4,d,2.5,extra\n5,e,2.0\n");
    let report = bench.read("a.csv", json!({"columns": {"amt": "DOUBLE"}})).await.unwrap();
    assert_eq!(report.rejected_rows, 3);
    assert_eq!(bench.rows(), ["1|two\nlines|1.5", "5|e|2.0"]);
    assert_eq!(bench.rejected(), ["a.csv|4|amt", "a.csv|5|amt", "a.csv|6|-"]);
    let reasons = bench.query("t_rejected", "reason, raw");
    assert!(reasons[0].starts_with("cast: ") && reasons[0].ends_with("|2,b,x"), "{reasons:?}");
}

#[tokio::test]
async fn a_value_that_does_not_fit_in_the_sample_makes_the_column_text() {
    let bench = Bench::with("a.csv", "id,amt\n1,10\n2,abc\n3,30\n");
    assert_eq!(bench.read("a.csv", json!({})).await.unwrap().rejected_rows, 0);
    assert_eq!(bench.columns(), ["id BIGINT", "amt VARCHAR"]);
}

#[tokio::test]
async fn a_late_misfit_is_put_aside_and_many_widen_the_column() {
    let rows = |bad: std::ops::Range<u32>| {
        (0..60_000).fold("id,n\n".to_owned(), |text, i| {
            if bad.contains(&i) { text + &format!("{i},x\n") } else { text + &format!("{i},{i}\n") }
        })
    };
    let bench = Bench::with("a.csv", rows(50_000..50_001));
    let report = bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(report.rejected_rows, 1);
    assert_eq!(bench.rejected(), ["a.csv|50002|n"]);
    assert_eq!(bench.query("t", "count(*), max(n)"), ["59999|59999"]);

    bench.put("a.csv", rows(50_000..52_000));
    let report = bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(report.rejected_rows, 0);
    assert!(report.notes.iter().any(|note| note.contains("column `n` is text")), "{:?}", report.notes);
    assert_eq!(bench.query("t", "count(*), max(n)"), ["60000|x"]);
    assert!(bench.rejected().is_empty());
}

#[tokio::test]
async fn decimal_comma_thousands_and_formats() {
    let bench = Bench::with("a.csv", "a;b;d\n1,5;1.234,56;31.12.2024\n2,5;2.000,1;01.02.2024\n");
    bench.read("a.csv", json!({"decimal": ",", "thousands": ".", "date_format": "%d.%m.%Y"})).await.unwrap();
    assert_eq!(bench.columns(), ["a DOUBLE", "b DOUBLE", "d DATE"]);
    assert_eq!(bench.rows(), ["1.5|1234.56|2024-12-31", "2.5|2000.1|2024-02-01"]);
}

#[tokio::test]
async fn declared_types_nulls_and_missing_header() {
    let bench = Bench::with("a.tsv", "1\tNA\t5.10\n2\tx\tn/a\n");
    let settings = json!({"null_values": ["NA", "n/a"], "columns": {"column_3": "DECIMAL(9,2)", "nope": "DATE"}});
    let report = bench.read("a.tsv", settings).await.unwrap();
    assert_eq!(bench.columns(), ["column_1 BIGINT", "column_2 VARCHAR", "column_3 DECIMAL(9,2)"]);
    assert_eq!(bench.rows(), ["1|-|5.10", "2|x|-"]);
    assert!(report.notes.iter().any(|note| note.contains("`nope`")), "{:?}", report.notes);
}

#[tokio::test]
async fn odd_column_names_are_data() {
    let long = "x".repeat(300);
    let text = format!("\"a\"\"b';DROP TABLE t;--\",,name,NAME,{long},b\u{1}c\n1,2,3,4,5,6\n");
    let bench = Bench::with("o'dd [1] \"*.csv", text);
    let report = bench.read("o'dd [1] \"*.csv", json!({})).await.unwrap();
    let names: Vec<_> = bench.columns().iter().map(|c| c.rsplit_once(' ').unwrap().0.to_owned()).collect();
    assert_eq!(names[..4], ["a\"b';DROP TABLE t;--", "column_2", "name", "NAME_2"]);
    assert_eq!((names[4].len(), names[5].as_str()), (255, "b_c"));
    assert_eq!(report.notes.len(), 4, "{:?}", report.notes);
    assert_eq!(bench.rows(), ["1|2|3|4|5|6"]);
}

#[tokio::test]
async fn encodings_and_marks() {
    for (label, bytes) in [
        (Some("windows-1250"), b"id,n\n1,\xe8au\n".to_vec()),
        (Some("latin1"), b"id,n\n1,\xe8au\n".to_vec()),
        (None, "\u{feff}id,n\n1,čau\n".as_bytes().to_vec()),
        (
            None,
            [&[0xff, 0xfe][..], &"id,n\n1,čau\n".encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()]
                .concat(),
        ),
        (None, "id,n\n1,xyz\n".encode_utf16().flat_map(u16::to_be_bytes).collect()),
    ] {
        let bench = Bench::with("a.csv", bytes);
        let settings = label.map_or(json!({}), |label| json!({"encoding": label}));
        bench.read("a.csv", settings).await.unwrap();
        assert_eq!(bench.columns(), ["id BIGINT", "n VARCHAR"], "{label:?}");
        let value = bench.query("t", "n").remove(0);
        assert!(["čau", "èau", "xyz"].contains(&value.as_str()), "{value}");
    }
}

#[tokio::test]
async fn broken_utf8_is_put_aside_row_by_row() {
    let bench = Bench::with("a.csv", b"id,n\n1,caf\xe9\n2,ok\n3,\xc5\xbe\n");
    let report = bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["2|ok", "3|ž"]);
    assert_eq!(bench.rejected(), ["a.csv|2|n"]);
    assert!(report.notes.iter().any(|note| note.contains("encoding")));
    // Broken names are shown with a replacement character.
    let bench = Bench::with("a.csv", b"id,na\xefme\n1,a\n");
    bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id BIGINT", "na\u{fffd}me VARCHAR"]);
    assert_eq!(bench.rows(), ["1|a"]);
}

#[tokio::test]
async fn line_ends_nul_and_blank_lines() {
    for text in ["id,n\r\n1,a\r\n2,b\n3,\"x\r\ny\"\r\n4,d", "id,n\r1,a\r2,b\r3,\"x\r\ny\"\r4,d\r"] {
        let bench = Bench::with("a.csv", text);
        bench.read("a.csv", json!({})).await.unwrap();
        assert_eq!(bench.rows(), ["1|a", "2|b", "3|x\r\ny", "4|d"], "{text:?}");
    }
    let bench = Bench::with("a.csv", "\n\nid,n\n1,a\u{0}b\n\n2,b\n\n");
    bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1|a\u{0}b", "2|b"]);
    assert!(bench.rejected().is_empty());
    let bench = Bench::with("a.csv", "Report of today\n\nid,n\n1,a\nx,b\n");
    bench.read("a.csv", json!({"skip": 1, "columns": {"id": "BIGINT"}})).await.unwrap();
    assert_eq!(bench.rows(), ["1|a"]);
    assert_eq!(bench.rejected(), ["a.csv|5|id"]);
}

#[tokio::test]
async fn a_quote_that_is_never_closed_costs_one_line() {
    let bench = Bench::with("a.csv", "id,n\n1,a\n2,\"b\n3,c\n4,d\n5,\"e\n6,f\nx,g\n");
    let report = bench.read("a.csv", json!({"columns": {"id": "BIGINT"}})).await.unwrap();
    let rows = bench.query("t", "id");
    assert!(rows.contains(&"1".to_owned()) && rows.contains(&"6".to_owned()), "{rows:?} {:?}", bench.rejected());
    assert!(bench.rejected().contains(&"a.csv|8|id".to_owned()), "{:?}", bench.rejected());
    assert!(report.rejected_rows <= 3);
}

#[tokio::test]
async fn ragged_headers_and_only_nulls() {
    let bench = Bench::with("a.csv", "a,b\n1,x,\n2,y,\n");
    let report = bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["a BIGINT", "b VARCHAR", "column_3 VARCHAR"]);
    assert!(report.notes.iter().any(|note| note.contains("2 columns, rows have 3")));
    let bench = Bench::with("a.csv", "a,b,c\n1,x\n2,y\n");
    bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1|x|-", "2|y|-"]);
}

#[tokio::test]
async fn nothing_or_only_a_header() {
    let bench = Bench::with("a.csv", "");
    assert_eq!(bench.read("a.csv", json!({})).await.unwrap_err().code(), "file_empty");
    bench.put("a.csv", " \n\n");
    assert_eq!(bench.read("a.csv", json!({})).await.unwrap_err().code(), "file_without_columns");
    bench.put("a.csv", "a,b\n");
    bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["a VARCHAR", "b VARCHAR"]);
    assert!(bench.rows().is_empty());
}

#[tokio::test]
async fn archives_whole_cut_off_and_false() {
    let text = (0..50_000).fold("id,n\n".to_owned(), |text, i| text + &format!("{i},name{}\n", i * 7919 % 10_007));
    let gzip = |text: &str| {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut encoder, text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    for (name, packed) in [("a.csv.gz", gzip(&text)), ("a.csv.zst", zstd::encode_all(text.as_bytes(), 1).unwrap())] {
        let bench = Bench::with(name, &packed);
        bench.read(name, json!({})).await.unwrap();
        assert_eq!(bench.query("t", "count(*), max(id)"), ["50000|49999"], "{name}");
        bench.put(name, &packed[..packed.len() * 3 / 4]);
        let error = bench.read(name, json!({})).await.unwrap_err();
        assert_eq!(error.code(), "file_damaged", "{name}: {error}");
        bench.put(name, &text);
        assert_eq!(bench.read(name, json!({})).await.unwrap_err().code(), "file_damaged");
    }
    // Two members, one after the other, are one text.
    let bench = Bench::with("a.csv.gz", [gzip("id\n1\n"), gzip("2\n")].concat());
    bench.read("a.csv.gz", json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["1", "2"]);
}

#[tokio::test]
async fn whole_numbers_over_64_bits_stay_exact() {
    let bench = Bench::with("a.csv", "a,b\n99999999999999999999,1\n1,12345678901234567890123456789012345678901\n");
    bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["a DECIMAL(38,0)", "b VARCHAR"]);
    assert_eq!(bench.rows()[1], "99999999999999999999|1");
}

#[tokio::test]
async fn long_lines_and_very_many_columns() {
    let bench = Bench::with("a.csv", format!("id,n\n1,a\n2,{}\n3,c\n", "x".repeat(3_000_000)));
    assert_eq!(bench.read("a.csv", json!({})).await.unwrap().rejected_rows, 0);
    assert_eq!(bench.query("t", "id, length(n)"), ["1|1", "2|3000000", "3|1"]);
    let names: Vec<_> = (0..10_000).map(|i| format!("c{i}")).collect();
    let values: Vec<_> = (0..10_000).map(|i| i.to_string()).collect();
    let bench = Bench::with("a.csv", format!("{}\n{}\n", names.join(","), values.join(",")));
    bench.read("a.csv", json!({})).await.unwrap();
    assert_eq!(bench.query("t", "c0, c9999"), ["0|9999"]);
}

#[tokio::test]
async fn a_table_fails_when_nothing_or_too_little_fits() {
    let bench = Bench::with("a.csv", "a,b\n1,x\n2,y\n3,1\n");
    let error = bench.read("a.csv", json!({"columns": {"b": "DATE"}})).await.unwrap_err();
    assert_eq!(error.code(), "too_many_rejected");
    assert!(error.to_string().contains("3 of 3 rows"), "{error}");
    let settings = |most| json!({"columns": {"b": "BIGINT"}, "max_rejected": most});
    assert_eq!(bench.read("a.csv", settings(json!(1))).await.unwrap_err().code(), "too_many_rejected");
    assert_eq!(bench.read("a.csv", settings(json!(0.5))).await.unwrap_err().code(), "too_many_rejected");
    assert_eq!(bench.read("a.csv", settings(json!(2))).await.unwrap().rejected_rows, 2);
}

#[tokio::test]
async fn errors_hold_no_path_of_the_server() {
    let bench = Bench::with("bad.parquet", b"PAR1 this is no such file PAR1");
    let error = bench.read("bad.parquet", json!({})).await.unwrap_err();
    assert_eq!(error.code(), "file_damaged");
    assert!(error.to_string().contains("`bad.parquet`"));
    assert!(!error.to_string().contains(&*bench.root.path().to_string_lossy()), "{error}");
    assert_eq!(bench.read("gone.csv", json!({})).await.unwrap_err().code(), "no_files");
    let gone = json!({"path": bench.input().join("gone")});
    assert_eq!(bench.read("a.csv", gone).await.unwrap_err().code(), "source_unreadable");
}

#[tokio::test]
async fn a_column_that_turns_into_text_widens_in_place() {
    let bench = Bench::with("a.csv", "id,n\n1,2\n");
    let mut request = bench.request("a.csv");
    request.cursor = bench.run(&request, &json!({})).await.unwrap().cursor;
    bench.put("a.csv", "id,n,new\n1,two,3\n");
    let report = bench.run(&request, &json!({})).await.unwrap();
    assert_eq!(bench.columns(), ["id BIGINT", "n VARCHAR", "new BIGINT"]);
    assert!(report.notes.iter().any(|note| note == "column `n` is VARCHAR now, was BIGINT"), "{:?}", report.notes);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_read_again_or_refused() {
    let bench = Bench::with("a.csv", "id\n1\n");
    let path = bench.input().join("a.csv");
    // Progress is told right after the file was read, before it is looked at again.
    let grow = |times: usize| {
        let (path, left) = (path.clone(), std::sync::Mutex::new(times));
        Progress::to(move |_| {
            let mut left = left.lock().unwrap();
            if *left > 0 {
                *left -= 1;
                let text = std::fs::read_to_string(&path).unwrap();
                std::fs::write(&path, text + "2\n").unwrap();
            }
        })
    };
    bench.run_told(&bench.request("a.csv"), &json!({}), grow(1)).await.unwrap();
    assert_eq!(bench.rows(), ["1", "2"]);
    let error = bench.run_told(&bench.request("a.csv"), &json!({}), grow(9)).await.unwrap_err();
    assert_eq!(error.code(), "file_changed");
    assert!(error.is_retryable());
    assert_eq!(bench.rows(), ["1", "2"], "the last good data stays");
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_may_not_be_read_fails_its_table_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::with("a.csv", "id\n1\n");
    bench.put("b.csv", "id\n2\n");
    std::fs::set_permissions(bench.input().join("a.csv"), PermissionsExt::from_mode(0o0)).unwrap();
    if std::fs::read(bench.input().join("a.csv")).is_ok() {
        eprintln!("skipped: this user may read everything");
        return;
    }
    assert_eq!(bench.read("a.csv", json!({})).await.unwrap_err().code(), "file_unreadable");
    bench.read("b.csv", json!({})).await.unwrap();
}

#[tokio::test]
async fn what_other_programs_write() {
    for (text, rows) in [
        // Excel's own first line, a comment or title above, backslashes before quotes.
        ("sep=;\nid;name\n1;a\n", vec!["1|a"]),
        ("Report of today\nid,name\n1,a\n2,b\n", vec!["1|a", "2|b"]),
        ("id,name\n1,\"x\\\"y, z\"\n", vec!["1|x\"y, z"]),
        ("id,name\n1,\"x\"\"y, z\"\n", vec!["1|x\"y, z"]),
        // No table below: the first line is the header.
        ("value\n1,5\n2,5\n", vec!["1|5", "2|5"]),
        // `1 2 3` is not the third of February of the year 1.
        ("a b c\n1 2 3\n", vec!["1 2 3"]),
        ("phone,n\n+420123456789,2\n", vec!["+420123456789|2"]),
    ] {
        let bench = Bench::with("a.csv", text);
        bench.read("a.csv", json!({})).await.unwrap();
        assert_eq!(bench.rows(), rows, "{text:?}");
    }
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_large_file_tells_how_far_it_is_read() {
    let bench = Bench::new();
    let db = ScratchDb::open(&bench.root.path().join("make"), &ScratchLimits::default()).unwrap();
    let path = bench.input().join("a.csv");
    let text = "SELECT range AS id, md5(range::VARCHAR) || md5((range + 1)::VARCHAR) AS h FROM range(2_000_000)";
    db.execute(&format!("COPY ({text}) TO '{}' (FORMAT csv)", path.display())).unwrap();
    drop(db);
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size > 128 << 20);
    let told = Arc::new(Mutex::new(Vec::new()));
    let sink = told.clone();
    let progress = Progress::to(move |event| {
        if let ProgressEvent::TableProgress { bytes, .. } = event {
            sink.lock().unwrap().push(bytes);
        }
    });
    bench.run_told(&bench.request("a.csv"), &json!({}), progress).await.unwrap();
    assert_eq!(bench.query("t", "count(*)"), ["2000000"]);
    let told = told.lock().unwrap();
    assert!(told.is_sorted() && told.last() == Some(&size), "{told:?} of {size}");
    assert!(told.len() > 1, "something is told before the end: {told:?}");
}
