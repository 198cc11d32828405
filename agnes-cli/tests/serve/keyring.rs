//! The token in a keyring: GNOME's own on a bus of its own, and what is done where there is none.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::laptop::{Laptop, text};
use super::world::{PASSWORD, World};

/// A bus and a keyring on it, which end with it.
struct Desktop {
    folder: tempfile::TempDir,
    address: String,
    bus: Child,
    keyring: Child,
}

fn program(name: &str) -> Option<PathBuf> {
    let folders = ["/usr/bin", "/usr/local/bin", "/bin"];
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    if found.is_none() {
        assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "{name} is missing");
        eprintln!("SKIPPED: {name} is missing; scripts/test-components.sh gets it");
    }
    found
}

impl Desktop {
    fn start() -> Option<Self> {
        let (bus, keyring, asks) = (program("dbus-daemon")?, program("gnome-keyring-daemon")?, program("dbus-send")?);
        // Below a short path: that of a socket may have about a hundred letters.
        let folder = tempfile::tempdir_in("/tmp").unwrap();
        let at = |name: &str| folder.path().join(name);
        let config = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\" \
             \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">\n\
             <busconfig><type>session</type><listen>unix:path={}</listen><auth>EXTERNAL</auth>\
             <policy context=\"default\"><allow send_destination=\"*\" eavesdrop=\"true\"/>\
             <allow eavesdrop=\"true\"/><allow own=\"*\"/></policy></busconfig>",
            at("bus").display()
        );
        std::fs::write(at("bus.conf"), config).unwrap();
        let mut bus = Command::new(bus)
            .args([format!("--config-file={}", at("bus.conf").display()).as_str(), "--nofork", "--print-address=1"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(bus.stdout.take().unwrap()).read_line(&mut address).unwrap();
        let address = address.trim().to_owned();
        // A copy has no capabilities of a file, which a container may refuse to give.
        std::fs::copy(keyring, at("daemon")).unwrap();
        let mut keyring = Command::new(at("daemon"))
            .args(["--foreground", "--unlock", "--components=secrets"])
            .env_clear()
            .env("HOME", folder.path())
            .env("XDG_RUNTIME_DIR", folder.path())
            .env("DBUS_SESSION_BUS_ADDRESS", &address)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        keyring.stdin.take().unwrap().write_all(b"a password of the desktop").unwrap();
        let desktop = Self { folder, address, bus, keyring };
        let patience = Instant::now() + Duration::from_secs(120);
        let ready = || {
            let asked = Command::new(&asks)
                .args(["--session", "--print-reply", "--dest=org.freedesktop.secrets", "/org/freedesktop/secrets"])
                .args(["org.freedesktop.Secret.Service.ReadAlias", "string:default"])
                .env("DBUS_SESSION_BUS_ADDRESS", &desktop.address)
                .output()
                .unwrap();
            text(&asked.stdout).contains("/collection/login")
        };
        while !ready() {
            assert!(Instant::now() < patience, "the keyring does not come up");
            std::thread::sleep(Duration::from_millis(50));
        }
        Some(desktop)
    }

    /// The keyring goes, the bus stays.
    fn loses_its_keyring(&mut self) {
        self.keyring.kill().unwrap();
        self.keyring.wait().unwrap();
    }

    /// `agnes <arguments>` of somebody who sits at this desktop.
    fn run(&self, laptop: &Laptop, arguments: &[&str], store: &str, input: &str) -> Output {
        let mut command = laptop.command(arguments);
        command.env("DBUS_SESSION_BUS_ADDRESS", &self.address).env("AGNES_TOKEN_STORE", store);
        let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
        // Who needs no input may be gone by now.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    fn json(&self, code: i32, laptop: &Laptop, arguments: &[&str], store: &str) -> Value {
        let output = self.run(laptop, &[arguments, &["--json"]].concat(), store, &format!("{PASSWORD}\n"));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }
}

impl Drop for Desktop {
    fn drop(&mut self) {
        for child in [&mut self.keyring, &mut self.bus] {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = &self.folder;
    }
}

fn token_file(laptop: &Laptop) -> PathBuf {
    laptop.home().join(".config/agnes/token.json")
}

fn kept(laptop: &Laptop) -> Value {
    serde_json::from_slice(&std::fs::read(token_file(laptop)).unwrap()).unwrap()
}

#[test]
fn a_token_is_in_the_keyring_where_there_is_one() {
    let Some(mut desktop) = Desktop::start() else { return };
    let world = World::start();
    let laptop = Laptop::new(&format!("http://{}", world.server.address));
    let login = ["auth", "login", "--server", &laptop.server, "--email", "member@example.com", "--password", "-"];
    assert_eq!(desktop.json(0, &laptop, &login, "")["kept"], "keyring");
    assert_eq!(kept(&laptop), json!({"email": "member@example.com", "server": laptop.server}), "no token");
    let me = desktop.json(0, &laptop, &["auth", "status"], "");
    assert_eq!((&me["email"], &me["token"]["kept"]), (&json!("member@example.com"), &json!("keyring")), "{me}");
    let checks = desktop.json(0, &laptop, &["diagnose", "--component", "token"], "");
    assert!(checks["checks"][0]["detail"].as_str().unwrap().contains("keyring"), "{checks}");
    assert!(desktop.json(0, &laptop, &["catalog"], "keyring").is_object());

    // Another folder of the same person has a token of its own; signing in anew takes the old one's place.
    let other = Laptop::new(&laptop.server);
    desktop.json(7, &other, &["catalog", "--server", &other.server], "");
    desktop.json(0, &laptop, &login, "keyring");
    // Who cannot reach the keyring is told so, and is not taken for somebody else.
    for told in [
        laptop.fails(7, &["catalog"]),
        text(&desktop.run(&laptop, &["catalog"], "file", "").stderr),
        laptop.fails(7, &["auth", "whoami"]),
        laptop.fails(7, &["auth", "logout"]),
    ] {
        assert!(told.contains("keyring") && told.contains("AGNES_TOKEN_STORE=file"), "{told}");
    }
    assert_eq!(desktop.json(0, &laptop, &["auth", "status"], "")["verified"], true, "it is still there");

    // A file in its place takes it out of the keyring, and the other way round.
    assert_eq!(desktop.json(0, &laptop, &login, "file")["kept"], "file");
    let file = std::fs::read(token_file(&laptop)).unwrap();
    assert_eq!(laptop.json(&["auth", "whoami"])["token"]["kept"], "file");
    std::fs::write(token_file(&laptop), json!({"server": laptop.server}).to_string()).unwrap();
    desktop.json(7, &laptop, &["catalog"], "");
    std::fs::write(token_file(&laptop), file).unwrap();
    assert_eq!(desktop.json(0, &laptop, &login, "")["kept"], "keyring");

    assert_eq!(desktop.json(0, &laptop, &["auth", "logout"], ""), json!({"signed_out": true, "ended_at_server": true}));
    assert!(!token_file(&laptop).exists());
    std::fs::write(token_file(&laptop), json!({"server": laptop.server}).to_string()).unwrap();
    let told = text(&desktop.run(&laptop, &["catalog"], "", "").stderr);
    assert!(told.contains("nobody is signed in"), "it left the keyring too: {told}");

    // A bus without a keyring, and one that is gone.
    desktop.loses_its_keyring();
    assert_eq!(desktop.json(0, &laptop, &login, "")["kept"], "file");
    let told = text(&desktop.run(&laptop, &login, "keyring", &format!("{PASSWORD}\n")).stderr);
    assert!(told.contains("does not answer"), "{told}");
    desktop.bus.kill().unwrap();
    desktop.bus.wait().unwrap();
    assert_eq!(desktop.json(0, &laptop, &login, "")["kept"], "file");
    assert_eq!(laptop.json(&["auth", "whoami"])["token"]["kept"], "file");
}

#[test]
fn without_a_bus_nothing_is_asked_or_started() {
    let world = World::start();
    let laptop = Laptop::of(&world, "member");
    assert_eq!(laptop.json(&["auth", "whoami"])["token"]["kept"], "file");
    let output = laptop.command(&["auth", "logout"]).env("AGNES_TOKEN_STORE", "elsewhere").output().unwrap();
    assert!(output.status.success(), "to sign out needs no such setting: {}", text(&output.stderr));
    let output = laptop
        .command(&["auth", "import-token", "--server", &laptop.server, "--token", world.token("member")])
        .env("AGNES_TOKEN_STORE", "elsewhere")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(5), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("AGNES_TOKEN_STORE"), "{}", text(&output.stderr));
}
