//! How far the engine has read the files of one statement.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use crate::watch::Watch;

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

/// Calls `tell` with the bytes of input read so far, whenever there are more, until what is
/// returned is dropped; none where no file is worth it.
pub(crate) fn watch(mut files: Vec<Watched>, tell: impl Fn(u64) + Send + 'static) -> Option<Watch> {
    if files.is_empty() {
        return None;
    }
    let mut told = 0;
    Watch::start(EVERY, move || {
        look(&mut files);
        let now = files.iter().map(Watched::done).sum();
        if now > told {
            told = now;
            tell(now);
        }
        ControlFlow::Continue(())
    })
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
