//! `agnes source`: where data comes from.

use agnes_core::local::{AddSource, CheckSource, DiscoverSource, RemoveSource, Sources};
use agnes_core::registry::NewSource;
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::args::{SourceAdd, SourceCommand};
use crate::failure::{Failure, Outcome};
use crate::output::text::{bytes, count, or_dash, plural, safe};

pub(super) async fn run(app: &App, command: SourceCommand) -> Outcome {
    match command {
        SourceCommand::Add(args) => add(app, args).await,
        SourceCommand::List => {
            let sources = app.ask(Sources {}).await?;
            app.out.show(&sources, |out| {
                let rows = sources.iter().map(|row| {
                    vec![
                        safe(&row.name),
                        safe(&row.kind),
                        count(row.published_tables as u64),
                        count(row.rows),
                        bytes(row.size_bytes),
                        safe(&or_dash(row.schedule.as_deref())),
                        if row.degraded { "degraded" } else { "ok" }.to_owned(),
                    ]
                });
                let header = ["NAME", "KIND", "TABLES", "ROWS", "SIZE", "SCHEDULE", "STATE"];
                app.out.grid(out, &header, &["TABLES", "ROWS", "SIZE"], rows.collect())
            })
        }
        SourceCommand::Remove { name, drop_data, yes } => {
            let what = if drop_data { "remove the source and its data" } else { "remove the source" };
            app.confirm(&yes, &format!("{what}: {}", safe(&name)))?;
            app.ask(RemoveSource { name: name.clone(), drop_data }).await?;
            app.out.done(&json!({"removed": name}), &format!("removed the source {}", safe(&name)))
        }
        SourceCommand::Check { name } => {
            let items = app.ask(CheckSource { name }).await?;
            app.out.show(&items, |out| {
                for item in items.iter() {
                    let mark = if item.ok { "ok  " } else { "FAIL" };
                    writeln!(out, "{mark}  {}: {}", safe(&item.name), safe(&item.detail))?;
                }
                Ok(())
            })?;
            if items.iter().all(|item| item.ok) { Ok(()) } else { Err(Failure::Partial) }
        }
        SourceCommand::Discover { name } => {
            let tables = app.ask(DiscoverSource { name }).await?;
            app.out.show(&tables, |out| {
                let rows = tables.iter().map(|table| {
                    let size = table.size_bytes.map_or_else(|| "-".to_owned(), bytes);
                    vec![
                        table.name.to_string(),
                        safe(&table.source_table),
                        table.sync_strategy.as_str().to_owned(),
                        size,
                    ]
                });
                app.out.grid(out, &["TABLE", "AT THE SOURCE", "STRATEGY", "SIZE"], &["SIZE"], rows.collect())
            })
        }
    }
}

async fn add(app: &App, args: SourceAdd) -> Outcome {
    let config = settings(&args)?;
    let new = NewSource { name: args.name, kind: args.kind, config, schedule: args.schedule };
    let added = app.ask(AddSource { new }).await?;
    let name = safe(added.source.name.as_str());
    app.out.done(&added, &format!("added the source {name} with {}", plural(added.tables.len(), "table")))?;
    if !app.out.json {
        for table in &added.tables {
            app.out.note(&format!("  {}", safe(&table.name)));
        }
        for skipped in &added.skipped {
            app.out.warn(&safe(skipped));
        }
        app.out.hint(&format!("`agnes sync --source {name}` reads it"));
    }
    Ok(())
}

/// The settings of a source, from `--config-json`, `--path` and `--set`; later ones win.
fn settings(args: &SourceAdd) -> Outcome<Value> {
    let mut settings = match args.config_json.as_deref() {
        None => Map::new(),
        Some(text) => {
            let text = match text.strip_prefix('@') {
                Some(file) => {
                    std::fs::read_to_string(file).map_err(|e| Failure::file(&format!("read `{file}`"), &e))?
                }
                None => text.to_owned(),
            };
            match serde_json::from_str(&text) {
                Ok(Value::Object(map)) => map,
                _ => return Err(Failure::usage("`--config-json` is not a JSON object")),
            }
        }
    };
    if let Some(path) = &args.path {
        // The holder of the folder may run elsewhere: it gets the whole path.
        let path = std::path::absolute(path).map_err(|e| Failure::file("find the path", &e))?;
        settings.insert("path".to_owned(), json!(path.to_string_lossy()));
    }
    for pair in &args.set {
        let Some((key, value)) = pair.split_once('=').filter(|(key, _)| !key.trim().is_empty()) else {
            return Err(Failure::usage(format!("`--set {}` is not KEY=VALUE", safe(pair))));
        };
        let value = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
        settings.insert(key.trim().to_owned(), value);
    }
    Ok(Value::Object(settings))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn args(set: &[&str], config: Option<&str>) -> SourceAdd {
        SourceAdd {
            name: "s".to_owned(),
            kind: "files".to_owned(),
            path: None,
            set: set.iter().map(ToString::to_string).collect(),
            config_json: config.map(ToOwned::to_owned),
            schedule: None,
        }
    }

    #[test]
    fn settings_are_json_or_text_and_later_ones_win() {
        let given = args(&["a=1", "b=text", "c=[1,2]", "d=x=y", "a=2"], Some(r#"{"a": 0, "z": true}"#));
        assert_eq!(settings(&given).unwrap(), json!({"a": 2, "b": "text", "c": [1, 2], "d": "x=y", "z": true}));
        for (set, config) in [(vec!["novalue"], None), (vec!["=1"], None), (vec![], Some("[1]")), (vec![], Some("{"))] {
            assert!(settings(&args(&set, config)).is_err());
        }
    }
}
