//! Time zones. The official library has ICU inside; one built from source has not, and
//! loads it as an extension, or goes without.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::ident::quote_literal;

/// Where extension files lie, as the first engine of this process was configured.
static EXTENSIONS: OnceLock<PathBuf> = OnceLock::new();

/// Where to look for extension files, before the engine's own folder. The first call counts.
pub(crate) fn look_for_extensions_in(folder: &Path) {
    let _ = EXTENSIONS.set(folder.to_owned());
}

/// Statements that every instance begins with, so that answers do not depend on the time
/// zone of the machine. Empty where there is no ICU: then everything is in UTC anyway, and
/// time zones cannot be named.
pub(crate) fn utc() -> &'static str {
    static UTC: OnceLock<String> = OnceLock::new();
    UTC.get_or_init(|| {
        // Global: a session's own setting does not reach the other connections of an instance.
        let set = "SET GLOBAL TimeZone='UTC';";
        if !cfg!(feature = "bundled") || works(set) {
            return set.to_owned();
        }
        let file = EXTENSIONS.get().map(|folder| folder.join("icu.duckdb_extension")).filter(|file| file.is_file());
        let loads = [file.map(|file| quote_literal(&file.to_string_lossy())), Some("icu".to_owned())];
        for load in loads.into_iter().flatten() {
            let both = format!("LOAD {load}; {set}");
            if works(&both) {
                return both;
            }
        }
        tracing::warn!(
            "this build has no time zones: `AT TIME ZONE` and `now()::date` fail; put icu.duckdb_extension into the \
             folder that `remote_attach.extension_folder` names"
        );
        String::new()
    })
}

fn works(sql: &str) -> bool {
    let try_it = || -> ::duckdb::Result<()> {
        let config = ::duckdb::Config::default()
            .with("autoinstall_known_extensions", "false")?
            .with("autoload_known_extensions", "false")?
            .threads(1)?;
        ::duckdb::Connection::open_in_memory_with_flags(config)?.execute_batch(sql)
    };
    try_it().is_ok()
}
