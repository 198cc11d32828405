//! Runs that are cut off, and go on.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::fake::Damage;
use crate::support::Site;

fn table(site: &Site, rows: usize) -> String {
    let id = site.fake.table("t", &["id:INTEGER", "n"], &[]);
    let mut state = site.fake.state();
    let table = state.tables.get_mut(&id).unwrap();
    table
        .rows
        .extend((0..rows).map(|n| crate::fake::Row { values: vec![n.to_string(), format!("row {n}")], changed: 0 }));
    state.slices = 10;
    id
}

#[tokio::test]
async fn slices_that_are_here_are_not_asked_for_again() {
    let site = Site::new();
    let id = table(&site, 1000);
    let mut request = site.request(&id);
    let mut before = 0;
    // The store is down after five slices, and after two more.
    for after in [5, 2] {
        site.fake.fault("GET /blob/2/in.c-shop.t", 503, &[], "", u32::MAX);
        site.fake.state().faults[0].after = after;
        let error = site.run(&mut request).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("keboola_slice_unavailable", true), "{error}");
        let sent = site.fake.state().sent;
        assert!(sent > before);
        before = sent;
        site.fake.state().faults.clear();
    }
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all().len(), 1000);
    assert_eq!(site.fake.exports().len(), 1, "the same export is gone on with");
    let total = site.fake.stored(2);
    assert_eq!(site.fake.state().sent, total, "no slice is read twice");
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn a_run_that_is_cancelled_goes_on_the_next_time() {
    let site = Site::new();
    let id = table(&site, 1000);
    site.fake.state().slice_delay = Duration::from_millis(200);
    let cancel = site.cancel.clone();
    let fake = site.fake.clone();
    let watcher = std::thread::spawn(move || {
        let started = Instant::now();
        // Half are asked for: the first are here, others are on their way.
        while started.elapsed() < Duration::from_secs(20) {
            let sent = fake.state().sent;
            if sent > 0 && sent > fake.stored(2) / 2 {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        cancel.cancel();
    });
    let mut request = site.request(&id);
    assert_eq!(site.run(&mut request).await.unwrap_err().code(), "cancelled");
    watcher.join().unwrap();
    assert_eq!(site.fake.exports().len(), 1);
    let site = Site { cancel: agnes_core::connector::Cancel::default(), ..site };
    site.run(&mut request).await.unwrap();
    assert_eq!(site.all().len(), 1000);
    assert_eq!(site.fake.exports().len(), 1, "the same export is gone on with");
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn what_is_here_and_not_what_it_was_is_read_again() {
    let site = Site::new();
    let id = table(&site, 100);
    site.fake.fault("GET /blob/2/in.c-shop.t", 503, &[], "", u32::MAX);
    site.fake.state().faults[0].after = 5;
    let mut request = site.request(&id);
    site.run(&mut request).await.unwrap_err();
    site.fake.state().faults.clear();
    let folder = std::fs::read_dir(site.scratch()).unwrap().flatten().next().unwrap().path();
    let mut changed = 0;
    for entry in
        std::fs::read_dir(folder).unwrap().flatten().filter(|e| e.file_name().to_string_lossy().ends_with(".data"))
    {
        let mut bytes = std::fs::read(entry.path()).unwrap();
        bytes[0] ^= 1;
        std::fs::write(entry.path(), bytes).unwrap();
        changed += 1;
    }
    assert!(changed > 0);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.ask("SELECT count(*), sum(id) FROM {t}"), ["100|4950"]);
}

#[tokio::test]
async fn a_job_that_is_gone_is_made_anew() {
    let site = Site::new();
    let id = table(&site, 10);
    site.fake.fault("GET /v2/storage/files/2", 500, &[], "", 1);
    let mut request = site.request(&id);
    assert!(site.run(&mut request).await.unwrap_err().is_retryable());
    site.fake.fault("GET /v2/storage/files/2", 404, &[], "", 1);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.fake.exports().len(), 2);
    assert_eq!(site.all().len(), 10);
}

#[tokio::test]
async fn an_export_whose_slice_is_gone_is_made_anew() {
    for status in [404, 410] {
        let site = Site::new();
        let id = table(&site, 100);
        site.fake.fault("GET /blob/2/in.c-shop.t", status, &[], "<Error>NoSuchKey</Error>", u32::MAX);
        site.fake.state().faults[0].after = 5;
        let mut request = site.request(&id);
        let error = site.run(&mut request).await.unwrap_err();
        assert_eq!((error.code(), error.is_retryable()), ("keboola_file_invalid", true), "{error}");
        assert!(error.to_string().contains(&format!("answered {status}")), "{error}");
        assert_eq!(site.left(), 0);
        // It stays gone: the slices are those of another export.
        site.run(&mut request).await.unwrap();
        assert_eq!(site.fake.exports().len(), 2);
        assert_eq!(site.ask("SELECT count(*), sum(id) FROM {t}"), ["100|4950"]);
    }
}

#[tokio::test]
async fn what_changed_since_a_cut_off_export_is_read_the_next_time() {
    let site = Site::new();
    let id = table(&site, 10);
    let stamp = |day: &str| {
        site.fake.state().tables.get_mut(&id).unwrap().stamp = Some(format!("{day}T00:00:00+0100"));
    };
    stamp("2024-01-01");
    site.fake.fault("GET /v2/storage/files/2", 500, &[], "", 1);
    let mut request = site.request(&id);
    site.run(&mut request).await.unwrap_err();
    site.fake.upsert(&id, 0, &[&["0", "changed"]]);
    stamp("2024-02-02");
    site.run(&mut request).await.unwrap();
    assert_eq!(site.fake.exports().len(), 1);
    assert_eq!(site.ask("SELECT n FROM {t} WHERE id = 0"), ["row 0"]);
    assert!(!site.run(&mut request).await.unwrap().unchanged);
    assert_eq!(site.ask("SELECT n FROM {t} WHERE id = 0"), ["changed"]);
    assert!(site.run(&mut request).await.unwrap().unchanged);
}

const CHILD: &str = "AGNES_TEST_KEBOOLA_CHILD";

/// Not a test of its own: the process that `a_killed_process_leaves_what_it_proved` kills.
#[tokio::test]
async fn child() {
    let Ok(what) = std::env::var(CHILD) else { return };
    let (url, root) = what.split_once('|').unwrap();
    let mut site = Site::new();
    site.settings["stack_url"] = url.into();
    let root = std::path::Path::new(root).to_owned();
    let mut source = site.source();
    source.scratch = root.join("tmp");
    let request = site.request("in.c-shop.t");
    let writer = agnes_core::extract::TableWriter::new(&root.join("extracts/shop"), request.name.clone());
    use agnes_core::connector::Connector;
    drop(site.connector.extract(&source, &request, writer).await.map(drop));
}

#[tokio::test]
async fn a_killed_process_leaves_what_it_proved() {
    let site = Site::new();
    let id = table(&site, 5000);
    {
        let mut state = site.fake.state();
        (state.slices, state.slice_delay) = (40, Duration::from_millis(60));
    }
    let program = std::env::current_exe().unwrap();
    let mut kills = 0;
    let mut last = 0;
    while kills < 3 {
        let mut child = Command::new(&program)
            .args(["resume::child", "--exact"])
            .env(CHILD, format!("{}|{}", site.fake.url, site.root.path().display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let started = Instant::now();
        // Killed after a further slice or two.
        while site.fake.state().sent == last && started.elapsed() < Duration::from_secs(30) {
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(90));
        child.kill().unwrap();
        child.wait().unwrap();
        last = site.fake.state().sent;
        kills += 1;
    }
    assert_eq!(site.fake.exports().len(), 1, "each process goes on with the export of the first");
    site.fake.state().slice_delay = Duration::ZERO;
    let mut request = site.request(&id);
    site.run(&mut request).await.unwrap();
    assert_eq!(site.ask("SELECT count(*), sum(id) FROM {t}"), ["5000|12497500"]);
    assert_eq!(site.fake.exports().len(), 1);
    // Each kill may cost the slices that were on their way, no more.
    let sent = site.fake.state().sent;
    let total = site.fake.stored(2);
    assert!(sent <= total + total * 8 * 3 / 40 && sent >= total, "{sent} of {total}");
    assert_eq!(site.left(), 0);
}

#[tokio::test]
async fn damage_is_found_and_asked_for_again() {
    for damage in [Damage::CutBody, Damage::CutObject, Damage::Flipped, Damage::WrongMd5] {
        let site = Site::new();
        let id = table(&site, 500);
        {
            let mut state = site.fake.state();
            (state.damage, state.damaged_times) = (damage, 1);
        }
        site.run(&mut site.request(&id)).await.unwrap();
        assert_eq!(site.ask("SELECT count(*), sum(id) FROM {t}"), ["500|124750"], "{damage:?}");
    }
}
