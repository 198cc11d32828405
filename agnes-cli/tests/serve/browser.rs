//! The pages in a real browser: every way in and out, light and dark, by mouse and by keyboard.
//! What is driven is in `browser.mjs`.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::mailbox::{Mailbox, tools};
use super::process::Server;

/// A browser of this machine, or nothing and a loud line.
pub(crate) fn browser() -> Option<String> {
    for name in ["chromium", "chromium-browser", "google-chrome"] {
        if let Ok(found) = Command::new("sh").args(["-c", &format!("command -v {name}")]).output()
            && found.status.success()
        {
            return Some(String::from_utf8_lossy(&found.stdout).trim().to_owned());
        }
    }
    assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "a browser is missing");
    eprintln!("SKIPPED: a browser is missing; scripts/test-components.sh gets it");
    None
}

#[test]
fn people_sign_in_and_out_in_a_browser() {
    let (Some(browser), Some(tools)) = (browser(), tools("node_modules/playwright-core")) else { return };
    let Some(mailbox) = Mailbox::start("starttls") else { return };
    let mut variables = mailbox.variables("a password of the mail server");
    variables.push(("DESKTOP_JWT_SECRET", "a secret of desktop applications, long enough".to_owned()));
    variables.push(("AGNES_AUTH_RATELIMIT_ENABLED", "0".to_owned()));
    let variables: Vec<(&str, &str)> = variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let server = Server::start_with(tempfile::tempdir().unwrap(), &[], &variables);
    let (_, printed) = server.said.split_once("/first-time-setup?token=").unwrap();
    let token = printed.split_whitespace().next().unwrap();
    let given = json!({
        "server": format!("http://{}", server.address),
        "setup": format!("/first-time-setup?token={token}"),
        "mails": mailbox.folder(),
        "tools": tools,
        "browser": browser,
        "pictures": std::env::var_os("AGNES_TEST_PICTURES").map(|folder| folder.to_string_lossy().into_owned()),
    });
    let run = Command::new("node")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/browser.mjs"))
        .env("AGNES_PAGES", given.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success() && said.contains("all held"),
        "{said}{}\n{}",
        String::from_utf8_lossy(&run.stderr),
        server.log.lock().unwrap()
    );
}
