//! The demo does what it says.

use crate::{Folder, agnes, listing, text};

#[test]
fn the_demo_runs_unattended_and_leaves_nothing() {
    let folder = Folder::empty();
    let dir = folder.path("demo");
    let temporary = folder.path("tmp");
    std::fs::create_dir_all(&temporary).unwrap();
    let output =
        agnes().env("TMPDIR", &temporary).args(["demo", "--once", "--dir", dir.to_str().unwrap()]).output().unwrap();
    let shown = text(&output.stdout);
    assert!(output.status.success(), "{shown}\n{}", text(&output.stderr));
    for expected in ["flights", "51,955 rows", "Bob", "refused", "█", "80,789 flights", "agnes source add"] {
        assert!(shown.contains(expected), "`{expected}` is missing:\n{shown}");
    }
    assert!(!shown.contains('\u{1b}'));
    assert!(!dir.exists(), "{:?}", listing(&dir));
    assert!(listing(&temporary).is_empty(), "{:?}", listing(&temporary));
}

#[test]
fn a_kept_demo_can_be_played_with() {
    let folder = Folder::empty();
    let dir = folder.path("demo");
    let output = agnes().args(["demo", "--once", "--keep", "--json", "--dir", dir.to_str().unwrap()]).output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true, "{report}");
    let data = dir.join("data");
    let asked = agnes()
        .env("DATA_DIR", &data)
        .args(["query", "select count(*) as n from flights", "-f", "csv"])
        .output()
        .unwrap();
    assert_eq!(text(&asked.stdout), "n\n80789\n");
    // It does not write over what is there.
    let again = agnes().args(["demo", "--once", "--dir", dir.to_str().unwrap()]).output().unwrap();
    assert_eq!(again.status.code(), Some(2));
    assert!(data.exists());
}
