//! XLSX workbooks.

use rust_xlsxwriter::{ExcelDateTime, Format, Formula, Workbook, XlsxError};
use serde_json::json;

use crate::support::Bench;

fn orders() -> Result<Vec<u8>, XlsxError> {
    let mut book = Workbook::new();
    let day = Format::new().set_num_format("yyyy-mm-dd");
    let moment = Format::new().set_num_format("yyyy-mm-dd hh:mm:ss");
    let sheet = book.add_worksheet().set_name("Orders 2024")?;
    for (column, name) in ["id", "name", "day", "at", "price", "mixed", "sum", "ok", "err"].iter().enumerate() {
        sheet.write(0, column as u16, *name)?;
    }
    for row in 1..=3_u32 {
        sheet.write(row, 0, row)?;
        sheet.write(row, 1, format!("na\"me, {row}"))?;
        sheet.write_with_format(row, 2, &ExcelDateTime::from_ymd(2024, 1, row as u8)?, &day)?;
        sheet.write_with_format(
            row,
            3,
            &ExcelDateTime::from_ymd(2024, 1, row as u8)?.and_hms(12, 30, 5.0)?,
            &moment,
        )?;
        sheet.write(row, 4, f64::from(row) + 0.25)?;
        sheet.write_formula(row, 6, Formula::new("=1+1").set_result("2"))?;
        sheet.write(row, 7, row == 1)?;
        sheet.write_formula(row, 8, Formula::new("=1/0").set_result("#DIV/0!"))?;
    }
    sheet.write(1, 5, 1)?;
    sheet.write(2, 5, "two")?;
    sheet.merge_range(5, 0, 5, 1, "merged", &Format::new())?;
    book.add_worksheet().set_name("Hidden")?.set_hidden(true).write(0, 0, "x")?;
    book.save_to_buffer()
}

#[tokio::test]
async fn values_keep_their_types() {
    let bench = Bench::with("a.xlsx", orders().unwrap());
    let report = bench.read("a.xlsx", json!({})).await.unwrap();
    assert_eq!(
        bench.columns(),
        [
            "id VARCHAR",
            "name VARCHAR",
            "day DATE",
            "at TIMESTAMP",
            "price DOUBLE",
            "mixed VARCHAR",
            "sum BIGINT",
            "ok BOOLEAN",
            "err VARCHAR"
        ]
    );
    assert_eq!(bench.rows()[0], "1|na\"me, 1|2024-01-01|2024-01-01 12:30:05|1.25|1|2|true|-");
    assert_eq!(bench.query("t", "id, name")[3], "merged|-");
    assert!(report.notes.iter().any(|note| note.contains("3 cells hold a formula error")), "{:?}", report.notes);
}

#[tokio::test]
async fn each_visible_sheet_is_a_table() {
    let mut book = Workbook::new();
    for name in ["One", "Two & three", "Secret"] {
        let sheet = book.add_worksheet().set_name(name).unwrap();
        sheet.write(2, 1, "a").unwrap().write(3, 1, 1).unwrap().write(3, 3, name).unwrap();
        sheet.set_very_hidden(name == "Secret");
    }
    let bench = Bench::with("Book.xlsx", book.save_to_buffer().unwrap());
    let found = bench.discover(json!({})).await.unwrap();
    let names: Vec<_> = found.iter().map(|table| table.name.as_str()).collect();
    assert_eq!(names, ["book_one", "book_two_three"]);
    let mut request = bench.request("Book.xlsx");
    request.table.options = found[1].options.clone();
    bench.run(&request, &json!({})).await.unwrap();
    assert_eq!(bench.rows(), ["-|1|-|Two & three"]);
    assert_eq!(bench.columns()[..2], ["column_1 VARCHAR", "a BIGINT"]);
    let error = bench.read("Book.xlsx", json!({"sheet": "Secret"})).await.unwrap_err();
    assert_eq!(error.code(), "sheet_not_found");
}

#[tokio::test]
async fn declared_types_put_misfits_aside_and_damage_is_told() {
    let bench = Bench::with("a.xlsx", orders().unwrap());
    let report = bench.read("a.xlsx", json!({"columns": {"id": "BIGINT"}})).await.unwrap();
    assert_eq!(bench.rejected(), ["a.xlsx|6|id"]);
    assert_eq!(
        (report.rejected_rows, bench.query("t", "id")),
        (1, vec!["1".to_owned(), "2".to_owned(), "3".to_owned()])
    );
    let whole = orders().unwrap();
    for damaged in [&whole[..whole.len() / 2], b"PK\x03\x04 nothing", b"a,b\n1,2\n"] {
        bench.put("a.xlsx", damaged);
        assert_eq!(bench.read("a.xlsx", json!({})).await.unwrap_err().code(), "file_damaged");
    }
    bench.put("a.xlsx", "");
    assert_eq!(bench.read("a.xlsx", json!({})).await.unwrap_err().code(), "file_empty");
    bench.put("a.xlsx", Workbook::new().save_to_buffer().unwrap_or_default());
    assert!(bench.read("a.xlsx", json!({})).await.is_err());
}
