//! A real SMTP server, and the mails it took.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Where the tools of the tests are, or nothing and a loud line.
pub(crate) fn tools(wanted: &str) -> Option<PathBuf> {
    let given = std::env::var_os("AGNES_TEST_TOOLS").map(PathBuf::from);
    let beside =
        || std::env::var_os("AGNES_TEST_EXTENSIONS").map(|folder| PathBuf::from(folder).with_file_name("tools"));
    let folder =
        given.or_else(beside).unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.duckdb/tools"));
    if folder.join(wanted).exists() {
        return Some(folder);
    }
    assert!(std::env::var_os("AGNES_REQUIRE_COMPONENTS").is_none(), "{wanted} is missing");
    eprintln!("SKIPPED: {wanted} is missing; scripts/test-components.sh gets it");
    None
}

/// An SMTP server in a process of its own.
pub(crate) struct Mailbox {
    child: Child,
    folder: tempfile::TempDir,
    port: String,
    mode: &'static str,
}

impl Mailbox {
    /// Starts one that speaks `starttls`, `implicit` TLS or `none`.
    pub(crate) fn start(mode: &'static str) -> Option<Self> {
        let tools = tools("python/aiosmtpd")?;
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=DNS:localhost"])
            .args(["-keyout".as_ref(), key.as_os_str(), "-out".as_ref(), cert.as_os_str()])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut child = Command::new("python3")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/serve/smtp.py"))
            .arg(folder.path())
            .arg(mode)
            .args([&cert, &key])
            .env("PYTHONPATH", tools.join("python"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        assert!(!port.trim().is_empty(), "the SMTP server did not start");
        Some(Self { child, folder, port: port.trim().to_owned(), mode })
    }

    /// What a server needs to send through it.
    pub(crate) fn variables(&self, password: &str) -> Vec<(&'static str, String)> {
        let tls = match self.mode {
            "none" => "false",
            mode => mode,
        };
        vec![
            ("SMTP_HOST", "localhost".to_owned()),
            ("SMTP_PORT", self.port.clone()),
            ("SMTP_USE_TLS", tls.to_owned()),
            ("SMTP_USER", "agnes".to_owned()),
            ("SMTP_PASSWORD", password.to_owned()),
            ("SMTP_FROM", "agnes@acme.example".to_owned()),
            ("SSL_CERT_FILE", self.folder.path().join("cert.pem").to_string_lossy().into_owned()),
        ]
    }

    /// The mails so far, as text, once there are `count`.
    pub(crate) fn mails(&self, count: usize) -> Vec<String> {
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let mails = self.now();
            if mails.len() >= count {
                return mails;
            }
            assert!(Instant::now() < patience, "{} mails came instead of {count}", mails.len());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The mails so far.
    pub(crate) fn now(&self) -> Vec<String> {
        let mut names: Vec<PathBuf> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        names.sort();
        names.iter().map(|path| plain(&std::fs::read_to_string(path).unwrap())).collect()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for Mailbox {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A mail without the encoding of its lines: what the tests look for is ASCII.
fn plain(mail: &str) -> String {
    mail.replace("=\r\n", "").replace("=\n", "").replace("=3D", "=")
}

/// The link to this page in a mail.
pub(crate) fn link(mail: &str, page: &str) -> String {
    let start = mail.find(page).unwrap_or_else(|| panic!("no {page} in {mail}"));
    let from = mail[..start].rfind("http").unwrap();
    mail[from..].split_whitespace().next().unwrap().to_owned()
}
