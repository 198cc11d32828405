//! Frames: rows that a caller brings along to one query, to join them with what they may read.
//!
//! Their query runs in an instance that is made for it alone and holds them as tables, loaded before
//! it is locked: nobody else's query meets them, and they end with it. A frame stands beside what
//! the caller may read and never in its place: a name that means something to the caller already is
//! refused. So what a frame holds decides nothing about what a query may read.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, IntervalUnit, Schema, SchemaRef, TimeUnit};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Loaded;
use super::readable::CallerSet;
use crate::error::{Coded, Error, ErrorKind, Result};
use crate::ident::{StrictName, printable};
use crate::sandbox::{Readable, RelationKind};

/// Names of the engine's own, in lower case.
const RESERVED: [&str; 13] = [
    "information_schema",
    "duckdb_tables",
    "duckdb_columns",
    "duckdb_databases",
    "duckdb_settings",
    "duckdb_functions",
    "duckdb_views",
    "duckdb_indexes",
    "duckdb_schemas",
    "main",
    "memory",
    "system",
    "temp",
];
/// Most frames of one query.
const MOST: usize = 20;

/// Why a frame cannot come along.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// It is not what a query can take.
    #[error("the frame `{name}` {reason}")]
    Bad {
        /// Its name.
        name: String,
        /// In words.
        reason: String,
    },
    /// Its name means something else.
    #[error("`{name}` is a table already, a frame cannot stand in its place")]
    Taken {
        /// Its name.
        name: String,
    },
    /// They are too large.
    #[error("the frames of this query are larger than {limit}")]
    TooLarge {
        /// What they may be.
        limit: String,
    },
}

impl Coded for FrameError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Bad { .. } | Self::Taken { .. } => ErrorKind::InvalidInput,
            Self::TooLarge { .. } => ErrorKind::LimitExceeded,
        }
    }
    fn code(&self) -> &str {
        match self {
            Self::Bad { .. } => "bad_frame",
            Self::Taken { .. } => "frame_name_taken",
            Self::TooLarge { .. } => "frames_too_large",
        }
    }
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Bad { .. } => {
                "a frame has a name of letters, digits and `_`, and columns of different names".to_owned()
            }
            Self::Taken { name } => format!("give it another name, such as `my_{name}`"),
            Self::TooLarge { .. } => "bring fewer rows or columns: those that the query needs".to_owned(),
        })
    }
}

/// Rows under a name, brought along to one query.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    name: String,
    schema: SchemaRef,
    rows: Vec<RecordBatch>,
}

impl Frame {
    /// Rows with the columns of `schema` under a name. Columns become types that a table has:
    /// dictionaries their values, short and long texts texts.
    ///
    /// # Errors
    /// `bad_frame`: a name that is none, no column, two of one name, a type that no table has.
    pub fn new(name: &str, schema: &Schema, rows: Vec<RecordBatch>) -> Result<Self> {
        let bad = |reason: String| FrameError::Bad { name: printable(name, 64), reason };
        if StrictName::parse(name).is_err() {
            return Err(bad("has a name with other characters than letters, digits and `_`".to_owned()).into());
        }
        let mut seen = BTreeSet::new();
        let mut fields = Vec::new();
        for field in schema.fields() {
            let column = printable(field.name(), 64);
            if field.name().contains('\0') || !seen.insert(field.name().to_lowercase()) {
                return Err(bad(format!("has two columns `{column}`")).into());
            }
            let kind = table_type(field.data_type())
                .ok_or_else(|| bad(format!("has a column `{column}` of a type that no table has")))?;
            // Without metadata, which may mean something to whoever reads it.
            fields.push(Field::new(field.name(), kind, true));
        }
        if fields.is_empty() {
            return Err(bad("has no columns".to_owned()).into());
        }
        let schema: SchemaRef = Arc::new(Schema::new(fields));
        let as_table = |batch: RecordBatch| {
            let columns = batch.columns().iter().zip(schema.fields());
            let columns = columns.map(|(column, field)| arrow::compute::cast(column, field.data_type()));
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            RecordBatch::try_new_with_options(schema.clone(), columns.collect::<Result<_, _>>()?, &options)
        };
        let rows = rows.into_iter().map(as_table).collect::<Result<Vec<_>, arrow::error::ArrowError>>();
        let rows = rows.map_err(|_| bad("has values that do not fit the type of their column".to_owned()))?;
        Ok(Self { name: name.to_owned(), schema, rows })
    }

    /// The frame that [`encoded`](Self::encoded) wrote, or anybody else.
    ///
    /// # Errors
    /// `bad_frame`.
    pub fn decode(name: &str, arrow: &str) -> Result<Self> {
        let bad =
            || FrameError::Bad { name: printable(name, 64), reason: "is not a stream of Arrow in base64".to_owned() };
        let bytes = STANDARD.decode(arrow).map_err(|_| bad())?;
        let reader = StreamReader::try_new(bytes.as_slice(), None).map_err(|_| bad())?;
        let schema = reader.schema();
        let rows = reader.collect::<std::result::Result<Vec<_>, _>>().map_err(|_| bad())?;
        Self::new(name, &schema, rows)
    }

    /// Its rows as a stream of Arrow in base64.
    ///
    /// # Errors
    /// `internal` where Arrow cannot write what it made.
    pub fn encoded(&self) -> Result<String> {
        let write = || {
            let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
            self.rows.iter().try_for_each(|batch| writer.write(batch))?;
            writer.into_inner()
        };
        Ok(STANDARD.encode(write().map_err(|e| Error::internal("write a frame", e))?))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> u64 {
        self.rows.iter().map(|batch| batch.get_array_memory_size() as u64).sum()
    }
}

/// How a frame is sent: its name, and a stream of Arrow in base64.
#[derive(Serialize, Deserialize)]
struct Sent {
    name: String,
    arrow: String,
}

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let arrow = self.encoded().map_err(serde::ser::Error::custom)?;
        Sent { name: self.name.clone(), arrow }.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let sent = Sent::deserialize(deserializer)?;
        Self::decode(&sent.name, &sent.arrow).map_err(serde::de::Error::custom)
    }
}

/// The type of a column that holds values of an Arrow type; none where no column does.
fn table_type(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Timestamp(_, None) => kind.clone(),
        DataType::Float16 => DataType::Float32,
        DataType::Decimal32(width, scale)
        | DataType::Decimal64(width, scale)
        | DataType::Decimal128(width, scale)
        | DataType::Decimal256(width, scale)
            if *width <= 38 && (0..=i16::from(*width)).contains(&i16::from(*scale)) =>
        {
            DataType::Decimal128(*width, *scale)
        }
        DataType::Date64 => DataType::Date32,
        DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Duration(_) | DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
        DataType::Null | DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            DataType::Binary
        }
        DataType::Dictionary(_, values) => table_type(values)?,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new("item", table_type(item.data_type())?, true)))
        }
        DataType::Struct(fields) if !fields.is_empty() => {
            let field = |field: &Arc<Field>| Some(Field::new(field.name(), table_type(field.data_type())?, true));
            DataType::Struct(fields.iter().map(field).collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

/// Whether a name is the engine's own, in lower case.
pub(super) fn is_reserved(lower: &str) -> bool {
    RESERVED.contains(&lower) || ["_meta", "_remote_attach", "__agnes"].iter().any(|begin| lower.starts_with(begin))
}

/// What a caller may read, and the frames beside it.
pub(super) struct WithFrames<'a> {
    caller: &'a CallerSet,
    frames: &'a [Frame],
}

impl<'a> WithFrames<'a> {
    /// Refuses frames that are too many, too large, or named like something else.
    pub(super) fn new(caller: &'a CallerSet, frames: &'a [Frame], most_bytes: u64) -> Result<Self> {
        let mut names = BTreeSet::new();
        for frame in frames {
            let lower = frame.name.to_ascii_lowercase();
            let bad = |reason: &str| FrameError::Bad { name: frame.name.clone(), reason: reason.to_owned() };
            if is_reserved(&lower) {
                return Err(bad("has a name of the engine's own").into());
            }
            // Only what the caller may read counts: that something else exists is not told.
            if caller.find(&lower).is_some() || caller.narrowed.blocked.contains_key(&lower) {
                return Err(FrameError::Taken { name: frame.name.clone() }.into());
            }
            if !names.insert(lower) {
                return Err(bad("stands there twice").into());
            }
        }
        if frames.len() > MOST {
            return Err(FrameError::TooLarge { limit: format!("{MOST} frames") }.into());
        }
        if frames.iter().map(Frame::bytes).sum::<u64>() > most_bytes {
            return Err(FrameError::TooLarge { limit: format!("{} MiB", most_bytes >> 20) }.into());
        }
        Ok(Self { caller, frames })
    }

    /// Whether a relation, in lower case, is one of them.
    pub(super) fn has(&self, name: &str) -> bool {
        self.frames.iter().any(|frame| frame.name.eq_ignore_ascii_case(name))
    }

    /// Those that a query names, as tables that come along.
    pub(super) fn tables(&self, relations: &[(String, RelationKind)]) -> Vec<Loaded> {
        let named = |frame: &&Frame| relations.iter().any(|(name, _)| frame.name.eq_ignore_ascii_case(name));
        let table = |frame: &Frame| Loaded {
            name: frame.name.clone(),
            create: super::remote::create(&frame.name, &frame.schema),
            rows: frame.rows.clone(),
        };
        self.frames.iter().filter(named).map(table).collect()
    }
}

impl Readable for WithFrames<'_> {
    fn find(&self, name: &str) -> Option<RelationKind> {
        // As rows of a source do, they come along to an instance of the query's own.
        if self.has(name) { Some(RelationKind::Remote) } else { self.caller.find(name) }
    }
    fn names(&self) -> Vec<&str> {
        self.caller.names().into_iter().chain(self.frames.iter().map(|frame| frame.name.as_str())).collect()
    }
    fn sees_everything(&self) -> bool {
        self.caller.sees_everything()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::{ArrayRef, DictionaryArray, Int64Array, LargeStringArray, NullArray, StringViewArray};
    use arrow::datatypes::Int32Type;

    use super::*;

    fn frame(name: &str, columns: Vec<(&str, ArrayRef)>) -> Result<Frame> {
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
        let schema = Arc::new(Schema::new(fields));
        let rows = RecordBatch::try_new(schema.clone(), columns.into_iter().map(|(_, array)| array).collect()).unwrap();
        Frame::new(name, &schema, vec![rows])
    }

    #[test]
    fn columns_become_what_a_table_has_and_survive_the_way() {
        let words: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
        let frame = frame(
            "targets",
            vec![
                ("n", Arc::new(Int64Array::from(vec![1, 2, 3]))),
                ("category", Arc::new(words)),
                ("view", Arc::new(StringViewArray::from(vec!["x", "y", "z"]))),
                ("long", Arc::new(LargeStringArray::from(vec!["x", "y", "z"]))),
                ("nothing", Arc::new(NullArray::new(3))),
            ],
        )
        .unwrap();
        let kinds: Vec<&DataType> = frame.schema.fields().iter().map(|field| field.data_type()).collect();
        assert_eq!(kinds[0], &DataType::Int64);
        assert!(kinds[1..].iter().all(|kind| **kind == DataType::Utf8), "{kinds:?}");
        let sent = serde_json::to_string(&frame).unwrap();
        assert_eq!(serde_json::from_str::<Frame>(&sent).unwrap(), frame);
    }

    #[test]
    fn what_no_table_could_be_is_refused() {
        let numbers = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
        for (name, columns) in [
            ("two words", vec![("a", numbers())]),
            ("\"; drop", vec![("a", numbers())]),
            ("t", vec![]),
            ("t", vec![("a", numbers()), ("A", numbers())]),
        ] {
            if columns.is_empty() {
                assert_eq!(Frame::new(name, &Schema::empty(), Vec::new()).unwrap_err().code(), "bad_frame");
            } else {
                assert_eq!(frame(name, columns).unwrap_err().code(), "bad_frame", "{name}");
            }
        }
        for text in ["", "!", "AAAA", "/////wAAAAA="] {
            assert!(Frame::decode("t", text).is_err(), "{text}");
        }
    }
}
