//! What is kept of an issue when something new is known of it: by the issue's own time of
//! change, never by when it came. What is not known stays as it was.

use agnes_core::push::News;
use chrono::SecondsFormat;
use serde_json::{Map, Value, json};

use super::rows::{exact_micros, month};

/// In an issue that was fetched: fields of which nothing is known now.
pub(crate) const UNKNOWN: &str = "_unknown";

fn updated(document: &Value) -> Option<i64> {
    document["fields"]["updated"].as_str().and_then(exact_micros)
}

/// When what is kept was asked for.
fn asked(document: &Value) -> &str {
    document["_synced_at"].as_str().unwrap_or_default()
}

pub(crate) fn is_deleted(document: &Value) -> bool {
    document.get("_deleted_at").is_some_and(|at| !at.is_null())
}

/// The site that an issue is of, as it says itself.
fn site(document: &Value) -> Option<&str> {
    Some(document["self"].as_str()?.split_once("/rest/")?.0)
}

/// The same but for when it was asked for.
fn is_same(a: &Value, b: &Value) -> bool {
    let without = |document: &Value| -> Map<String, Value> {
        let fields = document.as_object().cloned().unwrap_or_default();
        fields.into_iter().filter(|(name, _)| name != "_synced_at").collect()
    };
    without(a) == without(b)
}

/// What is kept from now on; `None` where what is there stays.
pub(crate) fn settle(there: Option<&Value>, news: News) -> Option<Value> {
    match news {
        News::Gone(at) => {
            let there = there.filter(|there| !is_deleted(there))?;
            let mut next = there.clone();
            next["_deleted_at"] = at.to_rfc3339_opts(SecondsFormat::Micros, true).into();
            Some(next)
        }
        News::Fetched(mut next) => {
            let unknown = next.as_object_mut().and_then(|next| next.remove(UNKNOWN)).unwrap_or_default();
            // One of another site is another issue, whatever its key, and whichever of them changed last.
            let of_others = |there: &&Value| site(there).zip(site(&next)).is_some_and(|(a, b)| a != b);
            if let Some(there) = there.filter(|there| !of_others(there)) {
                let older = if is_deleted(there) {
                    asked(&next) < there["_deleted_at"].as_str().unwrap_or_default()
                } else {
                    (updated(&next), asked(&next)) < (updated(there), asked(there)) && updated(&next).is_some()
                };
                if older {
                    return None;
                }
                keep_unknown(&mut next, there, &unknown);
            }
            remember_month(&mut next, there);
            there.is_none_or(|there| !is_same(there, &next)).then_some(next)
        }
        News::Told(body) => {
            let told = &body["issue"];
            if there.is_some_and(|there| is_deleted(there) || updated(told) <= updated(there)) {
                return None;
            }
            let fields = told["fields"].as_object().filter(|fields| !fields.is_empty())?;
            let mut next = there.cloned().unwrap_or_else(|| json!({"fields": {}}));
            for name in ["id", "key", "self"] {
                if let Some(value) = told.get(name) {
                    next[name] = value.clone();
                }
            }
            for (name, value) in fields {
                // Of comments, a delivery holds some at best.
                let all = value["total"].as_u64() == value["comments"].as_array().map(|all| all.len() as u64);
                if name != "comment" || all {
                    next["fields"][name] = value.clone();
                }
            }
            next["_told"] = true.into();
            remember_month(&mut next, there);
            Some(next)
        }
    }
}

/// Takes over what the new document says nothing of.
fn keep_unknown(next: &mut Value, there: &Value, fields: &Value) {
    for name in ["_remote_links", "changelog"] {
        if next.get(name).is_none_or(Value::is_null)
            && let Some(known) = there.get(name)
        {
            next[name] = known.clone();
        }
    }
    if next["fields"].get("comment").is_none_or(Value::is_null)
        && let Some(known) = there["fields"].get("comment")
    {
        next["fields"]["comment"] = known.clone();
    }
    for name in fields.as_array().into_iter().flatten().filter_map(Value::as_str) {
        if let Some(known) = there["fields"].get(name) {
            next["fields"][name] = known.clone();
        }
    }
}

/// Notes every month that may hold rows of the issue.
fn remember_month(next: &mut Value, there: Option<&Value>) {
    let mut months: Vec<Value> = there.and_then(|there| there["_months"].as_array().cloned()).unwrap_or_default();
    let now = Value::from(month(next));
    if !months.contains(&now) {
        months.push(now);
    }
    next["_months"] = months.into();
}

/// Puts what was polled over a kept issue; whether it is settled now, or `None` where nothing new
/// was said.
pub(crate) fn overlay(there: &Value, levels: &Map<String, Value>, polled: &Value) -> Option<Value> {
    let mut next = there.clone();
    for (name, value) in levels {
        next["fields"][name] = value.clone();
    }
    for name in ["status", "resolution", "resolutiondate"] {
        if let Some(value) = polled.get(name).filter(|value| !value.is_null()) {
            next["fields"][name] = value.clone();
        }
    }
    if let Some(at) = polled["updated"].as_str()
        && exact_micros(at) > updated(there)
    {
        next["fields"]["updated"] = at.into();
        // The rest of the issue is older than it says now: the next sync fetches it.
        next["_told"] = true.into();
    }
    (next != *there).then_some(next)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use chrono::Utc;

    use super::*;

    fn issue(updated: &str, asked: &str, summary: &str) -> Value {
        json!({"key": "A-1", "_synced_at": asked, "_remote_links": [], "changelog": {"histories": []},
            "fields": {"updated": updated, "created": "2026-01-31T23:59:59.000+0000", "summary": summary,
                "comment": {"comments": [], "total": 0}}})
    }

    const EARLY: &str = "2026-02-01T00:00:00.100+0000";
    const LATE: &str = "2026-02-01T00:00:00.200+0000";

    #[test]
    fn the_newest_wins_whenever_it_comes() {
        let late = settle(None, News::Fetched(issue(LATE, "t2", "late"))).unwrap();
        assert_eq!(late["_months"], json!(["2026-01"]));
        assert_eq!(settle(Some(&late), News::Fetched(issue(EARLY, "t3", "early"))), None);
        assert_eq!(settle(Some(&late), News::Fetched(issue(LATE, "t1", "asked before"))), None);
        assert_eq!(settle(Some(&late), News::Fetched(issue(LATE, "t3", "late"))), None);
        let again = settle(Some(&late), News::Fetched(issue(LATE, "t3", "asked later"))).unwrap();
        assert_eq!(again["fields"]["summary"], "asked later");
    }

    #[test]
    fn what_is_unknown_stays() {
        let mut full = issue(EARLY, "t1", "a");
        full["_remote_links"] = json!([{"id": 1}]);
        full["changelog"] = json!({"histories": [{"id": "1"}]});
        full["fields"]["comment"] = json!({"comments": [{"id": "1"}], "total": 1});
        let full = settle(None, News::Fetched(full)).unwrap();
        let mut partial = issue(LATE, "t2", "b");
        for name in ["_remote_links", "changelog"] {
            partial.as_object_mut().unwrap().remove(name);
        }
        partial["fields"].as_object_mut().unwrap().remove("comment");
        let next = settle(Some(&full), News::Fetched(partial)).unwrap();
        assert_eq!((&next["_remote_links"], &next["changelog"]), (&full["_remote_links"], &full["changelog"]));
        assert_eq!((&next["fields"]["comment"], &next["fields"]["summary"]), (&full["fields"]["comment"], &json!("b")));
        // An empty list is known to be empty.
        let empty = settle(Some(&next), News::Fetched(issue(LATE, "t3", "b"))).unwrap();
        assert_eq!(empty["_remote_links"], json!([]));
    }

    #[test]
    fn deliveries_tell_less_than_the_site() {
        let full = settle(None, News::Fetched(issue(EARLY, "t1", "a"))).unwrap();
        let body = |updated: &str| json!({"issue": {"key": "A-1", "fields": {"updated": updated, "summary": "told", "comment": {"comments": [], "total": 3}}}});
        assert_eq!(settle(Some(&full), News::Told(body(EARLY))), None);
        let told = settle(Some(&full), News::Told(body(LATE))).unwrap();
        assert_eq!((&told["fields"]["summary"], &told["fields"]["comment"]["total"]), (&json!("told"), &json!(0)));
        assert_eq!(told["_told"], true);
        let fetched = settle(Some(&told), News::Fetched(issue(LATE, "t2", "full"))).unwrap();
        assert!(fetched.get("_told").is_none());
        assert_eq!(settle(None, News::Told(json!({"issue": {"key": "A-1"}}))), None);
        let first = settle(None, News::Told(body(LATE))).unwrap();
        assert_eq!(first["_months"], json!(["unknown"]));
        let known = settle(Some(&first), News::Fetched(issue(LATE, "t2", "full"))).unwrap();
        assert_eq!(known["_months"], json!(["unknown", "2026-01"]));
    }

    #[test]
    fn what_is_gone_stays_gone_unless_it_is_seen_later() {
        assert_eq!(settle(None, News::Gone(Utc::now())), None);
        let there = settle(None, News::Fetched(issue(EARLY, "2026-02-01T00:00:00Z", "a"))).unwrap();
        let at = DateTime::parse_from_rfc3339("2026-02-02T00:00:00Z").unwrap().to_utc();
        let gone = settle(Some(&there), News::Gone(at)).unwrap();
        assert!(is_deleted(&gone) && settle(Some(&gone), News::Gone(at)).is_none());
        assert_eq!(settle(Some(&gone), News::Fetched(issue(LATE, "2026-02-01T12:00:00Z", "asked before"))), None);
        let body = json!({"issue": {"key": "A-1", "fields": {"updated": LATE}}});
        assert_eq!(settle(Some(&gone), News::Told(body)), None);
        let back = settle(Some(&gone), News::Fetched(issue(EARLY, "2026-02-03T00:00:00Z", "a"))).unwrap();
        assert!(!is_deleted(&back));
    }

    use chrono::DateTime;
}
