//! Why a text was refused.

use crate::error::{Coded, ErrorKind};

/// Why the sandbox refused a text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum SandboxError {
    #[error("the SQL is {bytes} bytes long, the limit is {limit}")]
    TooLong { bytes: usize, limit: usize },
    #[error("there is no statement to run")]
    Empty,
    #[error("this is {count} statements, one query is expected")]
    SeveralStatements { count: usize },
    #[error("this is not a query: only SELECT and its relatives are run")]
    NotAQuery,
    #[error("the SQL could not be parsed: {message}")]
    Syntax { message: String },
    #[error("a name in backticks does not belong here")]
    Backtick,
    #[error("the text holds a NUL character")]
    NulByte,
    #[error("the query is too complex: {what}")]
    TooComplex { what: &'static str },
    #[error("this form of SQL is not allowed: {what}")]
    Unsupported { what: String },
    #[error("the function `{name}` is not allowed here")]
    FunctionDenied { name: String },
    #[error("the function `{name}` is not known")]
    FunctionUnknown { name: String, suggestion: Option<String> },
    #[error("the table function `{name}` is not allowed")]
    TableFunctionDenied { name: String },
    #[error("`{name}` looks like a file; files cannot be queried")]
    FileRelation { name: String },
    #[error("`{name}` is part of the engine and cannot be queried")]
    EngineRelation { name: String },
    #[error("there is no table `{name}`, or you may not read it")]
    RelationDenied { name: String, suggestion: Option<String> },
    #[error("there is no table `{name}`")]
    RelationUnknown { name: String, suggestion: Option<String> },
    #[error("internal tables cannot be combined with other tables (`{internal}`, `{other}`)")]
    MixedInternal { internal: String, other: String },
    #[error("the parser did not pass its self-test, queries are switched off")]
    SelfTest,
}

impl Coded for SandboxError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::RelationDenied { .. } => ErrorKind::Forbidden,
            Self::SelfTest => ErrorKind::Unavailable,
            Self::Syntax { .. } => ErrorKind::InvalidInput,
            _ => ErrorKind::QueryRefused,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::TooLong { .. } => "sql_too_long",
            Self::Empty => "empty_query",
            Self::SeveralStatements { .. } => "several_statements",
            Self::NotAQuery => "not_a_query",
            Self::Syntax { .. } => "sql_syntax",
            Self::Backtick => "backtick_name",
            Self::NulByte => "nul_character",
            Self::TooComplex { .. } => "query_too_complex",
            Self::Unsupported { .. } => "unsupported_sql",
            Self::FunctionDenied { .. } => "function_denied",
            Self::FunctionUnknown { .. } => "function_unknown",
            Self::TableFunctionDenied { .. } => "table_function_denied",
            Self::FileRelation { .. } => "file_relation",
            Self::EngineRelation { .. } => "engine_relation",
            Self::RelationDenied { .. } => "relation_denied",
            Self::RelationUnknown { .. } => "relation_unknown",
            Self::MixedInternal { .. } => "internal_tables_mixed",
            Self::SelfTest => "sandbox_self_test",
        }
    }
    fn hint(&self) -> Option<String> {
        match self {
            Self::TooLong { .. } => Some("send a shorter query".to_owned()),
            Self::Empty => Some("try `SHOW TABLES`".to_owned()),
            Self::SeveralStatements { .. } => Some("send the statements one by one".to_owned()),
            Self::NotAQuery => Some(
                "a query starts with SELECT, WITH, FROM, VALUES, TABLE, PIVOT, DESCRIBE, SUMMARIZE, SHOW TABLES or EXPLAIN"
                    .to_owned(),
            ),
            Self::Backtick => Some("quote names with double quotes: \"my table\"".to_owned()),
            Self::TooComplex { .. } => Some("split the query, or move parts of it into a table".to_owned()),
            Self::TableFunctionDenied { .. } => Some(format!(
                "allowed in FROM are tables and {}",
                super::functions::TABLE_FUNCTIONS.join(", ")
            )),
            Self::FileRelation { .. } | Self::EngineRelation { .. } => {
                Some("`SHOW TABLES` lists the tables you may read".to_owned())
            }
            Self::FunctionUnknown { suggestion: Some(name), .. }
            | Self::RelationDenied { suggestion: Some(name), .. }
            | Self::RelationUnknown { suggestion: Some(name), .. } => Some(format!("did you mean `{name}`?")),
            Self::RelationDenied { .. } => {
                Some("`SHOW TABLES` lists the tables you may read; an admin can grant more".to_owned())
            }
            Self::RelationUnknown { .. } => Some("`SHOW TABLES` lists the tables".to_owned()),
            Self::MixedInternal { .. } => Some("ask internal tables in a query of their own".to_owned()),
            Self::SelfTest => Some("the linked DuckDB is not the one Agnes was built for".to_owned()),
            _ => None,
        }
    }
}
