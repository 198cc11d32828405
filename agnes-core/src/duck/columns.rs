//! Chunks of plain columns as Arrow. The engine's own conversion appends value by value; most
//! of these values lie in memory as Arrow wants them.
#![expect(unsafe_code, reason = "vectors of DuckDB are read through its C interface")]

use std::ffi::c_void;

use arrow::array::{ArrayData, ArrayRef, BooleanBufferBuilder, make_array};
use arrow::buffer::{BooleanBuffer, Buffer, MutableBuffer, NullBuffer};
use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::util::bit_util;

use ::duckdb::ffi;

use super::stream::Chunk;

/// How values of one column become Arrow. Layouts are those of DuckDB's
/// [vectors](https://duckdb.org/docs/stable/clients/c/vector) and of Arrow's
/// [columnar format](https://arrow.apache.org/docs/format/Columnar.html).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A byte each becomes a bit each.
    Bool,
    /// The same in both, of so many bytes.
    Same(usize),
    /// A decimal of so many bytes becomes one of 16.
    Decimal(usize),
    /// `duckdb_string_t` becomes offsets and bytes.
    Bytes,
}

impl Kind {
    fn of(engine: ffi::duckdb_type, arrow: &DataType) -> Option<Self> {
        use ffi::*;
        Some(match (engine, arrow) {
            (DUCKDB_TYPE_DUCKDB_TYPE_BOOLEAN, DataType::Boolean) => Self::Bool,
            (DUCKDB_TYPE_DUCKDB_TYPE_TINYINT, DataType::Int8)
            | (DUCKDB_TYPE_DUCKDB_TYPE_SMALLINT, DataType::Int16)
            | (DUCKDB_TYPE_DUCKDB_TYPE_INTEGER, DataType::Int32)
            | (DUCKDB_TYPE_DUCKDB_TYPE_BIGINT, DataType::Int64)
            | (DUCKDB_TYPE_DUCKDB_TYPE_UTINYINT, DataType::UInt8)
            | (DUCKDB_TYPE_DUCKDB_TYPE_USMALLINT, DataType::UInt16)
            | (DUCKDB_TYPE_DUCKDB_TYPE_UINTEGER, DataType::UInt32)
            | (DUCKDB_TYPE_DUCKDB_TYPE_UBIGINT, DataType::UInt64)
            | (DUCKDB_TYPE_DUCKDB_TYPE_FLOAT, DataType::Float32)
            | (DUCKDB_TYPE_DUCKDB_TYPE_DOUBLE, DataType::Float64)
            | (DUCKDB_TYPE_DUCKDB_TYPE_DATE, DataType::Date32)
            | (DUCKDB_TYPE_DUCKDB_TYPE_TIME, DataType::Time64(_))
            | (
                DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP
                | DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_S
                | DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_MS
                | DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_NS
                | DUCKDB_TYPE_DUCKDB_TYPE_TIMESTAMP_TZ,
                DataType::Timestamp(..),
            ) => Self::Same(arrow.primitive_width()?),
            (DUCKDB_TYPE_DUCKDB_TYPE_DECIMAL, DataType::Decimal128(width, _)) => Self::Decimal(match width {
                0..=4 => 2,
                5..=9 => 4,
                10..=18 => 8,
                _ => return Some(Self::Same(16)),
            }),
            (DUCKDB_TYPE_DUCKDB_TYPE_VARCHAR, DataType::Utf8) | (DUCKDB_TYPE_DUCKDB_TYPE_BLOB, DataType::Binary) => {
                Self::Bytes
            }
            _ => return None,
        })
    }
}

/// The columns of a result that has only plain ones.
#[derive(Debug)]
pub(super) struct Plain(Vec<Kind>);

impl Plain {
    /// `None` where one column needs the engine's own conversion.
    ///
    /// SAFETY: `result` is a result that was executed, and `schema` what the engine told of it.
    pub(super) unsafe fn of(result: &mut ffi::duckdb_result, schema: &Schema) -> Option<Self> {
        let columns = schema.fields().iter().zip(0..);
        let kinds = columns.map(|(field, n)| {
            // SAFETY: as above.
            Kind::of(unsafe { ffi::duckdb_column_type(result, n) }, field.data_type())
        });
        kinds.collect::<Option<_>>().map(Self)
    }

    /// Bytes of the values of `chunk` in Arrow, about.
    ///
    /// SAFETY: `chunk` is a flat chunk of the result.
    pub(super) unsafe fn size(&self, chunk: &Chunk) -> usize {
        let size = |(kind, n): (&Kind, _)| match kind {
            Kind::Bool => chunk.rows() / 8,
            Kind::Same(width) => chunk.rows() * width,
            Kind::Decimal(_) => chunk.rows() * 16,
            // SAFETY: as above.
            Kind::Bytes => unsafe { Vector::of(chunk, n).lengths().map(|length| length + 4).sum() },
        };
        self.0.iter().zip(0..).map(size).sum()
    }

    /// Copies of the columns of `chunks`, one after the other; `None` where Arrow cannot count
    /// the bytes of one.
    ///
    /// SAFETY: `chunks` are flat chunks of the result, `schema` the same as before.
    pub(super) unsafe fn columns(&self, chunks: &[Chunk], schema: &Schema) -> Option<Vec<ArrayRef>> {
        let columns = self.0.iter().zip(schema.fields()).zip(0..);
        let column = |((kind, field), n): ((&Kind, &FieldRef), _)| {
            // SAFETY: as above; vectors live as long as their chunk.
            let vectors = chunks.iter().map(|chunk| unsafe { Vector::of(chunk, n) }).collect::<Vec<_>>();
            // SAFETY: every vector is of this kind.
            unsafe { column(&vectors, *kind, field.data_type()) }
        };
        columns.map(column).collect()
    }
}

/// A column of a chunk.
struct Vector<'c> {
    rows: usize,
    data: *mut c_void,
    /// A bit for each row; `None` where every row is valid.
    valid: Option<&'c [u8]>,
}

impl<'c> Vector<'c> {
    /// SAFETY: `chunk` is flat and has this column.
    unsafe fn of(chunk: &'c Chunk, column: ffi::idx_t) -> Self {
        // SAFETY: as above. Both count bits from the lowest, and words are little-endian on
        // every platform that the engine is built for.
        unsafe {
            let vector = ffi::duckdb_data_chunk_get_vector(chunk.0, column);
            let (rows, validity) = (chunk.rows(), ffi::duckdb_vector_get_validity(vector));
            let valid = (!validity.is_null()).then(|| slice(validity.cast(), bit_util::ceil(rows, 8)));
            Self { rows, data: ffi::duckdb_vector_get_data(vector), valid }
        }
    }

    /// SAFETY: its values are of this type.
    unsafe fn values<T>(&self) -> &'c [T] {
        // SAFETY: as above.
        unsafe { slice(self.data, self.rows) }
    }

    /// Bytes of each text; none where there is no text.
    ///
    /// SAFETY: its values are text.
    unsafe fn lengths(&self) -> impl Iterator<Item = usize> {
        // SAFETY: as above. The length is at the same place in both forms of a string.
        let values = unsafe { self.values::<ffi::duckdb_string_t>() };
        values.iter().enumerate().map(
            |(n, value)| {
                if self.is_valid(n) { unsafe { value.value.inlined.length as usize } } else { 0 }
            },
        )
    }

    fn is_valid(&self, row: usize) -> bool {
        self.valid.is_none_or(|valid| bit_util::get_bit(valid, row))
    }
}

/// SAFETY: `vectors` are flat and of this kind.
unsafe fn column(vectors: &[Vector<'_>], kind: Kind, arrow: &DataType) -> Option<ArrayRef> {
    let rows = vectors.iter().map(|vector| vector.rows).sum();
    let array = ArrayData::builder(arrow.clone()).len(rows).nulls(nulls(vectors, rows));
    // SAFETY: as above. Values that are null are there, too, but of text they are not read.
    unsafe {
        let array = match kind {
            Kind::Bool => {
                let mut bits = BooleanBufferBuilder::new(rows);
                for vector in vectors {
                    let values = vector.values::<u8>();
                    bits.append_buffer(&BooleanBuffer::collect_bool(vector.rows, |n| values[n] != 0));
                }
                array.add_buffer(bits.finish().into_inner())
            }
            Kind::Same(width) => {
                let mut all = MutableBuffer::with_capacity(rows * width);
                for vector in vectors {
                    all.extend_from_slice(slice::<u8>(vector.data, vector.rows * width));
                }
                array.add_buffer(all.into())
            }
            Kind::Decimal(2) => array.add_buffer(widened::<i16>(vectors)),
            Kind::Decimal(4) => array.add_buffer(widened::<i32>(vectors)),
            Kind::Decimal(_) => array.add_buffer(widened::<i64>(vectors)),
            Kind::Bytes => {
                let (offsets, bytes) = bytes(vectors, rows)?;
                array.add_buffer(offsets).add_buffer(bytes)
            }
        };
        Some(make_array(array.build_unchecked()))
    }
}

/// SAFETY: `data` holds so many values, or there are none.
unsafe fn slice<'a, T>(data: *mut c_void, len: usize) -> &'a [T] {
    if len == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: as above.
    unsafe { std::slice::from_raw_parts(data.cast(), len) }
}

fn nulls(vectors: &[Vector<'_>], rows: usize) -> Option<NullBuffer> {
    if vectors.iter().all(|vector| vector.valid.is_none()) {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(rows);
    for vector in vectors {
        match vector.valid {
            Some(valid) => bits.append_packed_range(0..vector.rows, valid),
            None => bits.append_n(vector.rows, true),
        }
    }
    let nulls = NullBuffer::new(bits.finish());
    (nulls.null_count() > 0).then_some(nulls)
}

/// SAFETY: values are of this type.
unsafe fn widened<T: Copy + Into<i128> + 'static>(vectors: &[Vector<'_>]) -> Buffer {
    let mut all = Vec::with_capacity(vectors.iter().map(|vector| vector.rows).sum());
    for vector in vectors {
        // SAFETY: as above.
        all.extend(unsafe { vector.values::<T>() }.iter().map(|value| -> i128 { (*value).into() }));
    }
    all.into()
}

/// Bytes of a text that are inside of `duckdb_string_t`, and not elsewhere.
const SHORT: usize = 12;

/// SAFETY: every value that is not null is a string that the engine made.
unsafe fn bytes(vectors: &[Vector<'_>], rows: usize) -> Option<(Buffer, Buffer)> {
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0_i32);
    let mut total = 0_usize;
    for vector in vectors {
        // SAFETY: as above.
        let lengths = unsafe { vector.lengths() };
        // One that does not fit is refused below.
        offsets.extend(lengths.map(|length| {
            total += length;
            total as i32
        }));
    }
    i32::try_from(total).ok()?;
    let mut bytes = Vec::<u8>::with_capacity(total + SHORT);
    // SAFETY: as above; there is room for all texts, and for all of a short one at the end of the last.
    unsafe {
        let mut end = bytes.as_mut_ptr();
        for vector in vectors {
            for (n, value) in vector.values::<ffi::duckdb_string_t>().iter().enumerate() {
                if !vector.is_valid(n) {
                    continue;
                }
                let length = value.value.inlined.length as usize;
                if length <= SHORT {
                    // As many each time: quicker than to copy just what is there.
                    end.copy_from_nonoverlapping(value.value.inlined.inlined.as_ptr().cast(), SHORT);
                } else {
                    end.copy_from_nonoverlapping(value.value.pointer.ptr.cast(), length);
                }
                end = end.add(length);
            }
        }
        bytes.set_len(total);
    }
    Some((offsets.into(), bytes.into()))
}
