//! `last-error.log`: what was behind the last failure that is nobody's mistake, for whoever looks into
//! it. On the screen there is one line.

use std::backtrace::Backtrace;
use std::error::Error as _;
use std::fmt::Write as _;

use agnes_connectors::server::Account;
use agnes_core::redaction::redacted;

use crate::exit;
use crate::failure::Failure;

const FILE: &str = "last-error.log";

/// Has a panic written down instead of shown.
pub(crate) fn watch(account: Account) {
    std::panic::set_hook(Box::new(move |panic| {
        keep(&account, &format!("{panic}\n{}", Backtrace::force_capture()));
        tracing::error!("{panic}");
    }));
}

/// Writes down what is behind a failure of the installation, the server or Agnes itself.
pub(crate) fn note(account: &Account, failure: &Failure) {
    let Failure::Engine(error) = failure else { return };
    if !matches!(failure.exit_code(), exit::BROKEN | exit::OTHER) {
        return;
    }
    let mut text = format!("{}: {error}\n", error.code());
    let mut cause = error.source();
    while let Some(inner) = cause {
        let _ = writeln!(text, "because: {inner}");
        cause = inner.source();
    }
    if let Some(facts) = error.facts() {
        let _ = writeln!(text, "facts: {facts}");
    }
    keep(account, &text);
}

/// Nothing hangs on it: what cannot be written is not.
fn keep(account: &Account, text: &str) {
    let (now, version) = (chrono::Utc::now().to_rfc3339(), env!("CARGO_PKG_VERSION"));
    let head = format!("{now} agnes {version} ({} {})", std::env::consts::OS, std::env::consts::ARCH);
    let _ = account.write(FILE, redacted(&format!("{head}\n{text}")).as_bytes());
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use agnes_core::Error;

    use super::*;

    #[test]
    fn causes_are_kept_and_secrets_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let account = Account::in_folder(folder.path().join("agnes"));
        let kept = || std::fs::read_to_string(account.folder().join(FILE)).unwrap_or_default();
        note(&account, &Failure::usage("not this way"));
        assert_eq!(kept(), "", "that is the user's own");
        let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2lnbmF0dXJl";
        note(&account, &Failure::Engine(Error::internal("ask", format!("Authorization: Bearer {token}"))));
        assert!(kept().contains("because:") && !kept().contains(token), "{}", kept());
    }
}
