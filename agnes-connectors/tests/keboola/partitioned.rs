//! Tables in parts.

use crate::fake::Damage;
use crate::support::Site;
use crate::wire::form;

const DAY: i64 = 86_400;

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// `changedSince` and `changedUntil` of each export, in days before now, rounded.
fn windows(site: &Site) -> Vec<(Option<i64>, Option<i64>)> {
    let days = |body: &str, name: &str| {
        let value = form(body.as_bytes()).into_iter().find(|(key, _)| key == name)?.1.parse::<i64>().unwrap();
        Some((now() - value + DAY / 2) / DAY)
    };
    site.fake.exports().iter().map(|body| (days(body, "changedSince"), days(body, "changedUntil"))).collect()
}

fn table(site: &Site) -> String {
    let id = site.fake.table("t", &["id:INTEGER", "day:DATE", "n"], &[]);
    site.fake.upsert(&id, now() - 5 * DAY, &[&["1", "2024-01-05", "a"], &["2", "2024-02-05", "b"]]);
    site.fake.upsert(&id, now() - 40 * DAY, &[&["3", "2024-02-06", "c"], &["4", "", "d"]]);
    id
}

#[tokio::test]
async fn the_first_load_walks_backwards() {
    let site = Site::new();
    let id = table(&site);
    let mut request = site.partitioned(&id, "day");
    request.table.max_history_days = Some(95);
    let report = site.run(&mut request).await.unwrap();
    assert_eq!(windows(&site), [(Some(31), None), (Some(61), Some(29)), (Some(91), Some(59)), (Some(121), Some(89))]);
    assert_eq!(site.parts(), ["2024_01", "2024_02", "_unparsed"]);
    assert_eq!(site.all(), ["1|2024-01-05|a", "2|2024-02-05|b", "3|2024-02-06|c", "4|NULL|d"]);
    assert_eq!(site.types(), ["id|BIGINT", "day|DATE", "n|VARCHAR"]);
    assert!(report.notes.iter().any(|note| note.contains("1 rows are in the part `_unparsed`")), "{:?}", report.notes);
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn without_a_history_two_empty_windows_are_the_end() {
    let site = Site::new();
    let id = table(&site);
    site.run(&mut site.partitioned(&id, "day")).await.unwrap();
    assert_eq!(windows(&site).len(), 4);
    assert_eq!(site.all().len(), 4);
}

#[tokio::test]
async fn later_runs_touch_what_changed_and_what_rows_left() {
    let site = Site::new();
    let id = table(&site);
    let mut request = site.partitioned(&id, "day");
    request.table.partition_granularity = Some("year".to_owned());
    site.run(&mut request).await.unwrap();
    assert_eq!(site.parts(), ["2024", "_unparsed"]);

    request.table.partition_granularity = Some("month".to_owned());
    site.run(&mut request).await.unwrap();
    assert_eq!(site.parts(), ["2024_01", "2024_02", "_unparsed"]);

    // A row that moves, a row that is new, a row that is known now.
    site.fake.upsert(&id, now(), &[&["1", "2024-03-01", "A"], &["5", "2024-02-20", "e"], &["4", "2024-03-02", "d"]]);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.parts(), ["2024_02", "2024_03"]);
    assert_eq!(site.all(), ["1|2024-03-01|A", "2|2024-02-05|b", "3|2024-02-06|c", "4|2024-03-02|d", "5|2024-02-20|e"]);
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn nothing_at_all_is_one_empty_part() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "day:DATE"], &[]);
    let mut request = site.partitioned(&id, "day");
    site.run(&mut request).await.unwrap();
    assert_eq!(site.parts(), ["empty"]);
    assert_eq!(site.types(), ["id|BIGINT", "day|DATE"]);
    site.fake.upsert(&id, now(), &[&["1", "2024-03-01"]]);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.parts(), ["2024_03"]);
    request.table.partition_by = Some("dya".to_owned());
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "column_not_found");
}

#[tokio::test]
async fn a_first_load_that_was_cut_off_goes_on() {
    let site = Site::new();
    let id = table(&site);
    let mut request = site.partitioned(&id, "day");
    request.table.max_history_days = Some(95);
    // The third window fails, and the fourth in the next run: what is here already is not asked for.
    for (passed, asked) in [(2, 3), (1, 5)] {
        site.fake.fault("POST /v2/storage/tables/in.c-shop.t/export-async", 400, &[], r#"{"error": "no"}"#, 1);
        site.fake.state().faults.last_mut().unwrap().after = passed;
        assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_refused");
        assert_eq!(windows(&site).len(), asked);
    }
    site.run(&mut request).await.unwrap();
    assert_eq!(windows(&site).len(), 6);
    assert_eq!(site.all().len(), 4);
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn a_slice_that_is_missing_from_a_window_is_noticed() {
    let site = Site::new();
    let id = table(&site);
    let mut request = site.partitioned(&id, "day");
    request.table.max_history_days = Some(60);
    // The first window comes, the second one lacks a slice.
    site.fake.fault("POST /v2/storage/tables/in.c-shop.t/export-async", 400, &[], r#"{"error": "no"}"#, 1);
    site.fake.state().faults.last_mut().unwrap().after = 1;
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_refused");
    site.fake.state().damage = Damage::Missing;
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("keboola_rows_missing", true), "{error}");
    assert_eq!((request.cursor.clone(), site.parts().len(), windows(&site).len()), (None, 0, 3));
    site.fake.state().damage = Damage::None;
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all().len(), 4);
    // Later ones: the parts stay as they are.
    site.fake.upsert(&id, now(), &[&["1", "2024-03-01", "A"], &["5", "2024-02-20", "e"]]);
    site.fake.state().damage = Damage::Missing;
    let before = request.cursor.clone();
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_rows_missing");
    assert_eq!((request.cursor.clone(), site.all().len(), site.parts().len()), (before, 4, 3));
}

#[tokio::test]
async fn rows_older_than_two_empty_windows_come_too() {
    let site = Site::new();
    let id = table(&site);
    site.fake.upsert(&id, now() - 400 * DAY, &[&["5", "2023-01-05", "e"], &["6", "2024-01-06", "f"]]);
    let mut request = site.partitioned(&id, "day");
    // Jobs that count the table say nothing of windows without rows.
    site.fake.state().counts_table = true;
    let report = site.run(&mut request).await.unwrap();
    assert_eq!(windows(&site).last(), Some(&(None, Some(119))));
    // The first one is asked for twice: only then it is known that they do.
    assert_eq!((windows(&site).len(), site.all().len()), (6, 6));
    assert!(report.notes.iter().any(|note| note.starts_with("2 rows changed before")), "{:?}", report.notes);
    assert_eq!((site.parts().len(), site.left()), (4, 0));
    // Who says how far back wants no more.
    request.table.max_history_days = Some(60);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all().len(), 4);
}

#[tokio::test]
async fn a_delete_costs_no_rows_that_are_older_than_the_history() {
    let site = Site::new();
    let id = table(&site);
    let set = |changed: i64| {
        site.fake.state().tables.get_mut(&id).unwrap().rows.iter_mut().for_each(|row| row.changed = changed);
    };
    let mut request = site.partitioned(&id, "day");
    request.table.max_history_days = Some(60);
    set(now());
    site.run(&mut request).await.unwrap();
    let all = site.all();
    // Two years later.
    set(now() - 700 * 86_400);
    site.fake.state().tables.get_mut(&id).unwrap().rows.retain(|row| row.values[0] != "3");
    let cursor = request.cursor.as_mut().unwrap();
    cursor["full_at"] = serde_json::json!(now() - 90_000);
    let report = site.run(&mut request).await.unwrap();
    assert!(report.notes.iter().any(|note| note.contains("they stay here")), "{:?}", report.notes);
    assert_eq!(site.all(), all);
}

#[tokio::test]
async fn rows_that_are_deleted_leave_their_parts() {
    let site = Site::new();
    let id = table(&site);
    let mut request = site.partitioned(&id, "day");
    site.run(&mut request).await.unwrap();
    for change in [None, Some(["1", "2024-01-05", "A"])] {
        let gone = if change.is_none() { "3" } else { "4" };
        site.fake.state().tables.get_mut(&id).unwrap().rows.retain(|row| row.values[0] != gone);
        if let Some(row) = change {
            site.fake.upsert(&id, now(), &[&row]);
        }
        let report = site.run(&mut request).await.unwrap();
        let told = report.notes.iter().any(|note| note.starts_with("1 rows were deleted at the source"));
        assert!(told, "{:?}", report.notes);
        request.cursor.as_mut().unwrap()["full_at"] = serde_json::json!(now() - 90_000);
        site.run(&mut request).await.unwrap();
        assert!(!site.ask("SELECT id FROM {t}").contains(&gone.to_owned()), "{:?}", site.all());
    }
    assert_eq!(site.all(), ["1|2024-01-05|A", "2|2024-02-05|b"]);
    assert_eq!((site.parts().len(), site.left()), (2, 0));
}
