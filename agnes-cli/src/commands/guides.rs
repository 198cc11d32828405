//! `agnes skills`: guides that the command carries. `agnes onboarded`: who is on board.

use agnes_connectors::server::Call;
use serde_json::json;

use crate::app::App;
use crate::args::{Onboarded, OnboardedArgs, SkillsCommand};
use crate::failure::{Failure, Outcome};

/// Name, subject, text.
const GUIDES: [(&str, &str, &str); 7] = [
    ("agnes-data-querying", "how to ask the data", include_str!("../skills/agnes-data-querying.md")),
    ("agnes-table-registration", "tables and who may read them", include_str!("../skills/agnes-table-registration.md")),
    ("connectors", "where data comes from", include_str!("../skills/connectors.md")),
    ("deploy", "running a server", include_str!("../../../docs/guides/serve.md")),
    ("security", "row filters, masks, hidden columns", include_str!("../../../docs/guides/policies.md")),
    ("setup", "the first day of a server", include_str!("../skills/setup.md")),
    ("troubleshoot", "when something is wrong", include_str!("../skills/troubleshoot.md")),
];

pub(super) fn skills(app: &App, command: &SkillsCommand) -> Outcome {
    match command {
        SkillsCommand::List => {
            let all: Vec<_> = GUIDES.iter().map(|(name, about, _)| json!({"name": name, "about": about})).collect();
            app.out.show(&all, |out| {
                let rows = GUIDES.iter().map(|(name, about, _)| vec![*name, *about]).collect();
                app.out.grid(out, &["NAME", "ABOUT"], &[], rows)
            })
        }
        SkillsCommand::Show { name } => {
            let Some((name, _, text)) = GUIDES.iter().find(|(known, ..)| known == name) else {
                let names = GUIDES.map(|(name, ..)| name).join(", ");
                return Err(Failure::usage_hint(format!("there is no guide `{name}`"), format!("there are {names}")));
            };
            app.out.show(&json!({"name": name, "content": text}), |out| Ok(write!(out, "{text}")?))
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
