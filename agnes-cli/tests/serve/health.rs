//! How the server says it is, whatever else it does.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::running::{ENDLESS, leave_running};
use super::world::World;

#[test]
fn parts_are_told_to_admins_alone() {
    let world = World::start();
    let whole = |who: &str| world.get(who, "/api/health/detailed?include=schema").json();
    for who in ["member", "stranger"] {
        let answer = whole(who);
        assert_eq!(answer["status"], "healthy", "{answer}");
        assert!(answer["services"].is_null() && answer["version"].is_string() && answer["timestamp"].is_string());
    }
    for who in ["admin", "service"] {
        let services = &whole(who)["services"];
        assert_eq!((&services["data"]["tables"], &services["data"]["total_rows"]), (&json!(2), &json!(6)));
        assert_eq!((&services["users"]["count"], &services["scheduler"]["status"]), (&json!(3), &json!("unknown")));
        for part in ["duckdb_state", "queries", "data", "audit", "disk", "db_schema"] {
            assert_eq!(services[part]["status"], "ok", "{part}: {services}");
        }
        assert_eq!(services["db_schema"]["current"], services["db_schema"]["expected"]);
    }
    let plain = world.get("admin", "/api/health/detailed").json();
    assert!(plain["services"]["db_schema"].is_null());
    let text = plain.to_string();
    assert!(!text.contains(world.server.folder.path().to_str().unwrap()), "{text}");
    // The service did something just now.
    assert_eq!(world.send("service", "POST", "/api/sync/trigger", &Value::Null).status, 200);
    let patience = Instant::now() + Duration::from_secs(30);
    while world.get("admin", "/api/health/detailed").json()["services"]["scheduler"]["status"] != "ok" {
        assert!(Instant::now() < patience);
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Every turn that queries have is taken, and others wait: the probe has a place of its own.
#[test]
fn health_does_not_wait_in_the_queue_of_queries() {
    let world = World::start();
    let overlay = world.server.folder.path().join("state").join("instance.yaml");
    std::fs::write(overlay, "query: {max_total: 2, max_per_user: 2, wait_seconds: 60, timeout_seconds: 300}\n")
        .unwrap();
    let (world, _) = world.restarted(&[("AGNES_PROBE_SECONDS", "1")]);
    let _running: Vec<TcpStream> = (0..6).map(|_| leave_running(&world, "member", "*/*", ENDLESS)).collect();
    // Longer than an answer counts as recent: four probes and a half, and the time of one.
    let until = Instant::now() + Duration::from_secs(11);
    while Instant::now() < until {
        assert_eq!(world.get("nobody", "/api/health").status, 200);
        assert_eq!(world.get("nobody", "/readyz").status, 200);
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(world.get("admin", "/api/health/detailed").json()["services"]["queries"]["status"], "ok");
}
