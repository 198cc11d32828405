//! What the policies leave of each published table for one caller, ready to be made: the
//! columns they see, the statement that gives their rows, and what tells it apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::effective::groups_of;
use super::{ColumnRule, Distribution, InstanceKey, Keep, Narrowing, PolicyError, narrowings};
use crate::engine::TableIndex;
use crate::ident::quote_ident;
use crate::orchestrator::{Column, Generation, PublishedTable};
use crate::rbac::{AccessSnapshot, Principal};
use crate::sandbox::{Gate, Select, SliceQuery, UserValues};

/// One caller's part of a table.
#[derive(Debug, Clone)]
pub(crate) struct Narrowed {
    /// The table it is a part of.
    pub(crate) table: PublishedTable,
    /// What the policies say.
    pub(crate) narrowing: Narrowing,
    /// The table as the caller sees it: without files and figures, its content named by
    /// [`Self::key`].
    pub(crate) seen: PublishedTable,
    /// Tables that the statement reads besides.
    pub(super) mapping: Vec<PublishedTable>,
    /// Gives the rows, where the key's blocks are set as variables.
    pub(super) sql: String,
    /// Equal for equal rules over equal mapping tables and the same values of the caller.
    pub(crate) policy_key: String,
    /// Equal for an equal slice: [`Self::policy_key`] over the same content of the table.
    pub(crate) key: String,
}

/// The narrowed tables of a caller.
#[derive(Debug, Clone, Default)]
pub(crate) struct NarrowedTables {
    /// By name in lower case.
    pub(crate) tables: BTreeMap<String, Arc<Narrowed>>,
    /// Tables that cannot be read by this caller now, and why.
    pub(crate) blocked: BTreeMap<String, PolicyError>,
}

/// The values that a caller's expressions see.
pub(super) fn user_values(access: &AccessSnapshot, principal: &Principal) -> UserValues {
    let (groups, _) = groups_of(access, principal);
    let mut groups: Vec<String> =
        groups.into_iter().filter_map(|id| access.groups.get(id)).map(|group| group.name.clone()).collect();
    groups.sort();
    UserValues {
        id: principal.user_id().to_owned(),
        email: access.active_users.get(principal.user_id()).cloned(),
        groups,
    }
}

/// What is left of the tables of `generation` for `principal`, as far as policies narrow them.
pub(crate) async fn narrowed_tables(
    gate: &Gate,
    access: &AccessSnapshot,
    index: &TableIndex,
    generation: &Generation,
    principal: &Principal,
    key: &InstanceKey,
) -> NarrowedTables {
    let mut found = NarrowedTables::default();
    let narrowings = narrowings(access, principal);
    if narrowings.is_empty() {
        return found;
    }
    let user = user_values(access, principal);
    for table in generation.tables() {
        let Some(narrowing) = narrowings.get(&index.id_of(table.name.as_str())) else { continue };
        if narrowing.is_open() && narrowing.distribution == Distribution::Slice {
            continue;
        }
        let name = table.name.as_str().to_ascii_lowercase();
        match narrow(gate, generation, table, narrowing, &user, key).await {
            Ok(narrowed) => drop(found.tables.insert(name, Arc::new(narrowed))),
            Err(error) => drop(found.blocked.insert(name, error)),
        }
    }
    found
}

/// What `narrowing` leaves of `table` for a caller with these values.
pub(super) async fn narrow(
    gate: &Gate,
    generation: &Generation,
    table: &PublishedTable,
    narrowing: &Narrowing,
    user: &UserValues,
    key: &InstanceKey,
) -> Result<Narrowed, PolicyError> {
    let name = || table.name.as_str().to_owned();
    if table.remote.is_some() {
        return Err(PolicyError::Remote { table: name() });
    }
    let visible = table.columns.iter().filter(|column| narrowing.shows(&column.name));
    let (mut columns, mut selects) = (Vec::new(), Vec::new());
    for column in visible {
        let (select, seen) = masked(column, narrowing.rule(&column.name));
        selects.push((column.name.clone(), select));
        columns.push(seen);
    }
    if columns.is_empty() {
        return Err(PolicyError::NoTable { table: name() });
    }
    let hashes = narrowing.columns.values().any(|rule| *rule == ColumnRule::Hash);
    let query = SliceQuery {
        table: name(),
        columns: selects,
        any_of: narrowing.any_of.iter().cloned().collect(),
        all_of: narrowing.all_of.iter().cloned().collect(),
    };
    let failed = |error: crate::Error| {
        tracing::error!(table = table.name.as_str(), code = error.code(), "a policy cannot be read");
        PolicyError::Failed { table: name() }
    };
    let (sql, facts) = gate.slice(query, user.clone()).await.map_err(failed)?;
    let mut mapping = Vec::new();
    for wanted in facts.tables {
        let own = wanted == table.name.as_str().to_lowercase();
        let named = own || narrowing.mapping_tables.contains(&wanted);
        let Some(found) = generation.table(&wanted).filter(|found| named && found.remote.is_none()) else {
            tracing::error!(table = table.name.as_str(), mapping = wanted, "a mapping table of a policy is missing");
            return Err(PolicyError::Failed { table: name() });
        };
        if !own {
            mapping.push(found.clone());
        }
    }
    let mut hash = Sha256::new();
    let mut add = |part: &str| {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add("agnes slice 1");
    add(&sql);
    if hashes {
        add(&key.mask_id());
    }
    for table in &mapping {
        add(table.name.as_str());
        add(&table.content_hash);
    }
    let policy_key = crate::orchestrator::hex(&hash.clone().finalize());
    hash.update(&table.content_hash);
    hash.update(format!("{:?}", table.columns));
    let key = crate::orchestrator::hex(&hash.finalize());
    let whole = narrowing.is_open();
    let seen = match whole {
        true => table.clone(),
        false => PublishedTable {
            columns,
            rows: 0,
            size_bytes: 0,
            parts: Vec::new(),
            partitioned: false,
            content_hash: key.clone(),
            manifest_hash: String::new(),
            ..table.clone()
        },
    };
    Ok(Narrowed { table: table.clone(), narrowing: narrowing.clone(), seen, mapping, sql, policy_key, key })
}

/// How a column is selected, and what the caller sees of it.
fn masked(column: &Column, rule: Option<&ColumnRule>) -> (Select, Column) {
    let name = quote_ident(&column.name);
    let text = Column { data_type: "VARCHAR".to_owned(), nullable: true, ..column.clone() };
    let same = Column { nullable: true, ..column.clone() };
    match rule {
        None | Some(ColumnRule::Hidden) => (Select::Own(name), column.clone()),
        Some(ColumnRule::Null) => (Select::Own(format!("CAST(NULL AS {})", column.data_type)), same),
        // HMAC-SHA256: the hash of the outer block and the hash of the inner block and the text.
        Some(ColumnRule::Hash) => {
            let inner = format!("getvariable('agnes_inner') || encode(CAST({name} AS VARCHAR))");
            let outer = format!("sha256(getvariable('agnes_outer') || unhex(sha256({inner})))");
            (Select::Own(outer), text)
        }
        Some(ColumnRule::Partial { keep, from }) => {
            let value = format!("CAST({name} AS VARCHAR)");
            let shown = match from {
                Keep::Start => format!("left({value}, {keep}) || '***'"),
                Keep::End => format!("'***' || right({value}, {keep})"),
            };
            let select =
                format!("CASE WHEN {name} IS NULL THEN NULL WHEN length({value}) > {keep} THEN {shown} ELSE '***' END");
            (Select::Own(select), text)
        }
        Some(ColumnRule::Expression { sql }) => {
            (Select::Expression { sql: sql.clone(), data_type: column.data_type.clone() }, same)
        }
    }
}

/// What a policy took from a table that an answer was made of: an answer of "none" may be
/// one of "none that you may see".
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RowScope {
    /// The table.
    pub table: String,
    /// Whether rows may be missing.
    pub rows_filtered: bool,
    /// Columns that are not shown as they are.
    pub masked_columns: Vec<String>,
}

/// Where a result's schema says [`RowScope`], as JSON.
pub const ROW_SCOPE_KEY: &str = "agnes.row_scope";

impl RowScope {
    /// What the schema of a result says policies took from its tables.
    #[must_use]
    pub fn of_schema(schema: &arrow::datatypes::Schema) -> Vec<Self> {
        let text = schema.metadata().get(ROW_SCOPE_KEY);
        text.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }

    /// `schema` with these scopes.
    pub(crate) fn into_schema(scopes: &[Self], schema: &arrow::datatypes::SchemaRef) -> arrow::datatypes::SchemaRef {
        match serde_json::to_string(scopes) {
            Ok(text) if !scopes.is_empty() => {
                let mut metadata = schema.metadata().clone();
                metadata.insert(ROW_SCOPE_KEY.to_owned(), text);
                Arc::new(arrow::datatypes::Schema::new_with_metadata(schema.fields().clone(), metadata))
            }
            _ => schema.clone(),
        }
    }
}

impl Narrowed {
    /// What it says of itself; none where all that is missing are columns that do not exist
    /// for the caller.
    pub(crate) fn scope(&self) -> Option<RowScope> {
        let masked: BTreeSet<&str> =
            self.seen.columns.iter().map(|c| c.name.as_str()).filter(|c| self.narrowing.rule(c).is_some()).collect();
        let scope = RowScope {
            table: self.table.name.as_str().to_owned(),
            rows_filtered: self.narrowing.filters_rows(),
            masked_columns: masked.into_iter().map(str::to_owned).collect(),
        };
        (scope.rows_filtered || !scope.masked_columns.is_empty()).then_some(scope)
    }

    /// The mask of a column that the caller sees.
    pub(crate) fn mask(&self, column: &str) -> Option<&'static str> {
        self.narrowing.rule(column).map(ColumnRule::as_str)
    }

    /// Whether the caller reads the table's own files.
    pub(crate) fn is_whole(&self) -> bool {
        self.narrowing.is_open()
    }
}
