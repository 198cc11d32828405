//! How far the engine has read the files of one statement.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Smaller files are read in one or two gulps: there is nothing to tell in between.
const SMALLEST: u64 = 64 << 20;
const EVERY: Duration = Duration::from_millis(200);

/// A file that is read from its start to its end.
#[derive(Debug)]
pub(crate) struct Watched {
    /// The open file, by device and inode.
    id: (u64, u64),
    /// Its length now, which may be unpacked.
    length: u64,
    /// Bytes of input it stands for.
    input: u64,
    /// The furthest place it was seen at.
    at: u64,
}

impl Watched {
    /// The file at `path`, which stands for `input` bytes; none where it is too small to watch
    /// or the system does not tell.
    #[cfg(target_os = "linux")]
    pub(crate) fn new(path: &Path, input: u64) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).ok()?;
        (meta.len() >= SMALLEST).then(|| Self { id: (meta.dev(), meta.ino()), length: meta.len(), input, at: 0 })
    }

    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new(_path: &Path, _input: u64) -> Option<Self> {
        None
    }

    fn done(&self) -> u64 {
        let share = u128::from(self.at.min(self.length)) * u128::from(self.input) / u128::from(self.length.max(1));
        u64::try_from(share).unwrap_or(self.input)
    }
}

/// Tells how far files are read until dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Calls `tell` with the bytes of input read so far, whenever there are more.
    pub(crate) fn start(mut files: Vec<Watched>, tell: impl Fn(u64) + Send + 'static) -> Option<Self> {
        if files.is_empty() {
            return None;
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let look = move || {
            let mut told = 0;
            while !stopped.load(Ordering::SeqCst) {
                look(&mut files);
                let now = files.iter().map(Watched::done).sum();
                if now > told {
                    told = now;
                    tell(now);
                }
                std::thread::park_timeout(EVERY);
            }
        };
        let thread = std::thread::Builder::new().name("agnes-watch".to_owned()).spawn(look).ok()?;
        Some(Self { stop, thread: Some(thread) })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            drop(thread.join());
        }
    }
}

/// Asks the system where this process's open files stand.
#[cfg(target_os = "linux")]
fn look(files: &mut [Watched]) {
    use std::os::unix::fs::MetadataExt;
    for entry in std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten() {
        let Ok(meta) = std::fs::metadata(entry.path()) else { continue };
        let Some(file) = files.iter_mut().find(|file| file.id == (meta.dev(), meta.ino())) else { continue };
        let info = Path::new("/proc/self/fdinfo").join(entry.file_name());
        let text = std::fs::read_to_string(info).unwrap_or_default();
        let place = text.lines().find_map(|line| line.strip_prefix("pos:")?.trim().parse().ok());
        file.at = file.at.max(place.unwrap_or(0));
    }
}

#[cfg(not(target_os = "linux"))]
fn look(_files: &mut [Watched]) {}
