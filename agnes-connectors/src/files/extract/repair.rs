//! What can be done about text that breaks the rules of its format.

use agnes_core::duck::ScratchDb;
use agnes_core::error::{Error, Result};

use super::Run;
use crate::files::formats::csv::{self, Dialect};
use crate::files::formats::{self, Inspected, Reader};
use crate::files::{engine_words, rejects};

impl Run<'_> {
    /// Lets text through that breaks the rules of the format but can be understood.
    pub(super) fn loosen(&mut self, unit: &[usize], error: &Error) -> bool {
        if !engine_words::is_plain(error.code()) || !engine_words::words(error).contains("invalid state") {
            return false;
        }
        let mut loosened = false;
        for index in unit {
            if let Some(dialect) = self.dialect(*index)
                && dialect.strict
            {
                dialect.strict = false;
                loosened = true;
            }
        }
        if loosened {
            self.notes.push("line ends or quotes are not regular; the file was read leniently".to_owned());
        }
        loosened
    }

    /// Reads files of JSON lines again without lines that cannot be read, such as those with a
    /// key twice; whether there are any.
    pub(super) fn take_out_bad_lines(&mut self, db: &ScratchDb, unit: &[usize], error: &Error) -> Result<bool> {
        if !engine_words::is_plain(error.code()) {
            return Ok(false);
        }
        let mut again = false;
        for index in unit {
            let file = &mut self.read[*index];
            let Some(Inspected { reader: Reader::Structured { path, lines: true, .. }, .. }) = &file.found else {
                continue;
            };
            if let Some(found) = formats::json::repair(db, &file.entry, path, *index, &self.source.cancel)? {
                file.found = Some(found);
                again = true;
            }
        }
        Ok(again)
    }

    /// Takes lines out whose quote is never closed, and allows long lines; whether to read again.
    pub(super) fn repair(&mut self, db: &ScratchDb, unit: &[usize]) -> Result<bool> {
        let mut again = false;
        for index in unit {
            let Some(path) = self.read[*index].ready.clone() else { continue };
            let rejected = rejects::look(db, &path)?;
            let cancel = self.source.cancel.clone();
            let Some(dialect) = self.dialect(*index) else { continue };
            if rejected.too_long && !dialect.long_lines {
                dialect.long_lines = true;
                again = true;
            }
            if !rejected.unclosed.is_empty() {
                let round = dialect.cut.len();
                let target = db.folder().join(format!("cut-{index}-{round}.csv"));
                let lines = csv::cut_lines(&path, &target, &rejected.unclosed, &cancel)?;
                again |= !lines.is_empty();
                let gone: Vec<u64> = dialect.cut.iter().map(|(line, _)| *line).collect();
                let (numbers, texts): (Vec<_>, Vec<_>) = lines.into_iter().unzip();
                dialect.cut.extend(csv::original_lines(numbers, &gone).into_iter().zip(texts));
                dialect.cut.sort_unstable();
                if path.starts_with(db.folder()) {
                    let _ = std::fs::remove_file(&path);
                }
                self.read[*index].ready = Some(target);
            }
        }
        Ok(again)
    }

    pub(super) fn dialect(&mut self, index: usize) -> Option<&mut Dialect> {
        match self.read.get_mut(index)?.found.as_mut().map(|found| &mut found.reader) {
            Some(Reader::Csv { dialect, .. }) => Some(dialect),
            _ => None,
        }
    }
}
