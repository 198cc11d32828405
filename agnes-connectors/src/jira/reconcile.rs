//! What is kept of a site compared with the site: fetched where it is missing or older, taken out
//! where it is gone. The first time this is the backfill; issues that are kept already are what
//! an interrupted one goes on from.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use agnes_core::duck::blocking;
use agnes_core::error::{Error, Result};
use agnes_core::push::{Documents, Fetched, News};
use chrono::{DateTime, Utc};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::api::{Api, Hit};
use super::config::Project;
use super::document::{is_deleted, settle};
use super::event::is_key;
use super::fetch::{self, Levels};
use super::files::{self, File};
use super::listing::{Listing, Wanted};
use super::rows::{exact_micros, micros, month_of};

/// The note of a backfill that fetches everything anew: how far it is.
const NOTE: &str = "backfill";
/// Issues between two notes of how far it is.
const STEP: usize = 200;
/// So many issues that fail are a matter of these issues, however few were asked for.
const FEW: usize = 3;

/// What is known of a kept issue without reading it again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known {
    changed_ns: u128,
    /// What the site calls it whatever its key.
    id: Option<String>,
    /// Whether it could be read: else it is as if it were missing.
    pub(crate) readable: bool,
    /// When it changed at the site.
    pub(crate) updated: Option<i64>,
    pub(crate) created: Option<i64>,
    pub(crate) deleted: bool,
    /// Whether all of it was fetched.
    pub(crate) whole: bool,
    /// Its files.
    pub(crate) files: Vec<File>,
}

impl Known {
    /// The month it belongs to.
    pub(crate) fn month(&self) -> String {
        month_of(self.created)
    }
}

/// What is known of kept issues, by the folder of the extract.
#[derive(Debug, Default)]
pub(crate) struct Index(Mutex<HashMap<PathBuf, HashMap<String, Known>>>);

impl Index {
    /// Every kept issue, read again only where its file changed. Blocks.
    pub(crate) fn of(&self, documents: &Documents) -> Result<HashMap<String, Known>> {
        let files = documents.list()?;
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = all.remove(documents.extract()).unwrap_or_default();
        let mut now = HashMap::with_capacity(files.len());
        for file in files {
            let known = match before.get(&file.key) {
                Some(known) if known.changed_ns == file.changed_ns => known.clone(),
                _ => match documents.read(&file.key) {
                    Ok(Some(document)) => Known {
                        changed_ns: file.changed_ns,
                        id: document["id"].as_str().map(str::to_owned),
                        readable: true,
                        updated: document["fields"]["updated"].as_str().and_then(exact_micros),
                        created: document["fields"]["created"].as_str().and_then(micros),
                        deleted: is_deleted(&document),
                        whole: document.get("_told").is_none(),
                        files: files::of(&document).collect(),
                    },
                    Ok(None) => continue,
                    Err(error) if error.code() == "document_unreadable" => {
                        Known { changed_ns: file.changed_ns, ..Known::default() }
                    }
                    Err(error) => return Err(error),
                },
            };
            now.insert(file.key, known);
        }
        all.insert(documents.extract().to_owned(), now.clone());
        Ok(now)
    }
}

/// Whether a kept issue is older than the site says.
pub(crate) fn is_stale(hit: &Hit, known: Option<&Known>) -> bool {
    match known {
        None => true,
        Some(known) if known.deleted || !known.whole => true,
        // Searches and issues tell the same time; a search without it says nothing.
        Some(known) => hit.updated.is_some_and(|at| known.updated.is_none_or(|kept| kept < at)),
    }
}

/// What came of fetching some issues.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Fetched and kept, or gone.
    pub(crate) fetched: Vec<String>,
    pub(crate) gone: Vec<String>,
    /// What is kept of these is others now.
    pub(crate) changed: BTreeSet<String>,
    pub(crate) failed: Vec<(String, Error)>,
}

/// Fetches issues and keeps them, some at a time; those of another project than `only` are gone.
pub(crate) async fn fetch(
    api: &Api,
    levels: Option<&Levels>,
    documents: &Documents,
    only: &Project,
    keys: impl IntoIterator<Item = String>,
    parallel: usize,
) -> Result<Done> {
    let mut done = Done::default();
    let one = |key: String| async move {
        let fetched = api.patiently(|| fetch::issue(api, levels, &key)).await;
        let news = match fetched {
            Ok(Fetched::Gone) => Ok(vec![(key.clone(), News::Gone(Utc::now()))]),
            Ok(Fetched::Found { document, .. }) if !only.holds(&document) => {
                Ok(vec![(key.clone(), News::Gone(Utc::now()))])
            }
            Ok(Fetched::Found { key: found, mut document, lacking, former }) => {
                // Kept all the same: what is lacking stays as it was, and the next sync tries again.
                if let Some(error) = lacking {
                    document["_told"] = true.into();
                    tracing::warn!(code = error.code(), "an issue is not whole: {error}");
                }
                let gone = former.into_iter().chain((found != key).then(|| key.clone()));
                let mut news: Vec<(String, News)> = gone.map(|key| (key, News::Gone(Utc::now()))).collect();
                news.push((found, News::Fetched(document)));
                Ok(news)
            }
            Err(error) => Err(error),
        };
        let kept = match news {
            Ok(news) => keep(documents, news).await,
            Err(error) => Err(error),
        };
        (key, kept)
    };
    let keys: Vec<String> = keys.into_iter().collect();
    let mut work = futures::stream::iter(keys).map(one).buffer_unordered(parallel.max(1));
    while let Some((key, kept)) = work.next().await {
        api.cancel.check()?;
        match kept {
            Ok(kept) => {
                if kept.gone.contains(&key) && !kept.found {
                    done.gone.push(key.clone());
                } else {
                    done.fetched.push(key.clone());
                }
                done.changed.extend(kept.changed);
            }
            Err(error) => done.failed.push((key, error)),
        }
    }
    Ok(done)
}

#[derive(Debug, Default)]
struct Kept {
    gone: Vec<String>,
    found: bool,
    changed: Vec<String>,
}

async fn keep(documents: &Documents, news: Vec<(String, News)>) -> Result<Kept> {
    let documents = documents.clone();
    blocking(move || {
        let mut kept = Kept::default();
        for (key, what) in news {
            match &what {
                News::Gone(_) => kept.gone.push(key.clone()),
                _ => kept.found = true,
            }
            if documents.put(&key, |there| settle(there, what))? {
                kept.changed.push(key);
            }
        }
        Ok(kept)
    })
    .await
}

async fn listed(api: &Api, listing: &Listing, project: &str) -> Result<Vec<Hit>> {
    let hits = api.search(&listing.jql(project)).await?;
    Ok(hits.into_iter().filter(|hit| is_key(&hit.key)).collect())
}

/// Kept issues that a list does not show.
struct Seen {
    /// Gone as it seems: of all issues those that are not listed, of what changed those that are
    /// called otherwise now.
    gone: Vec<String>,
    /// Others that were not had whole: these do not wait until they change again.
    unlisted: Vec<String>,
}

impl Seen {
    fn of(hits: &[Hit], known: &HashMap<String, Known>, whole: bool) -> Self {
        let there: HashSet<&str> = hits.iter().map(|hit| hit.key.as_str()).collect();
        let ids: HashSet<&str> = hits.iter().filter_map(|hit| hit.id.as_deref()).collect();
        let mut seen = Self { gone: Vec::new(), unlisted: Vec::new() };
        for (key, known) in known.iter().filter(|(key, known)| !known.deleted && !there.contains(key.as_str())) {
            if whole || known.id.as_deref().is_some_and(|id| ids.contains(id)) {
                seen.gone.push(key.clone());
            } else if !known.whole {
                seen.unlisted.push(key.clone());
            }
        }
        seen
    }
}

/// Brings everything that is kept to what the site has. How many could not be fetched: a few stop no others, and the next
/// sync tries them again.
pub(crate) async fn everything(
    api: &Api,
    levels: Option<&Levels>,
    documents: &Documents,
    index: &Arc<Index>,
    project: &Project,
    parallel: usize,
    wanted: Wanted,
) -> Result<usize> {
    api.cancel.check()?;
    api.is_known().await?;
    let clause = project.clause();
    let mut listing = Listing::next(documents, format!("{} {clause}", api.base), wanted, Utc::now()).await?;
    let full = wanted == Wanted::Everything || listing.is_elsewhere;
    let mut hits = listed(api, &listing, &clause).await?;
    let known = known(index, documents).await?;
    if !listing.is_whole() {
        let gone = Seen::of(&hits, &known, false).gone.len();
        let new = hits.iter().filter(|hit| known.get(&hit.key).is_none_or(|known| known.deleted)).count();
        let kept = known.values().filter(|known| !known.deleted).count() + new - gone;
        // Some are gone, or are seen that were not.
        if api.count(&Listing::all(&clause)).await?.is_some_and(|count| count != kept as u64) {
            listing = listing.whole();
            hits = listed(api, &listing, &clause).await?;
        }
    }
    let Seen { mut gone, unlisted } = Seen::of(&hits, &known, listing.is_whole());
    let mut stale: Vec<String> =
        hits.iter().filter(|hit| full || is_stale(hit, known.get(&hit.key))).map(|hit| hit.key.clone()).collect();
    stale.extend(unlisted);
    let (mut failed, mut away) = (Vec::new(), false);
    let mut again = listing.again.clone();
    let mut done = if full { resumed(documents, stale.len(), &mut again).await? } else { 0 };
    let (begun, all) = (done, stale.len());
    while done < all {
        let until = (done + STEP).min(all);
        let step =
            fetch(api, levels, documents, &Project::default(), stale[done..until].iter().cloned(), parallel).await?;
        away = step.failed.len() > STEP / 4;
        failed.extend(step.failed);
        done = until;
        // Nothing helps here but waiting: those that follow would fail the same way.
        if away {
            break;
        }
        if full {
            note(documents, Some((done, all)), again.iter().chain(failed.iter().map(|(key, _)| key))).await?;
        }
    }
    // Not in the list is no proof: the list may be behind, the issue itself never is.
    let listed: HashSet<&String> = stale.iter().skip(begun).chain(&gone).collect();
    again.retain(|key| !away && is_key(key) && !listed.contains(key));
    let asked = done + gone.len() + again.len();
    gone.extend(again);
    let unseen = fetch(api, levels, documents, project, gone, parallel).await?;
    failed.extend(unseen.failed);
    let kept = documents.clone();
    blocking(move || kept.sync()).await?;
    for (key, error) in &failed {
        tracing::warn!(issue = key, code = error.code(), "an issue cannot be fetched: {error}");
    }
    let (few, keys) = (failed.len(), failed.iter().map(|(key, _)| key.clone()).collect::<BTreeSet<_>>());
    // A quarter of them is no matter of single issues.
    if (away || (few > FEW && few * 4 > asked))
        && let Some((_, error)) = failed.into_iter().next()
    {
        return Err(error);
    }
    if full {
        note(documents, None, std::iter::empty()).await?;
    }
    listing.done(documents, &Vec::from_iter(keys)).await?;
    Ok(few)
}

/// What is known of kept issues.
pub(crate) async fn known(index: &Arc<Index>, documents: &Documents) -> Result<HashMap<String, Known>> {
    let (index, documents) = (index.clone(), documents.clone());
    blocking(move || index.of(&documents)).await
}

/// How far a backfill is that was cut off less than a day ago, of as many issues; those that it could not fetch are to
/// be had `again`.
async fn resumed(documents: &Documents, all: usize, again: &mut Vec<String>) -> Result<usize> {
    let documents = documents.clone();
    let note = blocking(move || documents.note(NOTE)).await?.unwrap_or_default();
    let at = note["at"].as_str().and_then(|at| DateTime::parse_from_rfc3339(at).ok());
    let recent = at.is_some_and(|at| (Utc::now() - at.to_utc()).num_hours() < 24);
    let (done, of) = (note["done"].as_u64().unwrap_or_default(), note["of"].as_u64().unwrap_or_default());
    // Issues that came since are at the end of the list.
    let done = usize::try_from(done).ok().filter(|_| recent && of <= all as u64).unwrap_or_default();
    if done > 0 {
        again.extend(note["failed"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    }
    again.sort_unstable();
    again.dedup();
    Ok(done)
}

async fn note<'k>(
    documents: &Documents,
    progress: Option<(usize, usize)>,
    failed: impl Iterator<Item = &'k String>,
) -> Result<()> {
    let (documents, failed) = (documents.clone(), failed.collect::<BTreeSet<_>>());
    let note = match progress {
        Some((done, of)) => json!({"done": done, "of": of, "at": Utc::now().to_rfc3339(), "failed": failed}),
        None => json!({}),
    };
    blocking(move || documents.set_note(NOTE, &note)).await
}
