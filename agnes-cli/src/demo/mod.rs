//! `agnes demo`: the whole walk on real data, with every step checked.

mod data;
mod steps;

use std::io::{self, Write};
use std::time::{Duration, Instant};

use agnes_core::Engine;
use agnes_core::connector::Progress;
use agnes_core::local::{Caller, Door, Verb};
use agnes_core::rbac::ClientKind;

use crate::args::{DemoArgs, Global};
use crate::failure::{Failure, Outcome};
use crate::output::Output;

/// Between two steps, so that one can read along.
const PAUSE: Duration = Duration::from_millis(900);

/// Runs the demo.
pub(crate) async fn run(out: Output, global: &Global, args: &DemoArgs) -> Outcome {
    let place = data::Place::new(args.dir.as_deref(), args.keep).map_err(|e| match e.kind() {
        io::ErrorKind::DirectoryNotEmpty => {
            Failure::usage_hint("the demo's folder is not empty", "give a new or empty folder")
        }
        _ => Failure::file("make the demo's folder", &e),
    })?;
    let started = Instant::now();
    let data_folder = place.data();
    let door = Door::hold(move || Ok(Engine::builder(&data_folder).connectors(agnes_connectors::builtin()))).await?;
    let demo = Demo {
        // One document is promised: what is told on the way goes unsaid.
        silent: out.json || global.quiet,
        out,
        paced: out.terminal && !args.once && !out.json && !global.quiet,
        caller: Caller::owner(ClientKind::Cli),
        door,
        place,
    };
    let result = steps::walk(&demo, args.keep).await;
    let closed = demo.door.close().await;
    let report = result?;
    closed?;
    let report = serde_json::json!({"ok": true, "seconds": started.elapsed().as_secs_f64(), "steps": report});
    out.show(&report, |to| {
        if !global.quiet {
            let seconds = started.elapsed().as_secs_f64();
            writeln!(
                to,
                "\nEvery step did what it says, in {seconds:.1} s.{}",
                if args.keep { "" } else { " Nothing is left behind." }
            )?;
        }
        Ok(())
    })
}

/// What the steps share.
struct Demo {
    out: Output,
    silent: bool,
    paced: bool,
    caller: Caller,
    door: Door,
    place: data::Place,
}

impl Demo {
    async fn call<V: Verb>(&self, verb: V) -> Outcome<V::Reply> {
        Ok(self.door.call(verb, &self.caller, Progress::default()).await?)
    }

    /// Says what the next step is about.
    async fn step(&self, number: usize, title: &str) -> Outcome {
        if self.paced && number > 1 {
            tokio::time::sleep(PAUSE).await;
        }
        self.say(&format!("\n{}", self.out.bold(&format!("{number}. {title}"))))
    }

    /// Shows the command that would do the same.
    fn command(&self, line: &str) -> Outcome {
        self.say(&self.out.dim(&format!("   $ {line}")))
    }

    fn say(&self, line: &str) -> Outcome {
        self.print(|to| Ok(writeln!(to, "{line}")?))
    }

    fn print(&self, print: impl FnOnce(&mut dyn Write) -> Outcome) -> Outcome {
        if self.silent {
            return Ok(());
        }
        let mut to = io::stdout().lock();
        print(&mut to)?;
        Ok(to.flush()?)
    }
}

/// A step must have done what it says.
fn ensure(done: bool, what: impl FnOnce() -> String) -> Outcome {
    if done { Ok(()) } else { Err(Failure::Demo { message: format!("the demo did not do what it says: {}", what()) }) }
}
