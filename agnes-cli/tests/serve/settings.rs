//! The configuration of a running server: shown, changed, kept over a restart, refused.

use std::process::Command;

use serde_json::{Value, json};

use super::process::BINARY;
use super::world::World;

const CONFIG: &str = "/api/admin/server-config";

fn change(world: &World, who: &str, sections: &Value) -> (u16, Value) {
    let answer = world.send(who, "POST", CONFIG, &json!({ "sections": sections, "confirm_danger": true }));
    (answer.status, answer.json())
}

#[test]
fn it_is_shown_changed_and_kept() {
    let world = World::start_with(&[], &[("AGNES_INSTANCE_BRAND", "From outside")]);
    let token = "a-secret-that-is-nowhere-to-be-seen";
    let sections = json!({
        "instance": {"subtitle": "Data of the shop", "home": {"show_automode": false}},
        "jira": {"api_token": token}, "email": {"smtp_port": 2525},
    });
    let (status, done) = change(&world, "admin", &sections);
    assert_eq!((status, &done["status"], &done["restart_required"]), (200, &json!("ok"), &json!(true)), "{done}");
    assert_eq!((&done["sections_updated"], &done["diff_count"]), (&json!(["email", "instance", "jira"]), &json!(4)));
    let shown = world.get("admin", CONFIG).json();
    assert_eq!(shown["sections"]["jira"]["api_token"], "***");
    assert_eq!(shown["sections"]["instance"]["home"], json!({"show_automode": false}));
    let brand = shown["known_fields"]["instance"].as_array().unwrap().iter().find(|field| field["key"] == "brand");
    assert_eq!(brand.unwrap()["env_override"], "AGNES_INSTANCE_BRAND");
    // All of it sent back as it was shown.
    assert_eq!(change(&world, "admin", &shown["sections"]).1["diff_count"], 0);
    assert_eq!(change(&world, "admin", &json!({"instance": {"brand": "Mine"}})).1["code"], "set_by_environment");
    let (status, problem) = change(&world, "admin", &json!({"email": {"smtp_port": 0}}));
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_setting")));
    let (status, problem) = change(&world, "admin", &json!({"auth": {"disabled_providers": ["nonsense"]}}));
    assert_eq!((status, &problem["code"]), (422, &json!("settings_would_not_start")));
    let unconfirmed = world.send("admin", "POST", CONFIG, &json!({"sections": {"server": {"host": "x"}}}));
    assert_eq!((unconfirmed.status, &unconfirmed.json()["code"]), (400, &json!("confirm_danger_required")));
    for body in [json!({}), json!({"sections": {}}), json!({"sections": []}), json!({"sections": {"jira": 1}})] {
        assert_eq!(world.send("admin", "POST", CONFIG, &body).status, 422, "{body}");
    }
    for who in ["member", "service", "stranger"] {
        assert_eq!((world.get(who, CONFIG).status, change(&world, who, &sections).0), (403, 403), "{who}");
    }
    // The secret is in one file alone.
    let audit = world.get("admin", "/api/admin/activity?action_prefix=instance_config").json();
    let row = &audit["rows"].as_array().unwrap().last().unwrap()["params"];
    assert_eq!((&row["jira.api_token"], &row["email.smtp_port"]), (&json!("***"), &json!(2525)));
    assert!(!audit.to_string().contains(token));
    let state = world.server.folder.path().join("state");
    assert!(!std::fs::read_to_string(state.join("instance.yaml")).unwrap().contains(token));
    assert!(std::fs::read_to_string(state.join(".env_overlay")).unwrap().contains(token));
    let (world, status) = world.restarted(&[]);
    assert!(status.success());
    let kept = world.get("admin", CONFIG).json();
    assert_eq!(kept["sections"]["instance"]["subtitle"], "Data of the shop");
    assert_eq!(change(&world, "admin", &json!({"instance": {"brand": "Mine"}})).0, 200);
}

#[test]
fn the_primary_source_is_one_that_is_read_here() {
    let world = World::start();
    let configure = |body: Value| world.send("admin", "POST", "/api/admin/configure", &body);
    let done = configure(json!({"data_source": "local", "instance_name": "Acme"}));
    assert_eq!(done.json(), json!({"status": "ok", "data_source": "local", "connection": "local", "detail": null}));
    assert_eq!(world.get("admin", CONFIG).json()["sections"]["instance"]["name"], "Acme");
    let other = configure(json!({"data_source": "nonsense"}));
    assert_eq!((other.status, &other.json()["code"]), (400, &json!("source_not_offered")));
    assert_eq!(configure(json!({"data_source": "local", "x": 1})).status, 422);
}

/// What ends a start beside a configuration that cannot be read: mails that could never leave, and
/// nobody left who could sign in.
#[test]
fn what_would_stop_the_next_start_is_not_kept() {
    let world = World::start();
    let refused = |sections: Value, words: &str| {
        let (status, problem) = change(&world, "admin", &sections);
        assert_eq!((status, &problem["code"]), (422, &json!("settings_would_not_start")), "{sections}: {problem}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    };
    refused(json!({"email": {"smtp_host": "mail.example.com"}}), "sender");
    refused(json!({"email": {"smtp_host": "mail.example.com", "from_address": "x"}}), "sender");
    refused(json!({"auth": {"disabled_providers": ["password", "email"]}}), "no Admin could sign in");
    let mail = json!({"email": {"smtp_host": "mail.example.com", "from_address": "agnes@example.com"}});
    assert_eq!(change(&world, "admin", &mail).0, 200);
    // Each is enough for an Admin, and the last one is kept.
    assert_eq!(change(&world, "admin", &json!({"auth": {"disabled_providers": ["password"]}})).0, 200);
    refused(json!({"email": {"smtp_host": null}}), "no Admin could sign in");
    let company = json!({"oidc": {"issuer": "https://8.8.8.8", "client_id": "us"}});
    assert_eq!(change(&world, "admin", &json!({ "auth": company })).0, 200);
    assert_eq!(change(&world, "admin", &json!({"auth": {"disabled_providers": ["password", "email"]}})).0, 200);
    refused(json!({"auth": {"oidc": {"issuer": null, "client_id": null}}}), "no Admin could sign in");
    let (world, status) = world.restarted(&[]);
    assert!(status.success());
    assert_eq!(world.get("nobody", "/api/health").status, 200);
}

/// A secret in a list could be neither shown masked and sent back, nor kept apart.
#[test]
fn lists_hold_no_secrets() {
    let world = World::start();
    let key = "a-key-that-is-in-no-file";
    let (status, problem) =
        change(&world, "admin", &json!({"corporate_memory": {"spaces": [{"name": "a", "api_key": key}]}}));
    assert_eq!((status, &problem["code"]), (422, &json!("invalid_setting")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("`api_key`") && !problem.to_string().contains(key));
    let fine = json!({"corporate_memory": {"spaces": [{"name": "a"}], "api_key": key}});
    assert_eq!(change(&world, "admin", &fine).0, 200);
    let state = world.server.folder.path().join("state");
    assert!(!std::fs::read_to_string(state.join("instance.yaml")).unwrap().contains(key));
    assert!(std::fs::read_to_string(state.join(".env_overlay")).unwrap().contains(key));
}

/// A server that ends while it writes that a secret is no more still starts.
#[cfg(target_os = "linux")]
#[test]
fn a_secret_is_taken_out_after_its_name() {
    use rustix::process::{Pid, Resource, Rlimit, prlimit};
    let world = World::start();
    // So long that the secrets can be written where the overlay cannot.
    let overlay = world.server.folder.path().join("state").join("instance.yaml");
    std::fs::write(&overlay, format!("instance: {{overview: {}}}\n", "x".repeat(800_000))).unwrap();
    assert_eq!(change(&world, "admin", &json!({"jira": {"api_token": "a-token"}})).0, 200);
    let least = Rlimit { current: Some(500_000), maximum: None };
    let server = Pid::from_raw(i32::try_from(world.server.id()).unwrap()).unwrap();
    prlimit(Some(server), Resource::Fsize, least).unwrap();
    let body = json!({"sections": {"jira": {"api_token": null}}});
    let answer = world.try_send("admin", "POST", CONFIG, &body);
    assert!(answer.is_none_or(|answer| answer.status != 200), "it was written");
    world.server.signal("KILL");
    let world = world.start_again(&[]);
    assert_eq!(world.get("admin", CONFIG).json()["sections"]["jira"]["api_token"], "***");
}

/// A mistake of the operator ends the start, with a message that says where it is.
#[test]
fn a_broken_configuration_stops_the_start_and_says_how_to_go_on() {
    let good = "config_version: 1\ninstance: {name: A}\nserver: {host: h, hostname: h}\n";
    for (file, overlay, secrets, words) in [
        (
            "config_version: 1\ninstance: {name: A}\n",
            "",
            "",
            vec!["auth.allowed_domain", "server.host", "instance.yaml"],
        ),
        ("a: [", "", "", vec!["instance.yaml"]),
        (
            &format!("{good}auth: {{allowed_domain: '*', disabled_providers: [gogle]}}\n"),
            "",
            "",
            vec!["google", "auth.disabled_providers"],
        ),
        (
            &format!("{good}auth: {{allowed_domain: '*', allowed_domian: x}}\n"),
            "",
            "",
            vec!["auth.allowed_domian", "did you mean"],
        ),
        (
            &format!("{good}auth: {{allowed_domain: '${{NOT_SET_ANYWHERE}}'}}\n"),
            "",
            "",
            vec!["NOT_SET_ANYWHERE", "set `"],
        ),
        ("", "instance: {name: [", "", vec!["instance.yaml"]),
        ("", "", "no equals sign\n", vec![".env_overlay", "line 1"]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let mut command = Command::new(BINARY);
        command.args(["serve", "--bind", "127.0.0.1:0", "--data-dir"]).arg(folder.path()).current_dir(folder.path());
        for (text, path) in [
            (file, folder.path().join("instance.yaml")),
            (overlay, state.join("instance.yaml")),
            (secrets, state.join(".env_overlay")),
        ] {
            if !text.is_empty() {
                std::fs::write(&path, text).unwrap();
            }
        }
        if !file.is_empty() {
            command.arg("--config").arg(folder.path().join("instance.yaml"));
        }
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{file}{overlay}{secrets}");
        for word in words {
            assert!(said.contains(word), "`{word}` is not in: {said}");
        }
    }
    // A secret of the installation that cannot be read is not made anew in silence.
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state").join(".jwt_secret"), "").unwrap();
    let serve = ["serve", "--bind", "127.0.0.1:0", "--data-dir"];
    let output = Command::new(BINARY).args(serve).arg(folder.path()).current_dir(folder.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(".jwt_secret"), "{said}");
}
