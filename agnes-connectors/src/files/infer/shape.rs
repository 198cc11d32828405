//! Types with parts: DuckDB's text of one as a tree, and the type that holds the values of two.

use std::fmt;

use serde_json::Value;

use super::types;

/// More fields than this are data rather than names.
const MAX_FIELDS: usize = 1_000;

/// A type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Nothing but nulls was seen.
    Unknown,
    /// Nothing but objects without any field was seen.
    Empty,
    /// Values of several kinds, each as JSON text.
    Json,
    /// A type without parts, or one whose parts are left alone.
    Leaf(String),
    List(Box<Shape>),
    Struct(Vec<Field>),
    Map(Box<Shape>, Box<Shape>),
}

/// A field of a struct.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    /// As DuckDB writes it, in quotes where it needs them.
    written: String,
    name: String,
    shape: Shape,
}

impl Shape {
    /// The tree of a type as DuckDB writes it; what it does not know is one leaf.
    pub(crate) fn parse(text: &str) -> Self {
        let text = text.trim();
        let mut parser = Parser { rest: text };
        match parser.shape() {
            Some(shape) if parser.rest.trim().is_empty() => shape,
            _ => Self::Leaf(text.to_owned()),
        }
    }

    pub(crate) fn is_nested(&self) -> bool {
        match self {
            Self::List(_) | Self::Struct(_) | Self::Map(..) => true,
            Self::Leaf(name) => types::is_nested(name),
            Self::Unknown | Self::Empty | Self::Json => false,
        }
    }

    /// Whether any part is JSON text.
    pub(crate) fn has_json(&self) -> bool {
        match self {
            Self::Json => true,
            Self::List(inner) => inner.has_json(),
            Self::Struct(fields) => fields.iter().any(|field| field.shape.has_json()),
            Self::Map(key, value) => key.has_json() || value.has_json(),
            Self::Unknown | Self::Empty | Self::Leaf(_) => false,
        }
    }

    /// The type that holds every value of both without loss; none when only text does.
    /// Parts that do not go together become JSON text where they are.
    pub(crate) fn join(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (a, b) if a == b => Some(a.clone()),
            (Self::Unknown, known) | (known, Self::Unknown) => Some(known.clone()),
            (Self::Empty, object @ (Self::Struct(_) | Self::Map(..)))
            | (object @ (Self::Struct(_) | Self::Map(..)), Self::Empty) => Some(object.clone()),
            (Self::Leaf(a), Self::Leaf(b)) if !self.is_nested() && !other.is_nested() => {
                Some(Self::Leaf(types::unify(a, b)))
            }
            (Self::List(a), Self::List(b)) => Some(Self::List(Box::new(a.join_inside(b)))),
            (Self::Map(key, a), Self::Map(same, b)) if key == same => {
                Some(Self::Map(key.clone(), Box::new(a.join_inside(b))))
            }
            (Self::Struct(a), Self::Struct(b)) => {
                let mut fields = a.clone();
                for field in b {
                    match fields.iter_mut().find(|known| known.is(&field.name)) {
                        Some(known) => known.shape = known.shape.join_inside(&field.shape),
                        None => fields.push(field.clone()),
                    }
                }
                (fields.len() <= MAX_FIELDS).then_some(Self::Struct(fields))
            }
            _ => None,
        }
    }

    fn join_inside(&self, other: &Self) -> Self {
        self.join(other).unwrap_or(Self::Json)
    }

    /// The same fields with the types that `wanted` has for them: how a reader of JSON has to
    /// be told, which knows fields by their exact name.
    pub(crate) fn retyped(&self, wanted: &Self) -> Self {
        match (self, wanted) {
            (Self::Struct(own), Self::Struct(wanted)) => {
                let field = |field: &Field| {
                    let known = wanted.iter().find(|known| known.is(&field.name));
                    let shape = known.map_or_else(|| field.shape.clone(), |known| field.shape.retyped(&known.shape));
                    Field { shape, ..field.clone() }
                };
                Self::Struct(own.iter().map(field).collect())
            }
            (Self::List(own), Self::List(wanted)) => Self::List(Box::new(own.retyped(wanted))),
            (Self::Map(key, own), Self::Map(_, wanted)) => Self::Map(key.clone(), Box::new(own.retyped(wanted))),
            _ => wanted.clone(),
        }
    }

    /// Tells parts that were nothing but null from those of several kinds, by what
    /// `json_group_structure` says.
    pub(crate) fn refine(&mut self, structure: &Value) {
        match (self, structure) {
            (shape @ Self::Json, Value::String(kind)) if kind == "NULL" => *shape = Self::Unknown,
            (Self::List(inner), Value::Array(elements)) => {
                if let Some(element) = elements.first() {
                    inner.refine(element);
                }
            }
            (Self::Struct(fields), Value::Object(map)) => {
                for field in fields {
                    if let Some(structure) = map.get(&field.name) {
                        field.shape.refine(structure);
                    }
                }
            }
            _ => {}
        }
    }
}

impl Field {
    fn is(&self, name: &str) -> bool {
        self.name == name || self.name.to_lowercase() == name.to_lowercase()
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown | Self::Empty | Self::Json => f.write_str("JSON"),
            Self::Leaf(name) => f.write_str(name),
            Self::List(inner) => write!(f, "{inner}[]"),
            Self::Map(key, value) => write!(f, "MAP({key}, {value})"),
            Self::Struct(fields) => {
                f.write_str("STRUCT(")?;
                for (index, field) in fields.iter().enumerate() {
                    let comma = if index > 0 { ", " } else { "" };
                    write!(f, "{comma}{} {}", field.written, field.shape)?;
                }
                f.write_str(")")
            }
        }
    }
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn eat(&mut self, token: &str) -> Option<()> {
        self.rest = self.rest.trim_start().strip_prefix(token)?;
        Some(())
    }

    /// Up to the first character that `ends` at, outside quotes and brackets.
    fn until(&mut self, ends: &[char]) -> &'a str {
        let (mut depth, mut quote) = (0_u32, None);
        let mut end = self.rest.len();
        for (at, c) in self.rest.char_indices() {
            match (quote, c) {
                (Some(open), _) if c == open => quote = None,
                (Some(_), _) => {}
                (None, '"' | '\'') => quote = Some(c),
                (None, _) if depth == 0 && ends.contains(&c) => {
                    end = at;
                    break;
                }
                (None, '(') => depth += 1,
                (None, ')') => depth = depth.saturating_sub(1),
                (None, _) => {}
            }
        }
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        token
    }

    fn shape(&mut self) -> Option<Shape> {
        self.rest = self.rest.trim_start();
        let mut shape = if self.eat("STRUCT(").is_some() {
            let mut fields = Vec::new();
            loop {
                fields.push(self.field()?);
                if self.eat(",").is_none() {
                    break;
                }
            }
            self.eat(")")?;
            Shape::Struct(fields)
        } else if self.eat("MAP(").is_some() {
            let key = self.shape()?;
            self.eat(",")?;
            let value = self.shape()?;
            self.eat(")")?;
            Shape::Map(Box::new(key), Box::new(value))
        } else {
            match self.until(&[',', ')', '[']).trim() {
                "" => return None,
                "JSON" => Shape::Json,
                "NULL" | "\"NULL\"" => Shape::Unknown,
                name => Shape::Leaf(name.to_owned()),
            }
        };
        while self.rest.starts_with('[') {
            if self.eat("[]").is_some() {
                shape = Shape::List(Box::new(shape));
            } else {
                // A list of fixed length.
                let length = self.until(&[']']);
                shape = Shape::Leaf(format!("{shape}{length}]"));
                self.eat("]")?;
            }
        }
        Some(shape)
    }

    fn field(&mut self) -> Option<Field> {
        self.rest = self.rest.trim_start();
        let (written, name) = if let Some(quoted) = self.rest.strip_prefix('"') {
            let mut end = 0;
            loop {
                end += quoted.get(end..)?.find('"')? + 1;
                // Two quotes are one inside the name.
                if !quoted.get(end..)?.starts_with('"') {
                    break;
                }
                end += 1;
            }
            let written = self.rest.get(..=end)?;
            self.rest = self.rest.get(end + 1..)?;
            (written, quoted.get(..end - 1)?.replace("\"\"", "\""))
        } else {
            let name = self.until(&[' ', ',', ')']);
            (name, name.to_owned())
        };
        if written.is_empty() {
            return None;
        }
        Some(Field { written: written.to_owned(), name, shape: self.shape()? })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_engine_writes_is_read_and_written_the_same() {
        for text in [
            "BIGINT",
            "DECIMAL(18,3)",
            "TIMESTAMP WITH TIME ZONE",
            "BIGINT[][]",
            "INTEGER[3]",
            "STRUCT(a BIGINT, \"b c\" VARCHAR[], \"q\"\"(,\" STRUCT(d DECIMAL(4,2))[])",
            "MAP(VARCHAR, STRUCT(x JSON))",
            "ENUM('a, b', 'c)')",
            "UNION(n BIGINT, s VARCHAR)",
            "STRUCT(e ENUM('a)', 'b'), u UNION(n BIGINT, s VARCHAR[]))",
            "STRUCT(a",
            "STRUCT(\"a BIGINT)",
            "",
        ] {
            assert_eq!(Shape::parse(text).to_string(), text);
        }
        assert!(matches!(Shape::parse("STRUCT(a BIGINT)[]"), Shape::List(_)));
        assert!(matches!(Shape::parse("STRUCT(a"), Shape::Leaf(_)));
    }

    #[test]
    fn the_joint_type_holds_both() {
        for (a, b, joint) in [
            ("BIGINT", "DOUBLE", Some("DOUBLE")),
            ("INTEGER[]", "BIGINT[]", Some("BIGINT[]")),
            ("STRUCT(a BIGINT, b DATE)", "STRUCT(a DOUBLE, c VARCHAR)", Some("STRUCT(a DOUBLE, b DATE, c VARCHAR)")),
            ("STRUCT(a BIGINT)", "STRUCT(a VARCHAR)", Some("STRUCT(a VARCHAR)")),
            ("STRUCT(a BIGINT)", "STRUCT(\"A\" BIGINT)", Some("STRUCT(a BIGINT)")),
            (
                "STRUCT(a STRUCT(x BIGINT))[]",
                "STRUCT(a STRUCT(y DATE))[]",
                Some("STRUCT(a STRUCT(x BIGINT, y DATE))[]"),
            ),
            ("STRUCT(a STRUCT(x BIGINT))", "STRUCT(a BIGINT)", Some("STRUCT(a JSON)")),
            ("STRUCT(a JSON)", "STRUCT(a BIGINT)", Some("STRUCT(a JSON)")),
            ("STRUCT(a NULL)", "STRUCT(a BIGINT)", Some("STRUCT(a BIGINT)")),
            ("BIGINT[]", "STRUCT(a BIGINT)[]", Some("JSON[]")),
            ("MAP(VARCHAR, BIGINT)", "MAP(VARCHAR, DOUBLE)", Some("MAP(VARCHAR, DOUBLE)")),
            ("STRUCT(a BIGINT)", "BIGINT", None),
            ("STRUCT(a BIGINT)", "BIGINT[]", None),
            ("BIGINT[3]", "BIGINT[]", None),
        ] {
            let joined = Shape::parse(a).join(&Shape::parse(b));
            assert_eq!(joined.map(|shape| shape.to_string()).as_deref(), joint, "{a} and {b}");
        }
        let wide = |from: usize| {
            let fields: Vec<_> = (from..from + 600).map(|n| format!("f{n} BIGINT")).collect();
            Shape::parse(&format!("STRUCT({})", fields.join(", ")))
        };
        assert!(wide(0).join(&wide(0)).is_some() && wide(0).join(&wide(600)).is_none());
    }

    #[test]
    fn a_reader_gets_its_own_fields_with_the_wanted_types() {
        let own = Shape::parse("STRUCT(\"A\" BIGINT, l STRUCT(x JSON)[])");
        let wanted = Shape::parse("STRUCT(a VARCHAR, z DATE, l STRUCT(x VARCHAR, y BIGINT)[])");
        assert_eq!(own.retyped(&wanted).to_string(), "STRUCT(\"A\" VARCHAR, l STRUCT(x VARCHAR)[])");
    }

    #[test]
    fn nulls_are_told_from_mixtures() {
        let mut shape = Shape::parse("STRUCT(a JSON, b JSON, c JSON[], d BIGINT)");
        shape.refine(&json!({"a": "NULL", "b": "JSON", "c": ["NULL"], "d": "UBIGINT"}));
        let known = Shape::parse("STRUCT(a DATE, b JSON, c BIGINT[], d BIGINT)");
        assert_eq!(shape.join(&known).unwrap(), known);
    }
}
