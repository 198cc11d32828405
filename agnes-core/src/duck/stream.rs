//! The rows of a query as they are made, in Arrow.
#![expect(unsafe_code, reason = "results are read through DuckDB's C interface")]

use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::duckdb::ffi;
use arrow::array::{ArrayRef, AsArray as _, StringArray, StructArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, Fields, Schema, SchemaRef};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi_and_data_type};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::columns::Plain;
use super::memory::{MemoryConn, Result, words};
use super::{EngineFailure, failure_of_words};

/// Bytes of a batch, about, and chunks in it at most: 32,768 rows.
const BATCH_BYTES: usize = 4 << 20;
const MOST_TOGETHER: usize = 16;
/// Arrow's numbers have no room for its upper half: it becomes text.
const WIDEST: ffi::duckdb_type = ffi::DUCKDB_TYPE_DUCKDB_TYPE_UHUGEINT;
/// Once a batch has taken so long, no more is fetched for it: where rows come slowly, those that are
/// there do not wait for others.
const PATIENCE: Duration = Duration::from_millis(20);

/// The same columns with `UTC` written as `+00:00`: names of time zones need a database of
/// them, which readers of the result may not have compiled in.
fn with_offsets(schema: &Schema) -> Schema {
    fn kind(of: &DataType) -> DataType {
        let field = |f: &Arc<Field>| Arc::new(f.as_ref().clone().with_data_type(kind(f.data_type())));
        match of {
            DataType::Timestamp(unit, Some(zone)) if zone.as_ref() == "UTC" => {
                DataType::Timestamp(*unit, Some("+00:00".into()))
            }
            DataType::List(item) => DataType::List(field(item)),
            DataType::LargeList(item) => DataType::LargeList(field(item)),
            DataType::FixedSizeList(item, size) => DataType::FixedSizeList(field(item), *size),
            DataType::Map(entries, sorted) => DataType::Map(field(entries), *sorted),
            DataType::Struct(fields) => DataType::Struct(fields.iter().map(field).collect()),
            other => other.clone(),
        }
    }
    let fields = schema.fields().iter().map(|f| f.as_ref().clone().with_data_type(kind(f.data_type())));
    Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone())
}

/// SAFETY: `result` is a result that was executed.
unsafe fn arrow_schema(result: &mut ffi::duckdb_result, options: &ArrowOptions) -> Result<FFI_ArrowSchema> {
    // SAFETY: types are destroyed after the call; names belong to the result.
    unsafe {
        let count = ffi::duckdb_column_count(result);
        let mut types: Vec<_> = (0..count).map(|n| ffi::duckdb_column_logical_type(result, n)).collect();
        let mut names: Vec<_> = (0..count).map(|n| ffi::duckdb_column_name(result, n)).collect();
        let mut schema = FFI_ArrowSchema::empty();
        let error = ffi::duckdb_to_arrow_schema(
            options.0,
            types.as_mut_ptr(),
            names.as_mut_ptr(),
            count,
            ptr::from_mut(&mut schema).cast(),
        );
        for kind in &mut types {
            ffi::duckdb_destroy_logical_type(kind);
        }
        check(error, "describe the result")?;
        Ok(schema)
    }
}

/// SAFETY: `error` is null or owned by the caller.
unsafe fn check(mut error: ffi::duckdb_error_data, action: &'static str) -> Result<()> {
    if error.is_null() {
        return Ok(());
    }
    // SAFETY: the text is copied before the error is destroyed.
    unsafe {
        let failed = ffi::duckdb_error_data_has_error(error);
        let said = if failed { words(ffi::duckdb_error_data_message(error)) } else { String::new() };
        ffi::duckdb_destroy_error_data(&mut error);
        if failed { Err(failure_of_words(action, said)) } else { Ok(()) }
    }
}

pub(super) struct Prepared(pub(super) ffi::duckdb_prepared_statement);

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: destroyed once; null is fine.
        unsafe { ffi::duckdb_destroy_prepare(&mut self.0) };
    }
}

pub(super) struct QueryHandle(pub(super) ffi::duckdb_result);

impl Drop for QueryHandle {
    fn drop(&mut self) {
        // SAFETY: destroyed once; zeroed is fine.
        unsafe { ffi::duckdb_destroy_result(&mut self.0) };
    }
}

struct ArrowOptions(ffi::duckdb_arrow_options);

impl Drop for ArrowOptions {
    fn drop(&mut self) {
        // SAFETY: destroyed once.
        unsafe { ffi::duckdb_destroy_arrow_options(&mut self.0) };
    }
}

/// Some rows as the engine has them.
pub(super) struct Chunk(pub(super) ffi::duckdb_data_chunk);

impl Chunk {
    pub(super) fn rows(&self) -> usize {
        // SAFETY: the chunk is alive.
        unsafe { ffi::duckdb_data_chunk_get_size(self.0) as usize }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: destroyed once; null is fine.
        unsafe { ffi::duckdb_destroy_data_chunk(&mut self.0) };
    }
}

/// The rows of a query as they are made. Fields are dropped in this order.
pub(crate) struct Stream<'c> {
    result: QueryHandle,
    options: ArrowOptions,
    _prepared: Prepared,
    schema: SchemaRef,
    /// The same as the engine converts it.
    converts_to: DataType,
    plain: Option<Plain>,
    /// Chunks of the next batch.
    together: usize,
    /// Fetched before, and not in a batch yet.
    kept: Option<Chunk>,
    failed: Option<EngineFailure>,
    done: bool,
    _conn: PhantomData<&'c MemoryConn>,
}

impl<'c> Stream<'c> {
    /// Of a result that was just begun on `conn`.
    pub(super) fn start(mut result: QueryHandle, prepared: Prepared, _conn: &'c MemoryConn) -> Result<Self> {
        let said = |e: arrow::error::ArrowError| failure_of_words("read the result's schema", e.to_string());
        // SAFETY: the result was executed.
        let (options, converted) = unsafe {
            let options = ArrowOptions(ffi::duckdb_result_get_arrow_options(&mut result.0));
            let schema = Schema::try_from(&arrow_schema(&mut result.0, &options)?).map_err(said)?;
            (options, with_offsets(&schema))
        };
        let fields = converted.fields().iter().zip(0..).map(|(field, n)| {
            // SAFETY: as above.
            match unsafe { ffi::duckdb_column_type(&mut result.0, n) } {
                WIDEST => Arc::new(field.as_ref().clone().with_data_type(DataType::Utf8)),
                _ => field.clone(),
            }
        });
        let schema = Arc::new(Schema::new(fields.collect::<Fields>()));
        Ok(Self {
            // SAFETY: as above.
            plain: unsafe { Plain::of(&mut result.0, &schema) },
            converts_to: DataType::Struct(converted.fields().clone()),
            result,
            options,
            _prepared: prepared,
            schema,
            together: 1,
            kept: None,
            failed: None,
            done: false,
            _conn: PhantomData,
        })
    }

    /// Columns of the result.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }

    /// The next rows; `None` at the end. The first come alone, then several chunks become one
    /// batch: each costs who reads it the same.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>> {
        let begun = Instant::now();
        let Some(first) = self.chunk()? else { return Ok(None) };
        let mut chunks = vec![first];
        if self.plain.is_some() {
            self.gather(&mut chunks, begun);
        }
        // SAFETY: they are chunks of this result.
        let plain = self.plain.as_ref().and_then(|plain| unsafe { plain.columns(&chunks, &self.schema) });
        let columns = match plain {
            Some(columns) => columns,
            // Not plain, or a chunk of more text than Arrow counts, which the engine tells.
            None => self.converted(&chunks[0])?,
        };
        self.batch(columns, chunks.iter().map(Chunk::rows).sum()).map(Some)
    }

    /// Fetches what goes into one batch with the first of `chunks`, twice as many as before.
    fn gather(&mut self, chunks: &mut Vec<Chunk>, begun: Instant) {
        // SAFETY: they are chunks of this result.
        let size =
            |plain: &Option<Plain>, chunk: &Chunk| plain.as_ref().map_or(0, |plain| unsafe { plain.size(chunk) });
        let mut bytes = size(&self.plain, &chunks[0]);
        while chunks.len() < self.together && begun.elapsed() < PATIENCE {
            match self.chunk() {
                Ok(Some(chunk)) => {
                    bytes += size(&self.plain, &chunk);
                    if bytes > BATCH_BYTES {
                        self.kept = Some(chunk);
                        break;
                    }
                    chunks.push(chunk);
                }
                Ok(None) => break,
                // The rows before it come first.
                Err(failure) => {
                    self.failed = Some(failure);
                    break;
                }
            }
        }
        self.together = (self.together * 2).min(MOST_TOGETHER);
    }

    fn chunk(&mut self) -> Result<Option<Chunk>> {
        if let Some(kept) = self.kept.take() {
            return Ok(Some(kept));
        }
        if let Some(failure) = self.failed.take() {
            return Err(failure);
        }
        if self.done {
            return Ok(None);
        }
        // SAFETY: the result is alive; the chunk is the caller's; the error text is copied.
        unsafe {
            let chunk = Chunk(ffi::duckdb_fetch_chunk(self.result.0));
            if !chunk.0.is_null() && chunk.rows() > 0 {
                return Ok(Some(chunk));
            }
            self.done = true;
            let error = ffi::duckdb_result_error(&mut self.result.0);
            if !error.is_null() && *error != 0 {
                return Err(failure_of_words("run the query", words(error)));
            }
        }
        Ok(None)
    }

    fn batch(&self, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(self.schema.clone(), columns, &options)
            .map_err(|e| failure_of_words("read the result", e.to_string()))
    }

    /// The columns of a chunk of any types, by the engine's own conversion.
    fn converted(&self, chunk: &Chunk) -> Result<Vec<ArrayRef>> {
        let kind = self.converts_to.clone();
        // SAFETY: the Arrow array is handed over to arrow-rs, which releases it; it is of the
        // type that the engine told.
        let array = unsafe {
            let mut array = FFI_ArrowArray::empty();
            let error = ffi::duckdb_data_chunk_to_arrow(self.options.0, chunk.0, ptr::from_mut(&mut array).cast());
            check(error, "read the result")?;
            from_ffi_and_data_type(array, kind).map_err(|e| failure_of_words("read the result", e.to_string()))?
        };
        let columns = StructArray::from(array).into_parts().1.into_iter().zip(self.schema.fields());
        let columns = columns.map(|(column, field)| match column.as_primitive_opt::<Decimal128Type>() {
            // All 128 bits are of the number, none is its sign.
            Some(numbers) if *field.data_type() == DataType::Utf8 => {
                let texts = numbers.iter().map(|number| number.map(|number| number.cast_unsigned().to_string()));
                Arc::new(texts.collect::<StringArray>())
            }
            _ => column,
        });
        Ok(columns.collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use arrow::array::Array as _;

    use super::super::{Bind, MemoryDb};
    use super::*;

    fn conn() -> MemoryConn {
        MemoryDb::open(&[("threads", "2")]).unwrap().connect().unwrap()
    }

    #[test]
    fn streams_and_binds_by_name() {
        let conn = conn();
        let mut stream = conn
            .stream("SELECT i + $a AS n, $b AS t FROM range(5000) r(i)", &|name| {
                Some(if name == "a" { Bind::Int(1) } else { Bind::Text("é\u{0}x") })
            })
            .unwrap();
        let mut rows = 0;
        while let Some(batch) = stream.next().unwrap() {
            rows += batch.num_rows();
        }
        assert_eq!((rows, stream.schema().field(0).name().as_str()), (5000, "n"));
    }

    #[test]
    fn numbers_that_arrow_has_no_room_for_are_text() {
        let conn = conn();
        let sql = format!("SELECT 1 AS a, unnest([0::UHUGEINT, NULL, '{}'::UHUGEINT]) AS n", u128::MAX);
        let batch = conn.stream(&sql, &|_| None).unwrap().next().unwrap().unwrap();
        let numbers: Vec<_> = batch.column(1).as_string::<i32>().iter().map(|n| n.map(str::to_owned)).collect();
        assert_eq!(numbers, [Some("0".to_owned()), None, Some(u128::MAX.to_string())]);
    }

    #[test]
    fn plain_columns_are_as_the_engine_converts_them() {
        let conn = conn();
        conn.execute(
            "SET TimeZone='UTC'; CREATE TABLE t AS SELECT
                i % 3 = 0 AS b, i::TINYINT AS i1, i::SMALLINT AS i2, (i * 70000)::INTEGER AS i4, -i AS i8,
                i::UTINYINT AS u1, i::USMALLINT AS u2, i::UINTEGER AS u4, i::UBIGINT AS u8,
                CASE i % 4 WHEN 0 THEN 'nan' WHEN 1 THEN '-inf' ELSE i / 7 END::FLOAT AS f4, sqrt(i) AS f8,
                (i - 50)::DECIMAL(4, 1) AS d2, (i - 50)::DECIMAL(9, 2) AS d4, (i - 50)::DECIMAL(18, 3) AS d8,
                (i - 50)::DECIMAL(38, 4) AS d16, DATE '1969-12-01' + i::INTEGER AS day, TIME '10:00:00.5' AS t,
                TIMESTAMP '1969-12-31 23:59:59.999999' + to_days(i::INTEGER) AS us, us::TIMESTAMP_S AS s,
                us::TIMESTAMP_MS AS ms, us::TIMESTAMP_NS AS ns, us::TIMESTAMPTZ AS tz,
                repeat('é', (i % 9)::INTEGER) AS text, ('\\x00' || repeat('z', (i % 15)::INTEGER))::BLOB AS blob
             FROM range(100) r(i)",
        )
        .unwrap();
        let columns = conn.rows("SELECT column_name FROM (DESCRIBE t)").unwrap();
        let columns: Vec<String> =
            columns.iter().flat_map(|b| b.column(0).as_string::<i32>().iter().flatten().map(str::to_owned)).collect();
        let nulls: Vec<String> =
            columns.iter().map(|c| format!("CASE WHEN i % 5 = 1 THEN NULL ELSE {c} END AS {c}")).collect();
        for (sql, plain) in [
            ("FROM t".to_owned(), true),
            ("FROM t LIMIT 0".to_owned(), true),
            (format!("SELECT {} FROM t, range(100) r(i)", nulls.join(", ")), true),
            (
                "SELECT NULL::VARCHAR AS a, NULL::DECIMAL(9, 2) AS b, NULL::BOOLEAN AS c FROM range(3000)".to_owned(),
                true,
            ),
            ("SELECT 1 AS a, [1] AS list".to_owned(), false),
            ("SELECT uuid() AS a".to_owned(), false),
            ("SELECT 1::HUGEINT AS a, INTERVAL 1 DAY AS b, TIMETZ '10:00:00+01' AS c".to_owned(), false),
        ] {
            let read = |by_engine: bool| {
                let mut stream = conn.stream(&sql, &|_| None).unwrap();
                assert_eq!(stream.plain.is_some(), plain, "{sql}");
                if by_engine {
                    stream.plain = None;
                }
                let mut batches = Vec::new();
                while let Some(batch) = stream.next().unwrap() {
                    batch.columns().iter().for_each(|column| column.to_data().validate_full().unwrap());
                    batches.push(batch);
                }
                arrow::compute::concat_batches(&stream.schema(), &batches).unwrap()
            };
            let (ours, engines) = (read(false), read(true));
            if plain {
                assert_eq!(ours, engines, "{sql}");
            }
        }
    }

    #[test]
    fn rows_that_become_wide_come_in_small_batches() {
        let conn = conn();
        let sql = "SELECT i, repeat('x', CASE WHEN i < 100000 THEN 1 ELSE 300 END) AS t FROM range(120000) r(i)";
        let mut stream = conn.stream(sql, &|_| None).unwrap();
        let (mut rows, mut batches) = (0, 0);
        while let Some(batch) = stream.next().unwrap() {
            let ids = batch.column(0).as_primitive::<arrow::datatypes::Int64Type>();
            assert_eq!((ids.value(0), ids.null_count()), (rows, 0));
            // One chunk of the wide ones is 0.6 MB.
            let texts = batch.column(1).as_string::<i32>().value_data().len();
            assert!(texts <= BATCH_BYTES, "{texts} bytes");
            (rows, batches) = (rows + batch.num_rows() as i64, batches + 1);
        }
        assert_eq!(rows, 120_000);
        assert!(batches < 59, "every chunk is a batch");
    }

    #[test]
    fn rows_that_come_slowly_do_not_wait_for_others() {
        let conn = conn();
        // What is asked makes the rows, a chunk at a time, each in well over the time that a batch waits.
        conn.execute("SET threads=1; SET streaming_buffer_size='1KB'").unwrap();
        let (md5, ends) = ("md5(".repeat(40), ")".repeat(40));
        let columns: Vec<String> = (0..10).map(|n| format!("{md5}i || '{n}'{ends} AS t{n}")).collect();
        let sql = format!("SELECT {} FROM range(10240) r(i)", columns.join(", "));
        let mut stream = conn.stream(&sql, &|_| None).unwrap();
        let mut sizes = Vec::new();
        while let Some(batch) = stream.next().unwrap() {
            sizes.push(batch.num_rows());
        }
        assert_eq!(sizes, [2048; 5]);
    }

    #[test]
    fn an_error_half_way_is_a_value() {
        let conn = conn();
        // Of several, the one that reads may only tell that it was interrupted by the one that failed.
        conn.execute("SET threads=1").unwrap();
        let mut stream = conn
            .stream(
                "SELECT CASE WHEN i = 300000 THEN error('boom') ELSE i::VARCHAR END FROM range(1000000) r(i)",
                &|_| None,
            )
            .unwrap();
        let failure = loop {
            match stream.next() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("no error"),
                Err(failure) => break failure,
            }
        };
        assert!(failure.words().contains("boom"));
        drop(stream);
        assert_eq!(conn.rows("SELECT 1").unwrap().len(), 1);
    }

    #[test]
    fn only_queries_run() {
        let conn = conn();
        for sql in ["CREATE TABLE t(a INT)", "SELECT 1; SELECT 2", "COPY (SELECT 1) TO 'x.csv'", "SET threads=1"] {
            assert!(conn.stream(sql, &|_| None).is_err(), "{sql}");
        }
    }

    #[test]
    fn times_with_a_zone_can_be_shown() {
        let conn = conn();
        conn.execute("SET TimeZone='UTC'").unwrap();
        let sql =
            "SELECT TIMESTAMPTZ '2024-01-01 12:00:00+02' AS t, [{'a': TIMESTAMPTZ '2024-01-01 00:00:00+00'}] AS l";
        let batches = conn.rows(sql).unwrap();
        let options = arrow::util::display::FormatOptions::default();
        let shown: Vec<String> = batches[0]
            .columns()
            .iter()
            .map(|c| arrow::util::display::ArrayFormatter::try_new(c, &options).unwrap().value(0).to_string())
            .collect();
        assert_eq!(shown, ["2024-01-01T10:00:00Z", "[{a: 2024-01-01T00:00:00Z}]"]);
    }

    #[test]
    fn lists_bind() {
        let conn = conn();
        let list = Bind::List(vec![Bind::Int(1), Bind::Null, Bind::Int(3)]);
        let batches = {
            let mut stream = conn.stream("SELECT 3 IN $l, len($l)", &|_| Some(list.clone())).unwrap();
            stream.next().unwrap().unwrap()
        };
        assert_eq!(batches.num_rows(), 1);
    }
}
