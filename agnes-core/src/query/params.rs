//! Values for the parameters of a query.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use serde::{Deserialize, Serialize};

use super::QueryError;
use crate::duck::Bind;

/// A value of a bind parameter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Float(#[serde(with = "any_float")] f64),
    /// Also the way to pass what has no variant of its own: the engine casts text.
    Text(String),
    Date(NaiveDate),
    Time(NaiveTime),
    Timestamp(NaiveDateTime),
    TimestampTz(DateTime<Utc>),
    Blob(Vec<u8>),
    /// Values of one type, nulls among them.
    List(Vec<Value>),
}

/// JSON has no numbers that are not finite: they cross as text.
mod any_float {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Told {
        Number(f64),
        Text(String),
    }

    pub(super) fn serialize<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
        if value.is_finite() { to.serialize_f64(*value) } else { to.serialize_str(&value.to_string()) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        match Told::deserialize(from)? {
            Told::Number(number) => Ok(number),
            Told::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

impl Value {
    pub(crate) fn bind(&self) -> Bind<'_> {
        match self {
            Self::Null => Bind::Null,
            Self::Bool(v) => Bind::Bool(*v),
            Self::Int(v) => Bind::Int(*v),
            Self::UInt(v) => Bind::UInt(*v),
            Self::Float(v) => Bind::Float(*v),
            Self::Text(v) => Bind::Text(v),
            Self::Date(v) => Bind::Date(i32::try_from((*v - NaiveDate::default()).num_days()).unwrap_or(i32::MAX)),
            Self::Time(v) => Bind::Time((*v - NaiveTime::MIN).num_microseconds().unwrap_or_default()),
            Self::Timestamp(v) => Bind::Timestamp(v.and_utc().timestamp_micros()),
            Self::TimestampTz(v) => Bind::TimestampTz(v.timestamp_micros()),
            Self::Blob(v) => Bind::Blob(v),
            Self::List(v) => Bind::List(v.iter().map(Self::bind).collect()),
        }
    }
}

impl TryFrom<serde_json::Value> for Value {
    type Error = QueryError;

    /// Objects have no counterpart.
    fn try_from(json: serde_json::Value) -> Result<Self, QueryError> {
        use serde_json::Value as Json;
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(v) => Self::Bool(v),
            Json::String(v) => Self::Text(v),
            Json::Array(items) => Self::List(items.into_iter().map(Self::try_from).collect::<Result<_, _>>()?),
            Json::Number(n) => match (n.as_i64(), n.as_u64(), n.as_f64()) {
                (Some(v), _, _) => Self::Int(v),
                (_, Some(v), _) => Self::UInt(v),
                (_, _, v) => Self::Float(v.unwrap_or(f64::NAN)),
            },
            Json::Object(_) => {
                return Err(QueryError::Parameters { message: "an object cannot be a parameter".to_owned() });
            }
        })
    }
}

macro_rules! value_from {
    ($($kind:ty => $variant:ident),*) => {
        $(impl From<$kind> for Value {
            fn from(value: $kind) -> Self {
                Self::$variant(value.into())
            }
        })*
    };
}

value_from!(bool => Bool, i64 => Int, i32 => Int, u64 => UInt, f64 => Float, &str => Text, String => Text,
    NaiveDate => Date, NaiveTime => Time, NaiveDateTime => Timestamp, DateTime<Utc> => TimestampTz, Vec<u8> => Blob);

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// Values for the parameters of a query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub enum Params {
    /// The query has none.
    #[default]
    None,
    /// For `?`, `$1`, `$2`, ...
    Positional(Vec<Value>),
    /// For `$name`.
    Named(BTreeMap<String, Value>),
}

impl TryFrom<serde_json::Value> for Params {
    type Error = QueryError;

    /// A list gives positional values, an object named ones, null none.
    fn try_from(json: serde_json::Value) -> Result<Self, QueryError> {
        use serde_json::Value as Json;
        match json {
            Json::Null => Ok(Self::None),
            Json::Array(items) => {
                Ok(Self::Positional(items.into_iter().map(Value::try_from).collect::<Result<_, _>>()?))
            }
            Json::Object(map) => Ok(Self::Named(
                map.into_iter().map(|(name, value)| Ok((name, Value::try_from(value)?))).collect::<Result<_, _>>()?,
            )),
            _ => Err(QueryError::Parameters { message: "parameters are a list or an object".to_owned() }),
        }
    }
}

impl Value {
    /// As JSON that [`Value::try_from`] reads: what has no form there is text, which the engine
    /// casts.
    fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Null => serde_json::Value::Null,
            Self::Bool(v) => (*v).into(),
            Self::Int(v) => (*v).into(),
            Self::UInt(v) => (*v).into(),
            Self::Float(v) if v.is_finite() => (*v).into(),
            Self::Float(v) => v.to_string().into(),
            Self::Text(v) => v.as_str().into(),
            Self::Date(v) => v.to_string().into(),
            Self::Time(v) => v.to_string().into(),
            Self::Timestamp(v) => v.to_string().into(),
            Self::TimestampTz(v) => v.to_rfc3339().into(),
            Self::Blob(v) => v.iter().map(|byte| format!("\\x{byte:02X}")).collect::<String>().into(),
            Self::List(v) => v.iter().map(Self::to_json).collect::<Vec<_>>().into(),
        }
    }
}

impl Params {
    /// As JSON that [`Params::try_from`] reads.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::None => serde_json::Value::Null,
            Self::Positional(values) => values.iter().map(Value::to_json).collect::<Vec<_>>().into(),
            Self::Named(values) => {
                let members = values.iter().map(|(name, value)| (name.clone(), value.to_json()));
                serde_json::Value::Object(members.collect())
            }
        }
    }

    /// The value of the parameter named `name`.
    pub(crate) fn get(&self, name: &str) -> Option<&Value> {
        match self {
            Self::None => None,
            Self::Positional(values) => {
                name.parse::<usize>().ok().and_then(|n| n.checked_sub(1)).and_then(|n| values.get(n))
            }
            Self::Named(values) => {
                values.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
            }
        }
    }

    /// Every parameter of the query has a value, and every value a parameter.
    pub(crate) fn check(&self, wanted: &BTreeSet<String>) -> Result<(), QueryError> {
        let given = match self {
            Self::None => 0,
            Self::Positional(values) => values.len(),
            Self::Named(values) => values.len(),
        };
        if let Some(missing) = wanted.iter().find(|name| self.get(name).is_none()) {
            return Err(QueryError::Parameters { message: format!("parameter `{missing}` has no value") });
        }
        if given > wanted.len() {
            let extra = match self {
                Self::Named(values) => {
                    values.keys().find(|key| !wanted.iter().any(|name| name.eq_ignore_ascii_case(key))).cloned()
                }
                _ => None,
            };
            let message = extra.map_or_else(
                || format!("the query has {} parameters, {given} values were given", wanted.len()),
                |name| format!("the query has no parameter `{}`", crate::ident::printable(&name, 60)),
            );
            return Err(QueryError::Parameters { message });
        }
        Ok(())
    }
}
