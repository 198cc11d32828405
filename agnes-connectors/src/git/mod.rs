//! Repositories of git, read by the program `git` where the server runs.
//!
//! An address is one that an admin entered, so the rules of [`outbound`](crate::outbound) hold: `https` alone
//! (`http` for hosts that the operator names), addresses that were checked and no other, no redirect, no
//! proxy. The program gets an environment of its own: no configuration, no helper and no hook of this
//! machine, no prompt, no other transport. A token reaches it by a variable that a helper reads, for this
//! host alone; it is in no argument, no address and no file.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agnes_core::duck::blocking;
use agnes_core::initial::{Fetched, Repositories, Wanted};
use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process_group};
use url::Url;

use crate::outbound::Outbound;

/// How long everything may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often a program is looked at.
const LOOK: Duration = Duration::from_millis(20);
/// Most bytes that a repository may take on the disk.
const MOST: u64 = 512 << 20;
/// Of what the program says this much is read.
const TOLD: u64 = 8192;
/// The variable with the token.
const TOKEN: &str = "AGNES_GIT_TOKEN";
/// Says who asks, with the token of that variable; services of repositories take any name beside it.
const HELPER: &str =
    "!f() { test \"$1\" = get && printf 'username=x-access-token\\npassword=%s\\n' \"$AGNES_GIT_TOKEN\"; }; f";

/// Reads repositories by the program `git`.
#[derive(Debug, Clone)]
pub struct Git {
    outbound: Outbound,
    /// Certificates to trust instead of the system's.
    ca_file: Option<PathBuf>,
    patience: Duration,
}

impl Git {
    /// Asks as these rules allow, and trusts the certificates of `SSL_CERT_FILE` where it is set.
    #[must_use]
    pub fn new(outbound: Outbound, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let ca_file = env("SSL_CERT_FILE").filter(|file| !file.is_empty()).map(PathBuf::from);
        Self { outbound, ca_file, patience: PATIENCE }
    }

    /// The same for the engine.
    #[must_use]
    pub fn shared(self) -> Arc<dyn Repositories> {
        Arc::new(self)
    }
}

#[async_trait]
impl Repositories for Git {
    async fn fetch(&self, wanted: &Wanted, scratch: &Path, archive: &Path) -> Result<Fetched, String> {
        let url = Url::parse(&wanted.url).map_err(|_| "its address is none".to_owned())?;
        let addresses = self.outbound.addresses_of(&url).await.map_err(|error| error.to_string())?;
        let run = Run {
            wanted: wanted.clone(),
            url,
            addresses: addresses.iter().map(ToString::to_string).collect(),
            ca_file: self.ca_file.clone(),
            scratch: scratch.to_owned(),
            archive: archive.to_owned(),
            deadline: Instant::now() + self.patience,
        };
        blocking(move || Ok(run.fetch())).await.map_err(|error| error.to_string())?
    }
}

/// One repository that is read.
struct Run {
    wanted: Wanted,
    url: Url,
    /// Where its host is, where it is a name that was checked.
    addresses: Vec<String>,
    ca_file: Option<PathBuf>,
    scratch: PathBuf,
    archive: PathBuf,
    deadline: Instant,
}

impl Run {
    fn fetch(&self) -> Result<Fetched, String> {
        let version = self.git(&["version"], None)?;
        if !is_new_enough(&version) {
            return Err("`git` 2.37 or newer is needed where the server runs".to_owned());
        }
        let repository = self.scratch.to_string_lossy().into_owned();
        let mut clone = vec!["clone", "--quiet", "--bare", "--depth=1", "--single-branch", "--no-tags"];
        clone.extend(["--no-recurse-submodules", "--template="]);
        if let Some(branch) = &self.wanted.branch {
            clone.extend(["--branch", branch]);
        }
        clone.extend(["--", self.wanted.url.as_str(), &repository]);
        self.git(&clone, None)?;
        let commit = self.git(&["rev-parse", "--verify", "--quiet", "HEAD^{commit}"], Some(&repository))?;
        let folder = format!("HEAD:{}", self.wanted.folder);
        let has_folder =
            self.git(&["cat-file", "-t", &folder], Some(&repository)).is_ok_and(|kind| kind.trim() == "tree");
        if has_folder {
            let output = format!("--output={}", self.archive.display());
            self.git(&["archive", "--format=tar", &output, "HEAD", self.wanted.folder], Some(&repository))?;
        }
        Ok(Fetched { commit: commit.trim().to_owned(), has_folder })
    }

    /// Runs the program to its end; what it wrote. Else its last complaint, in its words.
    fn git(&self, arguments: &[&str], repository: Option<&str>) -> Result<String, String> {
        let failed = |_| "`git` cannot be run where the server runs".to_owned();
        let parent = self.scratch.parent().unwrap_or(Path::new("."));
        let (said, told) =
            (tempfile::tempfile_in(parent).map_err(failed)?, tempfile::tempfile_in(parent).map_err(failed)?);
        let mut command = Command::new("git");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()));
        command.env("HOME", parent).env("LANG", "C.UTF-8").env("GIT_CONFIG_NOSYSTEM", "1");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "true");
        command.env("GIT_ATTR_NOSYSTEM", "1").env("GIT_ALLOW_PROTOCOL", self.url.scheme());
        if let Some(file) = &self.ca_file {
            command.env("GIT_SSL_CAINFO", file);
        }
        if let Some(token) = &self.wanted.token {
            command.env(TOKEN, token.expose());
        }
        if let Some(repository) = repository {
            command.arg(format!("--git-dir={repository}"));
        }
        for (name, value) in self.settings() {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command.args(arguments).current_dir(parent).stdin(Stdio::null());
        command.stdout(said.try_clone().map_err(failed)?).stderr(told.try_clone().map_err(failed)?).process_group(0);
        let mut child = command.spawn().map_err(failed)?;
        let group = Pid::from_child(&child);
        let (mut looked, mut too_large) = (Instant::now(), false);
        let status = loop {
            if let Some(status) = child.try_wait().map_err(failed)? {
                break Some(status);
            }
            if looked.elapsed() > Duration::from_secs(1) {
                looked = Instant::now();
                too_large = self.takes() > MOST;
            }
            if too_large || Instant::now() >= self.deadline {
                break None;
            }
            std::thread::sleep(LOOK);
        };
        // Whatever it started ends with it.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait();
        match status {
            Some(status) if status.success() => Ok(text_of(said)),
            Some(_) => Err(self.complaint(&text_of(told))),
            None if too_large => Err("it is larger than 512 MiB".to_owned()),
            None => Err("it took longer than five minutes".to_owned()),
        }
    }

    /// Bytes of what came and of what was made of it.
    fn takes(&self) -> u64 {
        size_of(&self.scratch) + self.archive.metadata().map_or(0, |meta| meta.len())
    }

    /// Settings of one run.
    fn settings(&self) -> Vec<(String, String)> {
        let fixed = [
            ("http.followRedirects", "false"),
            ("http.proxy", ""),
            ("http.lowSpeedLimit", "1"),
            ("http.lowSpeedTime", "60"),
            ("credential.helper", ""),
            ("core.hooksPath", "/dev/null"),
            ("core.fsmonitor", "false"),
            ("core.askPass", ""),
            ("transfer.fsckObjects", "true"),
            ("fetch.recurseSubmodules", "false"),
            ("gc.auto", "0"),
        ];
        let mut settings: Vec<(String, String)> =
            fixed.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if self.wanted.token.is_some() {
            let origin = self.url.origin().ascii_serialization();
            settings.push((format!("credential.{origin}.helper"), HELPER.to_owned()));
        }
        if let (Some(host), Some(port)) = (self.url.host_str(), self.url.port_or_known_default())
            && !self.addresses.is_empty()
        {
            settings.push(("http.curloptResolve".to_owned(), format!("{host}:{port}:{}", self.addresses.join(","))));
        }
        settings
    }

    /// The line that says what went wrong, without secrets and paths.
    fn complaint(&self, told: &str) -> String {
        let lines = || told.lines().map(str::trim).filter(|line| !line.is_empty());
        let line =
            lines().find(|line| line.starts_with("fatal:") || line.starts_with("error:")).or(lines().next_back());
        let line = line.unwrap_or("git says nothing").trim_start_matches("fatal: ").trim_start_matches("error: ");
        let line = line.replace(&*self.scratch.to_string_lossy(), "the repository");
        let line = self.scratch.parent().map_or(line.clone(), |parent| line.replace(&*parent.to_string_lossy(), "…"));
        self.wanted.token.as_ref().map_or(line.clone(), |token| token.scrub(&line))
    }
}

fn text_of(mut file: File) -> String {
    let mut bytes = Vec::new();
    let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(TOLD).read_to_end(&mut bytes));
    if read.is_ok() { String::from_utf8_lossy(&bytes).into_owned() } else { String::new() }
}

fn size_of(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten().filter_map(|entry| entry.metadata().ok());
    files.filter(std::fs::Metadata::is_file).map(|meta| meta.len()).sum()
}

/// Whether it connects to addresses that it is told, which 2.37 was the first to do.
fn is_new_enough(version: &str) -> bool {
    let mut numbers = version.split(|c: char| !c.is_ascii_digit()).filter_map(|piece| piece.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(2), Some(37))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use agnes_core::secret::Secret;

    use super::*;

    fn run() -> Run {
        Run {
            wanted: Wanted {
                url: "https://git.example.com:8443/a.git".to_owned(),
                branch: None,
                token: Some(Secret::new("s3cret")),
                folder: "workspace",
            },
            url: Url::parse("https://git.example.com:8443/a.git").unwrap(),
            addresses: vec!["203.0.113.7".to_owned(), "2001:db8::7".to_owned()],
            ca_file: None,
            scratch: PathBuf::from("/srv/data/tmp/x/git"),
            archive: PathBuf::from("/srv/data/tmp/x/tree.tar"),
            deadline: Instant::now(),
        }
    }

    #[test]
    fn a_complaint_has_no_secret_and_no_path() {
        let told =
            "Cloning\nfatal: unable to access 'https://git.example.com/': s3cret in /srv/data/tmp/x/git/objects\n";
        let complaint = run().complaint(told);
        assert_eq!(complaint, "unable to access 'https://git.example.com/': *** in the repository/objects");
        assert_eq!(run().complaint(""), "git says nothing");
    }

    #[test]
    fn a_token_is_for_its_host_and_in_no_argument() {
        let settings = run().settings();
        let of = |name: &str| settings.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        assert_eq!(of("credential.https://git.example.com:8443.helper"), Some(HELPER));
        assert_eq!(of("http.curloptResolve"), Some("git.example.com:8443:203.0.113.7,2001:db8::7"));
        assert!(settings.iter().all(|(_, value)| !value.contains("s3cret")));
    }

    #[test]
    fn versions_are_compared_by_number() {
        for (version, enough) in [
            ("git version 2.39.5", true),
            ("git version 2.37.0 (Apple Git-1)", true),
            ("git version 2.9.1", false),
            ("3.0", true),
            ("", false),
        ] {
            assert_eq!(is_new_enough(version), enough, "{version}");
        }
    }
}
