//! Commands of the shell itself: a backslash, a word, and what it is about.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use clap::ValueEnum as _;
use futures::future::BoxFuture;

use super::{Next, Shell};
use crate::args::Format;
use crate::failure::{Failure, Outcome};
use crate::output::text::{bytes, count, or_dash, plural, safe};

/// Commands, what follows them, and what they do.
pub(super) const COMMANDS: &[(&str, &str, &str)] = &[
    ("\\d", "[TABLE]", "list the tables, or the columns of one"),
    ("\\dt", "[PATTERN]", "list the tables whose name fits, such as `ord*`"),
    ("\\l", "", "list the sources"),
    ("\\f", "[FORMAT]", "how rows are shown: table, expanded, csv, json, ndjson"),
    ("\\x", "", "one field a line, or a table again"),
    ("\\limit", "[N]", "at most so many rows of an answer; 0 for all"),
    ("\\timing", "[on|off]", "say how long each query took"),
    ("\\pager", "[on|off]", "show what does not fit the screen by PAGER, else `less`"),
    ("\\i", "FILE", "ask the statements of a file"),
    ("\\conninfo", "", "say what is asked"),
    ("\\?", "", "list these commands"),
    ("\\q", "", "end, as Ctrl-D does"),
];

/// Whether `name` fits a pattern of letters and `*`; without `*`, whether it holds it.
fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_lowercase(), pattern.to_lowercase());
    if !pattern.contains('*') {
        return name.contains(&pattern);
    }
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn switched(now: bool, word: &str) -> Outcome<bool> {
    match word {
        "" => Ok(!now),
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(Failure::usage("this is switched `on` or `off`")),
    }
}

/// A table as somebody wrote it: perhaps in quotes.
fn unquoted(table: &str) -> String {
    match table.strip_prefix('"').and_then(|table| table.strip_suffix('"')) {
        Some(inner) => inner.replace("\"\"", "\""),
        None => table.to_owned(),
    }
}

impl Shell {
    /// Does a command of the shell.
    pub(super) async fn command(&mut self, line: &str) -> Outcome<Next> {
        let line = line.trim().trim_end_matches(';').trim_end();
        let (name, word) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let word = word.trim();
        match name {
            "\\q" | "exit" | "quit" => return Ok(Next::End),
            "\\?" | "\\h" | "\\help" => self.help()?,
            "\\d" if word.is_empty() => self.tables("").await?,
            "\\d" | "\\d+" => self.columns(&unquoted(word)).await?,
            "\\dt" | "\\dt+" => self.tables(word).await?,
            "\\l" => self.sources().await?,
            "\\x" => self.expand(word)?,
            "\\f" | "\\format" => self.format(word)?,
            "\\timing" => {
                self.settings.timing = switched(self.settings.timing, word)?;
                self.app.out.note(if self.settings.timing { "timing is on" } else { "timing is off" });
            }
            "\\pager" => {
                self.settings.pager = switched(self.settings.pager, word)?;
                self.app.out.note(if self.settings.pager { "the pager is on" } else { "the pager is off" });
            }
            "\\limit" => self.limit(word)?,
            "\\conninfo" => self.app.out.note(&format!("asking {}", self.relations)),
            "\\i" if !word.is_empty() => self.file(word).await?,
            _ => {
                let what = format!("`{}` is no command of the shell", safe(name));
                return Err(Failure::usage_hint(what, "`\\?` lists them"));
            }
        }
        Ok(Next::GoOn)
    }

    fn help(&self) -> Outcome {
        let mut out = self.pager();
        for (name, argument, what) in COMMANDS {
            writeln!(out, "{:<20}  {what}", format!("{name} {argument}"))?;
        }
        writeln!(
            out,
            "\nA query ends with `;` and may go over several lines. Ctrl-C gives up what is typed or asked."
        )?;
        Ok(out.finish()?)
    }

    async fn tables(&self, pattern: &str) -> Outcome {
        let tables = self.relations.list().await?;
        let rows = tables.iter().filter(|table| fits(&table.name, pattern)).map(|table| {
            vec![
                safe(&table.name),
                table.mode.to_owned(),
                safe(&or_dash(table.source.as_deref())),
                table.rows.map_or_else(|| "-".to_owned(), count),
                table.size_bytes.map_or_else(|| "-".to_owned(), bytes),
                safe(&table.description),
            ]
        });
        let mut out = self.pager();
        let header = ["TABLE", "MODE", "SOURCE", "ROWS", "SIZE", ""];
        self.app.out.grid(&mut out, &header, &["ROWS", "SIZE"], rows.collect())?;
        Ok(out.finish()?)
    }

    async fn columns(&self, table: &str) -> Outcome {
        let columns = self.relations.columns(table).await?;
        let rows = columns.iter().map(|c| vec![safe(&c.name), safe(&c.data_type), safe(&c.description)]);
        let mut out = self.pager();
        self.app.out.grid(&mut out, &["COLUMN", "TYPE", ""], &[], rows.collect())?;
        Ok(out.finish()?)
    }

    async fn sources(&self) -> Outcome {
        let mut sources: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for table in self.relations.list().await? {
            let source = table.source.unwrap_or_else(|| table.mode.to_owned());
            let (tables, size) = sources.entry(source).or_default();
            *tables += 1;
            *size += table.size_bytes.unwrap_or_default();
        }
        let rows = sources.iter().map(|(name, (tables, size))| vec![safe(name), count(*tables), bytes(*size)]);
        let mut out = self.pager();
        self.app.out.grid(&mut out, &["SOURCE", "TABLES", "SIZE"], &["TABLES", "SIZE"], rows.collect())?;
        Ok(out.finish()?)
    }

    fn expand(&mut self, word: &str) -> Outcome {
        let is_expanded = switched(self.settings.format == Format::Expanded, word)?;
        self.settings.format = if is_expanded { Format::Expanded } else { Format::Table };
        self.app.out.note(if is_expanded { "one field a line" } else { "rows as a table" });
        Ok(())
    }

    fn format(&mut self, word: &str) -> Outcome {
        if !word.is_empty() {
            let format = Format::from_str(word, true).ok();
            let format = format.filter(|format| !matches!(format, Format::Parquet | Format::Arrow));
            self.settings.format = format.ok_or_else(|| {
                let hint = "table, expanded, csv, json and ndjson are; `agnes query --output` writes the others";
                Failure::usage_hint(format!("`{}` is nothing to show rows in", safe(word)), hint)
            })?;
        }
        let name = self.settings.format.to_possible_value();
        self.app.out.note(&format!("rows are shown as {}", name.as_ref().map_or("", |name| name.get_name())));
        Ok(())
    }

    fn limit(&mut self, word: &str) -> Outcome {
        if !word.is_empty() {
            let limit: usize = word.parse().map_err(|_| Failure::usage("this is a number of rows, 0 for all"))?;
            self.settings.limit = Some(limit).filter(|limit| *limit > 0);
        }
        match self.settings.limit {
            Some(limit) => self.app.out.note(&format!("at most {} of an answer", plural(limit as u64, "row"))),
            None => self.app.out.note("all rows of an answer"),
        }
        Ok(())
    }

    /// Boxed: a file may name another one.
    fn file<'a>(&'a mut self, file: &'a str) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let text = std::fs::read_to_string(Path::new(file))
                .map_err(|e| Failure::file(&format!("read `{}`", safe(file)), &e))?;
            self.all_of(&text).await.map(drop)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_names() {
        for (name, pattern) in [
            ("orders", ""),
            ("orders", "ord"),
            ("Orders", "RDE"),
            ("orders", "o*s"),
            ("orders", "*"),
            ("a_b_c", "a*b*c"),
        ] {
            assert!(fits(name, pattern), "{name} {pattern}");
        }
        for (name, pattern) in [("orders", "x"), ("orders", "r*"), ("orders", "*r"), ("orders", "o*x*s")] {
            assert!(!fits(name, pattern), "{name} {pattern}");
        }
    }
}
