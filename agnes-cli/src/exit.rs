//! How a command ends: one table from errors to exit codes.

use agnes_core::ErrorKind;

/// Done, or nothing to do.
pub(crate) const OK: u8 = 0;
/// Failed, in part or as a whole.
pub(crate) const FAILED: u8 = 1;
/// The command line or the request is not valid.
pub(crate) const USAGE: u8 = 2;
/// A quota or rate.
pub(crate) const LIMIT: u8 = 3;
/// Something is wrong with the installation, its data, or Agnes itself.
pub(crate) const BROKEN: u8 = 5;
/// It exists already.
pub(crate) const EXISTS: u8 = 6;
/// Not signed in, or nobody answers.
pub(crate) const NO_ACCESS: u8 = 7;
/// Forbidden or not found.
pub(crate) const DENIED: u8 = 8;
/// Anything else.
pub(crate) const OTHER: u8 = 9;
/// Ended by Ctrl-C: 128 + SIGINT, as shells count.
pub(crate) const INTERRUPTED: u8 = 130;

/// The exit code of an error.
pub(crate) fn code(kind: ErrorKind, code: &str) -> u8 {
    match kind {
        ErrorKind::InvalidInput => USAGE,
        // No such table: the owner is told so, everybody else that it may not be read.
        ErrorKind::QueryRefused if code == "relation_unknown" => DENIED,
        ErrorKind::QueryRefused => FAILED,
        ErrorKind::Unauthenticated => NO_ACCESS,
        // What a workspace is not, or does not have: nothing was asked of anybody.
        ErrorKind::NotFound if matches!(code, "no_workspace" | "workspace_empty" | "table_not_here") => FAILED,
        ErrorKind::NotFound if code == "nothing_to_roll_back_to" => FAILED,
        ErrorKind::Forbidden | ErrorKind::NotFound => DENIED,
        ErrorKind::Conflict if code.ends_with("_exists") || code == "already_member" => EXISTS,
        ErrorKind::Conflict => FAILED,
        ErrorKind::LimitExceeded | ErrorKind::RateLimited => LIMIT,
        ErrorKind::Unavailable if code == "data_folder_held" || code.starts_with("holder_") => NO_ACCESS,
        ErrorKind::Unavailable if code == "server_unreachable" => NO_ACCESS,
        ErrorKind::DataInvalid if code.starts_with("manifest_") || code == "download_corrupt" => FAILED,
        ErrorKind::DataInvalid if code.starts_with("archive_") => FAILED,
        // This program was put there by somebody else, who replaces it.
        ErrorKind::Unsupported if code == "not_self_installed" => FAILED,
        ErrorKind::Unavailable if code.starts_with("workspace_") || code == "server_keeps_changing" => FAILED,
        ErrorKind::Unavailable if code.ends_with("cancelled") => FAILED,
        ErrorKind::Unavailable | ErrorKind::ConfigInvalid | ErrorKind::DataInvalid | ErrorKind::Internal => BROKEN,
        ErrorKind::Unsupported => OTHER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_code() {
        for (kind, error, expected) in [
            (ErrorKind::InvalidInput, "invalid_name", 2),
            (ErrorKind::InvalidInput, "ambiguous_reference", 2),
            (ErrorKind::QueryRefused, "function_not_allowed", 1),
            (ErrorKind::QueryRefused, "relation_unknown", 8),
            (ErrorKind::Unauthenticated, "inactive_user", 7),
            (ErrorKind::Forbidden, "admin_required", 8),
            (ErrorKind::NotFound, "table_not_found", 8),
            (ErrorKind::Conflict, "user_exists", 6),
            (ErrorKind::Conflict, "already_member", 6),
            (ErrorKind::Conflict, "last_admin", 1),
            (ErrorKind::LimitExceeded, "out_of_memory", 3),
            (ErrorKind::RateLimited, "too_many_queries", 3),
            (ErrorKind::Unavailable, "disk_full", 5),
            (ErrorKind::Unavailable, "cancelled", 1),
            (ErrorKind::Unavailable, "query_cancelled", 1),
            (ErrorKind::Unavailable, "data_folder_held", 7),
            (ErrorKind::Unavailable, "holder_gone", 7),
            (ErrorKind::Unavailable, "server_unreachable", 7),
            (ErrorKind::NotFound, "workspace_empty", 1),
            (ErrorKind::DataInvalid, "manifest_rollback", 1),
            (ErrorKind::Unavailable, "workspace_busy", 1),
            (ErrorKind::DataInvalid, "archive_corrupt", 1),
            (ErrorKind::Conflict, "upgrade_running", 1),
            (ErrorKind::NotFound, "nothing_to_roll_back_to", 1),
            (ErrorKind::Unsupported, "not_self_installed", 1),
            (ErrorKind::ConfigInvalid, "unknown_key", 5),
            (ErrorKind::DataInvalid, "state_too_new", 5),
            (ErrorKind::Internal, "internal", 5),
            (ErrorKind::Unsupported, "unsupported", 9),
        ] {
            assert_eq!(code(kind, error), expected, "{kind:?} {error}");
        }
    }
}
