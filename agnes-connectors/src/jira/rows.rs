//! From an issue as Jira tells it to rows of six tables, of a fixed shape.

use std::collections::BTreeMap;
use std::sync::Arc;

use agnes_core::error::{Error, Result};
use agnes_core::push::{DocumentRows, Documents};
use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field};
use chrono::DateTime;
use serde_json::Value;

use super::columns::{TABLES, columns, schema};
use super::fields::Fields;

/// The part of issues that do not say when they were made.
const UNKNOWN: &str = "unknown";

/// A value of a row.
#[derive(Debug, Clone, PartialEq)]
enum Cell {
    Null,
    Text(String),
    Number(i64),
}

impl From<Option<String>> for Cell {
    fn from(text: Option<String>) -> Self {
        text.map_or(Self::Null, Self::Text)
    }
}

impl From<Option<i64>> for Cell {
    fn from(number: Option<i64>) -> Self {
        number.map_or(Self::Null, Self::Number)
    }
}

fn batch(table: usize, further: &[String], rows: &[Vec<Cell>]) -> Result<RecordBatch> {
    let schema = schema(table, further);
    let column = |(index, field): (usize, &Arc<Field>)| -> ArrayRef {
        let cells = rows.iter().map(|row| row.get(index).unwrap_or(&Cell::Null));
        let numbers = || cells.clone().map(|cell| if let Cell::Number(number) = cell { Some(*number) } else { None });
        match field.data_type() {
            DataType::Int64 => Arc::new(numbers().collect::<Int64Array>()),
            DataType::Timestamp(..) => Arc::new(numbers().collect::<TimestampMicrosecondArray>().with_timezone("UTC")),
            _ => {
                let texts = cells.map(|cell| if let Cell::Text(text) = cell { Some(text.as_str()) } else { None });
                Arc::new(texts.collect::<StringArray>())
            }
        }
    };
    let columns = schema.fields().iter().enumerate().map(column).collect();
    RecordBatch::try_new(schema, columns).map_err(|e| Error::internal("build rows of an issue", e))
}

/// The time of a text, in microseconds since 1970, fractions of a second dropped.
pub(crate) fn micros(text: &str) -> Option<i64> {
    let formats = ["%Y-%m-%dT%H:%M:%S%.f%z", "%Y-%m-%dT%H:%M:%S%.f%#z"];
    let parsed = DateTime::parse_from_rfc3339(text).ok();
    let at = parsed.or_else(|| formats.iter().find_map(|format| DateTime::parse_from_str(text, format).ok()))?;
    Some(at.timestamp() * 1_000_000)
}

/// The same with fractions: for what came first.
pub(crate) fn exact_micros(text: &str) -> Option<i64> {
    let at = DateTime::parse_from_rfc3339(text).ok();
    at.or_else(|| DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f%z").ok()).map(|at| at.timestamp_micros())
}

/// The month an issue belongs to.
pub(crate) fn month(document: &Value) -> String {
    month_of(document["fields"]["created"].as_str().and_then(micros))
}

/// The month of an issue that was made then, microseconds since 1970.
pub(crate) fn month_of(created: Option<i64>) -> String {
    let at = created.and_then(DateTime::from_timestamp_micros);
    at.map_or_else(|| UNKNOWN.to_owned(), |at| at.format("%Y-%m").to_string())
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

fn time(value: &Value) -> Cell {
    value.as_str().and_then(micros).into()
}

/// What a field of options shows: its `value`, else its `name`, else what it is.
fn option(value: &Value) -> Option<String> {
    text(&value["value"]).or_else(|| text(&value["name"])).or_else(|| text(value))
}

/// A list as JSON, of what `one` makes of each.
fn list(value: &Value, one: impl Fn(&Value) -> Option<String>) -> Option<String> {
    let items = value.as_array()?;
    serde_json::to_string(&items.iter().filter_map(one).collect::<Vec<_>>()).ok()
}

/// The text of a document of rich text, addresses of links and cards among it; a plain text is
/// itself.
fn rich(value: &Value) -> Option<String> {
    fn walk(node: &Value, depth: usize, words: &mut Vec<String>) {
        // Nobody nests as deep.
        if depth > 200 {
            return;
        }
        if let Some(text) = node["text"].as_str() {
            words.push(text.to_owned());
            for mark in node["marks"].as_array().into_iter().flatten() {
                if let Some(address) = mark["attrs"]["href"].as_str().filter(|address| *address != text) {
                    words.push(address.to_owned());
                }
            }
        }
        let attributes = &node["attrs"];
        match node["type"].as_str() {
            Some("inlineCard" | "blockCard" | "embedCard") => words.extend(text(&attributes["url"])),
            Some("mention" | "emoji" | "status") => words.extend(text(&attributes["text"])),
            _ => {}
        }
        for child in node["content"].as_array().into_iter().flatten() {
            walk(child, depth + 1, words);
        }
    }
    match value {
        Value::Object(_) => {
            let mut words = Vec::new();
            walk(value, 0, &mut words);
            Some(words.join(" "))
        }
        other => text(other),
    }
}

/// Any field, as a text.
fn any(value: &Value) -> Option<String> {
    match value {
        Value::Array(_) => list(value, |one| option(one).or_else(|| text(&one["emailAddress"]))),
        Value::Object(fields) if fields.get("type").is_some_and(|kind| kind == "doc") => rich(value),
        Value::Object(fields) => option(value)
            .or_else(|| text(&value["displayName"]))
            .or_else(|| Some(Value::Object(fields.clone()).to_string())),
        other => text(other),
    }
}

/// Whether the goal was missed, the goal, and the time that went by, of a service level.
fn level(value: &Value) -> [Cell; 3] {
    let cycle = Some(&value["ongoingCycle"]).filter(|cycle| cycle.is_object());
    let cycle = cycle.or_else(|| value["completedCycles"].as_array().and_then(|cycles| cycles.last()));
    let Some(cycle) = cycle.filter(|_| value.get("errorMessage").is_none()) else {
        return [Cell::Null, Cell::Null, Cell::Null];
    };
    let breached = cycle["breached"].as_bool().map(|yes| if yes { "True" } else { "False" }.to_owned());
    [breached.into(), cycle["goalDuration"]["millis"].as_i64().into(), cycle["elapsedTime"]["millis"].as_i64().into()]
}

/// The rows of an issue that is kept. What is not known of it has no rows, which is not the same
/// as none.
pub(crate) fn of(
    base: &str,
    documents: &Documents,
    key: &str,
    document: &Value,
    fields: &Fields,
) -> Result<DocumentRows> {
    let part = month(document);
    let earlier = document["_months"].as_array().into_iter().flatten().filter_map(text).filter(|m| *m != part);
    let earlier: Vec<String> = earlier.collect();
    let further = fields.further();
    let mut tables = Vec::with_capacity(TABLES.len());
    for table in 0..TABLES.len() {
        let rows = if document.get("_deleted_at").is_some_and(|at| !at.is_null()) {
            Some(Vec::new())
        } else {
            match table {
                0 => Some(vec![issue(base, key, document, fields, &further)]),
                1 => document["fields"]["comment"]["comments"].as_array().map(|all| comments(key, all)),
                2 => document["fields"]["attachment"].as_array().map(|all| attachments(documents, key, all)),
                3 => document["changelog"]["histories"].as_array().map(|all| changes(key, all)),
                4 => document["fields"]["issuelinks"].as_array().map(|all| links(key, all)),
                _ => document["_remote_links"].as_array().map(|all| remote_links(key, all)),
            }
        };
        tables.push(rows.map(|rows| batch(table, &further, &rows)).transpose()?);
    }
    Ok(DocumentRows { part, earlier, tables })
}

fn issue(base: &str, key: &str, document: &Value, known: &Fields, further: &[String]) -> Vec<Cell> {
    let fields = &document["fields"];
    let own = |name: &str| known.value(fields, name);
    let count = |value: &Value| value.as_array().and_then(|all| i64::try_from(all.len()).ok());
    let person = |who: &Value| -> [Cell; 2] { [text(&who["emailAddress"]).into(), text(&who["displayName"]).into()] };
    let mut row: BTreeMap<&str, Cell> = BTreeMap::new();
    let name = |value: &Value| Cell::from(text(&value["name"]));
    row.insert("issue_key", Cell::Text(key.to_owned()));
    row.insert("issue_id", text(&document["id"]).into());
    row.insert("issue_url", Cell::Text(format!("{base}/browse/{key}")));
    row.insert("summary", text(&fields["summary"]).into());
    row.insert("description", rich(&fields["description"]).into());
    row.insert("issue_type", name(&fields["issuetype"]));
    row.insert("status", name(&fields["status"]));
    row.insert("status_category", name(&fields["status"]["statusCategory"]));
    row.insert("priority", name(&fields["priority"]));
    row.insert("resolution", name(&fields["resolution"]));
    row.insert("project_key", text(&fields["project"]["key"]).into());
    row.insert("project_name", name(&fields["project"]));
    for (field, email, display) in [
        ("creator", "creator_email", "creator_name"),
        ("reporter", "reporter_email", "reporter_name"),
        ("assignee", "assignee_email", "assignee_name"),
    ] {
        let [address, shown] = person(&fields[field]);
        row.insert(email, address);
        row.insert(display, shown);
    }
    row.insert("created_at", time(&fields["created"]));
    row.insert("updated_at", time(&fields["updated"]));
    row.insert("resolved_at", time(&fields["resolutiondate"]));
    row.insert("due_date", text(&fields["duedate"]).into());
    row.insert("labels", list(&fields["labels"], text).into());
    row.insert("attachment_count", count(&fields["attachment"]).into());
    let comments = &fields["comment"];
    row.insert("comment_count", comments["total"].as_i64().or_else(|| count(&comments["comments"])).into());
    row.insert("issuelink_count", count(&fields["issuelinks"]).into());
    row.insert("request_type", text(&own("request")["requestType"]["name"]).into());
    row.insert("request_status", text(&own("request")["currentStatus"]["status"]).into());
    for field in
        ["severity", "spam", "technical_issue_category", "l3_team", "custom_url", "slack_link", "email_address"]
    {
        row.insert(field, option(own(field)).or_else(|| any(own(field))).into());
    }
    for field in ["triage", "configuration_item", "organizations"] {
        row.insert(field, list(own(field), option).into());
    }
    row.insert("participants", list(own("participants"), |who| text(&who["emailAddress"])).into());
    row.insert("context", rich(own("context")).into());
    let rating = &own("satisfaction")["rating"];
    row.insert("satisfaction", rating.as_i64().or_else(|| rating.as_f64().map(|stars| stars as i64)).into());
    for (field, columns) in [
        ("first_response", ["first_response_breached", "first_response_goal_millis", "first_response_elapsed_millis"]),
        (
            "time_to_resolution",
            ["time_to_resolution_breached", "time_to_resolution_goal_millis", "time_to_resolution_elapsed_millis"],
        ),
    ] {
        row.extend(columns.into_iter().zip(level(own(field))));
    }
    row.insert("_synced_at", text(&document["_synced_at"]).into());
    row.insert("_raw_file", Cell::Text(format!("issues/{key}.json")));
    let mut cells: Vec<Cell> = columns(0).iter().map(|(column, _)| row.remove(column).unwrap_or(Cell::Null)).collect();
    cells.extend(further.iter().map(|column| Cell::from(any(own(column)))));
    cells
}

fn comments(key: &str, all: &[Value]) -> Vec<Vec<Cell>> {
    let one = |comment: &Value| {
        vec![
            text(&comment["id"]).into(),
            Cell::Text(key.to_owned()),
            text(&comment["author"]["emailAddress"]).into(),
            text(&comment["author"]["displayName"]).into(),
            rich(&comment["body"]).into(),
            time(&comment["created"]),
            time(&comment["updated"]),
            text(&comment["updateAuthor"]["emailAddress"]).into(),
        ]
    };
    all.iter().map(one).collect()
}

fn attachments(documents: &Documents, key: &str, all: &[Value]) -> Vec<Vec<Cell>> {
    let one = |file: &Value| {
        let (id, name) = (text(&file["id"]).unwrap_or_default(), text(&file["filename"]).unwrap_or_default());
        let kept = documents.attachment(key, &id, &name).ok().filter(|(path, _)| path.is_file());
        let hierarchical = kept.as_ref().and_then(|(path, _)| {
            let (project, number) = key.rsplit_once('-')?;
            let number: u64 = number.parse().ok()?;
            let name = path.file_name()?.to_string_lossy().into_owned();
            Some(format!("{project}/{}/{:03}/{name}", number / 1000, number % 1000))
        });
        vec![
            text(&file["id"]).into(),
            Cell::Text(key.to_owned()),
            text(&file["filename"]).into(),
            kept.map(|(_, relative)| relative).into(),
            hierarchical.into(),
            file["size"].as_i64().into(),
            text(&file["mimeType"]).into(),
            text(&file["author"]["emailAddress"]).into(),
            time(&file["created"]),
            text(&file["content"]).into(),
            text(&file["thumbnail"]).into(),
        ]
    };
    all.iter().map(one).collect()
}

fn changes(key: &str, all: &[Value]) -> Vec<Vec<Cell>> {
    let mut rows = Vec::new();
    for change in all {
        for item in change["items"].as_array().into_iter().flatten() {
            let value = |shown: &str, raw: &str| text(&item[shown]).or_else(|| text(&item[raw]));
            rows.push(vec![
                text(&change["id"]).into(),
                Cell::Text(key.to_owned()),
                text(&change["author"]["emailAddress"]).into(),
                text(&change["author"]["displayName"]).into(),
                text(&item["field"]).into(),
                text(&item["fieldtype"]).into(),
                value("fromString", "from").into(),
                value("toString", "to").into(),
                time(&change["created"]),
            ]);
        }
    }
    rows
}

fn links(key: &str, all: &[Value]) -> Vec<Vec<Cell>> {
    let one = |link: &Value| {
        let inward = link["inwardIssue"].is_object();
        let (direction, issue) =
            if inward { ("inward", &link["inwardIssue"]) } else { ("outward", &link["outwardIssue"]) };
        vec![
            Cell::Text(key.to_owned()),
            text(&link["id"]).into(),
            text(&link["type"]["name"]).into(),
            Cell::Text(direction.to_owned()),
            text(&issue["key"]).into(),
            text(&issue["fields"]["summary"]).into(),
            text(&issue["fields"]["status"]["name"]).into(),
            text(&issue["fields"]["priority"]["name"]).into(),
        ]
    };
    all.iter().map(one).collect()
}

fn remote_links(key: &str, all: &[Value]) -> Vec<Vec<Cell>> {
    let one = |link: &Value| {
        vec![
            Cell::Text(key.to_owned()),
            text(&link["id"]).into(),
            text(&link["object"]["url"]).into(),
            text(&link["object"]["title"]).into(),
            text(&link["application"]["name"]).into(),
            text(&link["application"]["type"]).into(),
        ]
    };
    all.iter().map(one).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn times_have_offsets_and_no_fractions() {
        for (text, seconds) in [
            ("2026-01-02T03:04:05.678+0000", Some(1_767_323_045)),
            ("2026-01-02T04:04:05.999+0100", Some(1_767_323_045)),
            ("2026-01-02T03:04:05Z", Some(1_767_323_045)),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(micros(text), seconds.map(|s: i64| s * 1_000_000), "{text}");
        }
        assert_eq!(exact_micros("2026-01-02T03:04:05.678+0000"), Some(1_767_323_045_678_000));
    }

    #[test]
    fn rich_text_keeps_words_and_addresses() {
        let document = json!({"type": "doc", "version": 1, "content": [
            {"type": "paragraph", "content": [
                {"type": "text", "text": "see"},
                {"type": "text", "text": "here", "marks": [{"type": "link", "attrs": {"href": "https://a.example"}}]},
                {"type": "inlineCard", "attrs": {"url": "https://b.example/x"}},
                {"type": "mention", "attrs": {"id": "1", "text": "@ann"}},
            ]},
            {"type": "bulletList", "content": [{"type": "listItem", "content": [{"type": "text", "text": "one"}]}]},
        ]});
        assert_eq!(rich(&document).unwrap(), "see here https://a.example https://b.example/x @ann one");
        assert_eq!(rich(&json!("plain")).unwrap(), "plain");
        assert_eq!(rich(&Value::Null), None);
        let mut deep = json!({"text": "x"});
        for _ in 0..500 {
            deep = json!({"content": [deep]});
        }
        assert_eq!(rich(&deep).unwrap(), "");
    }

    #[test]
    fn options_and_service_levels() {
        assert_eq!(option(&json!({"value": "High", "name": "x"})).unwrap(), "High");
        assert_eq!(option(&json!({"name": "x"})).unwrap(), "x");
        assert_eq!(option(&json!(7)).unwrap(), "7");
        assert_eq!(list(&json!([{"value": "a"}, "b"]), option).unwrap(), r#"["a","b"]"#);
        let cycle =
            |breached: bool| json!({"breached": breached, "goalDuration": {"millis": 5}, "elapsedTime": {"millis": 7}});
        let done = [Cell::Text("True".to_owned()), Cell::Number(5), Cell::Number(7)];
        assert_eq!(level(&json!({"name": "x", "ongoingCycle": cycle(true)})), done);
        assert_eq!(level(&json!({"name": "x", "completedCycles": [cycle(false), cycle(true)]})), done);
        assert_eq!(level(&json!({"errorMessage": "no", "ongoingCycle": cycle(true)}))[0], Cell::Null);
        assert_eq!(level(&Value::Null)[2], Cell::Null);
    }
}
