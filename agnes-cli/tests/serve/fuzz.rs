//! Requests that nobody would think of, made from the API's own description by
//! schemathesis, as nobody, member and admin: no server error, nothing undocumented.
//!
//! `make fuzz-http` sends at least 20,000 of them; `make test` some of each operation.

use std::process::{Command, Stdio};

use super::jira_site::Fake;
use super::process::Server;
use super::world::{PASSWORD, World};

/// People of each kind, who take turns when one is locked out by what they send.
const SPARE: usize = 12;

/// The command, where `make` installed it, or of the path.
fn schemathesis() -> Option<String> {
    let given = std::env::var("AGNES_TEST_VENV").map(|venv| format!("{venv}/bin/schemathesis"));
    [given.unwrap_or_default(), "schemathesis".to_owned()].into_iter().find(|command| {
        let told = Command::new(command).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        told.is_ok_and(|status| status.success())
    })
}

/// Requests answered so far with a status that begins so.
fn answered(server: &Server, status: &str) -> u64 {
    let text = server.get("/metrics").text();
    let counted = text.lines().filter(|line| line.starts_with("agnes_http_requests_total{"));
    let wanted = counted.filter(|line| line.contains(&format!("status=\"{status}")));
    wanted.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn the_api_keeps_to_its_description_whatever_it_is_sent() {
    let Some(command) = schemathesis() else {
        assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "schemathesis is missing");
        eprintln!("SKIPPED: schemathesis is missing; `make components` gets it");
        return;
    };
    let (wanted, first_seed) = (number("AGNES_FUZZ_REQUESTS", 0), number("AGNES_FUZZ_SEED", 1));
    // Without a site of Jira its webhooks answer 503, as they are meant to.
    let (site, config) = (Fake::start(), super::jira::config());
    let variables = super::jira::Site::variables(config.path().to_str().unwrap(), "info");
    let world = World::start_for(SPARE, &[], &variables);
    super::jira::add_source(&world, &site);
    let folder = world.server.folder.path().join("fuzz");
    std::fs::create_dir(&folder).unwrap();
    let description = folder.join("openapi.json");
    std::fs::write(&description, serde_json::to_string(&agnes_http::document()).unwrap()).unwrap();
    let mut failed = String::new();
    for (round, seed) in (first_seed..).enumerate() {
        // In the order of their rights: whoever may not change anything tries first.
        for who in ["nobody", "member", "admin"] {
            let mut fuzz = Command::new(&command);
            fuzz.args(["run", description.to_str().unwrap(), "--no-color"])
                .args(["--url", &format!("http://{}", world.server.address)])
                .args(["--checks", "all", "--exclude-checks", "positive_data_acceptance"])
                .args(["--seed", &seed.to_string(), "--max-examples", if wanted == 0 { "4" } else { "40" }])
                .args(["--generation-database", "none", "--suppress-health-check", "all", "--continue-on-failure"])
                .args(["--warnings", "off", "--request-timeout", "60"]);
            if who != "nobody" {
                let people: Vec<String> = (0..SPARE).map(|number| format!("{who}{number}@example.com")).collect();
                fuzz.env("AGNES_FUZZ_PEOPLE", people.join(",")).env("AGNES_FUZZ_PASSWORD", PASSWORD);
                fuzz.env("AGNES_FUZZ_ROLE", if who == "admin" { "admin" } else { "user" });
            }
            fuzz.env("AGNES_FUZZ_URL", format!("http://{}", world.server.address));
            // A page sends who is signed out to where they sign in, whatever else is wrong. A revoked
            // token can still be looked at, with when it was revoked: not a resource that is gone.
            let kept = "[checks]\nnegative_data_rejection.expected-statuses = \
                        [302, 303, 400, 401, 403, 404, 405, 406, 409, 413, 415, 416, 422, 428, 429]\n\
                        [[operations]]\ninclude-name = \"GET /auth/tokens/{token_id}\"\nphases.stateful.enabled = false\n";
            std::fs::write(folder.join("schemathesis.toml"), kept).unwrap();
            let before = answered(&world.server, "");
            let refused = answered(&world.server, "401");
            let hooks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve");
            fuzz.env("SCHEMATHESIS_HOOKS", "fuzz_hooks").env("PYTHONPATH", hooks).env("PYTHONDONTWRITEBYTECODE", "1");
            let output = fuzz.current_dir(&folder).stdin(Stdio::null()).output().unwrap();
            if !output.status.success() {
                failed = format!(
                    "{who}, seed {seed}:\n{}{}",
                    String::from_utf8_lossy(&output.stdout),
                    String::from_utf8_lossy(&output.stderr)
                );
            }
            let (requests, broken) = (answered(&world.server, ""), answered(&world.server, "500"));
            eprintln!("round {round} as {who}: {requests} requests so far, {broken} of them answered with 500");
            assert!(failed.is_empty() && broken == 0, "{broken} answered with 500\n{failed}");
            let refused = answered(&world.server, "401") - refused;
            assert!(who == "nobody" || refused * 2 < requests - before, "{refused} refused: who asks is nobody");
        }
        if answered(&world.server, "") >= wanted {
            return;
        }
    }
}
