//! `agnes skills`: guides that the command carries. `agnes onboarded`: who is on board.

use agnes_connectors::server::Call;
use agnes_core::skills;
use serde_json::json;

use crate::app::App;
use crate::args::{Onboarded, OnboardedArgs, SkillsCommand};
use crate::failure::{Failure, Outcome};

pub(super) fn skills(app: &App, command: &SkillsCommand) -> Outcome {
    match command {
        SkillsCommand::List => {
            let all = skills::ALL.each_ref();
            let listed = all.map(|skill| json!({"name": skill.name, "description": skill.description}));
            app.out.show(&listed, |out| {
                let rows = all.map(|skill| vec![skill.name, skill.description]).into();
                app.out.grid(out, &["NAME", "ABOUT"], &[], rows)
            })
        }
        SkillsCommand::Show { name } => {
            let Some(skill) = skills::named(name) else {
                let hint = format!("there are {}", skills::names());
                return Err(Failure::usage_hint(format!("there is no guide `{name}`"), hint));
            };
            app.out.show(&json!({"name": name, "content": skill.text}), |out| Ok(write!(out, "{}", skill.text)?))
        }
    }
}

pub(super) async fn onboarded(app: &App, args: OnboardedArgs) -> Outcome {
    let server = app.server()?;
    let on = match args.what {
        Onboarded::Status => {
            let me = server.ask(Call::get(&["api", "me", "profile"])).await?.body;
            let on = me["onboarded"] == true;
            let words = if on { "you are on board" } else { "you are not on board yet" };
            return app.out.show(&json!({"onboarded": on}), |out| Ok(writeln!(out, "{words}")?));
        }
        what => what == Onboarded::On,
    };
    let usual = if on { "self_acknowledged" } else { "self_unmark" };
    let body = json!({"source": args.source.as_deref().unwrap_or(usual), "onboarded": on});
    let answer = server.ask(Call::post(&["api", "me", "onboarded"], body)).await?.body;
    app.out.done(&answer, if on { "you are on board" } else { "you are not on board any more" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::*;
    use crate::args::Cli;

    /// What `agnes init` and the server write for assistants.
    const TEXTS: [(&str, &str); 7] = [
        ("claude.md", include_str!("../../../agnes-core/src/templates/claude.md")),
        ("setup.md", include_str!("../../../agnes-core/src/templates/setup.md")),
        ("assistant.md", include_str!("../../../agnes-core/src/workspace/texts/assistant.md")),
        ("workspace.md", include_str!("../../../agnes-core/src/workspace/texts/workspace.md")),
        ("notes.md", include_str!("../../../agnes-core/src/workspace/texts/notes.md")),
        ("agnes-private.md", include_str!("../../../agnes-core/src/workspace/texts/agnes-private.md")),
        ("analyst.md", include_str!("../../../docs/guides/analyst.md")),
    ];

    /// The command lines that a text names: between backticks, and as lines of code.
    fn lines_of(text: &str) -> Vec<String> {
        let (mut found, mut is_fenced) = (Vec::new(), false);
        for line in text.lines() {
            is_fenced ^= line.trim_start().starts_with("```");
            if is_fenced || line.starts_with("    ") {
                let line = line.split(" # ").next().unwrap_or_default();
                found.extend(line.split("| ").map(|part| part.trim().trim_start_matches("$ ").to_owned()));
            } else {
                found.extend(line.split('`').skip(1).step_by(2).map(ToOwned::to_owned));
            }
        }
        found.retain(|line| line.starts_with("agnes "));
        found
    }

    /// What is wrong with a command line, if something is.
    fn wrong(line: &str) -> Option<String> {
        let mut command: &Command = &{
            let mut all = Cli::command();
            all.build();
            all
        };
        let mut may_descend = true;
        for word in line.split_whitespace().skip(1) {
            let word = word.trim_end_matches([')', ',', ';', '.', ':']);
            if let Some(flag) = word.strip_prefix("--") {
                let name = flag.split('=').next().unwrap_or_default();
                let has = |argument: &clap::Arg| {
                    argument.get_long() == Some(name)
                        || argument.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
                };
                if !name.is_empty() && !command.get_arguments().any(has) {
                    return Some(format!("`{line}`: `{}` has no `--{name}`", command.get_name()));
                }
                may_descend = false;
                continue;
            }
            if !may_descend || !command.has_subcommands() || word.starts_with('-') {
                continue;
            }
            match command.find_subcommand(word) {
                Some(below) => command = below,
                None if command.get_positionals().next().is_some() => may_descend = false,
                None => return Some(format!("`{line}`: `{}` has no `{word}`", command.get_name())),
            }
        }
        None
    }

    #[test]
    fn what_texts_say_to_type_exists() {
        assert!(wrong("agnes fly").is_some() && wrong("agnes admin fly").is_some());
        assert!(wrong("agnes pull --fly").is_some() && wrong("agnes pull orders --lazy --json").is_none());
        let guides = skills::ALL.iter().map(|skill| (skill.name, skill.text));
        let (mut all, mut bad) = (0, Vec::new());
        for (name, text) in guides.chain(TEXTS) {
            for line in lines_of(text) {
                all += 1;
                bad.extend(wrong(&line).map(|wrong| format!("{name}: {wrong}")));
            }
        }
        assert!(bad.is_empty(), "{}", bad.join("\n"));
        assert!(all > 100, "only {all} were found");
    }
}
