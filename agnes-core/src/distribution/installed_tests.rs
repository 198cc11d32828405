//! What kills, broken archives and rollbacks leave.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// An archive whose program says that it is `version`, with further entries; and its hash.
fn archive(folder: &Path, version: &str, more: &[(&str, tar::EntryType)]) -> (PathBuf, String) {
    let path = folder.join(format!("{version}.tar.gz"));
    let packed = flate2::write::GzEncoder::new(File::create(&path).unwrap(), flate2::Compression::fast());
    let mut tar = tar::Builder::new(packed);
    let script = format!("#!/bin/sh\necho 'agnes {version}'\n");
    let mut put = |name: &str, mode: u32, kind: tar::EntryType, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(content.len() as u64);
        // Also names that no honest archive has.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if kind == tar::EntryType::Symlink {
            header.set_link_name("/etc/passwd").unwrap();
        }
        header.set_cksum();
        tar.append(&header, content).unwrap();
    };
    put("agnes-x/bin/agnes", 0o755, tar::EntryType::Regular, script.as_bytes());
    put("agnes-x/lib/libduckdb.so", 0o644, tar::EntryType::Regular, b"a library");
    more.iter().for_each(|(name, kind)| put(name, 0o644, *kind, b""));
    tar.into_inner().unwrap().finish().unwrap();
    let sha256 = sha256_of(&path).unwrap();
    (path, sha256)
}

/// An installation as `install.sh` makes it, of version 1.0.0.
fn installed(folder: &Path) -> Installation {
    let root = folder.join("agnes");
    let bin = root.join("versions/1.0.0-aaaaaaaaaaaa/bin");
    std::fs::create_dir_all(&bin).unwrap();
    std::fs::write(bin.join("agnes"), "#!/bin/sh\necho 'agnes 1.0.0'\n").unwrap();
    std::fs::set_permissions(bin.join("agnes"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::symlink("versions/1.0.0-aaaaaaaaaaaa", root.join("current")).unwrap();
    Installation::of_program(&root.join("current/bin/agnes")).unwrap()
}

fn install(installation: &Installation, (archive, sha256): &(PathBuf, String), version: &str) -> Result<Installed> {
    let incoming = installation.incoming(sha256)?;
    let (mut file, here) = incoming.archive()?;
    let bytes = std::fs::read(archive).unwrap();
    std::io::Write::write_all(&mut file, &bytes[usize::try_from(here).unwrap()..]).unwrap();
    incoming.install(version)
}

#[test]
fn versions_are_switched_and_switched_back() {
    let folder = tempfile::tempdir().unwrap();
    let installation = installed(folder.path());
    assert_eq!(installation.roll_back().unwrap_err().code(), "nothing_to_roll_back_to");
    let versions = ["1.1.0", "1.2.0"].map(|version| (version, archive(folder.path(), version, &[])));
    for (version, archive) in &versions {
        assert_eq!(install(&installation, archive, version).unwrap().version, *version);
        assert_eq!(installation.current().unwrap().version, *version);
    }
    assert_eq!(
        std::fs::read_dir(installation.root.join("versions")).unwrap().count(),
        2,
        "this one and the one before"
    );
    assert_eq!(installation.roll_back().unwrap().version, "1.1.0");
    assert_eq!(installation.skipped().as_deref(), Some("1.2.0"));
    starts(&installation.root.join("current/bin/agnes"), "1.1.0").unwrap();
    assert_eq!(installation.roll_back().unwrap().version, "1.2.0", "and forth again");
    install(&installation, &versions[0].1, "1.1.0").unwrap();
    assert_eq!(installation.skipped(), None);
    let held = installation.incoming(&"a".repeat(64)).unwrap();
    assert_eq!(installation.roll_back().unwrap_err().code(), "upgrade_running");
    drop(held);
    let elsewhere = std::env::current_exe().unwrap();
    assert_eq!(Installation::of_program(&elsewhere).unwrap_err().code(), "not_self_installed");
}

#[test]
fn a_broken_archive_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let installation = installed(folder.path());
    let good = archive(folder.path(), "1.1.0", &[]);
    let bytes = std::fs::read(&good.0).unwrap();
    let changed = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 1;
    let of_file = |path: PathBuf| (path.clone(), sha256_of(&path).unwrap());
    let cases = [
        ((changed("cut", &bytes[..bytes.len() / 2]), good.1.clone()), "1.1.0", "archive_corrupt"),
        ((changed("flipped", &flipped), good.1.clone()), "1.1.0", "archive_corrupt"),
        ((changed("empty", b""), good.1.clone()), "1.1.0", "archive_corrupt"),
        // Even where the server says so of them.
        (of_file(changed("cut too", &bytes[..bytes.len() / 2])), "1.1.0", "archive_corrupt"),
        (of_file(changed("no archive", b"<html>")), "1.1.0", "archive_corrupt"),
        (
            archive(folder.path(), "2.0.0", &[("agnes-x/../../../out", tar::EntryType::Regular)]),
            "2.0.0",
            "archive_corrupt",
        ),
        (archive(folder.path(), "2.0.1", &[("/out", tar::EntryType::Regular)]), "2.0.1", "archive_corrupt"),
        (archive(folder.path(), "2.0.2", &[("agnes-x/lib/link", tar::EntryType::Symlink)]), "2.0.2", "archive_corrupt"),
        (archive(folder.path(), "2.0.3", &[("agnes-x/pipe", tar::EntryType::Fifo)]), "2.0.3", "archive_corrupt"),
        (good.clone(), "1.2.0", "archive_does_not_start"),
        (good.clone(), "../1", "archive_corrupt"),
    ];
    for (archive, version, code) in cases {
        assert_eq!(install(&installation, &archive, version).unwrap_err().code(), code, "{}", archive.0.display());
        assert_eq!(installation.current().unwrap().version, "1.0.0");
        starts(&installation.root.join("current/bin/agnes"), "1.0.0").unwrap();
        let left: Vec<_> = std::fs::read_dir(&installation.root).unwrap().flatten().map(|e| e.file_name()).collect();
        let is_left = |name: &std::ffi::OsString| name.to_string_lossy().starts_with('.');
        assert!(!left.iter().any(is_left), "the next try begins anew: {left:?}");
        assert!(!folder.path().join("out").exists());
    }
    install(&installation, &good, "1.1.0").unwrap();
}

/// Set in the process that is killed: the folder of its installation.
const VICTIM: &str = "AGNES_TEST_UPGRADE_IN";

#[cfg(feature = "testing")]
#[test]
fn a_kill_at_any_moment_leaves_the_old_version_or_the_new_one() {
    if let Some(folder) = std::env::var_os(VICTIM) {
        let folder = PathBuf::from(folder);
        let installation = Installation::of_program(&folder.join("agnes/current/bin/agnes")).unwrap();
        let archive = folder.join("1.1.0.tar.gz");
        let sha256 = sha256_of(&archive).unwrap();
        install(&installation, &(archive, sha256), "1.1.0").unwrap();
        installation.roll_back().unwrap();
        return;
    }
    let mut seen = std::collections::BTreeSet::new();
    for at in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let (installation, good) = (installed(folder.path()), archive(folder.path(), "1.1.0", &[]));
        let ended = Command::new(std::env::current_exe().unwrap())
            .args([
                "distribution::installed::tests::a_kill_at_any_moment_leaves_the_old_version_or_the_new_one",
                "--exact",
            ])
            .env(VICTIM, folder.path())
            .env("AGNES_FAULT_AT", format!("{at}:abort"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        let now = installation.current().unwrap();
        starts(&installation.root.join("current/bin/agnes"), &now.version).unwrap();
        seen.insert(now.version);
        // Whatever was left is in nobody's way.
        install(&installation, &good, "1.1.0").unwrap();
        assert_eq!(installation.current().unwrap().version, "1.1.0");
        if ended.success() {
            assert!(at > 10, "{at}");
            break;
        }
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["1.0.0", "1.1.0"]);
}

#[test]
fn what_came_of_an_archive_is_gone_on_from() {
    use std::io::Write as _;
    let folder = tempfile::tempdir().unwrap();
    let installation = installed(folder.path());
    let (path, sha256) = archive(folder.path(), "1.1.0", &[]);
    let bytes = std::fs::read(path).unwrap();
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    let incoming = installation.incoming(&sha256).unwrap();
    incoming.archive().unwrap().0.write_all(first).unwrap();
    drop(incoming);
    let incoming = installation.incoming(&sha256).unwrap();
    let (mut file, here) = incoming.archive().unwrap();
    assert_eq!(here, first.len() as u64);
    file.write_all(rest).unwrap();
    assert_eq!(incoming.install("1.1.0").unwrap().version, "1.1.0");
    // Another archive takes its place, and it does not pile up.
    let of_another = installation.incoming(&"a".repeat(64)).unwrap();
    of_another.archive().unwrap().0.write_all(first).unwrap();
    drop(of_another);
    let incoming = installation.incoming(&sha256).unwrap();
    assert_eq!(incoming.archive().unwrap().1, 0);
    drop(incoming);
    let left = std::fs::read_dir(&installation.root).unwrap().flatten();
    assert_eq!(left.filter(|entry| entry.file_name().to_string_lossy().starts_with(PARTIAL)).count(), 1);
    assert_eq!(installation.incoming("../../x").unwrap_err().code(), "archive_corrupt");
}
