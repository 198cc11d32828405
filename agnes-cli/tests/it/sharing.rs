//! Several processes on one data folder.

use std::io::Read;
use std::process::{Child, Stdio};

use serde_json::json;

use crate::manners::wait_for;
use crate::{Folder, text};

/// A command that holds the folder: it has more rows to print than anybody reads.
struct Holder {
    child: Child,
    /// Open and unread: the command waits for a reader.
    _out: std::process::ChildStdout,
}

impl Holder {
    fn start(folder: &Folder) -> Self {
        let mut child = folder
            .command(&["query", "select i from range(100000000) t(i)", "--limit", "0", "-f", "csv"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut out = child.stdout.take().unwrap();
        let mut first = [0; 64];
        out.read_exact(&mut first).unwrap();
        Self { child, _out: out }
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn reading_and_writing_beside_a_holder_works() {
    let folder = Folder::governed();
    let mut holder = Holder::start(&folder);
    assert_eq!(folder.json(&["query", "select count(*) as n from orders", "--as", "ann"]), json!([{"n": 4}]));
    folder.fails(8, &["query", "select * from people", "--as", "ann"]);
    folder.fails(6, &["admin", "user", "add", "ann@example.com"]);
    folder.ok(&["admin", "user", "add", "beside@example.com"]);
    std::fs::write(folder.files().join("orders.csv"), "id,status,amount\n1,paid,1\n2,paid,2\n").unwrap();
    folder.ok(&["sync"]);
    assert_eq!(folder.json(&["query", "select count(*) as n from orders"]), json!([{"n": 2}]));
    folder.ok(&["backup", folder.path("b").to_str().unwrap()]);
    // Much data through the socket, all of it.
    let rows = folder.ok(&["query", "select i, i::varchar as t from range(500000) t(i)", "--limit", "0", "-f", "csv"]);
    assert_eq!(rows.lines().count(), 500_001);
    assert!(holder.is_running());
    // What was written through the holder is there without it.
    drop(holder);
    assert!(folder.ok(&["admin", "user", "list"]).contains("beside@example.com"));
}

#[test]
fn a_client_that_goes_away_cancels_its_query() {
    let folder = Folder::synced();
    let mut holder = Holder::start(&folder);
    for _ in 0..3 {
        let mut client = folder
            .command(&["query", "select i from range(100000000) t(i)", "--limit", "0", "-f", "csv"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        client.stdout.take().unwrap().read_exact(&mut [0; 64]).unwrap();
        client.kill().unwrap();
        client.wait().unwrap();
    }
    assert_eq!(folder.json(&["query", "select 1 as one"]), json!([{"one": 1}]));
    assert!(holder.is_running());
}

#[test]
fn a_killed_holder_is_no_obstacle() {
    let folder = Folder::synced();
    let holder = Holder::start(&folder);
    let socket = folder.data().join("state/holder.sock");
    assert!(socket.exists());
    drop(holder);
    // Killed, so it did not tidy up.
    assert!(socket.exists());
    assert_eq!(folder.json(&["query", "select count(*) as n from orders"]), json!([{"n": 4}]));
    assert!(!socket.exists());
}

#[test]
fn a_second_holder_is_refused_and_told_who_the_first_is() {
    let folder = Folder::synced();
    let holder = Holder::start(&folder);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let second = runtime.block_on(agnes_core::Engine::builder(folder.data()).open());
    let error = second.expect_err("a second holder was let in");
    assert_eq!(error.code(), "data_folder_held");
    assert!(error.to_string().contains(&holder.pid().to_string()), "{error}");
}

#[cfg(unix)]
#[test]
fn the_socket_and_the_lock_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::synced();
    let _holder = Holder::start(&folder);
    for name in ["holder.sock", "holder.lock"] {
        let mode = std::fs::metadata(folder.data().join("state").join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn many_commands_at_once_all_succeed() {
    let folder = Folder::synced();
    let children: Vec<Child> = (0..12)
        .map(|n| {
            let email = format!("user{n}@example.com");
            let args: &[&str] =
                if n % 2 == 0 { &["admin", "user", "add", &email] } else { &["query", "select count(*) from orders"] };
            folder.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    assert_eq!(folder.json(&["admin", "user", "list"]).as_array().unwrap().len(), 6);
}

#[test]
fn a_data_folder_with_a_very_long_path_is_shared_too() {
    let folder = Folder::synced();
    let long = folder.path(&format!("{}/{}/data", "x".repeat(100), "y".repeat(100)));
    std::fs::create_dir_all(long.parent().unwrap()).unwrap();
    std::fs::rename(folder.data(), &long).unwrap();
    let at = |args: &[&str]| folder.run(&[args, &["--data-dir", long.to_str().unwrap()]].concat());
    let mut holder = folder
        .command(&[
            "query",
            "select i from range(100000000) t(i)",
            "--limit",
            "0",
            "-f",
            "csv",
            "--data-dir",
            long.to_str().unwrap(),
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    holder.stdout.as_mut().unwrap().read_exact(&mut [0; 64]).unwrap();
    wait_for(|| long.join("state/holder.sock").exists());
    let output = at(&["admin", "user", "list", "--json"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    holder.kill().unwrap();
    holder.wait().unwrap();
}
