//! The archives that a server offers.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::version::{compare, is_version, platform};
use super::{DistributionError, sha256_of};
use crate::duck::blocking;
use crate::error::{Error, Result};

/// The installer, with places for what differs.
const INSTALLER: &str = include_str!("install.sh");

/// One archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Artifact {
    /// `linux` or `macos`.
    pub os: String,
    /// `x64` or `arm64`.
    pub arch: String,
    /// Its name.
    pub filename: String,
    /// Where it is at this server.
    pub download_url_path: String,
    /// SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// How long it is.
    pub size_bytes: u64,
}

/// What is offered: the newest version that is in the folder.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Offer {
    /// Of the archives; none where there are none.
    pub version: Option<String>,
    /// One for each kind of computer.
    pub artifacts: Vec<Artifact>,
}

impl Offer {
    /// The archive for one kind of computer, of which not everything may be known.
    ///
    /// # Errors
    /// `cli_not_offered`, `platform_unknown`.
    pub fn artifact_for(&self, os: Option<&str>, arch: Option<&str>) -> Result<&Artifact> {
        let known = |text: Option<&str>, of: fn(&str) -> Option<&'static str>| text.map(|text| of(text).unwrap_or(""));
        let os = known(os, |os| platform(os, "").0);
        let arch = known(arch, |arch| platform("", arch).1);
        if self.artifacts.is_empty() {
            return Err(DistributionError::NotOffered.into());
        }
        let fits = |one: &&Artifact| os.is_none_or(|os| os == one.os) && arch.is_none_or(|arch| arch == one.arch);
        let mut fitting = self.artifacts.iter().filter(fits);
        match (fitting.next(), fitting.next(), os.or(arch)) {
            (None, ..) => Err(DistributionError::NotOffered.into()),
            (Some(one), None, Some(_)) => Ok(one),
            _ => {
                let choices = self.artifacts.iter().map(|one| format!("os={}&arch={}", one.os, one.arch)).collect();
                Err(DistributionError::PlatformUnknown { choices }.into())
            }
        }
    }
}

/// What is known of a file: length, time of change, hash.
type Known = HashMap<PathBuf, (u64, SystemTime, String)>;

/// A folder of archives. Cheap to clone; a file is read again when it changed.
#[derive(Debug, Clone)]
pub struct Distribution {
    folder: PathBuf,
    known: Arc<Mutex<Known>>,
}

impl Distribution {
    /// The archives in this folder, which need not be there.
    #[must_use]
    pub fn in_folder(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), known: Arc::default() }
    }

    /// The newest version there is. An archive that is not what the file beside it says is left
    /// out, and the log says so.
    ///
    /// # Errors
    /// I/O errors.
    pub async fn offer(&self) -> Result<Offer> {
        let this = self.clone();
        blocking(move || this.look()).await
    }

    fn look(&self) -> Result<Offer> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
                return Ok(Offer::default());
            }
            Err(e) => return Err(Error::io("read the folder of archives", e)),
        };
        let mut all = Vec::new();
        for entry in entries {
            let entry = entry.map_err(|e| Error::io("read the folder of archives", e))?;
            let name = entry.file_name();
            let Some((version, os, arch)) = name.to_str().and_then(parts) else { continue };
            all.push((version.to_owned(), os, arch, entry.path()));
        }
        let newest = all.iter().map(|(version, ..)| version.clone()).max_by(|one, other| compare(one, other));
        let Some(version) = newest else { return Ok(Offer::default()) };
        let mut artifacts = Vec::new();
        for (_, os, arch, path) in all.into_iter().filter(|(of, ..)| *of == version) {
            let Some((sha256, size_bytes)) = self.checked(&path)? else { continue };
            let filename = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let download_url_path = format!("/cli/artifact/{filename}");
            let (os, arch) = (os.to_owned(), arch.to_owned());
            artifacts.push(Artifact { os, arch, filename, download_url_path, sha256, size_bytes });
        }
        artifacts.sort_by(|one, other| one.filename.cmp(&other.filename));
        let version = Some(version).filter(|_| !artifacts.is_empty());
        Ok(Offer { version, artifacts })
    }

    /// Hash and length of an archive that is what the file beside it says.
    fn checked(&self, path: &Path) -> Result<Option<(String, u64)>> {
        let io = |e| Error::io("read an archive", e);
        let data = std::fs::metadata(path).map_err(io)?;
        if !data.is_file() {
            return Ok(None);
        }
        let changed = data.modified().map_err(io)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let held = known.get(path).filter(|(size, at, _)| (*size, *at) == (data.len(), changed));
        let sha256 = match held {
            Some((_, _, sha256)) => sha256.clone(),
            None => {
                let sha256 = sha256_of(path)?;
                known.insert(path.to_owned(), (data.len(), changed, sha256.clone()));
                sha256
            }
        };
        drop(known);
        let beside = std::fs::read_to_string(with_suffix(path, ".sha256")).unwrap_or_default();
        if beside.split_whitespace().next() != Some(sha256.as_str()) {
            tracing::warn!(archive = %path.display(), "an archive is not offered: the `.sha256` beside it is another's");
            return Ok(None);
        }
        Ok(Some((sha256, data.len())))
    }

    /// The file of an archive that is offered now, by its exact name.
    ///
    /// # Errors
    /// `cli_not_offered`.
    pub async fn artifact(&self, filename: &str) -> Result<(Artifact, PathBuf)> {
        let offer = self.offer().await?;
        let found = offer.artifacts.into_iter().find(|one| one.filename == filename);
        let found = found.ok_or(DistributionError::NotOffered)?;
        let path = self.folder.join(&found.filename);
        Ok((found, path))
    }

    /// A script for `sh` that installs what is offered, from the server at `origin`.
    ///
    /// # Errors
    /// `cli_not_offered`, also where the origin is not one that may be in a script.
    pub async fn installer(&self, origin: &str) -> Result<String> {
        let offer = self.offer().await?;
        let version = offer.version.filter(|_| is_plain_origin(origin)).ok_or(DistributionError::NotOffered)?;
        let choices = offer.artifacts.iter().map(|one| {
            format!("    {}-{}) file={} sha256={} ;;\n", one.os, one.arch, quoted(&one.filename), quoted(&one.sha256))
        });
        let choices: String = choices.collect();
        let script = INSTALLER.replace("@ORIGIN@", &quoted(origin)).replace("@VERSION@", &quoted(&version));
        Ok(script.replace("@CHOICES@", choices.trim_end_matches('\n')))
    }
}

/// Version, system and processor of an archive's name.
fn parts(name: &str) -> Option<(&str, &'static str, &'static str)> {
    let stem = name.strip_prefix("agnes-")?.strip_suffix(".tar.gz")?;
    let mut pieces = stem.rsplitn(3, '-');
    let (arch, os, version) = (pieces.next()?, pieces.next()?, pieces.next()?);
    let (Some(known_os), Some(known_arch)) = platform(os, arch) else { return None };
    (known_os == os && known_arch == arch && is_version(version)).then_some((version, known_os, known_arch))
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether an origin holds nothing but what addresses are made of, from beginning to end.
pub(crate) fn is_plain_origin(origin: &str) -> bool {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let plain = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'~' | b':' | b'/' | b'[' | b']')
    };
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain))
}

/// A word of `sh`, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn put(folder: &Path, name: &str, content: &str) {
        std::fs::write(folder.join(name), content).unwrap();
        let sha256 = sha256_of(&folder.join(name)).unwrap();
        std::fs::write(folder.join(format!("{name}.sha256")), format!("{sha256}  {name}\n")).unwrap();
    }

    #[tokio::test]
    async fn the_newest_whole_version_is_offered() {
        let folder = tempfile::tempdir().unwrap();
        let offered = Distribution::in_folder(folder.path());
        assert_eq!(Distribution::in_folder(folder.path().join("no")).offer().await.unwrap(), Offer::default());
        assert_eq!(offered.offer().await.unwrap().version, None);
        assert_eq!(offered.installer("https://a").await.unwrap_err().code(), "cli_not_offered");
        for name in
            ["agnes-0.9.0-linux-x64.tar.gz", "agnes-0.10.0-linux-x64.tar.gz", "agnes-0.10.0-rc.1-linux-x64.tar.gz"]
        {
            put(folder.path(), name, name);
        }
        for name in ["agnes-9.0.0-plan9-x64.tar.gz", "agnes-9.0.0-linux-x86_64.tar.gz", "agnes-'9-linux-x64.tar.gz"] {
            put(folder.path(), name, "x");
        }
        let offer = offered.offer().await.unwrap();
        assert_eq!((offer.version.as_deref(), offer.artifacts.len()), (Some("0.10.0"), 1));
        for (os, arch, code) in [
            (Some("Linux"), Some("x86_64"), None),
            (Some("linux"), None, None),
            (Some("darwin"), None, Some("cli_not_offered")),
            (Some("plan9"), Some("x64"), Some("cli_not_offered")),
            (None, None, Some("platform_unknown")),
        ] {
            let told = offer.artifact_for(os, arch).err().map(|error| error.code().to_owned());
            assert_eq!(told.as_deref(), code, "{os:?} {arch:?}");
        }
        for name in ["agnes-0.9.0-linux-x64.tar.gz", "../etc/passwd", "agnes-0.10.0-linux-x64.tar.gz.sha256"] {
            assert_eq!(offered.artifact(name).await.unwrap_err().code(), "cli_not_offered", "{name}");
        }
        let script = offered.installer("https://agnes.example.com:8443").await.unwrap();
        assert!(script.contains("'https://agnes.example.com:8443'") && script.contains("'0.10.0'"), "{script}");
        assert!(script.contains(&offer.artifacts[0].sha256) && !script.contains('@'), "{script}");
        for evil in ["https://a'$(x)", "https://a\n", "javascript:x", "https://", "https://a b", "https://a\0"] {
            assert_eq!(offered.installer(evil).await.unwrap_err().code(), "cli_not_offered", "{evil:?}");
        }
        std::fs::write(folder.path().join("agnes-0.10.0-linux-x64.tar.gz"), "something else").unwrap();
        assert_eq!(offered.offer().await.unwrap().version, None, "it is not what the file beside it says");
    }
}
