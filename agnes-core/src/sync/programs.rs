//! Programs of others that write an extract themselves: each runs with a deadline, alone in its
//! folder, with its own credentials only. What it leaves is untrusted input; how it fares
//! touches nothing else.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::connector::Cancel;
use crate::duck::blocking;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::ident::{EnvName, SourceName, printable};
use crate::secret::Secret;

/// How long a program may take to end once it was told to.
const GRACE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// Of what a program said this much is kept for the log.
const TOLD: usize = 4096;
/// Where programs look for others.
const SEARCHED: &str = "/usr/local/bin:/usr/bin:/bin";

/// One program that writes an extract.
struct Program {
    source: SourceName,
    folder: PathBuf,
    file: PathBuf,
}

/// How a program is run.
struct Run {
    program: Program,
    data: PathBuf,
    extract: PathBuf,
    scratch: PathBuf,
    timeout: Duration,
    variables: Vec<(String, Secret)>,
    cancel: Cancel,
}

impl Engine {
    /// Runs the programs that `wanted` names, in order of their names; a sentence for each that
    /// went wrong.
    pub(super) async fn run_programs(
        &self,
        wanted: &(dyn Fn(&str) -> bool + Sync),
        cancel: &Cancel,
    ) -> Result<Vec<String>> {
        let Some(folder) = self.config().connectors.folder.clone() else { return Ok(Vec::new()) };
        let mut notes = Vec::new();
        for found in blocking(move || list(&folder)).await? {
            let program = match found {
                Ok(program) => program,
                Err(note) => {
                    notes.push(note);
                    continue;
                }
            };
            let name = program.source.to_string();
            if !wanted(&name) {
                continue;
            }
            cancel.check()?;
            if self.store().sources().get(&name).await?.is_some() {
                notes.push(format!("the program of `{name}` was not run: a source of that name is registered"));
                continue;
            }
            let run = Run {
                data: absolute(self.folder().root())?,
                extract: absolute(&self.folder().extract(&program.source))?,
                scratch: absolute(self.scratch())?,
                timeout: self.config().connectors.timeout,
                variables: self.variables(&name),
                cancel: cancel.clone(),
                program,
            };
            match blocking(move || run.run()).await {
                Ok(None) => {}
                Ok(Some(note)) => notes.push(format!("the program of `{name}` {note}")),
                Err(error) => notes.push(format!("the program of `{name}` could not be run: {error}")),
            }
        }
        Ok(notes)
    }

    /// The variables that the operator gives to one program.
    fn variables(&self, name: &str) -> Vec<(String, Secret)> {
        let secrets = self.source_secrets();
        let mine = self.config().connectors.env.iter().filter_map(|pair| pair.split_once('='));
        mine.filter(|(program, variable)| *program == name && EnvName::parse(variable).is_ok())
            .filter_map(|(_, variable)| Some((variable.to_owned(), secrets.get(variable)?)))
            .collect()
    }
}

/// Every folder with an executable `extractor` (or `extractor.sh`, ...), by name.
fn list(folder: &Path) -> Result<Vec<Result<Program, String>>> {
    let folder = absolute(folder)?;
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io("list the folder of connector programs", e))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort_unstable();
    let mut found = Vec::new();
    for folder in folders {
        let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.file_stem().is_some_and(|stem| stem == "extractor") && is_executable(path))
            .collect();
        files.sort_unstable();
        let Some(file) = files.into_iter().next() else { continue };
        found.push(match SourceName::parse(&name) {
            Ok(source) => Ok(Program { source, folder, file }),
            Err(error) => Err(format!("the program in `{}` was not run: {error}", printable(&name, 64))),
        });
    }
    Ok(found)
}

/// A program works in its own folder: no path it gets may depend on this process's.
fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("find the place of a folder", e))
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

impl Run {
    /// Runs it to its end; a sentence when that is not a good one.
    fn run(&self) -> Result<Option<String>> {
        let io = |action: &'static str| move |cause| Error::io(action, cause);
        std::fs::create_dir_all(&self.extract).map_err(io("make the extract's folder"))?;
        std::fs::create_dir_all(&self.scratch).map_err(io("make the scratch folder"))?;
        let own = tempfile::Builder::new().prefix("program-").tempdir_in(&self.scratch);
        let own = own.map_err(io("make a scratch folder"))?;
        let told = tempfile::tempfile_in(&self.scratch).map_err(io("make a scratch file"))?;
        let mut command = self.command(own.path());
        command
            .env("DATA_DIR", &self.data)
            .env("HOME", own.path())
            .env("TMPDIR", own.path())
            .env("PATH", SEARCHED)
            .env("LANG", "C.UTF-8")
            .envs(self.variables.iter().map(|(name, secret)| (name, secret.expose())))
            .current_dir(&self.program.folder)
            .stdin(Stdio::null())
            .stdout(told.try_clone().map_err(io("open a scratch file"))?)
            .stderr(told.try_clone().map_err(io("open a scratch file"))?)
            .process_group(0);
        let mut child = command.spawn().map_err(io("start the program"))?;
        let group = Pid::from_child(&child);
        let deadline = Instant::now() + self.timeout;
        let mut told_to_end = None;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(io("wait for the program"))? {
                break status;
            }
            let over = self.cancel.is_cancelled() || Instant::now() >= deadline;
            match told_to_end {
                None if over => {
                    let _ = kill_process_group(group, Signal::TERM);
                    told_to_end = Some(Instant::now());
                }
                Some(since) if since.elapsed() >= GRACE => {
                    let _ = kill_process_group(group, Signal::KILL);
                }
                _ => {}
            }
            std::thread::sleep(LOOK);
        };
        // Whatever it started ends with it.
        let _ = kill_process_group(group, Signal::KILL);
        self.log(&told);
        self.cancel.check()?;
        Ok(if told_to_end.is_some() {
            Some(format!("took longer than {} s and was ended", self.timeout.as_secs()))
        } else if status.success() {
            None
        } else {
            Some(match status.code() {
                Some(code) => format!("ended with status {code}"),
                None => "was killed".to_owned(),
            })
        })
    }

    /// Without this process's environment, and confined where this executable and system can.
    fn command(&self, own: &Path) -> Command {
        #[cfg(target_os = "linux")]
        {
            let confined = crate::cell::Confined {
                program: self.program.file.clone(),
                read: vec![self.program.folder.clone()],
                write: vec![self.extract.clone(), own.to_owned()],
            };
            if let Some(command) = confined.command() {
                return command;
            }
        }
        tracing::warn!(source = %self.program.source, "a connector program is run without confinement");
        let mut command = Command::new(&self.program.file);
        command.env_clear();
        command
    }

    /// Logs the end of what it said.
    fn log(&self, told: &std::fs::File) {
        let secrets: Vec<&Secret> = self.variables.iter().map(|(_, secret)| secret).collect();
        if let Ok(text) = tail(told, &secrets)
            && !text.is_empty()
        {
            tracing::info!(source = %self.program.source, "a connector program said: {text}");
        }
    }
}

/// The end of a text without these secrets, one that the end cuts in two among them.
fn tail(mut told: &std::fs::File, secrets: &[&Secret]) -> std::io::Result<String> {
    use std::io::{Read, Seek, SeekFrom};
    let longest = secrets.iter().map(|secret| secret.expose().len()).max().unwrap_or(0);
    let start = told.metadata()?.len().saturating_sub((TOLD + longest) as u64);
    let mut text = Vec::new();
    told.seek(SeekFrom::Start(start))?;
    told.take((TOLD + longest) as u64).read_to_end(&mut text)?;
    let text = secrets.iter().fold(String::from_utf8_lossy(&text).into_owned(), |text, secret| secret.scrub(&text));
    // What it begins with may be the rest of a secret.
    let unsure = if start > 0 { longest } else { 0 };
    let from = text.char_indices().map(|(at, _)| at).skip(unsure).find(|at| at + TOLD >= text.len());
    Ok(text[from.unwrap_or(text.len())..].to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_end_of_a_text_holds_no_part_of_a_secret() {
        let (long, short) = (Secret::new("long-and-žluťoučký-secret"), Secret::new("tiny"));
        let said = |text: &str| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            tail(&file, &[&short, &long]).unwrap()
        };
        assert_eq!(said(""), "");
        assert_eq!(said("begin tiny end"), "begin *** end");
        // Wherever the end begins: nothing of what stands before the dots is seen.
        for dots in TOLD - 40..TOLD + 80 {
            let told = said(&format!("{}{}{}", "x".repeat(99), long.expose(), ".".repeat(dots)));
            assert!(told.len() <= TOLD && told.len() + 80 > TOLD, "{}", told.len());
            assert_eq!(told.trim_start_matches(['x', '*', '.']), "", "{dots}");
        }
        let told = said(&"long-and-žluťoučký-secret\n".repeat(999));
        assert!(!told.is_empty() && told.trim_start_matches(['*', '\n']).is_empty(), "{told}");
    }
}
