//! What DuckDB's syntax tree may consist of: for each kind of node its fields, and what
//! stands in each field. A kind or a field that is not listed here refuses the query, so
//! that a newer engine cannot bring in something nobody looked at.

/// What stands in a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Field {
    /// Plain data: names, numbers, types. Checked to hold no expression.
    Data,
    /// An expression, or null.
    Expr,
    /// A list of expressions.
    Exprs,
    /// A list of lists of expressions.
    ExprLists,
    /// A list of `{key, value: expression}`.
    NamedExprs,
    /// `{node: query node}`.
    Select,
    /// A query node.
    Node,
    /// A list of query nodes.
    Nodes,
    /// A table reference.
    Table,
    /// A list of result modifiers.
    Modifiers,
    /// One result modifier.
    Modifier,
    /// A list of `{type, null_order, expression}`.
    Orders,
    /// A list of `{when_expr, then_expr}`.
    Cases,
    /// Read by the walk itself, which knows about names in scope.
    Done,
    /// A list of pivot columns.
    Pivots,
    /// A list of entries of a pivot column.
    PivotEntries,
    /// Must be absent, null, false or empty.
    Never,
}

/// The fields of one kind of node.
pub(super) type Fields = &'static [(&'static str, Field)];

use Field::{
    Cases, Data, Done, Expr, ExprLists, Exprs, Modifier, Modifiers, NamedExprs, Never, Node, Nodes, Orders,
    PivotEntries, Pivots, Select, Table,
};

/// Fields of every expression.
pub(super) const EXPRESSION: Fields = &[("class", Data), ("type", Data), ("alias", Data), ("query_location", Data)];

/// Fields of an expression by its class.
pub(super) fn expression(class: &str) -> Option<Fields> {
    Some(match class {
        "BETWEEN" => &[("input", Expr), ("lower", Expr), ("upper", Expr)],
        "CASE" => &[("case_checks", Cases), ("else_expr", Expr)],
        "CAST" => &[("child", Expr), ("cast_type", Data), ("try_cast", Data)],
        "COLLATE" => &[("child", Expr), ("collation", Data)],
        "COLUMN_REF" => &[("column_names", Data)],
        "COMPARISON" => &[("left", Expr), ("right", Expr)],
        "CONJUNCTION" | "OPERATOR" => &[("children", Exprs)],
        "CONSTANT" => &[("value", Data)],
        "FUNCTION" => &[
            ("function_name", Data),
            ("schema", Data),
            ("catalog", Data),
            ("children", Exprs),
            ("filter", Expr),
            ("order_bys", Modifier),
            ("distinct", Data),
            ("is_operator", Data),
            ("export_state", Never),
        ],
        "LAMBDA" => &[("lhs", Expr), ("expr", Expr), ("syntax_type", Data)],
        "PARAMETER" => &[("identifier", Data)],
        "POSITIONAL_REFERENCE" => &[("index", Data)],
        "STAR" => &[
            ("relation_name", Data),
            ("exclude_list", Data),
            ("qualified_exclude_list", Data),
            ("rename_list", Data),
            ("replace_list", NamedExprs),
            ("columns", Data),
            ("expr", Expr),
        ],
        "SUBQUERY" => &[("subquery_type", Data), ("subquery", Select), ("child", Expr), ("comparison_type", Data)],
        "TYPE" => &[("catalog", Data), ("schema", Data), ("type_name", Data), ("children", Exprs)],
        "WINDOW" => &[
            ("function_name", Data),
            ("schema", Data),
            ("catalog", Data),
            ("children", Exprs),
            ("partitions", Exprs),
            ("orders", Orders),
            ("arg_orders", Orders),
            ("start", Data),
            ("end", Data),
            ("start_expr", Expr),
            ("end_expr", Expr),
            ("offset_expr", Expr),
            ("default_expr", Expr),
            ("filter_expr", Expr),
            ("exclude_clause", Data),
            ("ignore_nulls", Data),
            ("distinct", Data),
        ],
        _ => return None,
    })
}

/// Fields of every table reference.
pub(super) const TABLE_REF: Fields = &[("type", Data), ("alias", Data), ("sample", Data), ("query_location", Data)];

/// Fields of a table reference by its type.
pub(super) fn table_ref(kind: &str) -> Option<Fields> {
    Some(match kind {
        "BASE_TABLE" => &[
            ("schema_name", Data),
            ("table_name", Data),
            ("catalog_name", Data),
            ("column_name_alias", Data),
            ("at_clause", Never),
        ],
        "EMPTY" => &[],
        "EXPRESSION_LIST" => &[("expected_names", Data), ("expected_types", Data), ("values", ExprLists)],
        "JOIN" => &[
            ("left", Table),
            ("right", Table),
            ("condition", Expr),
            ("join_type", Data),
            ("ref_type", Data),
            ("using_columns", Data),
            ("delim_flipped", Data),
            ("duplicate_eliminated_columns", Exprs),
            ("is_implicit", Data),
        ],
        "PIVOT" => &[
            ("source", Table),
            ("aggregates", Exprs),
            ("unpivot_names", Data),
            ("pivots", Pivots),
            ("groups", Data),
            ("column_name_alias", Data),
            ("include_nulls", Data),
        ],
        "SHOW_REF" => {
            &[("table_name", Data), ("query", Node), ("show_type", Data), ("catalog_name", Data), ("schema_name", Data)]
        }
        "SUBQUERY" => &[("subquery", Select), ("column_name_alias", Data)],
        "TABLE_FUNCTION" => &[("function", Expr), ("column_name_alias", Data), ("with_ordinality", Data)],
        _ => return None,
    })
}

/// Fields of every query node.
pub(super) const QUERY_NODE: Fields = &[("type", Data), ("modifiers", Modifiers), ("cte_map", Done)];

/// Fields of a query node by its type.
pub(super) fn query_node(kind: &str) -> Option<Fields> {
    Some(match kind {
        "SELECT_NODE" => &[
            ("select_list", Exprs),
            ("from_table", Table),
            ("where_clause", Expr),
            ("group_expressions", Exprs),
            ("group_sets", Data),
            ("aggregate_handling", Data),
            ("having", Expr),
            ("sample", Data),
            ("qualify", Expr),
        ],
        "SET_OPERATION_NODE" => {
            &[("setop_type", Data), ("left", Node), ("right", Node), ("setop_all", Data), ("children", Nodes)]
        }
        // Its `right` sees the name it defines; the walk handles that.
        "RECURSIVE_CTE_NODE" => &[
            ("cte_name", Data),
            ("union_all", Data),
            ("left", Node),
            ("right", Node),
            ("aliases", Data),
            ("key_targets", Exprs),
        ],
        _ => return None,
    })
}

/// Fields of a result modifier by its type.
pub(super) fn modifier(kind: &str) -> Option<Fields> {
    Some(match kind {
        "ORDER_MODIFIER" => &[("type", Data), ("orders", Orders)],
        "DISTINCT_MODIFIER" => &[("type", Data), ("distinct_on_targets", Exprs)],
        "LIMIT_MODIFIER" | "LIMIT_PERCENT_MODIFIER" => &[("type", Data), ("limit", Expr), ("offset", Expr)],
        _ => return None,
    })
}

pub(super) const ORDER: Fields = &[("type", Data), ("null_order", Data), ("expression", Expr)];
pub(super) const CASE: Fields = &[("when_expr", Expr), ("then_expr", Expr)];
pub(super) const NAMED: Fields = &[("key", Data), ("value", Expr)];
pub(super) const SELECT: Fields = &[("node", Node), ("named_param_map", Data)];
pub(super) const PIVOT: Fields =
    &[("pivot_expressions", Exprs), ("unpivot_names", Data), ("entries", PivotEntries), ("pivot_enum", Never)];
pub(super) const PIVOT_ENTRY: Fields = &[("values", Data), ("star_expr", Expr), ("alias", Data)];
pub(super) const CTE: Fields = &[("aliases", Data), ("query", Select), ("materialized", Data), ("key_targets", Exprs)];
