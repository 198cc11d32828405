//! What changed since the last time, put into what is there.

use serde_json::json;

use crate::fake::Damage;
use crate::support::Site;
use crate::wire::form;

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

fn since(site: &Site) -> Vec<Option<i64>> {
    let exports = site.fake.exports();
    let since = |body: &String| {
        form(body.as_bytes()).iter().find(|(key, _)| key == "changedSince").map(|(_, v)| v.parse().unwrap())
    };
    exports.iter().map(since).collect()
}

#[tokio::test]
async fn the_last_word_of_a_row_counts() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "name", "day:DATE"], &[&["1", "a", ""], &["2", "b", "2024-01-01"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    let begun = now();
    assert!(site.run(&mut request).await.unwrap().unchanged);
    site.fake.upsert(&id, now(), &[&["2", "B", ""], &["3", "c", "2024-03-03"]]);
    let report = site.run(&mut request).await.unwrap();
    assert!(!report.unchanged && report.notes.is_empty(), "{report:?}");
    assert_eq!(site.all(), ["1|a|NULL", "2|B|NULL", "3|c|2024-03-03"]);
    // The window is seven days before the begin of the run before.
    let since = since(&site);
    assert_eq!(since[0], None);
    for one in &since[1..] {
        assert!((one.unwrap() - (begun - 7 * 86_400)).abs() < 60, "{since:?}");
    }
    // The same once more changes nothing.
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all().len(), 3);
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn history_and_window_are_those_of_the_table() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER"], &[&["1"]]);
    site.fake.upsert(&id, now(), &[&["2"]]);
    let mut request = site.incremental(&id);
    (request.table.max_history_days, request.table.incremental_window_days) = (Some(30), Some(0));
    site.run(&mut request).await.unwrap();
    site.run(&mut request).await.unwrap();
    let since = since(&site);
    assert!((since[0].unwrap() - (now() - 30 * 86_400)).abs() < 60);
    assert!((since[1].unwrap() - (now() - 300)).abs() < 60);
    assert_eq!(site.all(), ["2"]);
}

#[tokio::test]
async fn a_key_of_another_type_fails_the_table_and_leaves_the_data() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    site.fake.upsert(&id, now(), &[&["abc", "b"]]);
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!(error.code(), "keboola_key_type");
    assert_eq!(site.all(), ["1|a"]);
}

#[tokio::test]
async fn rows_that_are_marked_or_missing_go() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "gone"], &[&["1", ""], &["2", ""], &["3", ""]]);
    let mut request = site.incremental(&id);
    request.table.options = Some(json!({"deleted_column": "gone"}));
    site.run(&mut request).await.unwrap();
    site.fake.upsert(&id, now(), &[&["2", "2024-05-05"], &["3", "0"]]);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.ask("SELECT id FROM {t} ORDER BY id"), ["1", "3"]);

    // Rows that are gone without a word: fewer are there than here.
    let id = site.fake.table("u", &["id:INTEGER"], &[&["1"], &["2"], &["3"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    site.fake.state().tables.get_mut(&id).unwrap().rows.retain(|row| row.values[0] != "2");
    let report = site.run(&mut request).await.unwrap();
    assert!(report.notes[0].contains("1 rows were deleted at the source"), "{:?}", report.notes);
    assert_eq!(site.all(), ["1", "2", "3"]);
    let cursor = request.cursor.as_mut().unwrap();
    cursor["full_at"] = json!(now() - 90_000);
    let report = site.run(&mut request).await.unwrap();
    assert!(!report.unchanged && report.notes[0].contains("everything is read again"), "{report:?}");
    assert_eq!(site.all(), ["1", "3"]);
}

#[tokio::test]
async fn changed_columns_are_read_anew() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "5"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    site.fake.table("t", &["id:INTEGER", "n", "more:INTEGER"], &[&["1", "5", "7"]]);
    let report = site.run(&mut request).await.unwrap();
    assert!(report.notes[0].contains("columns changed"), "{:?}", report.notes);
    assert_eq!(site.all(), ["1|5|7"]);
    assert_eq!(since(&site), [None, None]);
}

#[tokio::test]
async fn rows_of_another_project_are_no_changes() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "test"], &["2", "test"]]);
    let mut incremental = site.incremental(&id);
    site.run(&mut incremental).await.unwrap();
    // A cursor of an earlier version does not say whose rows these are.
    incremental.cursor.as_mut().unwrap().as_object_mut().unwrap().remove("project");
    assert!(site.run(&mut incremental).await.unwrap().unchanged);
    // An export that is begun in one project is not gone on with in the other.
    site.fake.fault("GET /v2/storage/jobs/", 503, &[("Retry-After", "86400")], "", u32::MAX);
    site.run(&mut incremental).await.unwrap_err();
    site.fake.state().faults.clear();
    site.fake.state().project = 1234;
    site.fake.table("t", &["id:INTEGER", "n"], &[&["2", "real"], &["3", "real"]]);
    for row in &mut site.fake.state().tables.get_mut(&id).unwrap().rows {
        row.changed = now() - 90 * 86_400;
    }
    assert!(!site.run(&mut incremental).await.unwrap().unchanged);
    assert_eq!(site.all(), ["2|real", "3|real"]);
}

#[tokio::test]
async fn values_of_a_column_that_stayed_text_stay_text() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n:INTEGER"], &[&["1", "x"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    site.fake.upsert(&id, now(), &[&["2", "7"], &["3", "y"]]);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all(), ["1|x", "2|7", "3|y"]);
}

#[tokio::test]
async fn a_table_without_a_key_is_not_read() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "day:DATE"], &[&["1", "2024-01-05"]]);
    let mut keyed = site.incremental(&id);
    site.run(&mut keyed).await.unwrap();
    site.fake.state().tables.get_mut(&id).unwrap().primary_key.clear();
    for mut request in [keyed, site.incremental(&id), site.partitioned(&id, "day")] {
        let error = site.run(&mut request).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("keboola_key_missing", false), "{error}");
        assert!(error.hint().is_some_and(|hint| hint.contains("`primary_key`")));
        request.table.primary_key = Some(vec!["id".to_owned()]);
        site.fake.upsert(&id, now(), &[&["1", "2024-01-06"]]);
        for _ in 0..2 {
            site.run(&mut request).await.unwrap();
            assert_eq!(site.all(), ["1|2024-01-06"], "the window is read again, its rows are there once");
        }
    }
}

#[tokio::test]
async fn marked_rows_stay_away_from_a_table_that_is_read_whole() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "gone"], &[&["1", ""], &["2", "2024-05-05"], &["3", "false"]]);
    let mut request = site.incremental(&id);
    request.table.options = Some(json!({"deleted_column": "gone"}));
    for full in [false, true] {
        request.full = full;
        site.run(&mut request).await.unwrap();
        assert_eq!(site.all(), ["1|", "3|false"], "full: {full}");
    }
    // Marked rows count where an export is held to what was announced of it.
    site.fake.state().damage = Damage::Missing;
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "keboola_rows_missing");
    request.table.options = Some(json!({"deleted_column": "gone", "columns": ["id"]}));
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "column_not_found");
}

#[tokio::test]
async fn a_slice_that_is_missing_from_what_changed_is_noticed() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"], &["2", "b"], &["3", "c"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    let before = request.cursor.clone();
    site.fake.upsert(&id, now(), &[&["2", "B"], &["4", "D"]]);
    site.fake.state().damage = Damage::Missing;
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable()), ("keboola_rows_missing", true), "{error}");
    assert_eq!((request.cursor.clone(), site.left()), (before, 0));
    assert_eq!(site.all(), ["1|a", "2|b", "3|c"], "the last good data stays");
    site.fake.state().damage = Damage::None;
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all(), ["1|a", "2|B", "3|c", "4|D"]);

    // A job that tells how many rows the table has says nothing of what changed.
    site.fake.upsert(&id, now(), &[&["4", "d"]]);
    site.fake.state().counts_table = true;
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all(), ["1|a", "2|B", "3|c", "4|d"]);
}

#[tokio::test]
async fn slices_that_are_missing_of_all_rows_are_noticed() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"], &["2", "b"], &["3", "c"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    // Every row changed: the count of the export is that of the table.
    site.fake.upsert(&id, now(), &[&["1", "A"], &["2", "B"], &["3", "C"]]);
    site.fake.fault("GET /blob/4/manifest", 200, &[], r#"{"entries": []}"#, 1);
    let report = site.run(&mut request).await.unwrap();
    assert_eq!((site.all(), report.notes), (["1|A", "2|B", "3|C"].map(str::to_owned).to_vec(), Vec::new()));
    assert_eq!((site.fake.exports().len(), site.left()), (3, 0), "it is made anew, once");
    // One whose slice is gone is made anew by the next attempt, as is one of the whole table.
    site.fake.fault("GET /blob/8/in.c-shop.t", 404, &[], "", u32::MAX);
    let error = site.run(&mut request).await.unwrap_err();
    assert_eq!((error.code(), error.is_retryable(), site.left()), ("keboola_file_invalid", true, 0), "{error}");
    site.run(&mut request).await.unwrap();
    assert_eq!((site.all().len(), site.fake.exports().len()), (3, 5));
}

#[tokio::test]
async fn a_project_whose_jobs_count_tables_is_asked_twice_only_once() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[&["1", "a"], &["2", "b"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    site.fake.state().counts_table = true;
    site.fake.upsert(&id, now(), &[&["2", "B"]]);
    let report = site.run(&mut request).await.unwrap();
    assert!(report.notes[0].contains("announced 2 rows and brought 1, twice"), "{:?}", report.notes);
    assert_eq!((site.all(), site.fake.exports().len()), (["1|a", "2|B"].map(str::to_owned).to_vec(), 3));
    site.fake.upsert(&id, now(), &[&["2", "C"]]);
    assert_eq!(site.run(&mut request).await.unwrap().notes, Vec::<String>::new());
    assert_eq!((site.all(), site.fake.exports().len()), (["1|a", "2|C"].map(str::to_owned).to_vec(), 4));
}

#[tokio::test]
async fn rows_that_go_are_noticed_behind_those_that_are_marked() {
    let site = Site::new();
    let rows: [&[&str]; 5] = [&["1", ""], &["2", ""], &["3", ""], &["4", "yes"], &["5", ""]];
    let id = site.fake.table("t", &["id:INTEGER", "gone"], &rows);
    let mut request = site.incremental(&id);
    request.table.options = Some(json!({"deleted_column": "gone"}));
    site.run(&mut request).await.unwrap();
    // One more is marked, twice in the window: nothing is missing.
    site.fake.upsert(&id, now(), &[&["2", "yes"]]);
    for _ in 0..2 {
        assert_eq!(site.run(&mut request).await.unwrap().notes, Vec::<String>::new());
        assert_eq!(site.ask("SELECT id FROM {t} ORDER BY id"), ["1", "3", "5"]);
    }
    site.fake.state().tables.get_mut(&id).unwrap().rows.retain(|row| row.values[0] != "3");
    let report = site.run(&mut request).await.unwrap();
    assert!(report.notes[0].contains("1 rows were deleted at the source"), "{:?}", report.notes);
    request.cursor.as_mut().unwrap()["full_at"] = json!(now() - 90_000);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.ask("SELECT id FROM {t} ORDER BY id"), ["1", "5"]);
    assert_eq!(site.run(&mut request).await.unwrap().notes, Vec::<String>::new());
}

#[tokio::test]
async fn rows_that_went_are_remembered_until_all_is_read_again() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER"], &[&["1"], &["2"]]);
    let stamp = |day: &str| site.fake.state().tables.get_mut(&id).unwrap().stamp = Some(format!("{day}T00:00:00+0100"));
    let mut request = site.incremental(&id);
    stamp("2024-01-01");
    site.run(&mut request).await.unwrap();
    site.fake.state().tables.get_mut(&id).unwrap().rows.retain(|row| row.values[0] != "1");
    stamp("2024-01-02");
    let report = site.run(&mut request).await.unwrap();
    assert!(report.notes[0].contains("within a day"), "{:?}", report.notes);
    // Nothing changes any more at the source.
    request.cursor.as_mut().unwrap()["full_at"] = json!(now() - 90_000);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.ask("SELECT id FROM {t}"), ["2"]);
    let exports = site.fake.exports().len();
    assert!(site.run(&mut request).await.unwrap().unchanged);
    assert_eq!(site.fake.exports().len(), exports);
}

#[tokio::test]
async fn rows_that_come_meanwhile_are_none_that_were_deleted() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER"], &[&["1"], &["2"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    request.cursor.as_mut().unwrap()["full_at"] = json!(now() - 90_000);
    site.fake.state().before_export = Some(|table| {
        table.rows.push(crate::fake::Row { values: vec!["3".to_owned()], changed: chrono::Utc::now().timestamp() });
    });
    assert_eq!(site.run(&mut request).await.unwrap().notes, Vec::<String>::new());
    assert_eq!((site.all().len(), site.fake.exports().len()), (3, 2));
}

#[tokio::test]
async fn no_slices_are_no_changes_where_jobs_do_not_count_them() {
    let site = Site::new();
    let id = site.fake.table("t", &["id:INTEGER"], &[&["1"], &["2"]]);
    let mut request = site.incremental(&id);
    site.run(&mut request).await.unwrap();
    for (counts, counts_table) in [(true, true), (false, false)] {
        {
            let mut state = site.fake.state();
            (state.counts, state.counts_table) = (counts, counts_table);
        }
        assert!(site.run(&mut request).await.unwrap().unchanged, "{counts}");
        assert_eq!(site.all(), ["1", "2"]);
    }
    // A table that is empty says so by itself; one that is not has slices.
    let mut whole = site.request(&site.fake.table("u", &["id:INTEGER"], &[]));
    site.run(&mut whole).await.unwrap();
    assert_eq!(site.all(), Vec::<String>::new());
}
