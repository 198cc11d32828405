//! A full disk: said, and harmless. Needs the right to mount a small file system.

use std::path::{Path, PathBuf};
use std::process::Command;

use agnes_core::Engine;

use crate::support::{ask, owner, rebuild, sql, write_meta};

struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path, megabytes: u32) -> Option<Self> {
        std::fs::create_dir_all(at).unwrap();
        let size = format!("size={megabytes}m");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "agnes-test"]).arg(at).output();
        if done.is_ok_and(|done| done.status.success()) {
            return Some(Self(at.to_owned()));
        }
        assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "a small file system cannot be mounted");
        eprintln!("SKIPPED: a small file system cannot be mounted");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("--lazy").arg(&self.0).status());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_old_generation_answers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::mount(&folder.path().join("disk"), 96) else { return };
    let root = disk.0.join("data");
    let extract = root.join("extracts/shop");
    let orders = extract.join("data/orders.parquet");
    std::fs::create_dir_all(orders.parent().unwrap()).unwrap();
    let produce = |rows: u32, n: u32| {
        sql(
            None,
            &format!(
                "COPY (SELECT {n} AS n, md5(i::VARCHAR) AS t FROM range({rows}) r(i)) TO '{}' (FORMAT parquet, COMPRESSION uncompressed)",
                orders.display()
            ),
        );
    };
    produce(1000, 1);
    write_meta(&extract, &["orders"]);
    let engine = Engine::builder(&root).open().await.unwrap();
    rebuild(&engine).await;

    produce(600_000, 2);
    let free = || {
        let stat = rustix::fs::statvfs(&disk.0).unwrap();
        stat.f_bavail * stat.f_frsize
    };
    let filler = disk.0.join("filler");
    // Room for logs and small files, not for the copy of some 20 MB.
    std::fs::write(&filler, vec![1; usize::try_from(free() - (6 << 20)).unwrap()]).unwrap();
    let failed = engine.orchestrator().rebuild(&owner()).await.unwrap_err();
    assert_eq!(failed.code(), "disk_full");
    assert!(failed.hint().is_some() && !failed.to_string().contains('/'), "{failed}");
    assert_eq!(ask(&engine, "SELECT n, count(*) FROM orders GROUP BY n").await.unwrap(), ["1|1000"]);
    assert!(crate::support::leftovers(&root.join("analytics")).is_empty(), "half a copy takes no room");
    let after = free();
    assert!(after > 5 << 20, "{after}");

    std::fs::remove_file(&filler).unwrap();
    rebuild(&engine).await;
    assert_eq!(ask(&engine, "SELECT n, count(*) FROM orders GROUP BY n").await.unwrap(), ["2|600000"]);
    engine.close().await.unwrap();
}
