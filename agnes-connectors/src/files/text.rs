//! Text as DuckDB can take it: compressed and differently encoded files are unpacked into
//! UTF-8 while streaming, with the checks DuckDB leaves out (it takes a gzip or zstd file
//! that was cut off for a complete one).

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use agnes_core::connector::Cancel;
use agnes_core::error::{Error, Result};
use encoding_rs::Encoding;
use encoding_rs_io::DecodeReaderBytesBuilder;

use super::error::FilesError;
use super::listing::FileEntry;

/// How the bytes of a file become text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Transport {
    compression: Compression,
    /// Set unless the text is UTF-8 already.
    encoding: Option<&'static Encoding>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Compression {
    None,
    Gzip,
    Zstd,
}

impl Transport {
    /// Looks at the first bytes of a file. `label` is the declared encoding.
    pub(crate) fn detect(entry: &FileEntry, label: Option<&str>) -> Result<Self> {
        let mut start = Vec::new();
        open(entry)?.take(4).read_to_end(&mut start).map_err(|e| FilesError::io(&entry.rel, &e))?;
        if start.is_empty() {
            return Err(FilesError::Empty { file: entry.rel.clone() }.into());
        }
        let compression = match start[..] {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
            _ => Compression::None,
        };
        let name = entry.rel.to_ascii_lowercase();
        for (ending, wanted, what) in [(".gz", Compression::Gzip, "gzip"), (".zst", Compression::Zstd, "zstd")] {
            if name.ends_with(ending) && compression != wanted {
                return Err(FilesError::damaged(&entry.rel, format!("its content is not {what}")).into());
            }
        }
        let mut transport = Self { compression, encoding: None };
        transport.encoding = match label.and_then(|label| Encoding::for_label(label.trim().as_bytes())) {
            Some(encoding) if encoding == encoding_rs::UTF_8 => None,
            Some(encoding) => Some(encoding),
            None => {
                let mut head = Vec::new();
                transport.reader(entry)?.take(2048).read_to_end(&mut head).map_err(|e| read_error(entry, &e))?;
                guess_utf16(&head)
            }
        };
        Ok(transport)
    }

    /// The same without a byte order mark, which DuckDB's JSON reader stumbles over.
    pub(crate) fn without_mark(mut self, entry: &FileEntry) -> Result<Self> {
        let mut head = Vec::new();
        self.reader(entry)?.take(3).read_to_end(&mut head).map_err(|e| read_error(entry, &e))?;
        if self.encoding.is_none() && head == b"\xef\xbb\xbf" {
            self.encoding = Some(encoding_rs::UTF_8);
        }
        Ok(self)
    }

    /// Whether DuckDB can read the file as it is.
    pub(crate) fn is_plain(self) -> bool {
        self.compression == Compression::None && self.encoding.is_none()
    }

    /// The text, from the start. A byte order mark is kept only where nothing is decoded.
    pub(crate) fn reader(self, entry: &FileEntry) -> Result<Box<dyn Read>> {
        let file = BufReader::with_capacity(1 << 18, open(entry)?);
        let bytes: Box<dyn Read> = match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
            Compression::Zstd => Box::new(zstd::Decoder::with_buffer(file).map_err(|e| read_error(entry, &e))?),
        };
        Ok(match self.encoding {
            None => bytes,
            Some(encoding) => Box::new(
                DecodeReaderBytesBuilder::new()
                    .encoding(Some(encoding))
                    .bom_override(true)
                    .strip_bom(true)
                    .build(bytes),
            ),
        })
    }

    /// Unpacks the file to `target`; how many characters could not be decoded.
    pub(crate) fn unpack(self, entry: &FileEntry, target: &Path, cancel: &Cancel) -> Result<u64> {
        let mut reader = self.reader(entry)?;
        let mut writer = BufWriter::with_capacity(1 << 18, create(target)?);
        let mut buffer = vec![0; 1 << 18];
        let mut replaced = 0;
        loop {
            cancel.check()?;
            let length = reader.read(&mut buffer).map_err(|e| read_error(entry, &e))?;
            if length == 0 {
                break;
            }
            if self.encoding.is_some() {
                replaced += buffer[..length].windows(3).filter(|w| *w == "\u{fffd}".as_bytes()).count() as u64;
            }
            writer.write_all(&buffer[..length]).map_err(scratch_error)?;
        }
        writer.flush().map_err(scratch_error)?;
        Ok(replaced)
    }
}

/// Opens a file of the source.
pub(crate) fn open(entry: &FileEntry) -> Result<File, FilesError> {
    File::open(&entry.path).map_err(|e| FilesError::io(&entry.rel, &e))
}

/// Makes a scratch file.
pub(crate) fn create(target: &Path) -> Result<File> {
    File::create(target).map_err(scratch_error)
}

pub(crate) fn scratch_error(cause: std::io::Error) -> Error {
    Error::io("write a scratch file", cause)
}

/// Failing to decompress is the file's fault, failing to read the system's.
pub(crate) fn read_error(entry: &FileEntry, cause: &std::io::Error) -> FilesError {
    use std::io::ErrorKind as K;
    match cause.kind() {
        K::UnexpectedEof => FilesError::damaged(&entry.rel, "its compressed content is cut off"),
        K::InvalidInput | K::InvalidData | K::Other => {
            FilesError::damaged(&entry.rel, "its compressed content is damaged")
        }
        _ => FilesError::io(&entry.rel, cause),
    }
}

/// A file under a name that holds nothing DuckDB would read as a pattern, in `folder`.
pub(crate) fn link(entry: &FileEntry, folder: &Path, name: &str) -> Result<PathBuf> {
    let link = folder.join(name);
    #[cfg(unix)]
    {
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(&entry.path, &link).map_err(|e| Error::io("link a file", e))?;
        Ok(link)
    }
    #[cfg(not(unix))]
    {
        let _ = link;
        Ok(entry.path.clone())
    }
}

fn guess_utf16(head: &[u8]) -> Option<&'static Encoding> {
    match head {
        [0xff, 0xfe, ..] => return Some(encoding_rs::UTF_16LE),
        [0xfe, 0xff, ..] => return Some(encoding_rs::UTF_16BE),
        _ => {}
    }
    // Without a mark: Latin text has a zero in every second byte.
    let zeros = |odd: usize| head.iter().skip(odd).step_by(2).filter(|byte| **byte == 0).count();
    let half = head.len() / 2;
    match half {
        0..4 => None,
        _ if zeros(1) > half * 7 / 10 && zeros(0) < half / 10 => Some(encoding_rs::UTF_16LE),
        _ if zeros(0) > half * 7 / 10 && zeros(1) < half / 10 => Some(encoding_rs::UTF_16BE),
        _ => None,
    }
}
