//! Data on standard output, talk on standard error.

pub(crate) mod batches;
pub(crate) mod chart;
pub(crate) mod progress;
pub(crate) mod text;

use std::io::{self, BufRead, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use comfy_table::{Attribute, Cell, CellAlignment, ColumnConstraint, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::args::{Color, Global};
use crate::failure::{Failure, Outcome};

const HINT: Style = AnsiColor::Cyan.on_default();
const ERROR: Style = AnsiColor::Red.on_default().bold();
const WARNING: Style = AnsiColor::Yellow.on_default().bold();
const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();

/// Where output goes and what it looks like.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
    pub(crate) quiet: bool,
    /// Standard output is a terminal.
    pub(crate) terminal: bool,
    /// Standard output takes colour.
    pub(crate) color: bool,
    talk_terminal: bool,
    talk_color: bool,
}

impl Output {
    pub(crate) fn new(global: &Global) -> Self {
        let (terminal, talk_terminal) = (io::stdout().is_terminal(), io::stderr().is_terminal());
        let auto = std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        let (color, talk_color) = match global.color {
            Color::Auto => (auto && terminal, auto && talk_terminal),
            Color::Always => (true, true),
            Color::Never => (false, false),
        };
        Self { json: global.json, quiet: global.quiet, terminal, color, talk_terminal, talk_color }
    }

    /// Whether progress bars may be drawn.
    pub(crate) fn bars(self) -> bool {
        self.talk_terminal && !self.quiet
    }

    /// Whether somebody is there to answer.
    pub(crate) fn can_ask(self) -> bool {
        self.talk_terminal && io::stdin().is_terminal()
    }

    /// Asks a yes-or-no question.
    pub(crate) fn ask(self, question: &str) -> io::Result<bool> {
        let mut talk = io::stderr().lock();
        write!(talk, "{question}")?;
        talk.flush()?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer)?;
        Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
    }

    /// `text` in `style`, on standard output.
    pub(crate) fn style(self, style: Style, text: &str) -> String {
        if self.color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// `text` in bold, on standard output.
    pub(crate) fn bold(self, text: &str) -> String {
        self.style(BOLD, text)
    }

    /// `text` in the background, on standard output.
    pub(crate) fn dim(self, text: &str) -> String {
        self.style(DIM, text)
    }

    /// Prints `value` as JSON, or as `human` prints it.
    pub(crate) fn show<T: Serialize + ?Sized>(
        self,
        value: &T,
        human: impl FnOnce(&mut dyn Write) -> Outcome,
    ) -> Outcome {
        let mut out = io::BufWriter::new(io::stdout().lock());
        if self.json {
            serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            human(&mut out)?;
        }
        out.flush()?;
        Ok(())
    }

    /// Tells that a command has done its work: `value` as JSON, or one line of talk.
    pub(crate) fn done<T: Serialize + ?Sized>(self, value: &T, message: &str) -> Outcome {
        if self.json {
            return self.show(value, |_| Ok(()));
        }
        self.note(message);
        Ok(())
    }

    /// A line of talk, unless `--quiet`.
    pub(crate) fn note(self, message: &str) {
        if !self.quiet {
            self.talk(message);
        }
    }

    /// A warning.
    pub(crate) fn warn(self, message: &str) {
        self.talk(&format!("{} {message}", self.talk_style(WARNING, "warning:")));
    }

    /// One thing to try, unless `--quiet`.
    pub(crate) fn hint(self, hint: &str) {
        if !self.quiet {
            self.talk(&format!("{} {hint}", self.talk_style(HINT, "hint:")));
        }
    }

    /// Says why a command failed. With `--json` as one JSON object on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        let Some((message, code, hint)) = failure.tell() else { return };
        if self.json {
            let facts = match failure {
                Failure::Engine(error) => error.facts(),
                _ => None,
            };
            let error = serde_json::json!({"error": {"code": code, "message": message, "hint": hint, "facts": facts}});
            self.talk(&error.to_string());
            return;
        }
        self.talk(&format!("{} {message}", self.talk_style(ERROR, "error:")));
        if let Some(hint) = hint {
            self.talk(&format!("{} {hint}", self.talk_style(HINT, "hint:")));
        }
    }

    fn talk_style(self, style: Style, text: &str) -> String {
        if self.talk_color { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }

    /// Nobody may be listening any more: then there is nobody to tell.
    fn talk(self, line: &str) {
        let _ = writeln!(io::stderr().lock(), "{line}");
    }

    /// Width of the terminal on standard output.
    pub(crate) fn width(self) -> Option<u16> {
        if self.terminal { Table::new().width() } else { None }
    }

    /// An empty table: framed on a terminal, aligned columns when piped.
    pub(crate) fn table(self) -> Table {
        let mut table = Table::new();
        if self.terminal {
            table.load_style(presets::UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
            if let Some(width) = self.width() {
                table.set_width(width);
            }
        } else {
            table.load_style(presets::NOTHING);
        }
        // Colour is decided here, not by the table.
        if self.color {
            table.enforce_styling()
        } else {
            table.force_no_tty()
        };
        table
    }

    /// Whether so many columns fit side by side on the terminal; else there is a line for each field.
    pub(crate) fn fits(self, columns: usize) -> bool {
        self.width().is_none_or(|width| columns * 6 <= usize::from(width))
    }

    /// Prints one row as a line for each field.
    pub(crate) fn record(
        self,
        out: &mut dyn Write,
        number: u64,
        names: &[impl AsRef<str>],
        values: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> io::Result<()> {
        let width = names.iter().map(|name| name.as_ref().chars().count()).max().unwrap_or(0);
        writeln!(out, "{}", self.bold(&format!("-- record {number}")))?;
        for (name, value) in names.iter().zip(values) {
            writeln!(out, "{:<width$}  {}", name.as_ref(), value.as_ref())?;
        }
        Ok(())
    }

    /// Prints rows under a header; columns named in `right` are numbers. A column without a
    /// name is left out when nothing is in it.
    pub(crate) fn grid<C: Into<Cell>>(
        self,
        out: &mut dyn Write,
        header: &[&str],
        right: &[&str],
        rows: Vec<Vec<C>>,
    ) -> Outcome {
        let rows: Vec<Vec<Cell>> = rows.into_iter().map(|row| row.into_iter().map(Into::into).collect()).collect();
        if !self.fits(header.len()) {
            for (row, number) in rows.iter().zip(1..) {
                self.record(out, number, header, row.iter().map(Cell::content))?;
            }
            return Ok(());
        }
        let mut table = self.table();
        table.set_header(header.iter().map(|name| Cell::new(name).add_attribute(Attribute::Bold)));
        for (index, name) in header.iter().enumerate() {
            let empty = rows.iter().all(|row| row.get(index).is_none_or(|cell| cell.content().is_empty()));
            if let Some(column) = table.column_mut(index) {
                if right.contains(name) {
                    column.set_cell_alignment(CellAlignment::Right);
                }
                if !self.terminal {
                    column.set_padding((0, 2));
                }
                if name.is_empty() && empty {
                    column.set_constraint(ColumnConstraint::Hidden);
                }
            }
        }
        table.add_rows(rows);
        for line in table.lines() {
            writeln!(out, "{}", line.trim_end())?;
        }
        Ok(())
    }
}
