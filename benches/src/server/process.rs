//! `agnes serve` and nginx as processes of their own.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Fallible;

/// The command, beside this program.
pub(super) fn binary() -> Fallible<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("agnes");
    if path.exists() { Ok(path) } else { Err("`agnes` is not beside this program: start it by `make bench`".into()) }
}

/// A server on a data folder.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
}

impl Server {
    /// Starts it; serving has begun when this returns.
    pub(super) fn start(folder: &Path) -> Fallible<Self> {
        let mut child = Command::new(binary()?)
            .args(["serve", "--bind", "127.0.0.1:0", "--data-dir"])
            .arg(folder)
            .current_dir(folder)
            .envs([("AGNES_AUTH_RATELIMIT_ENABLED", "0"), ("AGNES_MAX_QUERY_ROWS", "1000000")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no standard error")?);
        let (mut line, mut seen) = (String::new(), String::new());
        let address = loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                return Err(format!("the server ended: {seen}").into());
            }
            seen += &line;
            if let Some((_, address)) = line.trim().split_once("Serving on http://") {
                break address.parse()?;
            }
        };
        // Its log is written as in production, and read.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        Ok(Self { child, address })
    }

    /// Waits until it answers queries.
    pub(super) async fn ready(self) -> Fallible<Self> {
        let patience = Instant::now() + Duration::from_secs(60);
        while !answers(self.address, "/readyz") {
            if Instant::now() > patience {
                return Err("the server never got ready".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(self)
    }

    /// Proportional set size of the server itself, without its workers, in MiB.
    pub(super) fn memory_mib(&self) -> Fallible<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let kib = text.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
        Ok(kib.trim().trim_end_matches("kB").trim().parse::<u64>()? / 1024)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // In good order, so that its workers end and the folder can be deleted.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// Whether a path is answered with 200.
pub(super) fn answers(address: SocketAddr, path: &str) -> bool {
    use std::io::Write as _;
    let Ok(mut stream) = TcpStream::connect(address) else { return false };
    let mut status = [0; 12];
    write!(stream, "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n").is_ok()
        && stream.read_exact(&mut status).is_ok()
        && status.ends_with(b"200")
}

/// nginx on a folder of files: at one address without `sendfile`, at the other with it.
pub(super) struct Nginx {
    child: Child,
    _folder: tempfile::TempDir,
    pub(super) copying: SocketAddr,
    pub(super) sending: SocketAddr,
}

impl Nginx {
    /// Starts it; nothing where it is not installed.
    pub(super) fn start(files: &Path) -> Fallible<Option<Self>> {
        let command = ["/usr/sbin/nginx", "/usr/bin/nginx", "/opt/homebrew/bin/nginx"];
        let Some(command) = command.into_iter().find(|path| Path::new(path).exists()) else { return Ok(None) };
        let folder = tempfile::tempdir()?;
        let free = || TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let (copying, sending) = (free()?, free()?);
        let (own, files) = (folder.path().display(), files.display());
        // Its workers would be somebody who may not read a folder of root.
        let is_root = std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0);
        let user = if is_root { "user root;" } else { "" };
        let config = format!(
            "{user} daemon off; worker_processes 2; pid {own}/pid; error_log {own}/log;\nevents {{}}\nhttp {{\n\
             access_log off; client_body_temp_path {own}/a; proxy_temp_path {own}/b; fastcgi_temp_path {own}/c;\n\
             uwsgi_temp_path {own}/d; scgi_temp_path {own}/e; root {files}; tcp_nodelay on; keepalive_requests 1000000;\n\
             server {{ listen {copying}; sendfile off; }}\n\
             server {{ listen {sending}; sendfile on; tcp_nopush on; }}\n}}\n"
        );
        std::fs::write(folder.path().join("nginx.conf"), config)?;
        let log = folder.path().join("log");
        let mut child = Command::new(command)
            .args(["-p".as_ref(), folder.path().as_os_str(), "-e".as_ref(), log.as_os_str(), "-c".as_ref()])
            .arg(folder.path().join("nginx.conf"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let patience = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(sending).is_err() {
            if Instant::now() > patience || child.try_wait()?.is_some() {
                return Err(format!("nginx does not start: {}", std::fs::read_to_string(log)?).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Some(Self { child, _folder: folder, copying, sending }))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
