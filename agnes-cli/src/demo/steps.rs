//! The steps of the demo, each with its own check.

use agnes_core::audit::AuditFilter;
use agnes_core::local::{
    AddMember, AddSource, AddUser, CatalogTables, CreateGrant, CreateGroup, GetProfile, ListAudit, RunSync,
};
use agnes_core::query::Query;
use agnes_core::rbac::ResourceType;
use agnes_core::registry::{NewSource, QueryMode};
use agnes_core::sync::{SyncOutcome, SyncRequest, TableStatus};
use arrow::array::AsArray;
use arrow::datatypes::{Float64Type, Int64Type};
use arrow::record_batch::RecordBatch;
use serde_json::{Value, json};

use super::{Demo, data, ensure};
use crate::failure::{Failure, Outcome};
use crate::output::chart;
use crate::output::text::{bytes, count, duration, safe};

/// Two groups and what they may read.
const GROUPS: [(&str, &[&str]); 2] =
    [("operations", &["flights", "airlines", "airports", "planes"]), ("meteorology", &["weather", "airports"])];

/// Three people and their groups.
const PEOPLE: [(&str, &str, &[&str]); 3] = [
    ("ann@demo.example", "Ann", &["operations"]),
    ("bob@demo.example", "Bob", &["meteorology"]),
    ("eve@demo.example", "Eve", &["operations", "meteorology"]),
];

const DELAYS: &str = "select a.name as airline, avg(f.dep_delay)::double as delay
    from flights f join airlines a using (carrier)
    group by a.name having count(*) > 500 order by delay desc limit 6";

const FLIGHTS: &str = "select count(*)::bigint as n from flights";

/// Walks through all steps; gives a report of what was seen.
pub(super) async fn walk(demo: &Demo, keep: bool) -> Outcome<Value> {
    demo.say(&demo.out.bold("Agnes on real data: flights out of New York in 2013 (nycflights13, CC0)"))?;
    let found = source(demo).await?;
    let first = first_sync(demo).await?;
    people(demo).await?;
    let seen = who_sees_what(demo).await?;
    let slowest = answered(demo).await?;
    let refused = refused(demo).await?;
    let profiled = profile(demo).await?;
    let after = change(demo).await?;
    let decisions = audit(demo).await?;
    next(demo, keep)?;
    Ok(json!({
        "tables_found": found, "rows_synced": first, "tables_seen": seen, "slowest_airline": slowest,
        "refused": refused, "columns_profiled": profiled, "flights_after_change": after, "audit_rows": decisions,
    }))
}

async fn source(demo: &Demo) -> Outcome<usize> {
    demo.step(1, "A folder of files becomes a source").await?;
    let files = demo.place.files();
    data::write_first(&files).map_err(|e| Failure::file("write the demo's files", &e))?;
    demo.command(&format!("agnes source add nyc --kind files --path {}", files.display()))?;
    let new = NewSource {
        name: "nyc".to_owned(),
        kind: "files".to_owned(),
        config: json!({"path": files.to_string_lossy()}),
        schedule: None,
    };
    let added = demo.call(AddSource { new }).await?;
    let names: Vec<&str> = added.tables.iter().map(|table| table.name.as_str()).collect();
    demo.say(&format!("   found {}", names.join(", ")))?;
    let mut sorted = names.clone();
    sorted.sort_unstable();
    ensure(sorted == data::ROWS.map(|(name, _)| name), || format!("it found {names:?}"))?;
    Ok(names.len())
}

async fn sync(demo: &Demo) -> Outcome<SyncOutcome> {
    let run = demo.call(RunSync { request: SyncRequest::default() }).await?;
    let outcome = run.outcome.unwrap_or_default();
    let failed = outcome.tables.iter().find(|table| table.status == TableStatus::Error);
    ensure(run.error.is_none() && failed.is_none(), || {
        format!("the sync failed: {}", run.error.or_else(|| failed.and_then(|t| t.error.clone())).unwrap_or_default())
    })?;
    Ok(outcome)
}

async fn first_sync(demo: &Demo) -> Outcome<u64> {
    demo.step(2, "Sync: read, check types, publish as one consistent catalog").await?;
    demo.command("agnes sync")?;
    let outcome = sync(demo).await?;
    for table in &outcome.tables {
        let name = format!("{:<9}", safe(&table.table));
        let rows = count(table.rows);
        demo.say(&format!(
            "   {name} {rows:>7} rows  {:>9} of Parquet  {:>7}",
            bytes(table.bytes),
            duration(table.duration_ms)
        ))?;
    }
    for (name, rows) in data::ROWS {
        let table = outcome.tables.iter().find(|table| table.table == name);
        ensure(table.is_some_and(|t| t.rows == rows && t.status == TableStatus::Ok && t.rejected_rows == 0), || {
            format!("`{name}` should have {rows} rows: {table:?}")
        })?;
    }
    Ok(outcome.tables.iter().map(|table| table.rows).sum())
}

async fn people(demo: &Demo) -> Outcome {
    demo.step(3, "Three people, two groups, grants on tables").await?;
    demo.command("agnes admin user add ann@demo.example --name Ann")?;
    demo.command("agnes admin group create operations")?;
    demo.command("agnes admin group add-member operations ann@demo.example")?;
    demo.command("agnes admin grant create operations table flights")?;
    for (group, tables) in GROUPS {
        demo.call(CreateGroup { name: group.to_owned(), description: None }).await?;
        for table in tables {
            let (group, resource_id) = (group.to_owned(), (*table).to_owned());
            demo.call(CreateGrant { group, resource_type: ResourceType::Table, resource_id }).await?;
        }
        demo.say(&format!("   {group:<12} may read {}", tables.join(", ")))?;
    }
    for (email, name, groups) in PEOPLE {
        demo.call(AddUser { email: email.to_owned(), name: Some(name.to_owned()) }).await?;
        for group in groups {
            demo.call(AddMember { group: (*group).to_owned(), user: email.to_owned() }).await?;
        }
    }
    Ok(())
}

async fn who_sees_what(demo: &Demo) -> Outcome<Value> {
    demo.step(4, "Each sees their own catalog; the rest is not there for them").await?;
    demo.command("agnes catalog --as ann@demo.example")?;
    let mut seen = serde_json::Map::new();
    for (email, name, groups) in PEOPLE {
        let tables = demo.door.call(CatalogTables {}, &demo.caller.acting_as(Some(email)), Default::default()).await?;
        // Everybody has Agnes's own tables about themselves; they are no part of this story.
        let shared = tables.iter().filter(|table| table.query_mode != QueryMode::Internal);
        let mut names: Vec<String> = shared.map(|table| table.name.clone()).collect();
        names.sort();
        demo.say(&format!("   {name:<4} ({}) sees {}", groups.join(" and "), names.join(", ")))?;
        let mut expected: Vec<&str> = GROUPS
            .iter()
            .filter(|(group, _)| groups.contains(group))
            .flat_map(|(_, tables)| tables.iter().copied())
            .collect();
        expected.sort_unstable();
        expected.dedup();
        ensure(names == expected, || format!("{name} sees {names:?}, not {expected:?}"))?;
        seen.insert(name.to_owned(), json!(names));
    }
    Ok(Value::Object(seen))
}

async fn rows(demo: &Demo, sql: &str, user: Option<&str>) -> Outcome<Vec<RecordBatch>> {
    let mut rows = demo.door.query(Query::new(sql), &demo.caller.acting_as(user)).await?;
    let mut batches = Vec::new();
    while let Some(batch) = rows.next().await? {
        batches.push(batch);
    }
    Ok(batches)
}

async fn flights(demo: &Demo) -> Outcome<u64> {
    let batches = rows(demo, FLIGHTS, Some("ann@demo.example")).await?;
    let number = batches.iter().find(|b| b.num_rows() == 1).map(|b| b.column(0).as_primitive::<Int64Type>().value(0));
    Ok(number.and_then(|n| u64::try_from(n).ok()).unwrap_or(0))
}

async fn answered(demo: &Demo) -> Outcome<String> {
    demo.step(5, "Ann asks which airlines leave late").await?;
    demo.command("agnes query 'select a.name, avg(dep_delay) from flights join airlines a using (carrier) ...' --as ann@demo.example")?;
    let mut bars = Vec::new();
    for batch in rows(demo, DELAYS, Some("ann@demo.example")).await? {
        let (names, delays) =
            (batch.column(0).as_string_opt::<i32>(), batch.column(1).as_primitive_opt::<Float64Type>());
        if let (Some(names), Some(delays)) = (names, delays) {
            bars.extend((0..batch.num_rows()).map(|row| (safe(names.value(row)), delays.value(row))));
        }
    }
    demo.print(|to| chart::bars(demo.out, to, &bars, "min"))?;
    ensure(bars.len() == 6 && bars.windows(2).all(|pair| pair[0].1 >= pair[1].1) && bars[0].1 > 0.0, || {
        format!("the answer was {bars:?}")
    })?;
    Ok(bars.swap_remove(0).0)
}

async fn refused(demo: &Demo) -> Outcome<Value> {
    demo.step(6, "Bob asks the same, and is refused with a reason").await?;
    demo.command("agnes query 'select count(*) from flights' --as bob@demo.example")?;
    let mut told = Vec::new();
    for (what, sql) in
        [("a table of others", FLIGHTS), ("a file of the machine", "select * from read_csv('/etc/passwd')")]
    {
        match rows(demo, sql, Some("bob@demo.example")).await {
            Err(Failure::Engine(error)) => {
                demo.say(&format!("   {what}: {error}"))?;
                if let Some(hint) = error.hint() {
                    demo.say(&demo.out.dim(&format!("   hint: {hint}")))?;
                }
                ensure(!error.to_string().is_empty() && error.code() != "internal", || {
                    format!("the refusal was {error:?}")
                })?;
                told.push(json!({"sql": sql, "code": error.code(), "message": error.to_string()}));
            }
            Err(other) => return Err(other),
            Ok(_) => ensure(false, || format!("`{sql}` was answered"))?,
        }
    }
    Ok(Value::Array(told))
}

async fn profile(demo: &Demo) -> Outcome<usize> {
    demo.step(7, "Every table is profiled when it changes").await?;
    demo.command("agnes profile flights")?;
    let profile = json!(demo.call(GetProfile { table: "flights".to_owned() }).await?);
    let columns = find_columns(&profile).map(Vec::len).unwrap_or_default();
    ensure(columns == 13, || format!("the profile has {columns} columns"))?;
    demo.say(&format!("   flights: {columns} columns with types, missing values, distinct values and ranges"))?;
    Ok(columns)
}

fn find_columns(value: &Value) -> Option<&Vec<Value>> {
    let object = value.as_object()?;
    object.get("columns").and_then(Value::as_array).or_else(|| object.values().find_map(find_columns))
}

async fn change(demo: &Demo) -> Outcome<u64> {
    demo.step(8, "March arrives as one more file; only what changed is read").await?;
    let before = flights(demo).await?;
    data::write_later(&demo.place.files()).map_err(|e| Failure::file("write the demo's files", &e))?;
    demo.command("agnes sync")?;
    let outcome = sync(demo).await?;
    for table in &outcome.tables {
        let (name, status) = (format!("{:<9}", safe(&table.table)), table.status.as_str());
        demo.say(&format!("   {name} {status:<9} {:>7} rows  {:>7}", count(table.rows), duration(table.duration_ms)))?;
        let expected = if table.table == "flights" { TableStatus::Ok } else { TableStatus::Unchanged };
        ensure(table.status == expected, || format!("`{}` is {status}", table.table))?;
    }
    let after = flights(demo).await?;
    demo.say(&format!("   Ann now counts {} flights; before, {}", count(after), count(before)))?;
    ensure(after == before + data::MARCH_ROWS, || format!("there are {after} flights"))?;
    Ok(after)
}

async fn audit(demo: &Demo) -> Outcome<usize> {
    demo.step(9, "All of it is on record").await?;
    demo.command("agnes admin audit list")?;
    let filter = AuditFilter { limit: 200, ..AuditFilter::default() };
    let events = demo.call(ListAudit { filter }).await?;
    let users = demo.call(agnes_core::local::Users {}).await?;
    let asked = events.iter().filter(|event| event.action.starts_with("query"));
    for event in asked.take(4) {
        let who =
            users.iter().find(|user| Some(&user.id) == event.user_id.as_ref()).map_or("owner", |u| u.email.as_str());
        let result = event.result.as_deref().unwrap_or("-");
        demo.say(&format!(
            "   {}  {:<16} {:<13} {result}",
            event.timestamp.format("%H:%M:%S"),
            safe(who),
            safe(&event.action)
        ))?;
    }
    let refused = events.iter().any(|e| e.action.starts_with("query") && e.result.as_deref() != Some("success"));
    ensure(refused, || "no refused query is in the audit log".to_owned())?;
    Ok(events.len())
}

fn next(demo: &Demo, keep: bool) -> Outcome {
    demo.say(&format!("\n{}", demo.out.bold("What to type next")))?;
    if keep {
        let data = demo.place.data();
        demo.say(&format!("   export DATA_DIR={}", data.display()))?;
        demo.say("   agnes catalog\n   agnes query 'select origin, count(*) from flights group by all'\n   agnes query 'select * from flights' --as bob@demo.example")
    } else {
        demo.say("   agnes demo --keep --dir ./demo      keeps this one to play with")?;
        demo.say("   agnes source add shop --path ./my-files && agnes sync && agnes catalog")
    }
}
