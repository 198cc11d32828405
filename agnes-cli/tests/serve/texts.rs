//! Texts that admins edit: what assistants are given, and what `agnes init` writes.

use serde_json::{Value, json};

use super::access::told;
use super::laptop::Laptop;
use super::world::World;

const PROMPT: &str = "/api/admin/welcome-template";
const GUIDE: &str = "/api/admin/workspace-prompt-template";

#[test]
fn admins_write_what_assistants_read() {
    let world = World::start();
    let put = |path: &str, content: &str| world.send("admin", "PUT", path, &json!({ "content": content }));
    for path in [PROMPT, GUIDE] {
        let kept = world.get("admin", path).json();
        assert_eq!((&kept["content"], &kept["updated_at"]), (&Value::Null, &Value::Null));
        assert!(kept["default"].as_str().unwrap().contains("agnes query"), "{kept}");
        for who in ["member", "service"] {
            assert_eq!(world.get(who, path).status, 403, "{who}");
        }
        let bad = put(path, "fine\n{{ instance.nothing.more }}");
        assert_eq!((told(&bad), &bad.json()["detail"]["line"]), ((400, "template_invalid".to_owned()), &json!(2)));
        // Whoever is signed out has no address.
        assert_eq!(put(path, "{{ user.email }}").status, 400);
        assert_eq!(put(path, "").status, 400);
        assert_eq!(world.get("admin", path).json()["content"], Value::Null, "nothing of it is kept");
    }
    let guide = "# {{ instance.name }} at {{ server.url }}, {% if user %}{{ user.email }}{% endif %}\n{% for t in tables %}{{ t.name }};{% endfor %}";
    let preview = world.send("admin", "POST", &format!("{GUIDE}/preview"), &json!({ "content": guide }));
    assert!(preview.json()["content"].as_str().unwrap().contains("admin@example.com"), "{}", preview.text());
    assert_eq!(world.get("admin", GUIDE).json()["content"], Value::Null, "a preview keeps nothing");
    assert_eq!(put(GUIDE, guide).json()["content"], json!(guide));
    let welcome = |who: &str, address: &str| {
        let answer = world.get(who, &format!("/api/welcome?server_url={address}"));
        answer.json()["content"].as_str().unwrap_or_else(|| panic!("{}", answer.text())).to_owned()
    };
    let seen = welcome("member", "https://agnes.example.com");
    assert!(seen.contains("at https://agnes.example.com, member@example.com"), "{seen}");
    assert!(seen.contains("orders;") && !seen.contains("people"), "what is not granted is not named: {seen}");
    assert!(welcome("narrow", "https://a").contains("orders;"), "a token that sets up a laptop is enough");
    for evil in ["https://a%27%24(x)", "javascript:x", "https://a%0ab"] {
        assert!(welcome("member", evil).contains(&format!("at http://{}", world.server.address)), "{evil}");
    }
    let laptop = Laptop::of(&world, "member");
    let written = std::fs::read_to_string(laptop.path("CLAUDE.md")).unwrap();
    assert!(written.contains(&format!("at {}, member@example.com", laptop.server)) && written.contains("orders;"));

    assert_eq!(put(PROMPT, "<script>alert(1)</script> {{ instance.name }} {server_url} {token}").status, 200);
    for who in ["nobody", "session"] {
        let page = world.get(who, "/setup").text();
        assert!(
            page.contains("&lt;script&gt;") && page.contains("{token}") && !page.contains("<script>alert"),
            "{page}"
        );
        assert!(page.contains(&format!("Agnes http://{} {{token}}", world.server.address)), "{page}");
    }
    assert_eq!(world.send("admin", "DELETE", PROMPT, &Value::Null).status, 204);
    let kept = world.get("admin", PROMPT).json();
    assert_eq!((&kept["content"], &kept["updated_by"]), (&Value::Null, &Value::Null), "{kept}");
    assert!(world.get("session", "/setup").text().contains("agnes init --server-url"));
    let log = world.get("admin", "/api/admin/activity?action_prefix=template.").json();
    let actions: Vec<_> = log["rows"].as_array().unwrap().iter().map(|row| row["action"].as_str().unwrap()).collect();
    assert!(actions.contains(&"template.updated") && actions.contains(&"template.reset"), "{actions:?}");
}

#[test]
fn a_failure_leaves_its_cause_to_whoever_looks_into_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let laptop = Laptop::new("http://127.0.0.1:9");
    let kept = laptop.path("../.config/agnes");
    std::fs::create_dir_all(&kept).unwrap();
    let log = kept.join("last-error.log");
    laptop.fails(7, &["catalog", "--server", &laptop.server]);
    assert!(!log.exists(), "who is not signed in knows why");
    std::fs::write(kept.join("token.json"), "{").unwrap();
    let shown = laptop.fails(5, &["catalog", "--server", &laptop.server]);
    assert_eq!(shown.lines().count(), 2, "{shown}");
    let text = std::fs::read_to_string(&log).unwrap();
    assert!(text.contains("account_unreadable") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
    assert_eq!(log.metadata().unwrap().permissions().mode() & 0o777, 0o600);
}
