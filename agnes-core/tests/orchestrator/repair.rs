//! What a start makes of a damaged `analytics/`.

use agnes_core::Engine;

use crate::support::{Site, ask, check_blobs, leftovers, rebuild};

/// Generations 1 and 2, where `orders` says which.
async fn two_generations(site: &Site) {
    let engine = site.open().await;
    for n in [1, 2] {
        site.write("shop", &[("orders", &format!("SELECT {n} AS n")), ("items", "SELECT 9 AS n")]);
        rebuild(&engine).await;
    }
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_generation_is_made_anew_under_a_new_number() {
    type Harm = fn(&Site);
    let harms: [(&str, Harm); 6] = [
        ("half a generation", |site| {
            let file = site.root().join("analytics/generations/0000000002.json");
            let text = std::fs::read(&file).unwrap();
            std::fs::write(file, &text[..text.len() / 2]).unwrap();
        }),
        ("no generation", |site| {
            std::fs::remove_file(site.root().join("analytics/generations/0000000002.json")).unwrap()
        }),
        ("a blob cut short", |site| {
            let blob = first_blob(site);
            std::fs::remove_file(&blob).unwrap();
            std::fs::write(blob, b"PAR1").unwrap();
        }),
        ("a blob gone", |site| std::fs::remove_file(first_blob(site)).unwrap()),
        ("nonsense in the pointer", |site| std::fs::write(site.root().join("analytics/current"), b"\0\0").unwrap()),
        ("nothing left", |site| std::fs::remove_dir_all(site.root().join("analytics")).unwrap()),
    ];
    for (what, harm) in harms {
        let site = Site::new();
        two_generations(&site).await;
        harm(&site);
        let engine = site.open().await;
        assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["2"], "{what}");
        assert_eq!(ask(&engine, "SELECT n FROM items").await.unwrap(), ["9"], "{what}");
        let number = site.generation().number;
        assert!(number > 2 || what == "nothing left", "{what}: number {number} was used before");
        check_blobs(&site);
        engine.close().await.unwrap();
    }
}

fn first_blob(site: &Site) -> std::path::PathBuf {
    let sha256 = site.generation().table("orders").unwrap().parts[0].sha256.clone();
    site.root().join(format!("analytics/blobs/{}/{sha256}.parquet", &sha256[..2]))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_cut_off_is_swept_and_what_is_not_ours_stays() {
    let site = Site::new();
    two_generations(&site).await;
    let id = "0123456789abcdef0123456789abcdef";
    let extract = site.extract("shop");
    let ours = [
        site.root().join(format!("analytics/server.duckdb.{id}.tmp")),
        site.root().join(format!("analytics/server.duckdb.{id}.tmp.wal")),
        site.root().join(format!("analytics/blobs/incoming.parquet.{id}.tmp")),
        site.root().join(format!("analytics/generations/0000000003.json.{id}.tmp")),
        extract.join(format!("extract.duckdb.{id}.tmp")),
        extract.join(format!("data/orders.parquet.{id}.tmp")),
    ];
    for file in &ours {
        std::fs::write(file, b"half").unwrap();
    }
    let unpublished = site.root().join("analytics/generations/0000000003.json");
    std::fs::write(&unpublished, b"{}").unwrap();
    let theirs = [extract.join("extract.duckdb.tmp"), extract.join("data/orders.parquet.lock")];
    for file in &theirs {
        std::fs::write(file, b"a writer at work").unwrap();
    }
    let engine = site.open().await;
    assert!(leftovers(&site.root().join("analytics")).is_empty());
    assert!(ours.iter().all(|file| !file.exists()) && !unpublished.exists());
    assert!(theirs.iter().all(|file| file.exists()));
    assert_eq!(ask(&engine, "SELECT n FROM orders").await.unwrap(), ["2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_generation_of_a_newer_agnes_is_left_alone() {
    let site = Site::new();
    two_generations(&site).await;
    let file = site.root().join("analytics/generations/0000000002.json");
    let newer = std::fs::read_to_string(&file).unwrap().replacen("\"layout\":1", "\"layout\":99", 1);
    std::fs::write(&file, &newer).unwrap();
    let refused = Engine::builder(site.root()).open().await.unwrap_err();
    assert_eq!(refused.code(), "generation_too_new");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), newer);
}

/// Makes a folder of a scratch folder, as old as a day or new.
fn scratch_of(scratch: &std::path::Path, name: &str, is_old: bool) -> std::path::PathBuf {
    let folder = scratch.join(name);
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("spilled"), b"rows").unwrap();
    let day = std::time::Duration::from_secs(if is_old { 86_400 } else { 0 });
    std::fs::File::open(&folder).unwrap().set_modified(std::time::SystemTime::now() - day).unwrap();
    folder
}

const SCRATCH: [&str; 6] = ["scratch-a", "spill-a", "cell-a", "canary-a", "objects-a", "program-a"];

#[tokio::test(flavor = "multi_thread")]
async fn scratch_of_a_killed_process_goes_and_what_others_work_with_stays() {
    let (site, other, temp) = (Site::new(), Site::new(), tempfile::tempdir().unwrap());
    let scratch = temp.path().join("shared");
    let open = async |site: &Site| Engine::builder(site.root()).scratch(&scratch).open().await.unwrap();
    let old = || SCRATCH.map(|name| scratch_of(&scratch, name, true));
    // Below the data folder there is nobody else: its age does not count.
    let own = SCRATCH.map(|name| scratch_of(&site.root().join("tmp"), name, false));
    let theirs = [scratch_of(&scratch, "another-program", true), scratch_of(&scratch, "scratch-new", false)];
    let left = old();
    let first = open(&site).await;
    assert!(!left.iter().chain(&own).any(|folder| folder.exists()), "{left:?}");
    assert!(theirs.iter().all(|folder| folder.exists()));
    // However old: the first may work with it.
    let used = old();
    let second = open(&other).await;
    assert!(used.iter().all(|folder| folder.exists()));
    first.close().await.unwrap();
    second.close().await.unwrap();
    open(&site).await.close().await.unwrap();
    assert!(!used.iter().any(|folder| folder.exists()));
    assert!(theirs.iter().all(|folder| folder.exists()));
}
