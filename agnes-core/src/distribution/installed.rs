//! Versions on somebody's computer: each in a folder of its own, and a link that says which counts.
//!
//! ```text
//! versions/0.1.0-1f2e3d4c5b6a/{bin,lib,share}   named by version and hash of the archive
//! current -> versions/0.1.0-1f2e3d4c5b6a        what `~/.local/bin/agnes` leads through
//! previous -> versions/0.0.9-...                what a rollback goes back to
//! skip                                          a version that was rolled back from
//! ```
//!
//! `install.sh` makes the same. A kill at any moment leaves `current` at the old or the new version,
//! both whole.

use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read as _};
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{DistributionError, is_version, sha256_of};
use crate::error::{Error, Result};
use crate::extract::fsio::{fault_point, sync_folder, write_atomically};
use crate::file_lock::FileLock;

/// Longest archive that is unpacked, and longest it may become.
const LONGEST: u64 = 2 << 30;
/// How long a version may take to say which one it is.
const PATIENCE: Duration = Duration::from_secs(120);
/// What an install that runs is called.
const INCOMING: &str = ".incoming-";
/// What an archive that came in part is called, before its hash.
const PARTIAL: &str = ".partial-";

/// Where versions are installed. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    root: PathBuf,
}

/// A version that counts now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// Its version.
    pub version: String,
    /// Its program.
    pub program: PathBuf,
}

/// The right to change what is installed; one process has it.
#[derive(Debug)]
struct Turn(#[expect(dead_code, reason = "held for its lock")] FileLock);

impl Installation {
    /// The installation that a program is part of.
    ///
    /// # Errors
    /// `not_self_installed`.
    pub fn of_program(program: &Path) -> Result<Self> {
        let program = std::fs::canonicalize(program).map_err(|e| Error::io("find this program", e))?;
        let versions = program.ancestors().nth(3).filter(|folder| folder.ends_with("versions"));
        let root = versions.and_then(Path::parent).filter(|root| root.join("current").is_symlink());
        Ok(Self { root: root.ok_or(DistributionError::NotInstalled)?.to_owned() })
    }

    /// The version that counts.
    ///
    /// # Errors
    /// `not_self_installed`.
    pub fn current(&self) -> Result<Installed> {
        let folder = self.leads_to("current").ok_or(DistributionError::NotInstalled)?;
        Ok(self.installed(&folder))
    }

    /// The version that was rolled back from: it is not installed again unless somebody insists.
    #[must_use]
    pub fn skipped(&self) -> Option<String> {
        let text = std::fs::read_to_string(self.root.join("skip")).ok()?;
        Some(text.trim().to_owned()).filter(|text| is_version(text))
    }

    /// A place for the archive of this hash, with what came of it before; what is left of others is gone.
    ///
    /// # Errors
    /// `archive_corrupt` where this is no hash; `upgrade_running`, I/O errors.
    pub fn incoming(&self, sha256: &str) -> Result<Incoming> {
        if !is_sha256(sha256) {
            return Err(corrupt("its hash is none"));
        }
        let turn = self.turn()?;
        let partial = format!("{PARTIAL}{}", sha256.to_ascii_lowercase());
        for entry in std::fs::read_dir(&self.root).map_err(|e| Error::io("read the installation", e))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with(PARTIAL) && name != partial {
                let _ = std::fs::remove_file(entry.path());
            }
            if name.starts_with(INCOMING) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
        let folder = tempfile::Builder::new().prefix(INCOMING).tempdir_in(&self.root);
        let folder = folder.map_err(|e| Error::io("make a folder", e))?;
        let archive = self.root.join(partial);
        Ok(Incoming { installation: self.clone(), folder, archive, sha256: sha256.to_owned(), _turn: turn })
    }

    /// Goes back to the version before. It takes the place of what counts now, which is not
    /// installed again by itself.
    ///
    /// # Errors
    /// `nothing_to_roll_back_to`, `upgrade_running`, `archive_does_not_start`, I/O errors.
    pub fn roll_back(&self) -> Result<Installed> {
        let _turn = self.turn()?;
        let now = self.leads_to("current").ok_or(DistributionError::NotInstalled)?;
        let before =
            self.leads_to("previous").filter(|before| *before != now).ok_or(DistributionError::NothingBefore)?;
        let (from, to) = (self.installed(&now), self.installed(&before));
        starts(&to.program, &to.version)?;
        write_atomically(&self.root.join("skip"), from.version.as_bytes())?;
        self.point("current", &before)?;
        self.point("previous", &now)?;
        Ok(to)
    }

    fn turn(&self) -> Result<Turn> {
        let file = File::options().create(true).truncate(false).write(true).open(self.root.join("lock"));
        let file = file.map_err(|e| Error::io("lock the installation", e))?;
        match file.try_lock() {
            Ok(()) => Ok(Turn(FileLock::held(file))),
            Err(std::fs::TryLockError::WouldBlock) => Err(DistributionError::Busy.into()),
            Err(std::fs::TryLockError::Error(e)) => Err(Error::io("lock the installation", e)),
        }
    }

    /// The folder below `versions` that a link leads to, if it is there.
    fn leads_to(&self, link: &str) -> Option<String> {
        let to = std::fs::read_link(self.root.join(link)).ok()?;
        let name = to.strip_prefix("versions").ok()?.to_str()?.to_owned();
        let is_one = matches!(Path::new(&name).components().collect::<Vec<_>>()[..], [Component::Normal(_)]);
        (is_one && self.root.join(&to).is_dir()).then_some(name)
    }

    fn installed(&self, name: &str) -> Installed {
        let version = name.rsplit_once('-').map_or(name, |(version, _)| version).to_owned();
        Installed { version, program: self.root.join("versions").join(name).join("bin").join("agnes") }
    }

    /// Has a link lead to a version: the old link or the new one is there at any moment.
    fn point(&self, link: &str, name: &str) -> Result<()> {
        let (link, beside) = (self.root.join(link), self.root.join(format!(".{link}.{}", std::process::id())));
        let put = || -> std::io::Result<()> {
            match std::fs::remove_file(&beside) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            fault_point()?;
            std::os::unix::fs::symlink(Path::new("versions").join(name), &beside)?;
            fault_point()?;
            std::fs::rename(&beside, &link)
        };
        put().map_err(|e| Error::io("switch the version", e))?;
        sync_folder(&self.root)
    }

    /// Deletes versions that nothing leads to.
    fn tidy(&self) {
        let kept = [self.leads_to("current"), self.leads_to("previous")];
        for entry in std::fs::read_dir(self.root.join("versions")).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !kept.iter().flatten().any(|kept| *kept == name) {
                let _ = std::fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// An archive that is fetched. What came of it stays for the next try, unless it is another one.
#[derive(Debug)]
pub struct Incoming {
    installation: Installation,
    folder: tempfile::TempDir,
    archive: PathBuf,
    sha256: String,
    _turn: Turn,
}

impl Incoming {
    /// The archive, to write to its end, and how much of it is there.
    ///
    /// # Errors
    /// I/O errors.
    pub fn archive(&self) -> Result<(File, u64)> {
        let opened = File::options().create(true).append(true).open(&self.archive);
        let opened = opened.and_then(|file| Ok((file.metadata()?.len(), file)));
        opened.map(|(length, file)| (file, length)).map_err(|e| Error::io("keep the archive", e))
    }

    /// Installs the archive, if it has the hash that it was to have and what is in it says that it is this
    /// version.
    ///
    /// # Errors
    /// `archive_corrupt`, `archive_does_not_start`, I/O errors. Then nothing changed, and the next try begins
    /// anew.
    pub fn install(self, version: &str) -> Result<Installed> {
        let done = self.install_checked(version);
        let _ = std::fs::remove_file(&self.archive);
        done
    }

    fn install_checked(&self, version: &str) -> Result<Installed> {
        if !is_version(version) {
            return Err(corrupt("its version is none"));
        }
        let (this, archive, sha256) = (&self.installation, &self.archive, self.sha256.as_str());
        if !sha256_of(archive)?.eq_ignore_ascii_case(sha256) {
            return Err(corrupt("it has another SHA-256"));
        }
        let tree = self.folder.path().join("tree");
        unpack(archive, &tree)?;
        starts(&tree.join("bin").join("agnes"), version)?;
        let name = format!("{version}-{}", sha256[..12].to_ascii_lowercase());
        let place = this.root.join("versions").join(&name);
        let now = this.leads_to("current").ok_or(DistributionError::NotInstalled)?;
        if now != name {
            // What a killed install left, or somebody changed.
            match std::fs::remove_dir_all(&place) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("replace a version", e)),
                _ => {}
            }
            fault_point().and_then(|()| std::fs::rename(&tree, &place)).map_err(|e| Error::io("keep a version", e))?;
            sync_folder(&this.root.join("versions"))?;
            this.point("previous", &now)?;
            this.point("current", &name)?;
        }
        let _ = std::fs::remove_file(this.root.join("skip"));
        this.tidy();
        Ok(this.installed(&name))
    }
}

fn corrupt(what: &str) -> Error {
    DistributionError::Corrupt { what: what.to_owned() }.into()
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a program says that it is this version. It has to find its library by itself.
fn starts(program: &Path, version: &str) -> Result<()> {
    let failed = |what: String| Error::from(DistributionError::DoesNotStart { version: version.to_owned(), what });
    let started = Command::new(program)
        .arg("--version")
        .env_remove("LD_LIBRARY_PATH")
        .env_remove("DYLD_LIBRARY_PATH")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = started.map_err(|e| failed(e.kind().to_string()))?;
    let end = Instant::now() + PATIENCE;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(5)),
            _ => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(failed("it does not end".to_owned()));
            }
        }
    };
    let mut said = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = out.take(200).read_to_string(&mut said);
    }
    if !status.success() {
        return Err(failed(status.to_string()));
    }
    let said = crate::ident::printable(said.trim(), 80);
    if said == format!("agnes {version}") { Ok(()) } else { Err(failed(format!("it says `{said}`"))) }
}

/// Unpacks the one folder of an archive as `tree`: files and folders, nothing else, nowhere else.
fn unpack(archive: &Path, tree: &Path) -> Result<()> {
    let corrupt = |what: &str| Error::from(DistributionError::Corrupt { what: what.to_owned() });
    let io = |e| Error::io("unpack an archive", e);
    let unreadable = |_| corrupt("it cannot be unpacked");
    let file = File::open(archive).map_err(io)?;
    if file.metadata().map_err(io)?.len() > LONGEST {
        return Err(corrupt("it is too long"));
    }
    let mut entries = tar::Archive::new(flate2::read::GzDecoder::new(file).take(LONGEST));
    let mut folders = vec![tree.to_owned()];
    make_folder(tree).map_err(io)?;
    for entry in entries.entries().map_err(unreadable)? {
        let mut entry = entry.map_err(unreadable)?;
        let path = entry.path().map_err(unreadable)?.into_owned();
        if !path.components().all(|piece| matches!(piece, Component::Normal(_) | Component::CurDir)) {
            return Err(corrupt("a path in it leads out of it"));
        }
        let below: PathBuf = path.components().filter(|piece| matches!(piece, Component::Normal(_))).skip(1).collect();
        let to = tree.join(&below);
        match entry.header().entry_type() {
            tar::EntryType::Directory => {
                make_folder(&to).map_err(io)?;
                folders.push(to);
            }
            tar::EntryType::Regular if below.components().next().is_some() => {
                use std::os::unix::fs::OpenOptionsExt as _;
                make_folder(to.parent().unwrap_or(tree)).map_err(io)?;
                let runs = entry.header().mode().map_err(unreadable)? & 0o100 != 0;
                let mode = if runs { 0o755 } else { 0o644 };
                fault_point().map_err(io)?;
                let mut file = File::options().write(true).create_new(true).mode(mode).open(&to).map_err(io)?;
                std::io::copy(&mut entry, &mut file).map_err(|e| match e.kind() {
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded => io(e),
                    _ => corrupt("it cannot be unpacked"),
                })?;
                file.sync_all().map_err(io)?;
            }
            _ => return Err(corrupt("there is something in it that is no file")),
        }
    }
    folders.iter().try_for_each(|folder| sync_folder(folder))
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    DirBuilder::new().recursive(true).create(folder)
}

#[cfg(test)]
#[path = "installed_tests.rs"]
mod tests;
