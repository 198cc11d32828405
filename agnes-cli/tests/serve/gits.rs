//! A server of git repositories, by the program that comes with git: over HTTP, with a token, and with what
//! such servers do to clients that trust them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

/// A token that opens repositories below `private/`.
pub(crate) const GIT_TOKEN: &str = "a token of the git server";

pub(crate) struct Gits {
    folder: tempfile::TempDir,
    pub(crate) address: String,
    /// Heads of requests as they came.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
}

impl Gits {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, asked) = (format!("127.0.0.1:{}", listener.local_addr().unwrap().port()), Arc::default());
        let gits = Self { folder, address, asked };
        let (root, log) = (gits.folder.path().join("served"), gits.asked.clone());
        std::fs::create_dir_all(&root).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (root, log) = (root.clone(), log.clone());
                std::thread::spawn(move || answer(client, &root, &log));
            }
        });
        gits
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("http://{}/{name}", self.address)
    }

    fn work(&self, name: &str) -> PathBuf {
        self.folder.path().join("work").join(name)
    }

    fn git(&self, name: &str, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=Ann", "-c", "user.email=ann@example.com", "-c", "commit.gpgsign=false"])
            .args(["-c", "protocol.file.allow=always"])
            .args(arguments)
            .current_dir(self.work(name))
            .env("HOME", self.folder.path())
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Commits these files, and nothing else, to a repository; the commit.
    pub(crate) fn commit(&self, name: &str, files: &[(&str, &str)]) -> String {
        self.commit_with(name, |folder| {
            for (path, content) in files {
                let path = folder.join(path);
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, content).unwrap();
                if path.extension().is_some_and(|end| end == "sh") {
                    use std::os::unix::fs::PermissionsExt as _;
                    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
                }
            }
        })
    }

    /// Commits what is made in an empty folder; the commit.
    pub(crate) fn commit_with(&self, name: &str, make: impl FnOnce(&Path)) -> String {
        let work = self.work(name);
        if !work.join(".git").exists() {
            std::fs::create_dir_all(&work).unwrap();
            self.git(name, &["init", "--quiet", "--initial-branch=main"]);
        }
        for entry in std::fs::read_dir(&work).unwrap().flatten().filter(|entry| entry.file_name() != ".git") {
            let path = entry.path();
            let _ = std::fs::remove_dir_all(&path).or_else(|_| std::fs::remove_file(&path));
        }
        make(&work);
        self.git(name, &["add", "--all", "--force"]);
        self.git(name, &["commit", "--quiet", "--allow-empty", "-m", "x"]);
        let served = self.folder.path().join("served").join(name);
        std::fs::create_dir_all(served.parent().unwrap()).unwrap();
        let _ = std::fs::remove_dir_all(&served);
        self.git(name, &["clone", "--quiet", "--bare", ".", served.to_str().unwrap()]);
        self.git(name, &["rev-parse", "HEAD"])
    }

    /// A branch of a repository at its commit of now.
    pub(crate) fn branch(&self, name: &str, branch: &str) {
        self.git(name, &["branch", "--force", branch]);
    }
}

fn plain(client: &mut TcpStream, status: &str, more: &str) -> Option<()> {
    let head = format!("HTTP/1.1 {status}\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(head.as_bytes()).ok()
}

fn answer(mut client: TcpStream, root: &Path, log: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(client.try_clone().ok()?);
    let (mut head, mut headers) = (String::new(), BTreeMap::new());
    reader.read_line(&mut head).ok()?;
    let mut whole = head.clone();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        whole += &line;
        let (name, value) = line.split_once(':')?;
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    log.lock().unwrap().push(whole);
    let (method, target) = head.split_once(' ')?;
    let target = target.split(' ').next()?;
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    if path.starts_with("/moved") {
        // To where nobody meant to go.
        return plain(&mut client, "302 Found", &format!("Location: http://127.0.0.1:1{path}?{query}\r\n"));
    }
    if path.starts_with("/private/") {
        use base64::Engine as _;
        let given = headers.get("authorization").and_then(|value| value.strip_prefix("Basic "));
        let given = given.and_then(|text| base64::engine::general_purpose::STANDARD.decode(text).ok());
        let right = format!(":{GIT_TOKEN}").into_bytes();
        if !given.is_some_and(|given| given.ends_with(&right)) {
            return plain(&mut client, "401 Unauthorized", "WWW-Authenticate: Basic realm=\"git\"\r\n");
        }
    }
    let mut body = vec![0; headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0)];
    reader.read_exact(&mut body).ok()?;
    let mut program = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("GIT_CONFIG_COUNT", "1")
        .env("GIT_CONFIG_KEY_0", "safe.directory")
        .env("GIT_CONFIG_VALUE_0", "*")
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", headers.get("content-type").map_or("", String::as_str))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", headers.get("content-encoding").map_or("", String::as_str))
        .env("GIT_PROTOCOL", headers.get("git-protocol").map_or("", String::as_str))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut input = program.stdin.take()?;
    input.write_all(&body).ok()?;
    drop(input);
    let output = program.wait_with_output().ok()?.stdout;
    let end = output.windows(4).position(|part| part == b"\r\n\r\n")?;
    let told = String::from_utf8_lossy(&output[..end]).into_owned();
    let status = told.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK").to_owned();
    let rest: String =
        told.lines().filter(|line| !line.starts_with("Status:")).map(|line| format!("{line}\r\n")).collect();
    let body = &output[end + 4..];
    let head = format!("HTTP/1.1 {status}\r\n{rest}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    client.write_all(head.as_bytes()).ok()?;
    client.write_all(body).ok()
}
