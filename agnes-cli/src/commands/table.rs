//! `agnes admin table` and what goes with it: registering, discovering, describing.

use std::fmt::Write as _;

use agnes_connectors::server::Told;
use agnes_core::local::{
    DescribeColumns, GetColumns, GetTable, Offers, PrecheckTable, PushColumns, RegisterFields, Tables, TakeOffers,
    UnregisterTable, UpdateFields,
};
use agnes_core::registry::{ColumnMetadata, Known, Registration, TableFields};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::args::{DiscoverArgs, MetadataApply, TableCommand, TableFlags, TableRegister, TableRemove, TakeArgs};
use crate::failure::{Failure, Outcome};
use crate::output::text::{bytes, or_dash, plural, safe};

pub(super) async fn run(app: &App, command: TableCommand) -> Outcome {
    match command {
        TableCommand::Register(args) => register(app, args).await,
        TableCommand::List => {
            let tables = app.ask(Tables {}).await?;
            app.out.show(&tables, |out| {
                let rows = tables.iter().map(|t| {
                    vec![
                        safe(&t.id),
                        safe(&t.name),
                        safe(&or_dash(t.source_name())),
                        t.query_mode.as_str().to_owned(),
                        t.sync_strategy.as_str().to_owned(),
                        safe(&or_dash(t.sync_schedule.as_deref())),
                    ]
                });
                app.out.grid(out, &["ID", "NAME", "SOURCE", "MODE", "STRATEGY", "SCHEDULE"], &[], rows.collect())
            })
        }
        TableCommand::Show { table } => {
            let table = app.ask(GetTable { table }).await?;
            app.out.show(&table, |out| {
                let serde_json::Value::Object(fields) = json!(table) else { return Ok(()) };
                for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
                    let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                    writeln!(out, "{name:<24}  {}", safe(&value))?;
                }
                Ok(())
            })
        }
        TableCommand::Update(args) => {
            let fields = fields(args.fields)?;
            if fields.is_empty() {
                return Err(Failure::usage_hint(
                    "there is nothing to change",
                    "`agnes admin table update --help` lists what can be",
                ));
            }
            let table = app.ask(UpdateFields { table: args.table, fields }).await?;
            app.out.done(&table, &format!("changed {}", safe(&table.name)))
        }
        TableCommand::Remove(TableRemove { table, yes }) => {
            app.confirm(&yes, &format!("take the table {} out of the registry", safe(&table)))?;
            let table = app.ask(UnregisterTable { table }).await?;
            app.out.done(&table, &format!("removed {} from the registry", safe(&table.name)))
        }
    }
}

async fn register(app: &App, args: TableRegister) -> Outcome {
    if args.fields.query_mode.as_deref() == Some("materialized") {
        let kind = args.fields.source_type.as_deref();
        if args.fields.query.is_none() && kind != Some("keboola") {
            return Err(Failure::usage("a materialized table needs `--query`"));
        }
        if args.fields.bucket.is_none() && matches!(kind, Some("keboola" | "bigquery")) {
            return Err(Failure::usage("a materialized table needs `--bucket`"));
        }
    }
    let mut fields = fields(args.fields)?;
    fields.insert("name".to_owned(), args.name.into());
    let done: Told<Registration> = match args.dry_run {
        true => app.ask(PrecheckTable { fields }).await?,
        false => app.ask(RegisterFields { fields }).await?,
    };
    let name = safe(&done.table.name);
    let words = if args.dry_run { "would be registered" } else { "is registered" };
    app.out.done(&done, &format!("{name} {words}"))?;
    if !app.out.json {
        for warning in &done.warnings {
            app.out.warn(&safe(warning));
        }
        if !args.dry_run {
            app.out.hint(&format!(
                "`agnes sync {name}` brings its data, `agnes admin grant create GROUP table {name}` opens it"
            ));
        }
    }
    Ok(())
}

/// The fields that flags name; an empty text takes a value away.
fn fields(flags: TableFlags) -> Outcome<TableFields> {
    let mut fields = TableFields::new();
    let texts = [
        ("source_type", flags.source_type),
        ("source", flags.source),
        ("bucket", flags.bucket),
        ("source_table", flags.source_table),
        ("query_mode", flags.query_mode),
        ("source_query", flags.query.map(|query| text_of("--query", query)).transpose()?),
        ("description", flags.description),
        ("sync_schedule", flags.schedule),
        ("sync_strategy", flags.sync_strategy),
        ("partition_by", flags.partition_by),
        ("partition_granularity", flags.partition_granularity),
        ("folder", flags.folder),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            fields.insert(name.to_owned(), if text.trim().is_empty() { Value::Null } else { text.into() });
        }
    }
    let numbers = [
        ("incremental_window_days", flags.incremental_window_days),
        ("max_history_days", flags.max_history_days),
        ("initial_load_chunk_days", flags.initial_load_chunk_days),
    ];
    fields.extend(numbers.into_iter().filter_map(|(name, days)| Some((name.to_owned(), days?.into()))));
    if let Some(columns) = flags.primary_key {
        let columns: Vec<String> = columns.into_iter().filter(|column| !column.trim().is_empty()).collect();
        fields.insert("primary_key".to_owned(), json!(columns));
    }
    if let Some(server_only) = flags.server_only {
        fields.insert("server_only".to_owned(), server_only.into());
    }
    for (name, flag, text) in [
        ("where_filters", "--where-filters-json", flags.where_filters_json),
        ("options", "--options-json", flags.options_json),
    ] {
        let Some(text) = text.map(|text| text_of(flag, text)).transpose()? else { continue };
        let value = match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).map_err(|_| Failure::usage(format!("`{flag}` is not JSON")))?,
        };
        fields.insert(name.to_owned(), value);
    }
    Ok(fields)
}

/// A text, or that of a file: `@FILE`.
fn text_of(flag: &str, text: String) -> Outcome<String> {
    match text.strip_prefix('@') {
        Some(file) => {
            std::fs::read_to_string(file).map_err(|e| Failure::file(&format!("read `{file}` for `{flag}`"), &e))
        }
        None => Ok(text),
    }
}

pub(super) async fn discover(app: &App, args: DiscoverArgs) -> Outcome {
    let offer = app.ask(Offers { source: args.source }).await?;
    app.out.show(&offer, |out| {
        let rows = offer.tables.iter().map(|offered| {
            let known = match offered.registered {
                Known::New => "new",
                Known::Match => "registered",
                Known::Drift => "name is taken",
            };
            vec![
                safe(&offered.source),
                offered.table.name.to_string(),
                safe(&offered.table.source_table),
                offered.table.sync_strategy.as_str().to_owned(),
                offered.table.size_bytes.map_or_else(|| "-".to_owned(), bytes),
                known.to_owned(),
            ]
        });
        app.out.grid(out, &["SOURCE", "TABLE", "AT THE SOURCE", "STRATEGY", "SIZE", "STATE"], &["SIZE"], rows.collect())
    })?;
    if !app.out.json {
        offer.errors.iter().for_each(|error| app.out.warn(&safe(error)));
    }
    Ok(())
}

pub(super) async fn discover_and_register(app: &App, args: TakeArgs) -> Outcome {
    let taken =
        app.ask(TakeOffers { source: args.source, source_type: args.source_type, dry_run: args.dry_run }).await?;
    let words = if taken.dry_run { "would be registered" } else { "registered" };
    app.out.done(&taken, &format!("{} {words}", plural(taken.tables.len(), "table")))?;
    if !app.out.json {
        taken.tables.iter().for_each(|table| app.out.note(&format!("  {}", safe(table))));
        for drift in &taken.drift {
            app.out.warn(&format!("`{}` is another table in the registry: it stays as it is", safe(&drift.table_id)));
        }
        taken.invalid.iter().chain(&taken.errors).for_each(|said| app.out.warn(&safe(said)));
    }
    Ok(())
}

pub(super) async fn metadata_show(app: &App, table: String) -> Outcome {
    let found = app.ask(GetColumns { table }).await?;
    app.out.show(&found, |out| {
        let rows = found.columns.iter().map(|column| {
            vec![
                safe(&column.column_name),
                safe(&or_dash(column.basetype.as_deref())),
                safe(&or_dash(column.description.as_deref())),
                safe(&column.confidence),
            ]
        });
        app.out.grid(out, &["COLUMN", "TYPE", "DESCRIPTION", "CONFIDENCE"], &[], rows.collect())
    })
}

/// What is known of the columns of one table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Described {
    table_id: String,
    columns: Vec<ColumnMetadata>,
}

/// One table, or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum DescribedFile {
    One(Described),
    Many(Vec<Described>),
}

pub(super) async fn metadata_apply(app: &App, args: MetadataApply) -> Outcome {
    let text = std::fs::read_to_string(&args.file).map_err(|e| Failure::file("read the file", &e))?;
    let tables = match serde_json::from_str(&text) {
        Ok(DescribedFile::One(table)) => vec![table],
        Ok(DescribedFile::Many(tables)) => tables,
        Err(_) => {
            return Err(Failure::usage_hint(
                "the file is not a description of columns",
                "`agnes admin metadata-apply --help` shows one",
            ));
        }
    };
    let mut written = 0;
    for table in &tables {
        written += match args.dry_run {
            true => app.ask(GetColumns { table: table.table_id.clone() }).await.map(|_| table.columns.len())?,
            false => app
                .ask(DescribeColumns { table: table.table_id.clone(), columns: table.columns.clone() })
                .await?
                .into_reply(),
        };
    }
    let (mut pushed, mut errors) = (0, Vec::new());
    for table in tables.iter().filter(|_| args.push_to_source) {
        let told = app.ask(PushColumns { table: table.table_id.clone() }).await?.into_reply();
        pushed += told.pushed;
        errors.extend(told.errors);
    }
    let words = if args.dry_run { "would be described" } else { "described" };
    let mut done = json!({"tables": tables.len(), "columns": written, "dry_run": args.dry_run});
    let mut told = format!("{} of {} {words}", plural(written, "column"), plural(tables.len(), "table"));
    if args.push_to_source {
        (done["pushed"], done["errors"]) = (pushed.into(), errors.clone().into());
        let _ = write!(told, "; {} told to the source", plural(pushed, "column"));
        for error in &errors {
            let _ = write!(told, "\n{error}");
        }
    }
    app.out.done(&done, &told)
}
