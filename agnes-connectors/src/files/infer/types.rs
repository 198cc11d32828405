//! Column types: the grammar of declared ones, and the type that holds the values of two.

/// Base names a declared type may have.
const KNOWN: [&str; 34] = [
    "BOOLEAN",
    "BOOL",
    "TINYINT",
    "SMALLINT",
    "INTEGER",
    "INT",
    "BIGINT",
    "HUGEINT",
    "UTINYINT",
    "USMALLINT",
    "UINTEGER",
    "UBIGINT",
    "FLOAT",
    "REAL",
    "DOUBLE",
    "DECIMAL",
    "NUMERIC",
    "VARCHAR",
    "TEXT",
    "STRING",
    "CHAR",
    "DATE",
    "TIME",
    "TIMESTAMP",
    "DATETIME",
    "TIMESTAMPTZ",
    "TIMESTAMP_S",
    "TIMESTAMP_MS",
    "TIMESTAMP_NS",
    "INTERVAL",
    "UUID",
    "BLOB",
    "JSON",
    "TIMESTAMP WITH TIME ZONE",
];

/// A declared type as DuckDB writes it. Only known names, digits and brackets pass, so
/// that the text is safe inside SQL.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let upper = text.trim().to_ascii_uppercase();
    let (element, lists) = {
        let element = upper.trim_end_matches("[]");
        (element, (upper.len() - element.len()) / 2)
    };
    let (base, arguments) = match element.split_once('(') {
        None => (element.trim(), None),
        Some((base, rest)) => (base.trim(), Some(rest.strip_suffix(')').ok_or("a bracket is not closed")?)),
    };
    if !KNOWN.contains(&base) {
        let near = agnes_core::ident::nearest(base, KNOWN);
        return Err(near.map_or_else(
            || format!("there is no type `{}`", agnes_core::ident::printable(text, 40)),
            |near| format!("there is no type `{}`; did you mean `{near}`?", agnes_core::ident::printable(text, 40)),
        ));
    }
    let base = match (base, arguments) {
        // Parquet has no 128-bit integer; DuckDB would write a lossy double.
        ("HUGEINT", None) => "DECIMAL(38,0)".to_owned(),
        ("DECIMAL" | "NUMERIC", None) => "DECIMAL(18,3)".to_owned(),
        ("TEXT" | "STRING" | "CHAR", None) => "VARCHAR".to_owned(),
        ("TIMESTAMP WITH TIME ZONE", None) => "TIMESTAMPTZ".to_owned(),
        (base, None) => base.to_owned(),
        ("DECIMAL" | "NUMERIC", Some(arguments)) => {
            let mut numbers = arguments.split(',').map(|n| n.trim().parse::<u8>());
            let width = numbers.next().and_then(Result::ok).unwrap_or(0);
            let scale = numbers.next().unwrap_or(Ok(0)).unwrap_or(u8::MAX);
            if !(1..=38).contains(&width) || scale > width || numbers.next().is_some() {
                return Err("use DECIMAL(width, scale) with a width from 1 to 38".to_owned());
            }
            format!("DECIMAL({width},{scale})")
        }
        ("VARCHAR" | "CHAR", Some(_)) => "VARCHAR".to_owned(),
        (base, Some(_)) => return Err(format!("`{base}` takes no arguments")),
    };
    Ok(base + &"[]".repeat(lists))
}

/// The type that holds every value of both without loss, `VARCHAR` when there is none. For
/// types without parts.
pub(crate) fn unify(a: &str, b: &str) -> String {
    if a == b {
        return a.to_owned();
    }
    if let (Some(x), Some(y)) = (Number::of(a), Number::of(b)) {
        return Number::join(x, y);
    }
    let pair = |x: &str, y: &str| (a == x && b == y) || (a == y && b == x);
    if pair("DATE", "TIMESTAMP") {
        return "TIMESTAMP".to_owned();
    }
    if pair("TIMESTAMP", "TIMESTAMP_NS") {
        return "TIMESTAMP_NS".to_owned();
    }
    if pair("TIMESTAMP", "TIMESTAMP_MS") || pair("TIMESTAMP", "TIMESTAMP_S") || pair("TIMESTAMP_MS", "TIMESTAMP_S") {
        return "TIMESTAMP".to_owned();
    }
    "VARCHAR".to_owned()
}

/// A number type as digits before and after the point.
#[derive(Clone, Copy)]
enum Number {
    Exact { whole: u8, scale: u8, signed: bool },
    Float { double: bool },
}

impl Number {
    fn of(name: &str) -> Option<Self> {
        let exact = |whole, signed| Some(Self::Exact { whole, scale: 0, signed });
        match name {
            "TINYINT" => exact(3, true),
            "UTINYINT" => exact(3, false),
            "SMALLINT" => exact(5, true),
            "USMALLINT" => exact(5, false),
            "INTEGER" => exact(10, true),
            "UINTEGER" => exact(10, false),
            "BIGINT" => exact(19, true),
            "UBIGINT" => exact(20, false),
            "FLOAT" => Some(Self::Float { double: false }),
            "DOUBLE" => Some(Self::Float { double: true }),
            _ => {
                let (width, scale) = name.strip_prefix("DECIMAL(")?.strip_suffix(')')?.split_once(',')?;
                let (width, scale): (u8, u8) = (width.trim().parse().ok()?, scale.trim().parse().ok()?);
                Some(Self::Exact { whole: width.checked_sub(scale)?, scale, signed: true })
            }
        }
    }

    fn join(a: Self, b: Self) -> String {
        let (Self::Exact { whole: aw, scale: asc, signed: asn }, Self::Exact { whole: bw, scale: bsc, signed: bsn }) =
            (a, b)
        else {
            let single = |n: Self| match n {
                Self::Float { double } => !double,
                Self::Exact { whole, scale, .. } => whole <= 5 && scale == 0,
            };
            return if single(a) && single(b) { "FLOAT" } else { "DOUBLE" }.to_owned();
        };
        let (mut whole, scale) = (aw.max(bw), asc.max(bsc));
        let signed = asn || bsn;
        // An unsigned type needs one size more when the other side is signed.
        if scale == 0 && signed && asn != bsn && aw.max(bw) == if asn { bw } else { aw } {
            whole += 1;
        }
        if scale > 0 || whole > 20 || (signed && whole > 19) {
            let width = whole.saturating_add(scale);
            return if width <= 38 { format!("DECIMAL({},{scale})", width.max(18)) } else { "DOUBLE".to_owned() };
        }
        match (whole, signed) {
            (0..=5, true) => "SMALLINT",
            (0..=10, true) => "INTEGER",
            (_, true) => "BIGINT",
            (0..=5, false) => "USMALLINT",
            (0..=10, false) => "UINTEGER",
            (_, false) => "UBIGINT",
        }
        .to_owned()
    }
}

/// Whether a value of the type has parts of its own.
pub(crate) fn is_nested(name: &str) -> bool {
    name.ends_with(']') || name.starts_with("STRUCT(") || name.starts_with("MAP(") || name.starts_with("UNION(")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn declared_types_cannot_carry_sql() {
        assert_eq!(parse(" decimal( 12 , 2 )").unwrap(), "DECIMAL(12,2)");
        assert_eq!(parse("text[]").unwrap(), "VARCHAR[]");
        assert_eq!(parse("hugeint").unwrap(), "DECIMAL(38,0)");
        for bad in
            ["", "INT; DROP", "DECIMAL(1", "DECIMAL(40,2)", "DECIMAL(2,3)", "VARCHAR'", "STRUCT(a INT)", "INTEGER(3)"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(parse("BIGNIT").unwrap_err().contains("BIGINT"));
    }

    #[test]
    fn the_joint_type_holds_both() {
        for (a, b, joint) in [
            ("BIGINT", "BIGINT", "BIGINT"),
            ("INTEGER", "BIGINT", "BIGINT"),
            ("UINTEGER", "INTEGER", "BIGINT"),
            ("UBIGINT", "BIGINT", "DECIMAL(21,0)"),
            ("BIGINT", "DOUBLE", "DOUBLE"),
            ("BIGINT", "DECIMAL(12,2)", "DECIMAL(21,2)"),
            ("DATE", "TIMESTAMP", "TIMESTAMP"),
            ("BIGINT", "VARCHAR", "VARCHAR"),
            ("BOOLEAN", "BIGINT", "VARCHAR"),
        ] {
            assert_eq!(unify(a, b), joint, "{a} and {b}");
            assert_eq!(unify(b, a), joint, "{b} and {a}");
        }
    }
}
