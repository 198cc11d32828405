//! Says that there is a newer version: after a command that asked a server, once the server said so.
//!
//! A server is asked at most once a day, and five minutes after it did not answer. Whatever goes
//! wrong is nobody's concern.

use std::time::Duration;

use agnes_core::distribution::is_newer;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use crate::app::App;
use crate::args::Command;
use crate::place::{self, Meant};

/// How long a server may take to say what it offers.
const PATIENCE: Duration = Duration::from_secs(3);
const FILE: &str = "update_check.json";

/// What a server said last.
#[derive(Debug, Serialize, Deserialize)]
struct Checked {
    server: String,
    at: DateTime<Utc>,
    answered: bool,
    latest: Option<String>,
}

impl Checked {
    /// Whether the server need not be asked again yet.
    fn is_fresh(&self, server: &str, now: DateTime<Utc>) -> bool {
        let good_for = if self.answered { TimeDelta::hours(24) } else { TimeDelta::minutes(5) };
        let age = now - self.at;
        self.server == server && age >= TimeDelta::zero() && age < good_for
    }
}

/// Whether a newer version is told of after this command: somebody looks, and it asks servers.
pub(crate) fn follows(command: &Command) -> bool {
    matches!(
        command,
        Command::Auth(_)
            | Command::Tokens(_)
            | Command::Init(_)
            | Command::Pull(_)
            | Command::Push(_)
            | Command::Explore(_)
            | Command::Snapshot(_)
            | Command::Fetch(_)
            | Command::Catalog(_)
            | Command::Schema(_)
            | Command::Describe(_)
            | Command::Sample(_)
            | Command::Profile(_)
            | Command::Manifest(_)
            | Command::Sync(_)
            | Command::Admin(_)
            | Command::Doctor(_)
    )
}

/// Tells of a newer version, where there is one.
pub(crate) async fn tell(app: &App) {
    if app.out.quiet || app.out.json || place::variable("AGNES_NO_UPDATE_CHECK").is_some_and(|value| value != "0") {
        return;
    }
    let Some(newest) = newest(app).await else { return };
    let own = env!("CARGO_PKG_VERSION");
    if is_newer(&newest, own) {
        let newest = crate::output::text::safe(&newest);
        app.out.hint(&format!("version {newest} is there, this is {own}: `agnes self-upgrade` installs it"));
    }
}

async fn newest(app: &App) -> Option<String> {
    let Ok(Meant::Server { address, .. }) = place::meant(&app.global, &app.account) else { return None };
    let client = place::client(&address, None, &app.account).ok()?;
    let held = std::fs::read(app.account.folder().join(FILE)).ok();
    let held = held.and_then(|text| serde_json::from_slice::<Checked>(&text).ok());
    if let Some(held) = held.filter(|held| held.is_fresh(client.server(), Utc::now())) {
        return held.latest;
    }
    let asked = client.latest(PATIENCE).await;
    let answered = asked.is_ok();
    let latest = asked.ok().filter(|latest| latest.for_this_computer().is_some()).and_then(|latest| latest.version);
    let checked = Checked { server: client.server().to_owned(), at: Utc::now(), answered, latest: latest.clone() };
    if let Ok(text) = serde_json::to_vec(&checked) {
        let _ = app.account.write(FILE, &text);
    }
    latest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_asked_once_a_day() {
        let now = Utc::now();
        let fresh = |minutes, answered| {
            let at = now - TimeDelta::minutes(minutes);
            Checked { server: "https://a".to_owned(), at, answered, latest: None }.is_fresh("https://a", now)
        };
        assert!(fresh(0, true) && fresh(1439, true) && !fresh(1440, true) && !fresh(-1, true));
        assert!(fresh(4, false) && !fresh(5, false));
        let other = Checked { server: "https://b".to_owned(), at: now, answered: true, latest: None };
        assert!(!other.is_fresh("https://a", now));
    }
}
