//! The command as a server offers it: installed by a newcomer, upgraded, broken on its way, rolled
//! back. The archive is made by the script that makes those of a release, of the built command.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::crooked::{Crooked, Proxy};
use super::laptop::text;
use super::process::BINARY;
use super::world::World;

const VERSION: &str = env!("CARGO_PKG_VERSION");
/// A version that nobody has released.
const NEXT: &str = "99.0.0";

/// Runs a script of the repository's, which must succeed.
fn must(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}\n{}", text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// The archive of this version, made once.
fn archive() -> &'static Path {
    static MADE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = MADE.get_or_init(|| {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/dist.sh");
        let library = std::env::var_os("DUCKDB_LIB_DIR").expect("cargo sets it");
        let told = must(Command::new(script).env("AGNES_DIST_LEVEL", "1").arg(folder.path()).arg(library).arg(BINARY));
        let path = PathBuf::from(told.trim());
        (folder, path)
    });
    path
}

fn sha256(path: &Path) -> String {
    Sha256::digest(std::fs::read(path).unwrap()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Offers the archive of this version.
fn offer(folder: &Path) {
    let name = archive().file_name().unwrap();
    std::fs::hard_link(archive(), folder.join(name)).unwrap();
    let beside = format!("{}.sha256", archive().display());
    std::fs::copy(beside, folder.join(format!("{}.sha256", name.to_str().unwrap()))).unwrap();
}

/// Offers an archive of the next version: this one, which says that it is that one.
fn offer_next(folder: &Path) -> PathBuf {
    let work = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    must(Command::new("tar").arg("-xzf").arg(archive()).arg("-C").arg(work.path()));
    let old = std::fs::read_dir(work.path()).unwrap().next().unwrap().unwrap().path();
    let name = old.file_name().unwrap().to_str().unwrap().replace(VERSION, NEXT);
    let tree = work.path().join(&name);
    std::fs::rename(old, &tree).unwrap();
    std::fs::rename(tree.join("bin/agnes"), tree.join("bin/agnes-itself")).unwrap();
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in --version) echo 'agnes {NEXT}' ;;\n\
         *) exec \"$(dirname \"$(readlink -f \"$0\")\")/agnes-itself\" \"$@\" ;; esac\n"
    );
    std::fs::write(tree.join("bin/agnes"), script).unwrap();
    must(Command::new("chmod").arg("755").arg(tree.join("bin/agnes")));
    let path = folder.join(format!("{name}.tar.gz"));
    let packed = must(
        Command::new("sh")
            .current_dir(work.path())
            .env("OUT", &path)
            .args(["-c", &format!("tar -cf - '{name}' | gzip -1 > \"$OUT\"")]),
    );
    assert_eq!(packed, "");
    std::fs::write(format!("{}.sha256", path.display()), format!("{}  {name}.tar.gz\n", sha256(&path))).unwrap();
    path
}

/// Somebody who has nothing: a home folder, and the programs of every system.
pub(crate) struct Newcomer {
    home: tempfile::TempDir,
}

impl Newcomer {
    pub(crate) fn new() -> Self {
        Self { home: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap() }
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    pub(crate) fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]).current_dir(self.home.path());
        command.env_clear().env("HOME", self.home.path());
        // As `install.sh` says to put it into the shell's profile.
        command.env("PATH", format!("{}:/usr/bin:/bin", self.path(".local/bin").display()));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a script, which must end with `code`; gives both outputs.
    pub(crate) fn ends(&self, code: i32, script: &str) -> (String, String) {
        let Output { status, stdout, stderr } = self.command(script).output().unwrap();
        let (out, told) = (text(&stdout), text(&stderr));
        assert_eq!(status.code(), Some(code), "{script}\n{out}\n{told}");
        (out, told)
    }

    pub(crate) fn does(&self, script: &str) -> String {
        self.ends(0, script).0
    }

    fn version(&self) -> String {
        self.does("agnes --version").trim().to_owned()
    }

    pub(crate) fn json(&self, code: i32, script: &str) -> Value {
        serde_json::from_str(&self.ends(code, script).0).unwrap()
    }
}

/// A server that offers this version.
pub(crate) fn offering() -> (World, tempfile::TempDir) {
    offering_with(&[])
}

/// [`offering`] with further variables.
pub(crate) fn offering_with(variables: &[(&str, &str)]) -> (World, tempfile::TempDir) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    offer(folder.path());
    let variables = [variables, &[("AGNES_CLI_DIST_DIR", folder.path().to_str().unwrap())]].concat();
    (World::start_with(&[], &variables), folder)
}

/// [`offering`], and somebody who installed it.
fn installed() -> (World, tempfile::TempDir, Newcomer, String) {
    let (world, folder) = offering();
    let (who, server) = (Newcomer::new(), format!("http://{}", world.server.address));
    who.does(&format!("curl -fsSL {server}/cli/install.sh | sh"));
    (world, folder, who, server)
}

#[test]
fn a_newcomer_installs_upgrades_and_goes_back() {
    let (world, folder, who, server) = installed();
    let latest = world.server.get("/cli/latest").json();
    assert_eq!((&latest["version"], &latest["min_version"]), (&json!(VERSION), &json!("0.1.0")), "{latest}");
    let offered = &latest["artifacts"][0];
    assert_eq!((&offered["os"], &offered["sha256"]), (&json!(std::env::consts::OS), &json!(sha256(archive()))));
    let taken = world.server.get(offered["download_url_path"].as_str().unwrap());
    assert_eq!((taken.status, taken.is_whole, taken.header("content-type")), (200, true, Some("application/gzip")));
    assert_eq!(offered["size_bytes"].as_u64().unwrap(), taken.body.len() as u64);
    let arch = offered["arch"].as_str().unwrap();
    let name = offered["filename"].as_str().unwrap();
    let tag = format!("\"{}\"", offered["sha256"].as_str().unwrap());
    for path in [format!("/cli/artifact/{name}"), format!("/cli/download?os={}&arch={arch}", std::env::consts::OS)] {
        let part = |headers: &str| world.server.get_with(&path, headers);
        let some = part("Range: bytes=100-199\r\n");
        assert_eq!((some.status, &some.body[..]), (206, &taken.body[100..200]));
        assert_eq!(some.header("content-range"), Some(format!("bytes 100-199/{}", taken.body.len()).as_str()));
        let same = part(&format!("Range: bytes=100-199\r\nIf-Range: {tag}\r\n"));
        assert_eq!((same.status, same.header("etag")), (206, Some(tag.as_str())));
        assert_eq!(part("Range: bytes=0-9\r\nIf-Range: \"another\"\r\n").status, 200);
        assert_eq!(part("Range: bytes=99999999999-\r\n").status, 416);
    }
    for (path, status) in [
        (format!("/cli/download?os={}&arch={arch}", std::env::consts::OS), 200),
        ("/cli/download".to_owned(), 400),
        ("/cli/download?os=plan9".to_owned(), 404),
        ("/cli/artifact/..%2F..%2Fetc%2Fpasswd".to_owned(), 404),
        (format!("/cli/artifact/{}.sha256", offered["filename"].as_str().unwrap()), 404),
    ] {
        assert_eq!(world.server.get(&path).status, status, "{path}");
    }
    // A forged host is in no script.
    let evil = "GET /cli/install.sh HTTP/1.1\r\nHost: evil.example';id;'\r\nConnection: close\r\n\r\n";
    let script = world.server.send(evil).text();
    assert!(!script.contains("evil") && script.contains(&format!("origin='{server}'")), "{script}");

    assert_eq!(who.version(), format!("agnes {VERSION}"));
    std::fs::write(who.path("token"), world.token("member")).unwrap();
    std::fs::create_dir(who.path("work")).unwrap();
    let work = "cd work &&";
    who.does(&format!("{work} agnes init --server-url {server} --token - < ../token"));
    let rows = who.json(0, &format!("{work} agnes query 'select count(*)::int as n from orders' --json"));
    assert_eq!(rows, json!([{"n": 4}]));
    assert!(who.path(".local/share/agnes/current/share/man/man1/agnes-pull.1").is_file());
    assert!(
        who.does("cat .local/share/agnes/current/share/bash-completion/completions/agnes").contains("self-upgrade")
    );
    assert_eq!(who.json(0, &format!("{work} agnes self-upgrade --check-only --json"))["outdated"], false);

    // Told of once the server is asked again: once a day.
    let next = offer_next(folder.path());
    let tells = |flags: &str| who.ends(0, &format!("{work} agnes catalog {flags}")).1.contains(NEXT);
    assert!(!tells(""), "it was asked today");
    std::fs::remove_file(who.path(".config/agnes/update_check.json")).unwrap();
    assert!(!tells("--quiet") && !tells("--json"));
    assert!(
        !who.command(&format!("{work} agnes catalog"))
            .env("AGNES_NO_UPDATE_CHECK", "1")
            .output()
            .unwrap()
            .stderr
            .windows(NEXT.len())
            .any(|part| part == NEXT.as_bytes())
    );
    assert!(!who.path(".config/agnes/update_check.json").exists(), "nobody asked");
    assert!(tells("") && tells(""));
    assert_eq!(who.json(1, &format!("{work} agnes self-upgrade --check-only --json"))["latest"], NEXT);

    let hooks = who.path("work/.claude/settings.json");
    let old = std::fs::read_to_string(&hooks).unwrap().replace("agnes self-upgrade --quiet 2>/dev/null || true; ", "");
    std::fs::write(&hooks, old).unwrap();
    who.ends(0, &format!("{work} agnes self-upgrade --quiet"));
    assert_eq!(who.version(), format!("agnes {NEXT}"));
    assert!(std::fs::read_to_string(&hooks).unwrap().contains("agnes self-upgrade --quiet"), "hooks are refreshed");
    let good: Value =
        serde_json::from_slice(&std::fs::read(who.path(".config/agnes/last_known_good.json")).unwrap()).unwrap();
    assert_eq!((&good["version"], &good["sha256"]), (&json!(NEXT), &json!(sha256(&next))), "{good}");
    who.does(&format!("{work} agnes query 'select 1'"));

    who.ends(0, "agnes self-upgrade --rollback");
    assert_eq!(who.version(), format!("agnes {VERSION}"));
    let (_, told) = who.ends(0, &format!("{work} agnes self-upgrade"));
    assert!(told.contains("was rolled back from"), "{told}");
    assert_eq!(who.version(), format!("agnes {VERSION}"), "a hook does not undo it");
    who.ends(0, &format!("{work} agnes self-upgrade --force"));
    assert_eq!(who.version(), format!("agnes {NEXT}"));

    // The installer does the same again, and leaves what is not its own.
    who.does(&format!("curl -fsSL {server}/cli/install.sh | sh"));
    assert_eq!(who.version(), format!("agnes {NEXT}"));
    who.does("rm .local/bin/agnes && echo mine > .local/bin/agnes");
    let (_, told) = who.ends(1, &format!("curl -fsSL {server}/cli/install.sh | sh"));
    assert!(told.contains("is there already"), "{told}");
    assert_eq!(std::fs::read_to_string(who.path(".local/bin/agnes")).unwrap(), "mine\n");
}

#[test]
fn what_breaks_on_its_way_changes_nothing() {
    let (world, folder, who, server) = installed();
    let next = offer_next(folder.path());
    let proxy = Proxy::before(world.server.address);
    let upgrade = format!("agnes self-upgrade --server {}", proxy.url());
    for how in [Crooked::Short { by: 1000 }, Crooked::Flip { times: 1 }] {
        proxy.set(how.clone());
        let Output { status, stderr, .. } = who.command(&upgrade).output().unwrap();
        assert!(!status.success(), "{how:?}: {}", text(&stderr));
        assert_eq!(who.version(), format!("agnes {VERSION}"), "{how:?}");
    }
    // So does the installer, from whose server it comes broken.
    let other = Newcomer::new();
    let install = |how: Crooked| {
        proxy.set(how);
        // The script of the server, at the address that breaks what it gives.
        let script = format!("curl -fsSL {server}/cli/install.sh | sed 's#{server}#{}#' | sh", proxy.url());
        other.command(&script).output().unwrap()
    };
    let flipped = install(Crooked::Flip { times: 1 });
    assert!(text(&flipped.stderr).contains("nothing was changed"), "{}", text(&flipped.stderr));
    assert!(!other.path(".local/bin/agnes").exists());
    // Killed while the archive comes, as slowly as it takes to see that more of it is kept than may be
    // sent to nobody before the killed one is missed.
    proxy.set(Crooked::Slow { bytes: 50_000, pause: Duration::from_millis(50) });
    let is_some = |entry: &std::fs::DirEntry| {
        entry.file_name().to_string_lossy().starts_with(".partial-")
            && entry.metadata().is_ok_and(|file| file.len() > 500_000)
    };
    let kept = || std::fs::read_dir(who.path(".local/share/agnes")).unwrap().flatten().any(|entry| is_some(&entry));
    assert!(!kept());
    let mut child = who.command(&format!("exec {upgrade}")).spawn().unwrap();
    let patience = Instant::now() + Duration::from_secs(120);
    while !kept() {
        assert!(Instant::now() < patience, "nothing came");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(who.version(), format!("agnes {VERSION}"));
    // What came is not fetched again, nor after connections that break.
    proxy.set(Crooked::Cut { after: 1_000_000, times: 2 });
    let (moved, asked) = (proxy.moved(), proxy.asked.load(Ordering::SeqCst));
    who.ends(0, &upgrade);
    assert_eq!(who.version(), format!("agnes {NEXT}"), "what was left is in nobody's way");
    let size = usize::try_from(next.metadata().unwrap().len()).unwrap();
    assert!(proxy.moved() - moved < size, "{} of {size}", proxy.moved() - moved);
    assert_eq!(proxy.asked.load(Ordering::SeqCst) - asked, 3);
    let moved = proxy.moved();
    let cut = install(Crooked::Cut { after: 1_000_000, times: 2 });
    assert!(cut.status.success() && text(&cut.stderr).contains("trying again"), "{}", text(&cut.stderr));
    assert_eq!(other.version(), format!("agnes {NEXT}"));
    assert_eq!(proxy.moved() - moved, size, "each byte once");
    // A server does not offer what is not whole, and is not needed to go on working.
    who.ends(0, "agnes self-upgrade --rollback");
    std::fs::write(&next, "half of it").unwrap();
    assert_eq!(world.server.get("/cli/latest").json()["version"], Value::Null);
    assert_eq!(world.server.get("/cli/install.sh").status, 404);
    who.ends(0, &upgrade);
    who.ends(0, "agnes self-upgrade --server http://127.0.0.1:9");
    who.ends(7, "agnes self-upgrade --force --server http://127.0.0.1:9");
    assert_eq!(who.version(), format!("agnes {VERSION}"));
    let own = Command::new(BINARY).args(["self-upgrade", "--rollback", "--json"]).output().unwrap();
    assert_eq!(own.status.code(), Some(1));
    assert!(text(&own.stderr).contains("not_self_installed"), "{}", text(&own.stderr));
}
