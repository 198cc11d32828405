//! One issue with everything that belongs to it: all comments, the whole changelog, its links to
//! elsewhere, its service levels.

use agnes_core::error::{Error, Result};
use agnes_core::push::Fetched;
use chrono::{SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::api::Api;
use super::document::UNKNOWN;
use super::error::JiraError;
use super::event::is_key;

/// Who is asked for service levels: Atlassian's own address, the site, and the fields.
pub(crate) struct Levels {
    pub(crate) api: Api,
    pub(crate) cloud_id: String,
    pub(crate) fields: Vec<String>,
}

/// Whether what a field holds is a service level.
pub(crate) fn is_level(value: &Value) -> bool {
    let object = value.as_object();
    object.is_some_and(|level| {
        level.contains_key("name")
            && !level.contains_key("errorMessage")
            && (level.contains_key("completedCycles") || level.contains_key("ongoingCycle"))
    })
}

impl Levels {
    /// The service levels of an issue by field, and everything that was asked for beside them.
    pub(crate) async fn of(&self, key: &str, also: &[&str]) -> Result<(Map<String, Value>, Value)> {
        let wanted: Vec<&str> = self.fields.iter().map(String::as_str).chain(also.iter().copied()).collect();
        let mut issue = self.api.issue_fields(&self.cloud_id, key, &wanted.join(",")).await?;
        let fields = issue["fields"].take();
        let levels = self.fields.iter().filter(|name| is_level(&fields[name.as_str()]));
        Ok((levels.map(|name| (name.clone(), fields[name.as_str()].clone())).collect(), fields))
    }
}

/// Fetches an issue. What cannot be had of it is left out, which is not the same as empty.
pub(crate) async fn issue(api: &Api, levels: Option<&Levels>, key: &str) -> Result<Fetched> {
    let asked = Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true);
    let mut issue = match api.issue(key).await {
        Err(error) if error.code() == "jira_not_found" => {
            api.is_known().await?;
            return Ok(Fetched::Gone);
        }
        issue => issue?,
    };
    // An issue that was moved is found under what it was called before, too.
    let found = issue["key"].as_str().filter(|key| is_key(key)).map(str::to_owned);
    let (call, reason) = ("fetch an issue", "it is no issue");
    let found = found.filter(|_| issue["fields"].is_object()).ok_or(JiraError::NotUnderstood { call, reason })?;
    let mut lacking: Option<Error> = None;
    let mut lacks = |error: Error, what: &str| {
        tracing::warn!(code = error.code(), "{what} of an issue cannot be had: {error}");
        if error.is_retryable() {
            lacking.get_or_insert(error);
        }
    };
    let comment = &issue["fields"]["comment"];
    if is_cut(comment, "comments") {
        match api.all_of(&found, "comment", "the comments").await {
            Ok(all) => {
                let total = all.len();
                issue["fields"]["comment"] = json!({"comments": all, "total": total});
            }
            Err(error) => {
                lacks(error, "the comments");
                if let Some(fields) = issue["fields"].as_object_mut() {
                    fields.remove("comment");
                }
            }
        }
    }
    if is_cut(&issue["changelog"], "histories") {
        match api.all_of(&found, "changelog", "the changes").await {
            Ok(all) => {
                let total = all.len();
                issue["changelog"] = json!({"histories": all, "total": total});
            }
            Err(error) => {
                lacks(error, "the changes");
                if let Some(issue) = issue.as_object_mut() {
                    issue.remove("changelog");
                }
            }
        }
    }
    match api.remote_links(&found).await {
        Ok(links) => issue["_remote_links"] = links,
        Err(error) => lacks(error, "the links"),
    }
    if let Some(levels) = levels {
        match levels.of(&found, &[]).await {
            Ok((known, _)) => {
                for (name, level) in known {
                    issue["fields"][name] = level;
                }
            }
            Err(error) => {
                lacks(error, "the service levels");
                let unknown = levels.fields.iter().filter(|name| !is_level(&issue["fields"][name.as_str()]));
                issue[UNKNOWN] = unknown.cloned().collect();
            }
        }
    }
    issue["_synced_at"] = asked.into();
    let former = former(&issue, &found);
    Ok(Fetched::Found { key: found, document: issue, lacking, former })
}

/// What an issue that was moved was called before: a delivery names it as it is called now.
fn former(issue: &Value, key: &str) -> Vec<String> {
    let changes = issue["changelog"]["histories"].as_array().into_iter().flatten();
    let items = changes.flat_map(|change| change["items"].as_array().into_iter().flatten());
    // A field of somebody's own may be called "Key", too.
    let items = items.filter(|item| item["fieldtype"] == "jira");
    let moves = items.filter(|item| item["field"].as_str().is_some_and(|field| field.eq_ignore_ascii_case("key")));
    let keys = moves.filter_map(|item| item["fromString"].as_str()).filter(|from| is_key(from) && *from != key);
    keys.map(str::to_owned).collect()
}

/// Whether an embedded list does not hold all there is.
fn is_cut(list: &Value, name: &str) -> bool {
    let held = list[name].as_array().map(|all| all.len() as u64);
    held.is_some_and(|held| list["total"].as_u64().is_some_and(|total| total > held))
}
