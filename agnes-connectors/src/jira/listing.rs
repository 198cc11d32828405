//! Which issues a sync asks the site for: those that changed since the last sync. A list of what
//! changed cannot show what is gone: all are listed where the site counts other issues than are kept,
//! and once a day.

use agnes_core::duck::blocking;
use agnes_core::error::Result;
use agnes_core::push::Documents;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};

/// Every issue, of those the account sees.
const ALL: &str = "created >= \"1970-01-01\"";
/// The note of the last lists.
const NOTE: &str = "listed";
/// Hours after which all issues are listed again.
const ALL_EVERY: i64 = 24;
/// Minutes before the last list that are looked at again: a search may lag behind what was done.
const OVERLAP: i64 = 60;

/// What a sync is to bring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// What changed since the last one, where that can be told.
    Changes,
    /// All that is there, fetched whatever is known of it.
    Everything,
}

/// A list that is about to be asked for.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The site and the project: lists of others say nothing.
    scope: String,
    now: DateTime<Utc>,
    /// When all issues were last listed, and when anything was; `None` where all are now.
    last: Option<(DateTime<Utc>, DateTime<Utc>)>,
    /// Whether what is kept is of another site.
    pub(crate) is_elsewhere: bool,
    /// Issues that could not be fetched the last time: no list shows them until they change.
    pub(crate) again: Vec<String>,
}

fn time(value: &Value) -> Option<DateTime<Utc>> {
    DateTime::parse_from_rfc3339(value.as_str()?).ok().map(|at| at.to_utc())
}

impl Listing {
    /// The next one, of all issues where that is asked for or due.
    pub(crate) async fn next(documents: &Documents, scope: String, wanted: Wanted, now: DateTime<Utc>) -> Result<Self> {
        let kept = documents.clone();
        let note = blocking(move || kept.note(NOTE)).await?.unwrap_or_default();
        let same = note["scope"] == scope.as_str();
        let site = |scope: &str| scope.split(' ').next().map(str::to_owned);
        let is_elsewhere = note["scope"].as_str().is_some_and(|before| site(before) != site(&scope));
        let known = time(&note["all"]).zip(time(&note["at"])).filter(|_| same);
        let recent = |(all, at): &(DateTime<Utc>, DateTime<Utc>)| {
            wanted == Wanted::Changes && *all <= *at && *at <= now && now - *all < TimeDelta::hours(ALL_EVERY)
        };
        let again = note["failed"].as_array().into_iter().flatten().filter_map(Value::as_str).filter(|_| same);
        Ok(Self { scope, now, last: known.filter(recent), is_elsewhere, again: again.map(str::to_owned).collect() })
    }

    /// Whether it shows every issue of the site.
    pub(crate) fn is_whole(&self) -> bool {
        self.last.is_none()
    }

    /// What to search for; `project` narrows it.
    pub(crate) fn jql(&self, project: &str) -> String {
        match self.last {
            None => format!("{project}{ALL} ORDER BY created ASC, key ASC"),
            Some((_, at)) => {
                // By the site's own clock: a date would be read in the time zone of the account.
                let minutes = (self.now - at).num_minutes() + 1 + OVERLAP;
                format!("{project}updated >= \"-{minutes}m\" ORDER BY updated ASC, key ASC")
            }
        }
    }

    /// What finds every issue, to count them.
    pub(crate) fn all(project: &str) -> String {
        format!("{project}{ALL}")
    }

    /// The list of all, instead of this one.
    pub(crate) fn whole(self) -> Self {
        Self { last: None, ..self }
    }

    /// Notes that everything on it was taken but what `failed`.
    pub(crate) async fn done(&self, documents: &Documents, failed: &[String]) -> Result<()> {
        let (now, kept) = (self.now, documents.clone());
        let all = self.last.map_or(now, |(all, _)| all);
        let note = json!({"scope": self.scope, "all": all.to_rfc3339(), "at": now.to_rfc3339(), "failed": failed});
        blocking(move || kept.set_note(NOTE, &note)).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::Wanted::{Changes, Everything};
    use super::*;

    #[tokio::test]
    async fn all_are_listed_once_a_day_and_what_changed_in_between() {
        let folder = tempfile::tempdir().unwrap();
        let documents = Documents::of(folder.path());
        let next =
            async |scope: &str, wanted, now| Listing::next(&documents, scope.to_owned(), wanted, now).await.unwrap();
        let start = Utc::now();
        let first = next("a", Changes, start).await;
        assert!(first.is_whole() && first.jql("").starts_with("created >= \"1970-01-01\""));
        first.done(&documents, &["A-1".to_owned()]).await.unwrap();
        let hours = |hours| start + TimeDelta::hours(hours);
        assert!(next("b", Changes, hours(2)).await.again.is_empty());
        let second = next("a", Changes, hours(2)).await;
        assert_eq!(second.again, ["A-1"]);
        assert_eq!(
            second.jql("project = \"P\" AND "),
            "project = \"P\" AND updated >= \"-181m\" ORDER BY updated ASC, key ASC"
        );
        second.done(&documents, &[]).await.unwrap();
        assert!(next("a", Changes, hours(3)).await.again.is_empty());
        assert!(next("a", Changes, hours(3)).await.jql("").starts_with("updated >= \"-121m\""));
        // Another site, all that was asked for, a day later, a clock that was put back.
        for (scope, wanted, now) in [("b", Changes, 3), ("a", Everything, 3), ("a", Changes, 24), ("a", Changes, 1)] {
            assert!(next(scope, wanted, hours(now)).await.is_whole(), "{scope} {wanted:?} {now}");
        }
    }
}
