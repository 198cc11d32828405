//! What is due is done: by the server itself, or by a process of its own.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agnes_core::scheduler::JOBS;
use serde_json::{Value, json};

use super::process::{BINARY, Server};
use super::world::World;

/// Asks again and again until `is_so`.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(Instant::now() < patience, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A new file of the source, which nobody says anything about.
fn drop_in(world: &World, name: &str) {
    std::fs::write(world.server.folder.path().join("files").join(format!("{name}.csv")), "id\n1\n2\n").unwrap();
}

fn has_table(world: &World, name: &str) -> bool {
    world.send("admin", "POST", "/api/query", &json!({"sql": format!("select count(*) from {name}")})).status == 200
}

/// Sync runs that the scheduler asked for, as the audit log tells.
fn triggers(world: &World) -> Vec<Value> {
    let path = "/api/admin/activity?action_prefix=sync.trigger&client_kind=scheduler";
    world.get("admin", path).json()["rows"].as_array().unwrap().clone()
}

#[test]
fn a_due_source_is_synced_without_anyone_asking() {
    let world = World::start();
    drop_in(&world, "late");
    assert!(!has_table(&world, "late"));
    let (world, _) = world.restarted(&[("SCHEDULER_STARTUP_GRACE_SECONDS", "0"), ("SCHEDULER_TICK_SECONDS", "1")]);
    wait_until("the new file never became a table", || has_table(&world, "late"));
    let asked = triggers(&world);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["user_email"], "scheduler@system.local");
    // A restart does not make it due again, and a stop ends it in good order.
    let (world, status) = world.restarted(&[("SCHEDULER_STARTUP_GRACE_SECONDS", "0"), ("SCHEDULER_TICK_SECONDS", "1")]);
    assert!(status.success());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(triggers(&world).len(), 1);
    let (_, status) = world.restarted(&[]);
    assert!(status.success());
}

/// `agnes scheduler` in a folder, told to look at once.
fn scheduler(world: &World, variables: &[(&str, &str)]) -> (Child, String) {
    let mut child = Command::new(BINARY)
        .args(["scheduler", "--server", &format!("http://{}", world.server.address), "--data-dir"])
        .arg(world.server.folder.path())
        .env_remove("AGNES_LOG")
        .envs([("SCHEDULER_STARTUP_GRACE_SECONDS", "0"), ("SCHEDULER_TICK_SECONDS", "1")])
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("when something is due") {
        assert_ne!(lines.read_line(&mut said).unwrap(), 0, "{said}");
    }
    std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
    (child, said)
}

fn stopped(mut child: Child) {
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    wait_until("the scheduler did not end", || child.try_wait().unwrap().is_some());
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_process_of_its_own_asks_the_server() {
    let world = World::start_with(&["--no-scheduler"], &[("SCHEDULER_STARTUP_GRACE_SECONDS", "0")]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(triggers(&world).len(), 0);
    drop_in(&world, "late");
    let (child, _) = scheduler(&world, &[("SCHEDULER_API_TOKEN", world.token("service"))]);
    wait_until("the new file never became a table", || has_table(&world, "late"));
    stopped(child);
    assert_eq!(triggers(&world).len(), 1);
}

/// Its look at the health needs nobody and leaves no row; that it looked is known all the same.
#[test]
fn a_look_at_the_health_tells_that_the_scheduler_lives() {
    let world = World::start_with(&["--no-scheduler"], &[]);
    let status = || world.get("admin", "/api/health/detailed").json()["services"]["scheduler"]["status"].clone();
    for who in ["nobody", "admin"] {
        assert_eq!(world.get(who, "/api/health").status, 200);
        assert_eq!(status(), "unknown", "{who}");
    }
    assert_eq!(world.get("service", "/api/health").status, 200);
    assert_eq!(status(), "ok");
    let figures = world.get("nobody", "/metrics").text();
    assert!(figures.contains("agnes_scheduler_last_tick_timestamp_seconds 1"), "{figures}");
    assert_eq!(triggers(&world).len(), 0);
}

#[test]
fn without_a_variable_the_token_of_the_folder_counts() {
    let server = Server::start();
    let path = server.folder.path().join("state").join(".scheduler_token");
    let token = std::fs::read_to_string(path).unwrap();
    let asked =
        || server.get_with("/api/admin/activity?action_prefix=sync.", &format!("Authorization: Bearer {token}\r\n"));
    let mut child = Command::new(BINARY)
        .args(["scheduler", "--data-dir"])
        .arg(server.folder.path())
        .env_remove("AGNES_SERVER")
        .env_remove("SCHEDULER_API_TOKEN")
        .envs([("API_URL", format!("http://{}/", server.address)), ("SCHEDULER_STARTUP_GRACE_SECONDS", "0".to_owned())])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("nobody asked", || asked().json()["rows"].as_array().is_some_and(|rows| !rows.is_empty()));
    assert_eq!(asked().json()["rows"][0]["client_kind"], "scheduler");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn bad_settings_stop_the_start() {
    for command in [&["serve", "--bind", "127.0.0.1:0"] as &[&str], &["scheduler"]] {
        for (name, value) in [
            ("SCHEDULER_TICK_SECONDS", "0"),
            ("SCHEDULER_DATA_REFRESH_INTERVAL", ""),
            ("SCHEDULER_HEALTH_CHECK_INTERVAL", "20"),
            ("SCHEDULER_STARTUP_GRACE_SECONDS", "soon"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let output = Command::new(BINARY)
                .args(command)
                .arg("--data-dir")
                .arg(folder.path())
                .env(name, value)
                .current_dir(folder.path())
                .output()
                .unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success(), "{command:?} {name}={value}");
            assert!(said.contains(name) || said.contains("SCHEDULER_TICK_SECONDS"), "{said}");
        }
    }
}

/// A job whose path is not there would fail in silence for ever.
#[test]
fn every_scheduled_path_is_a_route_for_the_service() {
    let world = World::start();
    for job in JOBS {
        let answer = match job.method {
            "GET" => world.get("service", job.path),
            method => world.send("service", method, job.path, &Value::Null),
        };
        // Or the answer that there is no such source.
        let nothing = answer.status == 400 && answer.json()["code"] == "push_not_configured";
        assert!(answer.status == 200 || nothing, "{}: {}", job.name, answer.text());
    }
}
