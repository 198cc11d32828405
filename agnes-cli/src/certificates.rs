//! Certificates that the environment names.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use crate::output::Output;

/// Variables that name certificates to trust in place of the system's.
const NAMES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO"];

/// Starts this program anew without variables that name certificates which are not there: with them,
/// no server could be trusted.
pub(crate) fn without_what_is_gone(out: Output) {
    let is_gone = |name: &&str| env::var_os(name).is_some_and(|file| !file.is_empty() && !Path::new(&file).exists());
    let gone: Vec<&str> = NAMES.into_iter().filter(is_gone).collect();
    let Ok(program) = env::current_exe() else { return };
    if gone.is_empty() {
        return;
    }
    let mut again = Command::new(program);
    again.args(env::args_os().skip(1));
    for name in gone {
        out.warn(&format!("`{name}` names a file that is not there: it is left aside"));
        again.env_remove(name);
    }
    // Comes back only when it failed; then the calls of servers say what is wrong.
    let _ = again.exec();
}
