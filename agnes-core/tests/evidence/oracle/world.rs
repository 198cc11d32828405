//! Worlds: schemas, data, grants and policies; and, by other means than the engine's, what
//! they leave for the caller.

use agnes_core::policy::{ColumnRule, FilterMode, Keep, PolicyRules, RowFilter};
use sha2::{Digest, Sha256};

use super::tape::Tape;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
    Date,
    List,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Number, Self::Text, Self::Date, Self::List];

    fn sql(self) -> &'static str {
        match self {
            Self::Number => "INTEGER",
            Self::Text => "VARCHAR",
            Self::Date => "DATE",
            Self::List => "INTEGER[]",
        }
    }
}

/// Groups of a world, and whether the caller is in them.
pub(super) const GROUPS: [(&str, bool); 5] =
    [("bob", true), ("more1", true), ("more2", true), ("others", false), ("Everyone", true)];
/// Address of the caller.
pub(super) const EMAIL: &str = "bob@acme.example";
/// In every text of a table that the caller may not read.
pub(super) const MARKER: &str = "zzhidden";

/// A table of a world.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) columns: Vec<(String, Kind)>,
    pub(super) rows: Vec<Vec<String>>,
    /// Which of [`GROUPS`] may read it.
    pub(super) grants: Vec<usize>,
    /// At most one for each of [`GROUPS`].
    pub(super) policies: Vec<(usize, PolicyRules)>,
}

/// What the policies of the caller's groups say of a table, put together.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// A row passes one of these; empty: every row does.
    pub(super) opens: Vec<String>,
    /// And all of these.
    pub(super) closes: Vec<String>,
    /// Rules of columns.
    pub(super) rules: Vec<(String, ColumnRule)>,
}

impl Part {
    fn rule(&self, column: &str) -> Option<&ColumnRule> {
        self.rules.iter().find(|(name, _)| name == column).map(|(_, rule)| rule)
    }

    /// Whether the caller reads the table as it is.
    pub(super) fn is_whole(&self) -> bool {
        self.opens.is_empty() && self.closes.is_empty() && self.rules.is_empty()
    }
}

/// How much of a column a rule shows, most first, as the guide has it.
fn shows(rule: &ColumnRule) -> (usize, i64, String) {
    match rule {
        ColumnRule::Expression { sql } => (0, 0, sql.clone()),
        ColumnRule::Partial { keep, from } => {
            (1, -i64::from(*keep), if *from == Keep::Start { "a" } else { "b" }.to_owned())
        }
        ColumnRule::Hash => (2, 0, String::new()),
        ColumnRule::Null => (3, 0, String::new()),
        ColumnRule::Hidden => (4, 0, String::new()),
    }
}

impl Table {
    /// Whether the caller may read it.
    pub(super) fn granted(&self) -> bool {
        self.grants.iter().any(|group| GROUPS[*group].1)
    }

    /// What is left of it for the caller.
    pub(super) fn part(&self) -> Part {
        let of = |group: &usize| self.policies.iter().find(|(own, _)| own == group).map(|(_, rules)| rules);
        let granting: Vec<&usize> = self.grants.iter().filter(|group| GROUPS[**group].1).collect();
        let mut part = Part::default();
        let mut open = false;
        for group in &granting {
            match of(group).and_then(|rules| rules.filter.as_ref()) {
                Some(filter) if filter.mode == FilterMode::Permissive => part.opens.push(filter.predicate.clone()),
                _ => open = true,
            }
        }
        if open {
            part.opens.clear();
        }
        for (group, rules) in &self.policies {
            if let Some(filter) = rules.filter.as_ref().filter(|f| f.mode == FilterMode::Restrictive)
                && GROUPS[*group].1
            {
                part.closes.push(filter.predicate.clone());
            }
        }
        for (column, _) in &self.columns {
            let rules: Vec<Option<&ColumnRule>> =
                granting.iter().map(|group| of(group).and_then(|rules| rules.columns.get(column))).collect();
            if rules.iter().all(Option::is_some) {
                let least = rules.into_iter().flatten().min_by_key(|rule| shows(rule));
                part.rules.extend(least.map(|rule| (column.clone(), rule.clone())));
            }
        }
        part
    }

    /// Columns that are there for the caller, as they are there.
    pub(super) fn shown(&self) -> Vec<(String, Kind)> {
        let part = self.part();
        let columns = self.columns.iter().filter_map(|(name, kind)| match part.rule(name) {
            Some(ColumnRule::Hidden) => None,
            Some(ColumnRule::Hash | ColumnRule::Partial { .. }) => Some((name.clone(), Kind::Text)),
            _ => Some((name.clone(), *kind)),
        });
        columns.collect()
    }

    /// What is left of it, as SQL over the whole.
    fn slice(&self, user: &User) -> String {
        let part = self.part();
        let columns = self.columns.iter().filter_map(|(name, kind)| {
            let text = format!("CAST({name} AS VARCHAR)");
            Some(match part.rule(name) {
                None => name.clone(),
                Some(ColumnRule::Hidden) => return None,
                Some(ColumnRule::Null) => format!("CAST(NULL AS {}) AS {name}", kind.sql()),
                Some(ColumnRule::Hash) => format!("(SELECT h.hash FROM {HASHES} h WHERE h.text = {text}) AS {name}"),
                Some(ColumnRule::Partial { keep, from }) => {
                    let end = format!("substring({text}, length({text}) - {keep} + 1)");
                    let kept = match from {
                        Keep::Start => format!("substring({text}, 1, {keep}) || '***'"),
                        Keep::End => format!("'***' || {end}"),
                    };
                    format!("if({name} IS NULL, NULL, if(length({text}) <= {keep}, '***', {kept})) AS {name}")
                }
                Some(ColumnRule::Expression { sql }) => {
                    format!("CAST(({}\n) AS {}) AS {name}", user.write_in(sql), kind.sql())
                }
            })
        });
        let columns = columns.collect::<Vec<_>>().join(", ");
        let one = |predicate: &String| format!("coalesce(({}\n), false)", user.write_in(predicate));
        let opens: Vec<String> = part.opens.iter().map(one).collect();
        let mut all: Vec<String> = part.closes.iter().map(one).collect();
        if !opens.is_empty() {
            all.push(format!("({})", opens.join(" OR ")));
        }
        let filter = if all.is_empty() { "true".to_owned() } else { all.join(" AND ") };
        format!("SELECT {columns} FROM {} WHERE {filter}", self.name)
    }
}

/// Where the hashes of values are while slices are made.
const HASHES: &str = "known_hashes";

/// What is known of the caller.
pub(super) struct User {
    pub(super) id: String,
    /// Text of the installation's key; none where nothing needed it.
    pub(super) key: Option<String>,
}

impl User {
    /// An expression with the caller's values in it.
    fn write_in(&self, sql: &str) -> String {
        let mut groups: Vec<String> =
            GROUPS.iter().filter(|(_, member)| *member).map(|(name, _)| format!("'{name}'")).collect();
        groups.sort();
        sql.replace("$user_email", &format!("'{EMAIL}'"))
            .replace("$user_id", &format!("'{}'", self.id))
            .replace("$user_groups", &format!("[{}]", groups.join(", ")))
    }

    /// HMAC-SHA256 with the key for masks.
    fn hash(&self, text: &str) -> String {
        let secret = Sha256::digest(self.key.as_deref().unwrap_or_default().trim());
        hmac(&hmac(&secret, b"agnes mask"), text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// RFC 2104.
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let pad = |byte: u8| (0..64).map(|n| key.get(n).copied().unwrap_or(0) ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

/// Schemas, data, grants and policies.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) tables: Vec<Table>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut tape = Tape::random(seed, 4000);
        let names = ["orders", "people", "events", "items", "pay", "notes", "plans", "sites"];
        let count = 4 + tape.below(4);
        let mut tables = Vec::new();
        for (n, name) in names.iter().take(count).enumerate() {
            // The first may be read, the second not; of the others nobody knows.
            let granted = n == 0 || n > 1 && tape.below(2) == 0;
            // One of the caller's groups, or several; besides, one of strangers.
            let mut grants = if granted { [&[0][..], &[1], &[0, 1], &[1, 2]][tape.below(4)].to_vec() } else { vec![] };
            if tape.one_in(3) {
                grants.push(3);
            }
            let width = 2 + tape.below(4);
            // Names repeat between tables, so that joins and shadows meet.
            let mut columns = vec![("id".to_owned(), Kind::Number)];
            for _ in 0..width {
                let kind = *tape.pick(&Kind::ALL);
                let column = format!("{}{}", ["n", "t", "d", "l"][kind as usize], tape.below(3));
                if !columns.iter().any(|(known, _)| *known == column) {
                    columns.push((column, kind));
                }
            }
            let rows = (0..tape.below(30))
                .map(|_| columns.iter().map(|(_, kind)| value(&mut tape, *kind, granted)).collect())
                .collect();
            tables.push(Table { name: (*name).to_owned(), columns, rows, grants, policies: Vec::new() });
        }
        for n in 0..tables.len() {
            if tape.one_in(4) {
                continue;
            }
            // What policies look things up in: often a table that the caller may not read.
            let other = tables[[1, (n + 1) % count, 2][tape.below(3)]].clone();
            for group in 0..GROUPS.len() {
                let grants = tables[n].grants.contains(&group);
                if tape.below(if grants { 5 } else { 8 }) < if grants { 4 } else { 1 } {
                    let made = policy(&mut tape, &tables[n], &other);
                    tables[n].policies.extend(made.map(|rules| (group, rules)));
                }
            }
        }
        Self { tables }
    }

    /// Makes what the caller may read of a world that is in `conn`, and nothing else.
    pub(super) fn narrow(&self, conn: &duckdb::Connection, user: &User) {
        conn.execute_batch(&format!("CREATE TABLE {HASHES} (text VARCHAR, hash VARCHAR)")).unwrap();
        let mut known = std::collections::BTreeSet::new();
        for table in self.tables.iter().filter(|table| table.granted()) {
            for (column, rule) in table.part().rules {
                if rule == ColumnRule::Hash {
                    let sql = format!(
                        "SELECT DISTINCT CAST({column} AS VARCHAR) FROM {0} WHERE {column} IS NOT NULL",
                        table.name
                    );
                    known.extend(crate::support::texts(conn, &sql));
                }
            }
        }
        for text in known {
            conn.execute(&format!("INSERT INTO {HASHES} VALUES (?, ?)"), [&text, &user.hash(&text)]).unwrap();
        }
        // Policies read whole tables: all of them are there until the last slice is made.
        let granted = || self.tables.iter().filter(|table| table.granted()).map(|table| (&table.name, table));
        for (name, table) in granted() {
            conn.execute_batch(&format!("CREATE TABLE slice_{name} AS {}", table.slice(user))).unwrap();
        }
        for table in &self.tables {
            conn.execute_batch(&format!("DROP TABLE {}", table.name)).unwrap();
        }
        conn.execute_batch(&format!("DROP TABLE {HASHES}")).unwrap();
        for (name, _) in granted() {
            conn.execute_batch(&format!("ALTER TABLE slice_{name} RENAME TO {name}")).unwrap();
        }
    }

    /// Makes all tables, as they are.
    pub(super) fn create(&self, conn: &duckdb::Connection) {
        for table in &self.tables {
            let columns: Vec<String> =
                table.columns.iter().map(|(name, kind)| format!("{name} {}", kind.sql())).collect();
            conn.execute_batch(&format!("CREATE TABLE {} ({})", table.name, columns.join(", "))).unwrap();
            for row in &table.rows {
                conn.execute_batch(&format!("INSERT INTO {} VALUES ({})", table.name, row.join(", "))).unwrap();
            }
        }
    }

    /// Worlds with a little less in them.
    pub(super) fn simpler(&self) -> Vec<Self> {
        let mut found = Vec::new();
        for at in 0..self.tables.len() {
            let mut with = |change: &dyn Fn(&mut Table)| {
                let mut world = self.clone();
                change(&mut world.tables[at]);
                found.push(world);
            };
            let table = &self.tables[at];
            for policy in 0..table.policies.len() {
                with(&|table| drop(table.policies.remove(policy)));
                for column in
                    table.policies[policy].1.columns.keys().filter(|_| is_more_than_one(&table.policies[policy].1))
                {
                    with(&|table| drop(table.policies[policy].1.columns.remove(column)));
                }
                if !table.policies[policy].1.columns.is_empty() && table.policies[policy].1.filter.is_some() {
                    with(&|table| table.policies[policy].1.filter = None);
                }
            }
            if !table.rows.is_empty() {
                with(&|table| table.rows.truncate(table.rows.len() / 2));
                with(&|table| drop(table.rows.drain(..table.rows.len().div_ceil(2))));
            }
        }
        found
    }

    /// For whoever reads of a failure.
    pub(super) fn text(&self) -> String {
        let table = |table: &Table| {
            let columns: Vec<String> =
                table.columns.iter().map(|(name, kind)| format!("{name} {}", kind.sql())).collect();
            let groups: Vec<&str> = table.grants.iter().map(|group| GROUPS[*group].0).collect();
            let rows: Vec<String> = table.rows.iter().map(|row| row.join(", ")).collect();
            let policies = table.policies.iter().map(|(group, rules)| {
                format!("\n    {}: {}", GROUPS[*group].0, serde_json::to_string(rules).unwrap_or_default())
            });
            format!(
                "\n  {}({}) for {groups:?}: ({}){}",
                table.name,
                columns.join(", "),
                rows.join("), ("),
                policies.collect::<String>()
            )
        };
        self.tables.iter().map(table).collect()
    }
}

fn is_more_than_one(rules: &PolicyRules) -> bool {
    rules.columns.len() + usize::from(rules.filter.is_some()) > 1
}

/// What a group sees of `table`; `other` is what it may be looked up in.
fn policy(tape: &mut Tape, table: &Table, other: &Table) -> Option<PolicyRules> {
    let mut rules = PolicyRules::default();
    let mode = match tape.below(4) {
        0 => None,
        1 => Some(FilterMode::Restrictive),
        _ => Some(FilterMode::Permissive),
    };
    rules.filter = mode.map(|mode| RowFilter { predicate: predicate(tape, table, other), mode });
    for (name, kind) in table.columns.iter().skip(1) {
        let own = &table.name;
        let rule = match (tape.below(14), kind) {
            (7, _) => ColumnRule::Hidden,
            (8, _) => ColumnRule::Null,
            (9, _) => ColumnRule::Hash,
            (10, _) => {
                let from = [Keep::Start, Keep::End][tape.below(2)];
                ColumnRule::Partial { keep: 1 + tape.below(3) as u32, from }
            }
            (11.., kind) => {
                let id = format!("{own}.id");
                let forms = match kind {
                    Kind::Number => [
                        format!("{name} // 4"),
                        format!("CASE WHEN $user_email LIKE 'b%' THEN {name} % 2 + id END -- half"),
                        format!("(SELECT count(*) FROM {} m WHERE m.id = {id})", other.name),
                        format!("{name} + length($user_id) + len($user_groups)"),
                    ],
                    Kind::Text => [
                        format!("upper({name}) || id"),
                        format!("coalesce({name}, $user_email)"),
                        format!("if(list_contains($user_groups, {name}), {name}, left({name}, 1))"),
                        format!("(SELECT max(m.id) FROM {} m)::VARCHAR || {name}", other.name),
                    ],
                    Kind::Date => [
                        format!("date_trunc('month', {name})"),
                        format!("{name} - day({name})::INTEGER"),
                        "NULL".to_owned(),
                        format!("(SELECT max(m.{name}) FROM {own} m WHERE m.id = {id})"),
                    ],
                    Kind::List => [
                        format!("{name}[1:1]"),
                        format!("list_transform({name}, lambda e: e // 2)"),
                        "[]".to_owned(),
                        format!("list_sort({name})"),
                    ],
                };
                ColumnRule::Expression { sql: tape.pick(&forms).clone() }
            }
            _ => continue,
        };
        rules.columns.insert(name.clone(), rule);
    }
    let texts =
        rules.filter.iter().map(|filter| &filter.predicate).chain(rules.columns.values().filter_map(
            |rule| match rule {
                ColumnRule::Expression { sql } => Some(sql),
                _ => None,
            },
        ));
    if texts.into_iter().any(|text| text.contains(&format!("FROM {} m", other.name))) {
        rules.mapping_tables = vec![other.name.clone()];
    }
    (rules.filter.is_some() || !rules.columns.is_empty()).then_some(rules)
}

fn predicate(tape: &mut Tape, table: &Table, other: &Table) -> String {
    let (own, other) = (&table.name, &other.name);
    let (name, kind) = tape.pick(&table.columns);
    let forms = match kind {
        Kind::Number => [
            format!("{name} % 3 = {}", tape.below(3)),
            format!("{name} < len($user_groups)"),
            format!("{name} = 1 OR {name} IS NULL OR $user_id = 'nobody'"),
            format!("NOT {name} = {} -- not so", tape.below(6)),
        ],
        Kind::Text => [
            format!("{name} < 'b'"),
            format!("{name} = $user_email OR {name} = 'a'"),
            format!("list_contains($user_groups, {name})"),
            format!("{name} IN (SELECT unnest($user_groups)) OR id > 4"),
        ],
        Kind::Date => [
            format!("{name} >= DATE '2024-01-05'"),
            format!("{name} IS NOT NULL"),
            format!("day({name}) % 2 = 1"),
            format!("{name} = (SELECT max(m.{name}) FROM {own} m)"),
        ],
        Kind::List => [
            format!("list_contains({name}, 2)"),
            format!("len({name}) = 2 AND {name}[1] > 0"),
            format!("{name} IS NULL"),
            format!("list_sum({name}) > 2"),
        ],
    };
    match tape.below(8) {
        4 => format!("{name} IS NOT NULL"),
        5 => format!("id IN (SELECT m.id FROM {other} m)"),
        6 => format!("EXISTS (SELECT 1 FROM {other} m WHERE m.id = {own}.id + 1)"),
        7 => format!("id > (SELECT avg(m.id) FROM {other} m) OR $user_email IS NULL"),
        _ => tape.pick(&forms).clone(),
    }
}

fn value(tape: &mut Tape, kind: Kind, granted: bool) -> String {
    if tape.one_in(8) {
        return "NULL".to_owned();
    }
    match kind {
        Kind::Number => tape.below(12).to_string(),
        Kind::Text if !granted => format!("'{MARKER}{}'", tape.below(5)),
        Kind::Text => format!("'{}'", tape.pick(&["a", "b", "7", "x y", "", "2024-01-02", "é", EMAIL, "more1", "bob"])),
        Kind::Date => format!("DATE '2024-01-0{}'", 1 + tape.below(9)),
        Kind::List => format!("[{}, {}]", tape.below(4), tape.below(4)),
    }
}
