//! The socket of a data folder, however long the folder's path is.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tokio::net::{UnixListener, UnixStream};

use crate::layout::DataFolder;

/// Longest path a socket address takes, with room for the final zero on every platform.
const MAX_SOCKET_PATH: usize = 100;

/// A short way to a folder, valid while this value lives.
#[derive(Debug)]
enum Way {
    Direct,
    #[cfg(target_os = "linux")]
    Descriptor(std::fs::File),
    #[cfg(not(target_os = "linux"))]
    Link(tempfile::TempDir),
}

impl Way {
    fn to(folder: &Path, file_name: &str) -> io::Result<Self> {
        if folder.join(file_name).as_os_str().len() <= MAX_SOCKET_PATH {
            return Ok(Self::Direct);
        }
        #[cfg(target_os = "linux")]
        return Ok(Self::Descriptor(std::fs::File::open(folder)?));
        #[cfg(not(target_os = "linux"))]
        {
            let dir = tempfile::tempdir_in("/tmp")?;
            std::os::unix::fs::symlink(std::path::absolute(folder)?, dir.path().join("s"))?;
            Ok(Self::Link(dir))
        }
    }

    fn path(&self, folder: &Path, file_name: &str) -> std::path::PathBuf {
        match self {
            Self::Direct => folder.join(file_name),
            #[cfg(target_os = "linux")]
            Self::Descriptor(file) => {
                use std::os::fd::AsRawFd;
                format!("/proc/self/fd/{}/{file_name}", file.as_raw_fd()).into()
            }
            #[cfg(not(target_os = "linux"))]
            Self::Link(dir) => dir.path().join("s").join(file_name),
        }
    }
}

/// Listens on the folder's socket. Only the holder of the lock may call it: a socket that a
/// killed holder left behind is replaced.
pub(super) fn bind(folder: &DataFolder) -> io::Result<UnixListener> {
    let state = folder.state_dir();
    let name = format!("holder.{}", std::process::id());
    let own = state.join(&name);
    match std::fs::remove_file(&own) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let way = Way::to(state, &name)?;
    let listener = std::os::unix::net::UnixListener::bind(way.path(state, &name))?;
    // The mode is set before the name is known to anybody.
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&own, folder.holder_socket())?;
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

/// Connects to the folder's socket.
pub(super) async fn connect(folder: &DataFolder) -> io::Result<UnixStream> {
    let socket = folder.holder_socket();
    let name = socket.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let way = Way::to(folder.state_dir(), &name)?;
    UnixStream::connect(way.path(folder.state_dir(), &name)).await
}

/// Whether the other end is a process of the same user.
pub(super) fn is_same_user(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == rustix::process::geteuid().as_raw())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    async fn check(folder: &DataFolder) {
        std::fs::create_dir_all(folder.state_dir()).unwrap();
        let listener = bind(folder).unwrap();
        let mode = std::fs::metadata(folder.holder_socket()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let (client, server) = tokio::join!(connect(folder), listener.accept());
        assert!(is_same_user(&client.unwrap()) && is_same_user(&server.unwrap().0));
        // What a killed holder leaves is replaced by the next one.
        drop(listener);
        assert_eq!(connect(folder).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        let listener = bind(folder).unwrap();
        let (client, server) = tokio::join!(connect(folder), listener.accept());
        client.unwrap();
        server.unwrap();
    }

    #[tokio::test]
    async fn short_and_very_long_paths() {
        let dir = tempfile::tempdir().unwrap();
        check(&DataFolder::new(dir.path())).await;
        check(&DataFolder::new(dir.path().join("x".repeat(120)).join("y".repeat(120)))).await;
    }
}
