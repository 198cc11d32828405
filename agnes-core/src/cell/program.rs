//! Somebody else's program, in a process that may write to its own folders only and cannot
//! read the rest of a data folder. Network and processes are open to it: it speaks to a source.
//!
//! The process is this executable with [`ARGUMENT`]: it gives up its rights while it has one
//! thread, then becomes the program.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use landlock::{
    ABI, Access, AccessFs, BitFlags, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr, RulesetCreatedAttr,
    Scope,
};
use serde::{Deserialize, Serialize};

/// The first of the two arguments of such a process.
pub(super) const ARGUMENT: &str = "--agnes-confined-program";
/// Newest set of rights this code asks for; an older kernel gives what it has.
const NEWEST: ABI = ABI::V9;
/// Where programs and their libraries are. `/proc` shows no other process's environment to
/// who is confined and has no capabilities.
const SYSTEM: [&str; 13] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc",
    "/opt",
    "/nix",
    "/proc",
    "/sys",
    "/run/systemd/resolve",
    "/run/resolvconf",
];
/// Devices that ordinary programs write to.
const DEVICES: [&str; 2] = ["/dev/null", "/dev/tty"];
const RANDOM: [&str; 3] = ["/dev/zero", "/dev/random", "/dev/urandom"];

/// Tells the loader where the engine's library is.
const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// What to run, and what it may touch.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Confined {
    /// The program.
    pub(crate) program: PathBuf,
    /// Folders to read and execute from, beside the system's.
    pub(crate) read: Vec<PathBuf>,
    /// Folders to do anything in.
    pub(crate) write: Vec<PathBuf>,
}

impl Confined {
    /// A command that runs it confined, without any of this process's environment; none where
    /// this executable cannot.
    pub(crate) fn command(&self) -> Option<Command> {
        if !super::OFFERED.load(std::sync::atomic::Ordering::SeqCst) {
            return None;
        }
        let mut command = Command::new(std::env::current_exe().ok()?);
        command.arg(ARGUMENT).arg(serde_json::to_string(self).ok()?).env_clear();
        if let Some(path) = std::env::var_os(LIBRARIES) {
            command.env(LIBRARIES, path);
        }
        Some(command)
    }
}

/// Confines this process and becomes the program.
pub(super) fn run(spec: &str) -> ! {
    let words = match serde_json::from_str::<Confined>(spec) {
        Ok(confined) => match confine(&confined) {
            // Only this executable needed to be told where its library is.
            Ok(()) => Command::new(&confined.program).env_remove(LIBRARIES).exec().to_string(),
            Err(words) => words,
        },
        Err(error) => error.to_string(),
    };
    drop(std::io::Write::write_all(&mut std::io::stderr(), format!("not started: {words}\n").as_bytes()));
    super::sys::exit_now(126)
}

fn confine(confined: &Confined) -> Result<(), String> {
    super::sys::drop_capabilities();
    super::sys::set_no_new_privs().map_err(|error| error.to_string())?;
    let words = |error: landlock::RulesetError| error.to_string();
    let rules = Ruleset::default().handle_access(AccessFs::from_all(NEWEST)).map_err(words)?;
    let mut rules = rules.scope(Scope::Signal).map_err(words)?.create().map_err(words)?;
    let system = SYSTEM.iter().map(PathBuf::from).chain(confined.read.iter().cloned());
    let read = system.map(|path| (path, AccessFs::from_read(NEWEST)));
    let write = confined.write.iter().cloned().map(|path| (path, AccessFs::from_all(NEWEST)));
    let devices = DEVICES.iter().map(|path| (PathBuf::from(path), AccessFs::ReadFile | AccessFs::WriteFile));
    let random = RANDOM.iter().map(|path| (PathBuf::from(path), BitFlags::from(AccessFs::ReadFile)));
    for (path, access) in read.chain(write).chain(devices).chain(random) {
        // What a system does not have need not be opened.
        let Ok(file) = PathFd::new(&path) else { continue };
        let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
        rules = rules.add_rule(PathBeneath::new(file, access)).map_err(words)?;
    }
    match rules.restrict_self().map_err(words)?.landlock {
        LandlockStatus::Available { .. } => Ok(()),
        _ => Err("this system cannot confine programs".to_owned()),
    }
}
