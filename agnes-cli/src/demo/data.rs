//! The demo's files, carried inside the binary. Licence and origin: `demo-data/README.md`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

macro_rules! file {
    ($name:literal) => {
        include_bytes!(concat!("../../demo-data/", $name))
    };
}

/// Files by their place in the source's folder.
const FIRST: [(&str, &[u8]); 6] = [
    ("flights/2013-01.csv.gz", file!("flights-2013-01.csv.gz")),
    ("flights/2013-02.csv.gz", file!("flights-2013-02.csv.gz")),
    ("airlines.csv.gz", file!("airlines.csv.gz")),
    ("airports.csv.gz", file!("airports.csv.gz")),
    ("planes.csv.gz", file!("planes.csv.gz")),
    ("weather.csv.gz", file!("weather.csv.gz")),
];

/// The file that arrives later.
const LATER: (&str, &[u8]) = ("flights/2013-03.csv.gz", file!("flights-2013-03.csv.gz"));

/// Rows of each table after the first sync.
pub(super) const ROWS: [(&str, u64); 5] =
    [("airlines", 16), ("airports", 1_458), ("flights", 51_955), ("planes", 3_322), ("weather", 6_463)];

/// Rows of the flights in March.
pub(super) const MARCH_ROWS: u64 = 28_834;

/// Writes the first files below `folder`.
pub(super) fn write_first(folder: &Path) -> io::Result<()> {
    FIRST.iter().try_for_each(|file| write(folder, file))
}

/// Writes the file of March below `folder`.
pub(super) fn write_later(folder: &Path) -> io::Result<()> {
    write(folder, &LATER)
}

fn write(folder: &Path, (name, bytes): &(&str, &[u8])) -> io::Result<()> {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap_or(folder))?;
    fs::write(path, bytes)
}

/// The demo's folder; gone when this is dropped, unless it is kept.
#[derive(Debug)]
pub(super) struct Place {
    root: PathBuf,
    made: bool,
    keep: bool,
}

impl Place {
    /// `dir`, which must be new or empty, or a new folder in the system's temporary folder.
    pub(super) fn new(dir: Option<&Path>, keep: bool) -> io::Result<Self> {
        let Some(dir) = dir else {
            let root = tempfile::Builder::new().prefix("agnes-demo-").tempdir()?.keep();
            return Ok(Self { root, made: true, keep });
        };
        let root = std::path::absolute(dir)?;
        let made = !root.exists();
        fs::create_dir_all(&root)?;
        if fs::read_dir(&root)?.next().is_some() {
            return Err(io::Error::new(io::ErrorKind::DirectoryNotEmpty, "the folder is not empty"));
        }
        Ok(Self { root, made, keep })
    }

    /// Where the source's files are.
    pub(super) fn files(&self) -> PathBuf {
        self.root.join("files")
    }

    /// The data folder.
    pub(super) fn data(&self) -> PathBuf {
        self.root.join("data")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        for folder in [self.files(), self.data()] {
            let _ = fs::remove_dir_all(folder);
        }
        if self.made {
            let _ = fs::remove_dir(&self.root);
        }
    }
}
