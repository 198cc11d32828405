//! `agnes query` without a query: a shell on a terminal, else statements from standard input.

mod complete;
mod meta;
mod pager;
mod relations;

use std::io::{self, BufRead as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use agnes_core::query::Query;
use agnes_core::sandbox::{says_something, statement_end};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{CompletionType, Config, Editor};

use self::complete::Assistant;
use self::pager::Pager;
use self::relations::Relations;
use super::query;
use crate::app::App;
use crate::args::{Format, QueryArgs};
use crate::failure::{Failure, Outcome};
use crate::output::batches;
use crate::output::text::{duration, plural};
use crate::place;

/// How many entries of history are kept.
const REMEMBERED: usize = 10_000;

/// What a line led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// The next one.
    GoOn,
    /// No other.
    End,
}

/// What can be switched while it runs.
#[derive(Debug, Clone)]
struct Settings {
    format: Format,
    /// Most rows of an answer; none for all.
    limit: Option<usize>,
    timing: bool,
    pager: bool,
}

struct Shell {
    app: Arc<App>,
    args: Arc<QueryArgs>,
    relations: Arc<Relations>,
    settings: Settings,
}

/// Asks what is typed, or what comes.
pub(super) async fn run(app: &Arc<App>, args: QueryArgs) -> Outcome {
    let is_talk = args.opens_shell();
    let format = query::format(app, &args)?;
    let settings = Settings { format, limit: query::most_rows(&args), timing: false, pager: is_talk };
    let args = Arc::new(args);
    let relations = Arc::new(Relations::new(app, &args)?);
    let mut shell = Shell { app: app.clone(), args, relations, settings };
    if is_talk { shell.talk().await } else { shell.read().await }
}

/// Whether a line is for the shell itself, not SQL.
fn is_meta(line: &str) -> bool {
    let line = line.trim();
    line.starts_with('\\') || matches!(line.trim_end_matches(';'), "exit" | "quit")
}

impl Shell {
    /// Statements of standard input, up to its end or the first that fails.
    async fn read(&mut self) -> Outcome {
        let (mut text, mut is_asked) = (String::new(), false);
        loop {
            let line = tokio::task::spawn_blocking(|| {
                let mut line = String::new();
                io::stdin().lock().read_line(&mut line).map(|read| (read > 0).then_some(line))
            });
            let line = line.await.map_err(io::Error::other).and_then(|line| line);
            let line = line.map_err(|e| Failure::file("read standard input", &e))?;
            let is_end = line.is_none();
            let line = line.unwrap_or_default();
            if is_meta(&line) && !says_something(&text) {
                self.require_no_machine(&line)?;
                text.clear();
                is_asked = true;
                if self.command(&line).await? == Next::End {
                    return Ok(());
                }
                continue;
            }
            text.push_str(&line);
            // Else it ends no sooner than before: long ones are not read again at every line.
            while line.contains(';')
                && let Some(end) = statement_end(&text)
            {
                let statement: String = text.drain(..end).collect();
                if says_something(&statement) {
                    self.require_one_file(is_asked)?;
                    is_asked = true;
                    self.ask(&statement).await?;
                }
            }
            if is_end {
                break;
            }
        }
        if says_something(&text) {
            self.require_one_file(is_asked)?;
            return self.ask(&text).await;
        }
        if is_asked {
            return Ok(());
        }
        Err(Failure::usage_hint("there is no query", "`agnes query 'select 1'`, or statements on standard input"))
    }

    /// Commands of the shell answer people: `--json` promises a document a line and nothing else.
    fn require_no_machine(&self, line: &str) -> Outcome {
        if !self.app.out.json || matches!(line.trim().trim_end_matches(';'), "exit" | "quit" | "\\q") {
            return Ok(());
        }
        let hint = "`show tables` and `describe orders` answer in JSON";
        Err(Failure::usage_hint("commands of the shell are for people, not for `--json`", hint))
    }

    /// Formats that are one file for one answer.
    fn require_one_file(&self, is_second: bool) -> Outcome {
        if !is_second || !matches!(self.settings.format, Format::Parquet | Format::Arrow) {
            return Ok(());
        }
        Err(Failure::usage_hint("this format holds the rows of one statement", "ask each by itself, with `--output`"))
    }

    /// Talks to whoever sits at the terminal.
    async fn talk(&mut self) -> Outcome {
        let tables = self.relations.list().await?.len();
        self.app.out.note(&format!(
            "{}: {}; `\\?` lists commands, Ctrl-D ends",
            self.relations,
            plural(tables, "table")
        ));
        let config = Config::builder()
            .max_history_size(REMEMBERED)
            .and_then(|config| config.history_ignore_dups(true))
            .map_err(wrong)?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .build();
        let remembered = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, remembered).map_err(wrong)?;
        editor.set_helper(Some(Assistant::new(self.relations.clone())));
        let history = self.history();
        if let Some(folder) = history.parent() {
            make_private(folder).map_err(|e| Failure::file("make the folder of the history", &e))?;
        }
        // There may be none yet.
        let _ = editor.load_history(&history);
        loop {
            // Its thread may wait for keys as long as it likes.
            let typing = tokio::task::spawn_blocking(move || {
                let line = editor.readline("agnes> ");
                (editor, line)
            });
            let (back, line) = typing.await.map_err(io::Error::other)?;
            editor = back;
            let line = match line {
                Ok(line) => line,
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => return Ok(()),
                Err(error) => return Err(wrong(error)),
            };
            if line.trim().is_empty() {
                continue;
            }
            if editor.add_history_entry(&line).unwrap_or(false) && editor.append_history(&history).is_err() {
                self.app.out.warn("the history cannot be written");
            }
            if self.act(&line).await == Next::End {
                return Ok(());
            }
        }
    }

    /// In the workspace where its files are asked, else with what is kept of the sign-in.
    fn history(&self) -> PathBuf {
        let workspace = place::here().ok().filter(|_| self.relations.is_in_workspace());
        let folder = workspace.map_or_else(|| self.app.account.folder().to_owned(), |workspace| workspace.own());
        folder.join("query_history")
    }

    /// Does what was typed, and tells what went wrong with it. Ctrl-C ends that, not the shell.
    async fn act(&mut self, line: &str) -> Next {
        let out = self.app.out;
        let done = tokio::select! {
            done = self.all_of(line) => done,
            _ = tokio::signal::ctrl_c() => Err(Failure::Interrupted),
        };
        done.unwrap_or_else(|failure| {
            out.failure(&failure);
            Next::GoOn
        })
    }

    async fn all_of(&mut self, line: &str) -> Outcome<Next> {
        if is_meta(line) {
            return self.command(line).await;
        }
        let mut rest = line;
        while says_something(rest) {
            let (statement, after) = rest.split_at(statement_end(rest).unwrap_or(rest.len()));
            if says_something(statement) {
                self.ask(statement).await?;
            }
            rest = after;
        }
        Ok(Next::GoOn)
    }

    /// Asks one statement, and shows its rows.
    async fn ask(&self, sql: &str) -> Outcome {
        let started = Instant::now();
        let mut asked = Query::new(sql.trim().trim_end_matches(';'));
        asked.limit = self.settings.limit;
        let mut rows = query::rows_of(&self.app, asked, &self.args).await?;
        let schema = rows.schema();
        let mut out = self.pager();
        let written = batches::write(self.app.out, self.settings.format, &mut rows, &mut out).await;
        let took = started.elapsed();
        let shown = out.finish();
        let written = match written {
            // Whoever leaves the pager has seen enough.
            Err(Failure::PipeClosed) if self.settings.pager => return Ok(()),
            written => written?,
        };
        shown?;
        let more =
            if self.settings.pager { "`\\limit N` gives more, `\\limit 0` all" } else { "`--limit 0` gives all" };
        query::remark(&self.app, &schema, written, self.settings.format, more);
        if self.settings.timing {
            self.app.out.note(&format!("time: {}", duration(u64::try_from(took.as_millis()).unwrap_or(u64::MAX))));
        }
        Ok(())
    }

    fn pager(&self) -> Pager {
        Pager::new(self.settings.pager)
    }
}

/// A folder that nobody else reads, where there is none yet.
fn make_private(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}

/// What the terminal itself said no to.
fn wrong(error: ReadlineError) -> Failure {
    Failure::file("use the terminal", &io::Error::other(error))
}
