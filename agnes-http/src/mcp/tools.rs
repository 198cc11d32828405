//! The tools: each declared once, for every door.

use std::sync::{Arc, OnceLock};

use agnes_core::Error;
use agnes_core::local::Rows;
use agnes_core::policy::RowScope;
use agnes_core::query::{Params, Query, json_column};
use agnes_core::scan::ScanRequest;
use agnes_core::skills;
use axum::http::StatusCode;
use rmcp::model::{JsonObject, ToolAnnotations};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

use super::server::Told;
use super::shapes::{
    CatalogFound, CatalogInput, CatalogRow, Described, EstimateInput, Estimated, Kept, Nothing, Profiled, PullInput,
    Pulled, QueryFound, QueryInput, QueryLocalInput, SampleInput, ServerInfo, SkillInput, SkillShown, SkillsFound,
    SnapshotInput, TableInput, ToolDocs, ToolDocsInput,
};
use super::{Backend, Laptop, Settings, docs, schema};
use crate::problem::Problem;
use crate::routes::shapes::{SampleAnswer, Schema};
use crate::state::time;

/// Tables of a list, unless it is asked for others.
const TABLES: usize = 200;
/// Most rows of a sample.
const SAMPLE: usize = 50;
/// Bytes of rows that are looked at before an answer counts as too long.
const READ_BYTES: usize = 64 << 20;

/// A tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tool {
    ServerInfo,
    Catalog,
    Schema,
    Sample,
    Describe,
    Profile,
    Query,
    Estimate,
    QueryLocal,
    Pull,
    Snapshot,
    Skills,
    SkillShow,
    Docs,
}

/// What is said of a tool.
struct Said {
    name: &'static str,
    title: &'static str,
    /// One short paragraph.
    short: &'static str,
    docs: &'static str,
    takes: fn() -> JsonObject,
    answers: fn() -> JsonObject,
}

const fn said<I: ToSchema, O: ToSchema>(
    name: &'static str,
    title: &'static str,
    short: &'static str,
    docs: &'static str,
) -> Said {
    Said { name, title, short, docs, takes: schema::of::<I>, answers: schema::of::<O> }
}

impl Tool {
    const ALL: [Self; 14] = [
        Self::ServerInfo,
        Self::Catalog,
        Self::Schema,
        Self::Sample,
        Self::Describe,
        Self::Profile,
        Self::Query,
        Self::Estimate,
        Self::QueryLocal,
        Self::Pull,
        Self::Snapshot,
        Self::Skills,
        Self::SkillShow,
        Self::Docs,
    ];

    fn said(self) -> Said {
        match self {
            Self::ServerInfo => said::<Nothing, ServerInfo>(
                "server_info",
                "About this server",
                "Which server answers, for whom, in which version.",
                docs::SERVER_INFO,
            ),
            Self::Catalog => said::<CatalogInput, CatalogFound>(
                "catalog",
                "Tables",
                "The tables that may be read, with descriptions, sizes and age. Begin here.",
                docs::CATALOG,
            ),
            Self::Schema => said::<TableInput, Schema>(
                "schema",
                "Columns of a table",
                "Names, types and descriptions of a table's columns. Ask before writing SQL on it.",
                docs::SCHEMA,
            ),
            Self::Sample => said::<SampleInput, SampleAnswer>(
                "sample",
                "Rows of a table",
                "The first rows of a table, to see what values look like.",
                docs::SAMPLE,
            ),
            Self::Describe => said::<SampleInput, Described>(
                "describe",
                "Columns and rows of a table",
                "Columns and some rows of a table, in one answer.",
                docs::DESCRIBE,
            ),
            Self::Profile => said::<TableInput, Profiled>(
                "profile",
                "Statistics of a table",
                "Statistics of a table's columns: missing and distinct values, ranges, frequent values, joins. Costs nothing.",
                docs::PROFILE,
            ),
            Self::Query => said::<QueryInput, QueryFound>(
                "query",
                "Ask in SQL",
                "Asks one read-only query in DuckDB's SQL. `truncated` says whether rows are left out, `row_scope` whether a policy narrows a table.",
                docs::QUERY,
            ),
            Self::Estimate => said::<EstimateInput, Estimated>(
                "estimate",
                "Cost of reading",
                "How many bytes and rows reading a part of a table takes, before it is read.",
                docs::ESTIMATE,
            ),
            Self::QueryLocal => said::<QueryLocalInput, QueryFound>(
                "query_local",
                "Ask the files here in SQL",
                "As `query`, of the tables and snapshots in this workspace: at once, without the server.",
                docs::QUERY_LOCAL,
            ),
            Self::Pull => said::<PullInput, Pulled>(
                "pull",
                "Bring the files here up to date",
                "Fetches what is new of the tables that this workspace holds, and takes away what may not be read any more.",
                docs::PULL,
            ),
            Self::Snapshot => said::<SnapshotInput, Kept>(
                "snapshot",
                "Keep rows here",
                "Keeps columns and rows of one table of the server as a table of this workspace, for `query_local`.",
                docs::SNAPSHOT,
            ),
            Self::Skills => said::<Nothing, SkillsFound>(
                "skills",
                "Guides",
                "The guides there are: asking the data, tables, sources, running a server, trouble.",
                docs::SKILLS,
            ),
            Self::SkillShow => said::<SkillInput, SkillShown>(
                "skill_show",
                "A guide",
                "The text of a guide that `skills` lists.",
                docs::SKILL_SHOW,
            ),
            Self::Docs => said::<ToolDocsInput, ToolDocs>(
                "tool_docs",
                "Documentation of a tool",
                "The whole documentation of one of these tools.",
                docs::TOOL_DOCS,
            ),
        }
    }

    /// Whether it is about the files of a workspace.
    fn is_local(self) -> bool {
        matches!(self, Self::QueryLocal | Self::Pull | Self::Snapshot)
    }

    /// The tools of a door, in the order in which they are listed.
    fn of(has_laptop: bool) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |tool| has_laptop || !tool.is_local())
    }

    /// The tool of this name.
    pub(super) fn named(name: &str, has_laptop: bool) -> Option<Self> {
        Self::of(has_laptop).find(|tool| tool.said().name == name)
    }

    /// What clients are told of every tool.
    pub(super) fn list(has_laptop: bool) -> &'static [rmcp::model::Tool] {
        static LISTS: [OnceLock<Vec<rmcp::model::Tool>>; 2] = [OnceLock::new(), OnceLock::new()];
        LISTS[usize::from(has_laptop)].get_or_init(|| Self::of(has_laptop).map(Self::declared).collect())
    }

    /// What clients are told of it.
    fn declared(self) -> rmcp::model::Tool {
        let said = self.said();
        let reads = !matches!(self, Self::Pull | Self::Snapshot);
        // One of the same name is refused, or by `force` replaced.
        let keeps = self == Self::Snapshot;
        let hints = ToolAnnotations::with_title(said.title).read_only(reads).destructive(keeps).idempotent(!keeps);
        rmcp::model::Tool::new(said.name, said.short, (said.takes)())
            .with_title(said.title)
            .with_raw_output_schema(Arc::new((said.answers)()))
            .with_annotations(hints.open_world(false))
    }

    /// Calls it.
    pub(super) async fn call(
        self,
        backend: &dyn Backend,
        settings: Settings,
        arguments: Value,
        told: &Told,
    ) -> Result<Value, Problem> {
        let answer = match self {
            Self::ServerInfo => {
                let Nothing {} = self.read(arguments)?;
                json(&server_info(backend).await?)?
            }
            Self::Catalog => json(&catalog(backend, self.read(arguments)?).await?)?,
            Self::Schema => {
                let TableInput { table_id } = self.read(arguments)?;
                json(&Schema::from(backend.schema(&table_id).await?))?
            }
            Self::Sample => json(&sample(backend, self.read(arguments)?).await?)?,
            Self::Describe => {
                let input: SampleInput = self.read(arguments)?;
                let schema = Schema::from(backend.schema(&input.table_id).await?);
                json(&Described { schema, sample: sample(backend, input).await? })?
            }
            Self::Profile => {
                let TableInput { table_id } = self.read(arguments)?;
                let profile = backend.profile(&table_id).await?;
                json(&Profiled { table_id, profile })?
            }
            Self::Query => {
                let input: QueryInput = self.read(arguments)?;
                let mut asked = query(input.sql, input.params, input.limit)?;
                asked.receipt = input.receipt;
                told.progress(0, "the query runs").await;
                json(&found(backend.query(asked).await?, settings, told).await?)?
            }
            Self::Estimate => {
                let input: EstimateInput = self.read(arguments)?;
                let request = ScanRequest {
                    table: input.table_id,
                    select: input.select,
                    predicate: input.predicate,
                    limit: input.limit,
                    order_by: input.order_by,
                    snapshot: None,
                };
                json(&Estimated::from(backend.estimate(request).await?))?
            }
            Self::QueryLocal => {
                let input: QueryLocalInput = self.read(arguments)?;
                let asked = query(input.sql, input.params, input.limit)?;
                json(&found(laptop(backend)?.query(asked).await?, settings, told).await?)?
            }
            Self::Pull => {
                let input: PullInput = self.read(arguments)?;
                told.progress(0, "the pull runs").await;
                json(&Pulled::from(laptop(backend)?.pull(input.tables, input.skip_materialize).await?))?
            }
            Self::Snapshot => {
                let input: SnapshotInput = self.read(arguments)?;
                told.progress(0, "rows arrive").await;
                let force = input.force;
                let (meta, warnings) = laptop(backend)?.snapshot(input.into(), force).await?;
                json(&Kept { warnings, ..Kept::from(meta) })?
            }
            Self::Skills => {
                let Nothing {} = self.read(arguments)?;
                json(&SkillsFound::all())?
            }
            Self::SkillShow => json(&skill(&self.read::<SkillInput>(arguments)?.name)?)?,
            Self::Docs => {
                let name = self.read::<ToolDocsInput>(arguments)?.tool_name;
                json(&tool_docs(&name, backend.laptop().is_some())?)?
            }
        };
        match settings.max_output {
            0 => Ok(answer),
            most if answer.to_string().chars().count() <= most => Ok(answer),
            most => Err(too_long(most)),
        }
    }

    /// What it takes, or what is wrong with it.
    fn read<T: DeserializeOwned>(self, arguments: Value) -> Result<T, Problem> {
        serde_json::from_value(arguments).map_err(|error| {
            let said = self.said();
            let takes = (said.takes)();
            let names = takes.get("properties").and_then(Value::as_object);
            let names: Vec<String> = names.into_iter().flatten().map(|(name, _)| format!("`{name}`")).collect();
            let hint = if names.is_empty() {
                format!("`{}` takes nothing", said.name)
            } else {
                format!("`{}` takes {}; `tool_docs` says more", said.name, names.join(", "))
            };
            Problem::invalid(&["arguments"], &error.to_string(), "value_error").hint(hint)
        })
    }
}

fn json<T: Serialize>(answer: &T) -> Result<Value, Problem> {
    serde_json::to_value(answer).map_err(|error| Error::internal("write the answer of a tool", error).into())
}

fn too_long(most: usize) -> Problem {
    let text = format!("the answer has more than {most} characters");
    Problem::new(StatusCode::BAD_REQUEST, "output_too_large", text)
        .hint("ask for fewer rows or columns, filter more, or aggregate in SQL")
}

async fn server_info(backend: &dyn Backend) -> Result<ServerInfo, Problem> {
    let (user_email, health) = (backend.user().await?, backend.health().await?);
    let version = env!("CARGO_PKG_VERSION");
    Ok(ServerInfo { server_url: backend.server(), authenticated: true, user_email, health, version })
}

async fn catalog(backend: &dyn Backend, input: CatalogInput) -> Result<CatalogFound, Problem> {
    let tables = backend.tables().await?;
    let all = tables.len();
    let wanted = input.search.as_deref().map(str::trim).unwrap_or_default().to_lowercase();
    let mut found: Vec<CatalogRow> = tables
        .into_iter()
        .filter(|table| {
            let texts = [Some(&table.name), Some(&table.id), table.description.as_ref(), table.source.as_ref()];
            texts.into_iter().flatten().any(|text| text.to_lowercase().contains(&wanted))
        })
        .map(|table| CatalogRow {
            id: table.id,
            name: table.name,
            description: table.description,
            source_type: table.source_type,
            query_mode: table.query_mode,
            sql_flavor: table.sql_flavor,
            rows: table.rows,
            size_bytes: table.size_bytes,
            last_sync: table.last_sync.map(time),
            published: table.published,
            row_scope: table.row_scope,
        })
        .collect();
    let (count, most) = (found.len(), input.limit.unwrap_or(TABLES).max(1));
    found.truncate(most);
    let note = match (count, all) {
        (0, 0) => Some("no table is shared with you; that does not mean that there are none: ask an admin".to_owned()),
        (0, all) => Some(format!("none of the {all} tables that you may read matches; others may exist")),
        _ => None,
    };
    Ok(CatalogFound { truncated: found.len() < count, tables: found, count, note })
}

async fn sample(backend: &dyn Backend, input: SampleInput) -> Result<SampleAnswer, Problem> {
    if !(1..=SAMPLE).contains(&input.rows) {
        return Err(Problem::invalid(&["arguments", "rows"], "1 to 50", "value_error").hint("`query` gives more rows"));
    }
    Ok(backend.sample(&input.table_id, input.rows).await?.into())
}

/// The workspace, of a tool that only a door with one lists.
fn laptop(backend: &dyn Backend) -> Result<&dyn Laptop, Problem> {
    backend.laptop().ok_or_else(Problem::internal)
}

fn skill(name: &str) -> Result<SkillShown, Problem> {
    let Some(skill) = skills::named(name) else {
        return Err(Problem::invalid(&["arguments", "name"], "there is no such guide", "value_error")
            .hint(format!("there are: {}", skills::names())));
    };
    Ok(SkillShown { name: skill.name, content: skill.text })
}

fn tool_docs(name: &str, has_laptop: bool) -> Result<ToolDocs, Problem> {
    let Some(tool) = Tool::named(name, has_laptop) else {
        let names: Vec<&str> = Tool::of(has_laptop).map(|tool| tool.said().name).collect();
        return Err(Problem::invalid(&["arguments", "tool_name"], "there is no such tool", "value_error")
            .hint(format!("there are: {}", names.join(", "))));
    };
    let said = tool.said();
    Ok(ToolDocs { tool_name: said.name.to_owned(), documentation: format!("# {}\n\n{}", said.name, said.docs) })
}

fn query(sql: String, params: Value, limit: usize) -> Result<Query, Problem> {
    let params = Params::try_from(params).map_err(Error::from)?;
    Ok(Query::new(sql).params(params).limit(limit.max(1)).max_bytes(READ_BYTES))
}

async fn found(mut rows: Rows, settings: Settings, told: &Told) -> Result<QueryFound, Problem> {
    let scope = RowScope::of_schema(&rows.schema());
    let columns = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
    let found = collect(&mut rows, settings.max_output, told).await?;
    let (row_count, truncated) = (found.len(), rows.truncated());
    let note = match (row_count, truncated) {
        (0, false) => Some(
            "no row of what you may read matches; that is no proof that there are none: rows may be hidden from you"
                .to_owned(),
        ),
        (_, true) => Some(format!("more rows exist: these are the first {row_count}")),
        _ => None,
    };
    let row_scope = (!scope.is_empty()).then_some(scope);
    Ok(QueryFound { columns, rows: found, row_count, truncated, row_scope, receipt: rows.receipt().cloned(), note })
}

/// All rows, unless they are more than an answer may have: then it ends at once.
async fn collect(rows: &mut Rows, most: usize, told: &Told) -> Result<Vec<Vec<Value>>, Problem> {
    let (mut found, mut length) = (Vec::new(), 0_usize);
    while let Some(batch) = rows.next().await? {
        let mut columns: Vec<_> = batch.columns().iter().map(|column| json_column(column).into_iter()).collect();
        for _ in 0..batch.num_rows() {
            let row: Vec<Value> = columns.iter_mut().filter_map(Iterator::next).collect();
            if most > 0 {
                length += row.iter().map(|value| value.to_string().chars().count() + 1).sum::<usize>();
                if length > most {
                    return Err(too_long(most));
                }
            }
            found.push(row);
        }
        told.progress(found.len(), "rows arrive").await;
    }
    Ok(found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_says_what_it_takes_and_answers() {
        let everywhere: Vec<_> = Tool::list(false).iter().map(|tool| &tool.name).collect();
        for tool in Tool::list(true) {
            assert_eq!(Tool::named(&tool.name, true).map(|tool| tool.said().name), Some(tool.name.as_ref()));
            let is_local = ["query_local", "pull", "snapshot"].contains(&tool.name.as_ref());
            assert_eq!(everywhere.contains(&&tool.name), !is_local, "{}", tool.name);
            for (schema, what) in [(&tool.input_schema, "takes"), (tool.output_schema.as_ref().unwrap(), "answers")] {
                assert_eq!(schema["type"], "object", "{} {what}", tool.name);
                let text = serde_json::to_string(schema).unwrap();
                assert!(!text.contains("#/components"), "{} {what}: {text}", tool.name);
                for name in text.split("\"#/$defs/").skip(1).map(|rest| rest.split('"').next().unwrap()) {
                    assert!(schema["$defs"][name].is_object(), "{} {what}: {name}", tool.name);
                }
            }
            let hints = tool.annotations.as_ref().unwrap();
            let reads = !["pull", "snapshot"].contains(&tool.name.as_ref());
            let keeps = tool.name == "snapshot";
            assert_eq!((hints.read_only_hint, hints.destructive_hint), (Some(reads), Some(keeps)));
            assert_eq!(hints.idempotent_hint, Some(!keeps), "{}", tool.name);
            assert!(tool.title.is_some() && tool.description.as_ref().is_some_and(|text| text.len() < 200));
            assert!(
                tool_docs(&tool.name, true).unwrap().documentation.len() > tool.description.as_ref().unwrap().len()
            );
        }
    }

    /// Says how it is, and nothing else.
    struct Unwell;

    #[async_trait::async_trait]
    impl Backend for Unwell {
        fn server(&self) -> Option<String> {
            None
        }
        async fn user(&self) -> agnes_core::Result<Option<String>> {
            Ok(None)
        }
        async fn health(&self) -> agnes_core::Result<String> {
            Ok("unhealthy".to_owned())
        }
        async fn tables(&self) -> agnes_core::Result<Vec<agnes_core::catalog::CatalogTable>> {
            unreachable!()
        }
        async fn schema(&self, _: &str) -> agnes_core::Result<agnes_core::catalog::TableSchema> {
            unreachable!()
        }
        async fn sample(&self, _: &str, _: usize) -> agnes_core::Result<agnes_core::catalog::Sample> {
            unreachable!()
        }
        async fn profile(&self, _: &str) -> agnes_core::Result<Value> {
            unreachable!()
        }
        async fn estimate(&self, _: ScanRequest) -> agnes_core::Result<agnes_core::scan::ScanEstimate> {
            unreachable!()
        }
        async fn query(&self, _: Query) -> agnes_core::Result<Rows> {
            unreachable!()
        }
    }

    #[tokio::test]
    async fn a_server_says_how_it_is() {
        assert_eq!(server_info(&Unwell).await.unwrap().health, "unhealthy");
    }

    #[test]
    fn what_is_wrong_with_arguments_is_said_with_what_is_taken() {
        let problem = Tool::Query.read::<QueryInput>(serde_json::json!({"sq": "select 1"})).unwrap_err();
        assert_eq!((problem.status().as_u16(), problem.code()), (422, "validation_failed"));
        assert!(problem.hint_text().unwrap().contains("`sql`, `params`, `limit`"), "{problem:?}");
    }
}
