//! A Jira Cloud site of our own: the calls that Agnes makes, in the shapes that Atlassian
//! documents, with signed deliveries for everything that happens on it.

use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agnes_core::testing::Request;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

pub(crate) const EMAIL: &str = "bot@example.com";
pub(crate) const TOKEN: &str = "jira-token-7f3a9c";
pub(crate) const SECRET: &str = "webhook-secret-51d0";
pub(crate) const SLA_EMAIL: &str = "sla@example.com";
pub(crate) const SLA_TOKEN: &str = "sla-token-c0ffee";
pub(crate) const CLOUD: &str = "11223344-a-b-c";

/// 2026-01-05T10:00:00Z, in milliseconds.
const START: i64 = 1_767_607_200_000;
/// Comments and changes that are embedded in an issue.
const EMBEDDED: usize = 100;
/// The time zone of the account, in which dates of a search are read: milliseconds east of Greenwich.
const ZONE: i64 = 2 * 3_600_000;

#[derive(Debug, Clone)]
pub(crate) struct Issue {
    pub(crate) id: u64,
    pub(crate) fields: Map<String, Value>,
    pub(crate) comments: Vec<Value>,
    pub(crate) changes: Vec<Value>,
    pub(crate) remote: Vec<Value>,
    pub(crate) updated: i64,
    pub(crate) levels: Map<String, Value>,
}

/// Answers to requests whose address holds some text, so often.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) matching: String,
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    pub(crate) left: u32,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) issues: BTreeMap<String, Issue>,
    /// What issues were called before.
    pub(crate) moved: BTreeMap<String, String>,
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Where the content of a file is sent on to.
    pub(crate) redirects: BTreeMap<String, String>,
    pub(crate) faults: Vec<Fault>,
    /// Method and target of every request.
    pub(crate) requests: Vec<String>,
    /// What was searched for.
    pub(crate) searches: Vec<String>,
    pub(crate) clock: i64,
    pub(crate) next: u64,
    /// Issues of one page of a search.
    pub(crate) page: usize,
    pub(crate) fields: Vec<Value>,
    /// Whether it says nothing of tokens that it does not know, as where something in between takes it out.
    pub(crate) silent: bool,
}

impl State {
    /// What whoever is not known is answered: on most sites they may see no issue, and that is no refusal.
    fn to_nobody(&self, path: &str) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let said = ("X-Seraph-LoginReason".to_owned(), "AUTHENTICATED_FAILED".to_owned());
        let (status, body) = match path.strip_prefix("/rest/api/3/").unwrap_or_default() {
            "search/jql" => (200, json!({"issues": [], "isLast": true})),
            "search/approximate-count" => (200, json!({"count": 0})),
            "field" => (200, json!(self.fields)),
            path if path.starts_with("issue/") => {
                (404, json!({"errorMessages": ["Issue does not exist or you do not have permission to see it."]}))
            }
            _ => (401, json!({"errorMessages": ["Client must be authenticated to access this resource."]})),
        };
        (status, if self.silent { vec![] } else { vec![said] }, body.to_string().into_bytes())
    }
}

#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

/// A time as Jira writes it.
pub(crate) fn stamp(ms: i64) -> String {
    let at = chrono::DateTime::from_timestamp_millis(ms).unwrap();
    at.format("%Y-%m-%dT%H:%M:%S%.3f+0000").to_string()
}

fn person(name: &str) -> Value {
    json!({"accountId": format!("5b10{name}"), "emailAddress": format!("{name}@example.com"), "displayName": name, "active": true})
}

/// A paragraph of rich text.
pub(crate) fn paragraph(text: &str) -> Value {
    json!({"type": "doc", "version": 1, "content": [{"type": "paragraph", "content": [{"type": "text", "text": text}]}]})
}

/// The time that a search means: minutes before now by the clock of the site, or a date where the account is.
fn moment(text: &str, clock: i64) -> i64 {
    if let Some(minutes) = text.strip_prefix('-').and_then(|text| text.strip_suffix('m')) {
        return clock - minutes.parse::<i64>().unwrap() * 60_000;
    }
    let whole = if text.contains(' ') { text.to_owned() } else { format!("{text} 00:00") };
    let at = chrono::NaiveDateTime::parse_from_str(&whole, "%Y-%m-%d %H:%M").unwrap();
    at.and_utc().timestamp_millis() - ZONE
}

/// Issues that a search finds, oldest first.
fn found<'s>(state: &'s State, jql: &str) -> Vec<(&'s String, &'s Issue)> {
    let quoted = |after: &str| jql.split_once(after).and_then(|(_, rest)| rest.split('"').nth(1));
    let bound = |after: &str| quoted(after).map(|text| moment(text, state.clock));
    let (since, until, changed) = (bound("created >="), bound("created <="), bound("updated >="));
    let project = quoted("project =").map(|project| format!("{project}-"));
    let created = |issue: &Issue| {
        let text = issue.fields["created"].as_str().unwrap();
        chrono::DateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.3f%z").unwrap().timestamp_millis()
    };
    let is_meant = |(key, issue): &(&String, &Issue)| {
        since.is_none_or(|since| created(issue) >= since)
            && until.is_none_or(|until| created(issue) <= until)
            && changed.is_none_or(|changed| issue.updated >= changed)
            && project.as_ref().is_none_or(|project| key.starts_with(project))
    };
    let mut found: Vec<_> = state.issues.iter().filter(is_meant).collect();
    found.sort_by_key(|(_, issue)| issue.id);
    found
}

/// The signature of a delivery, as its header has it.
pub(crate) fn signature(secret: &str, body: &[u8]) -> String {
    // RFC 2104, with a key shorter than a block.
    let mut key = [0_u8; 64];
    key[..secret.len()].copy_from_slice(secret.as_bytes());
    let pad = |with: u8| key.map(|byte| byte ^ with);
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(body).finalize();
    let outer = Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize();
    format!("sha256={}", outer.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

impl Fake {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let fields = [("summary", "Summary"), ("customfield_10004", "Severity"), ("customfield_20001", "Team")];
        let fields = fields.map(|(id, name)| json!({"id": id, "name": name, "custom": id.starts_with("custom")}));
        let state = State { clock: START, next: 1, page: 100, fields: fields.to_vec(), ..State::default() };
        let fake = Self { url, state: Arc::new(Mutex::new(state)) };
        let served = fake.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let served = served.clone();
                std::thread::spawn(move || while served.one(&stream).is_some() {});
            }
        });
        fake
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Settings of a source on this site.
    pub(crate) fn config(&self) -> Value {
        json!({"domain": self.url, "email": EMAIL})
    }

    pub(crate) fn fault(&self, matching: &str, status: u16, headers: &[(&str, &str)], body: &str, times: u32) {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (matching, body) = (matching.to_owned(), body.to_owned());
        self.state().faults.push(Fault { matching, status, headers, body, left: times });
    }

    /// Makes an issue; its key.
    pub(crate) fn create(&self, project: &str, summary: &str) -> String {
        let mut state = self.state();
        state.clock += 1000;
        let (at, id) = (state.clock, 10_000 + state.next);
        let key = format!("{project}-{}", state.next);
        state.next += 1;
        let fields = json!({
            "summary": summary,
            "description": paragraph(&format!("about {summary}")),
            "issuetype": {"id": "1", "name": "Task"},
            "status": {"id": "1", "name": "To Do", "statusCategory": {"id": 2, "key": "new", "name": "To Do"}},
            "priority": {"id": "3", "name": "Medium"},
            "resolution": null,
            "resolutiondate": null,
            "project": {"id": "1", "key": project, "name": format!("Project {project}")},
            "creator": person("ann"),
            "reporter": person("ann"),
            "assignee": null,
            "created": stamp(at),
            "duedate": null,
            "labels": ["a", "b"],
            "issuelinks": [],
            "attachment": [],
        });
        let fields = fields.as_object().unwrap().clone();
        let issue =
            Issue { id, fields, comments: vec![], changes: vec![], remote: vec![], updated: at, levels: Map::new() };
        state.issues.insert(key.clone(), issue);
        key
    }

    /// Changes an issue; it is newer afterwards.
    pub(crate) fn change(&self, key: &str, change: impl FnOnce(&mut Issue)) {
        let mut state = self.state();
        state.clock += 7;
        let at = state.clock;
        let issue = state.issues.get_mut(key).unwrap();
        change(issue);
        issue.updated = at;
    }

    /// Gives a field another value, with an entry in the changelog.
    pub(crate) fn set(&self, key: &str, field: &str, value: Value) {
        let id = self.id();
        self.change(key, |issue| {
            let text = |value: &Value| value.as_str().map_or_else(|| value["name"].clone(), Value::from);
            let before = issue.fields.get(field).map(text).unwrap_or_default();
            let at = stamp(issue.updated + 7);
            issue.changes.push(json!({"id": id, "author": person("ann"), "created": at, "items": [
                {"field": field, "fieldtype": "jira", "fieldId": field, "from": null, "fromString": before, "to": null, "toString": text(&value)},
            ]}));
            issue.fields.insert(field.to_owned(), value);
        });
    }

    fn id(&self) -> String {
        let mut state = self.state();
        state.next += 1;
        (50_000 + state.next).to_string()
    }

    pub(crate) fn comment(&self, key: &str, text: &str) -> String {
        let id = self.id();
        self.change(key, |issue| {
            let at = stamp(issue.updated + 7);
            issue.comments.push(json!({"id": id, "author": person("bob"), "updateAuthor": person("bob"),
                "body": paragraph(text), "created": at, "updated": at}));
        });
        id
    }

    pub(crate) fn uncomment(&self, key: &str) {
        self.change(key, |issue| drop(issue.comments.pop()));
    }

    pub(crate) fn remote_link(&self, key: &str, url: &str) {
        let id = self.id();
        self.change(key, |issue| {
            issue.remote.push(
                json!({"id": id.parse::<u64>().unwrap(), "globalId": url, "application": {"type": "com.x", "name": "X"},
                "object": {"url": url, "title": "a page"}}),
            );
        });
    }

    pub(crate) fn link(&self, from: &str, to: &str) {
        let id = self.id();
        for (key, other, side) in [(from, to, "outwardIssue"), (to, from, "inwardIssue")] {
            let other = json!({"key": other, "fields": {"summary": "the other", "status": {"name": "To Do"}, "priority": {"name": "Low"}}});
            self.change(key, |issue| {
                let mut link =
                    json!({"id": id, "type": {"name": "Blocks", "inward": "is blocked by", "outward": "blocks"}});
                link[side] = other;
                issue.fields["issuelinks"].as_array_mut().unwrap().push(link);
            });
        }
    }

    pub(crate) fn attach(&self, key: &str, name: &str, bytes: &[u8]) -> String {
        let (id, url) = (self.id(), self.url.clone());
        self.state().files.insert(id.clone(), bytes.to_vec());
        self.change(key, |issue| {
            let at = stamp(issue.updated);
            issue.fields["attachment"].as_array_mut().unwrap().push(json!({"id": id, "filename": name, "author": person("bob"), "created": at,
                "size": bytes.len(), "mimeType": "text/plain", "content": format!("{url}/rest/api/3/attachment/content/{id}"),
                "thumbnail": format!("{url}/rest/api/3/attachment/thumbnail/{id}")}));
        });
        id
    }

    pub(crate) fn delete(&self, key: &str) {
        self.state().issues.remove(key);
    }

    /// How many requests for a whole issue there were.
    pub(crate) fn fetches(&self, key: &str) -> usize {
        let asked = format!("/issue/{key}?expand=");
        self.state().requests.iter().filter(|request| request.contains(&asked)).count()
    }

    /// What an issue is called from now on.
    pub(crate) fn rename(&self, key: &str, to: &str) {
        let mut state = self.state();
        let issue = state.issues.remove(key).unwrap();
        state.issues.insert(to.to_owned(), issue);
        state.moved.insert(key.to_owned(), to.to_owned());
    }

    /// Has the changelog of an issue tell of its move, as the site does.
    pub(crate) fn moved_from(&self, key: &str, before: &str) {
        let id = self.id();
        self.change(key, |issue| {
            let at = stamp(issue.updated + 7);
            issue.changes.push(json!({"id": id, "author": person("ann"), "created": at, "items": [
                {"field": "Key", "fieldtype": "jira", "from": null, "fromString": before, "to": null, "toString": key},
            ]}));
        });
    }

    /// A delivery about an issue as it is now: its id and body. Events of comments and the like
    /// have less of the issue in them.
    pub(crate) fn event(&self, kind: &str, key: &str) -> (String, Vec<u8>) {
        let id = self.id();
        let state = self.state();
        let issue = state.issues.get(key).map(|issue| {
            let mut whole = document(key, issue, &self.url);
            whole.as_object_mut().unwrap().remove("changelog");
            if !kind.starts_with("jira:") {
                let fields = ["summary", "status", "priority", "project", "issuetype", "assignee", "updated"];
                let few: Map<String, Value> =
                    fields.iter().map(|name| ((*name).to_owned(), whole["fields"][*name].clone())).collect();
                whole["fields"] = few.into();
            }
            whole
        });
        let issue = issue.unwrap_or_else(|| json!({"id": "0", "key": key, "fields": {"summary": "it was"}}));
        let body =
            json!({"timestamp": state.clock, "webhookEvent": kind, "user": person("ann"), "issue": issue, "nonce": id});
        (id, body.to_string().into_bytes())
    }

    fn one(&self, mut stream: &TcpStream) -> Option<()> {
        let request = Request::read(&mut BufReader::new(stream))?;
        let authorization = request.header("Authorization").unwrap_or_default();
        let (status, headers, body) = self.answer(&request.method, &request.target, authorization, &request.body);
        let mut head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        // At once: what is written second would wait until the first has been acknowledged, 40 ms here.
        stream.write_all(&[head.as_bytes(), b"\r\n", &body].concat()).ok()
    }

    fn answer(
        &self,
        method: &str,
        target: &str,
        authorization: &str,
        body: &[u8],
    ) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let mut state = self.state();
        state.requests.push(format!("{method} {target}"));
        if let Some(fault) = state.faults.iter_mut().find(|fault| fault.left > 0 && target.contains(&fault.matching)) {
            fault.left -= 1;
            return (fault.status, fault.headers.clone(), fault.body.clone().into_bytes());
        }
        let plain = |status: u16, value: Value| (status, Vec::new(), value.to_string().into_bytes());
        let refused = |status: u16, words: &str| plain(status, json!({"errorMessages": [words], "errors": {}}));
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        // Atlassian's own host of files takes nobody's token.
        let alone = path.strip_prefix("/file/").filter(|_| authorization.is_empty());
        if let Some(rest) = path.strip_prefix("/media/").or(alone) {
            return match state.files.get(rest) {
                Some(bytes) => (200, Vec::new(), bytes.clone()),
                None => refused(404, "no such file"),
            };
        }
        let is = |email: &str, token: &str| {
            use base64::Engine as _;
            let pair = base64::engine::general_purpose::STANDARD.encode(format!("{email}:{token}"));
            authorization == format!("Basic {pair}")
        };
        let number = |name: &str| {
            let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
            value.and_then(|value| value.parse::<usize>().ok())
        };
        if let Some(rest) = path.strip_prefix(&format!("/ex/jira/{CLOUD}/rest/api/3/issue/")) {
            if !is(SLA_EMAIL, SLA_TOKEN) {
                return refused(401, "Client must be authenticated to access this resource.");
            }
            let Some(issue) = state.issues.get(rest) else { return refused(404, "Issue does not exist") };
            let mut fields = document(rest, issue, &self.url)["fields"].clone();
            for (name, level) in &issue.levels {
                fields[name] = level.clone();
            }
            return plain(200, json!({"key": rest, "fields": fields}));
        }
        if !is(EMAIL, TOKEN) {
            return state.to_nobody(path);
        }
        let Some(path) = path.strip_prefix("/rest/api/3/") else { return refused(404, "no such address") };
        match (method, path) {
            ("GET", "myself") => {
                return plain(200, json!({"accountId": "5b10", "displayName": "Bot", "emailAddress": EMAIL}));
            }
            ("GET", "field") => return plain(200, json!(state.fields)),
            ("POST", "search/approximate-count") => {
                let asked: Value = serde_json::from_slice(body).unwrap_or_default();
                let count = found(&state, asked["jql"].as_str().unwrap_or_default()).len();
                return plain(200, json!({"count": count}));
            }
            ("POST", "search/jql") => {
                let asked: Value = serde_json::from_slice(body).unwrap_or_default();
                state.searches.push(asked["jql"].as_str().unwrap_or_default().to_owned());
                return self.search(&state, &asked);
            }
            _ => {}
        }
        if let Some(id) = path.strip_prefix("attachment/content/") {
            if let Some(to) = state.redirects.get(id) {
                return (303, vec![("Location".to_owned(), to.clone())], Vec::new());
            }
            return match state.files.get(id) {
                Some(bytes) => (200, Vec::new(), bytes.clone()),
                None => refused(404, "no such file"),
            };
        }
        let Some(rest) = path.strip_prefix("issue/") else { return refused(404, "no such address") };
        let (key, what) = rest.split_once('/').unwrap_or((rest, ""));
        let key = state.moved.get(key).cloned().unwrap_or_else(|| key.to_owned());
        let Some(issue) = state.issues.get(&key) else {
            return refused(404, "Issue does not exist or you do not have permission to see it.");
        };
        let page = |all: &[Value], name: &str| {
            let (start, most) = (number("startAt").unwrap_or(0), number("maxResults").unwrap_or(50).min(100));
            let some: Vec<&Value> = all.iter().skip(start).take(most).collect();
            let last = start + some.len() >= all.len();
            plain(200, json!({"startAt": start, "maxResults": most, "total": all.len(), "isLast": last, name: some}))
        };
        match (method, what) {
            ("GET", "") => plain(200, document(&key, issue, &self.url)),
            ("GET", "comment") => page(&issue.comments, "comments"),
            ("GET", "changelog") => page(&issue.changes, "values"),
            ("GET", "remotelink") => plain(200, json!(issue.remote)),
            _ => refused(405, "no such method"),
        }
    }

    fn search(&self, state: &State, asked: &Value) -> (u16, Vec<(String, String)>, Vec<u8>) {
        let plain = |status: u16, value: Value| (status, Vec::new(), value.to_string().into_bytes());
        let jql = asked["jql"].as_str().unwrap_or_default();
        if !jql.contains("created >=") && !jql.contains("updated >=") {
            let words = "Unbounded JQL queries are not allowed here. Please add a search restriction to your query.";
            return plain(400, json!({"errorMessages": [words], "errors": {}}));
        }
        let found = found(state, jql);
        let start: usize = asked["nextPageToken"].as_str().map_or(0, |token| token[1..].parse().unwrap());
        let most = usize::try_from(asked["maxResults"].as_u64().unwrap_or(50)).unwrap().min(state.page);
        let one = |(key, issue): &(&String, &Issue)| json!({"id": issue.id.to_string(), "key": key, "fields": {"updated": stamp(issue.updated)}});
        let issues: Vec<Value> = found.iter().skip(start).take(most).map(one).collect();
        let mut answer = json!({"issues": issues});
        let end = start + most;
        answer["isLast"] = (end >= found.len()).into();
        if end < found.len() {
            answer["nextPageToken"] = format!("p{end}").into();
        }
        plain(200, answer)
    }
}

/// An issue as the site tells it: the newest of its comments and changes are embedded.
pub(crate) fn document(key: &str, issue: &Issue, url: &str) -> Value {
    let newest = |all: &[Value]| all[all.len().saturating_sub(EMBEDDED)..].to_vec();
    let mut fields = issue.fields.clone();
    fields.insert("updated".to_owned(), stamp(issue.updated).into());
    let comments = json!({"comments": newest(&issue.comments), "maxResults": EMBEDDED, "total": issue.comments.len(), "startAt": 0});
    fields.insert("comment".to_owned(), comments);
    json!({
        "expand": "renderedFields,names,schema,operations,editmeta,changelog",
        "id": issue.id.to_string(),
        "self": format!("{url}/rest/api/3/issue/{}", issue.id),
        "key": key,
        "renderedFields": {},
        "changelog": {"startAt": 0, "maxResults": EMBEDDED, "total": issue.changes.len(), "histories": newest(&issue.changes)},
        "fields": fields,
    })
}
