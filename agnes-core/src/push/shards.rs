//! Tables of documents in parts, usually a month each: the parts that hold a changed document
//! are written anew, and only where its rows are others now.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::{concat_batches, filter_record_batch, take_record_batch};
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, Result};
use crate::extract::{ExtractError, TableWriter, table_files};
use crate::ident::TableName;

/// Part of a table without rows: it tells the columns.
const EMPTY: &str = "empty";

/// What one document's rows in one table are now.
#[derive(Debug, Clone)]
pub struct RowsOf {
    /// The document.
    pub key: String,
    /// The part that its rows belong to.
    pub part: String,
    /// Other parts that may still hold rows of it.
    pub earlier: Vec<String>,
    /// Its rows; `None` where nothing is known of them: what is there stays.
    pub rows: Option<RecordBatch>,
}

fn unreadable(_: impl std::fmt::Debug) -> Error {
    ExtractError::NotParquet.into()
}

/// The batches of one file, with the columns of `schema`: those it lacks are null.
fn read(path: &Path, schema: &SchemaRef) -> Result<Vec<RecordBatch>> {
    let file = File::open(path).map_err(|e| Error::io("read a part of a table", e))?;
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).and_then(|builder| builder.build());
    reader
        .map_err(unreadable)?
        .map(|batch| {
            let batch = batch.map_err(unreadable)?;
            let column = |field: &Arc<arrow::datatypes::Field>| -> Result<ArrayRef> {
                match batch.column_by_name(field.name()) {
                    Some(column) if column.data_type() == field.data_type() => Ok(column.clone()),
                    Some(column) => arrow::compute::cast(column, field.data_type()).map_err(unreadable),
                    None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                }
            };
            let columns = schema.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
            RecordBatch::try_new(schema.clone(), columns).map_err(unreadable)
        })
        .collect()
}

/// Rows of `batch` by the text of its key column, in their order.
fn by_key<'b>(batch: &'b RecordBatch, column: &str) -> Result<Vec<Option<&'b str>>> {
    let keys = batch.column_by_name(column).filter(|keys| *keys.data_type() == DataType::Utf8);
    let keys = keys.ok_or(ExtractError::BadBatch)?.as_string::<i32>();
    Ok((0..keys.len()).map(|row| keys.is_valid(row).then(|| keys.value(row))).collect())
}

/// Parts of these names whose files are there and cannot be read.
pub(super) fn damaged(extract: &Path, table: &TableName, parts: &BTreeSet<String>) -> BTreeSet<String> {
    let writer = TableWriter::new(extract, table.clone());
    let damaged =
        |part: &&String| writer.published_part(part).is_ok_and(|path| crate::extract::parquet::footer(&path).is_err());
    parts.iter().filter(damaged).cloned().collect()
}

/// Puts the rows of some documents into the published parts of the writer's table. `key` is the
/// column that names the document; it is text. Whether anything is others than before: else the
/// writer holds nothing that would have to be published. Blocks.
///
/// # Errors
/// `not_parquet` where a part that has to change cannot be read: it is never taken for empty.
/// `disk_full`, `bad_batch`.
pub fn apply(writer: &mut TableWriter, schema: &SchemaRef, key: &str, changes: &[RowsOf]) -> Result<bool> {
    let known: Vec<&RowsOf> = changes.iter().filter(|change| change.rows.is_some()).collect();
    let published: BTreeSet<String> = writer.published_parts()?.into_iter().collect();
    let single = writer.published_files()?.is_some_and(|files| !files.partitioned);
    let touched: BTreeSet<&str> = known
        .iter()
        .flat_map(|change| change.earlier.iter().map(String::as_str).chain([change.part.as_str()]))
        .collect();
    let (mut changed, mut rows, mut written) = (published.is_empty() || single, false, Vec::new());
    for part in &touched {
        let new: BTreeMap<&str, Option<&RecordBatch>> = known
            .iter()
            .map(|change| (change.key.as_str(), change.rows.as_ref().filter(|_| change.part == *part)))
            .collect();
        let old = match published.contains(*part) {
            true => read(&writer.published_part(part)?, schema)?,
            false => Vec::new(),
        };
        if let Some(next) = replaced(&old, schema, key, &new)? {
            changed = true;
            written.push(((*part).to_owned(), next));
        } else if published.contains(*part) {
            writer.keep_part(part)?;
            rows = true;
        }
    }
    if !changed {
        writer.restart();
        return Ok(false);
    }
    for part in published.iter().filter(|part| !touched.contains(part.as_str()) && *part != EMPTY) {
        writer.keep_part(part)?;
        rows = true;
    }
    for (part, batches) in written {
        if batches.iter().any(|batch| batch.num_rows() > 0) {
            writer.write_batches(schema.clone(), &mut batches.into_iter().map(Ok), Some(&part))?;
            rows = true;
        }
    }
    if !rows {
        writer.write_batches(schema.clone(), &mut std::iter::empty(), Some(EMPTY))?;
    }
    Ok(true)
}

/// The batches of a part with the rows of some documents replaced; `None` where they are the same.
fn replaced(
    old: &[RecordBatch],
    schema: &SchemaRef,
    key: &str,
    new: &BTreeMap<&str, Option<&RecordBatch>>,
) -> Result<Option<Vec<RecordBatch>>> {
    let (mut kept, mut gone) = (Vec::new(), Vec::new());
    for batch in old {
        let mine: Vec<bool> =
            by_key(batch, key)?.into_iter().map(|key| key.is_some_and(|key| new.contains_key(key))).collect();
        if mine.contains(&true) {
            let mask = BooleanArray::from(mine);
            let others = arrow::compute::not(&mask).map_err(unreadable)?;
            gone.push(filter_record_batch(batch, &mask).map_err(unreadable)?);
            kept.push(filter_record_batch(batch, &others).map_err(unreadable)?);
        } else {
            kept.push(batch.clone());
        }
    }
    let gone = concat_batches(schema, &gone).map_err(unreadable)?;
    let mut rows: HashMap<&str, Vec<u32>> = HashMap::new();
    for (row, key) in by_key(&gone, key)?.into_iter().enumerate() {
        rows.entry(key.unwrap_or_default()).or_default().push(u32::try_from(row).unwrap_or(u32::MAX));
    }
    let same = |key: &str, new: Option<&RecordBatch>| -> Result<bool> {
        match (rows.get(key), new.filter(|new| new.num_rows() > 0)) {
            (None, None) => Ok(true),
            (Some(rows), Some(new)) if rows.len() == new.num_rows() => {
                let old = take_record_batch(&gone, &UInt32Array::from(rows.clone())).map_err(unreadable)?;
                Ok(old.columns() == new.columns())
            }
            _ => Ok(false),
        }
    };
    let mut all_same = true;
    for (key, new) in new {
        all_same &= same(key, *new)?;
    }
    if all_same {
        return Ok(None);
    }
    kept.extend(new.values().flatten().map(|batch| (*batch).clone()));
    Ok(Some(kept))
}

/// Writes the whole table anew: `rows` of the keys of each part, one after the other, so that no more
/// than one is held here. Blocks.
///
/// # Errors
/// As [`apply`]; what `rows` says.
pub fn rewrite<K: Iterator>(
    writer: &mut TableWriter,
    schema: &SchemaRef,
    parts: impl Iterator<Item = (String, K)>,
    rows: &mut impl FnMut(&K::Item) -> Option<Result<RecordBatch>>,
) -> Result<()> {
    writer.restart();
    let mut any = false;
    for (part, keys) in parts {
        let is_some = |batch: &Result<RecordBatch>| batch.as_ref().map_or(true, |batch| batch.num_rows() > 0);
        let mut batches = keys.filter_map(|key| rows(&key)).filter(is_some).peekable();
        if batches.peek().is_some() {
            writer.write_batches(schema.clone(), &mut batches, Some(&part))?;
            any = true;
        }
    }
    if !any {
        writer.write_batches(schema.clone(), &mut std::iter::empty(), Some(EMPTY))?;
    }
    Ok(())
}

/// Some columns of a published table, and how many of its parts cannot be read. Blocks.
///
/// # Errors
/// I/O errors.
pub fn read_columns(extract: &Path, table: &TableName, columns: &[&str]) -> Result<(Vec<RecordBatch>, usize)> {
    let files = table_files(extract, table)?.map(|found| found.files).unwrap_or_default();
    let (mut batches, mut damaged) = (Vec::new(), 0);
    for path in files {
        let read = || -> Result<Vec<RecordBatch>> {
            let file = File::open(&path).map_err(|e| Error::io("read a part of a table", e))?;
            let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(unreadable)?;
            let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
            let reader = builder.with_projection(mask).build().map_err(unreadable)?;
            reader.map(|batch| batch.map_err(unreadable)).collect()
        };
        match read() {
            Ok(read) => batches.extend(read),
            Err(error) => {
                tracing::warn!(%table, code = error.code(), "a part of a table cannot be read: {error}");
                damaged += 1;
            }
        }
    }
    Ok((batches, damaged))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::extract::{TableChange, publish};
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{Field, Schema};

    fn schema() -> SchemaRef {
        let fields = vec![Field::new("k", DataType::Utf8, true), Field::new("n", DataType::Int64, true)];
        Arc::new(Schema::new(fields))
    }

    fn change(key: &str, part: &str, earlier: &[&str], rows: Option<&[i64]>) -> RowsOf {
        let batch = |rows: &[i64]| {
            let keys: ArrayRef = Arc::new(StringArray::from(vec![key; rows.len()]));
            RecordBatch::try_new(schema(), vec![keys, Arc::new(Int64Array::from(rows.to_vec()))]).unwrap()
        };
        let earlier = earlier.iter().map(ToString::to_string).collect();
        RowsOf { key: key.to_owned(), part: part.to_owned(), earlier, rows: rows.map(batch) }
    }

    struct Place(tempfile::TempDir);

    impl Place {
        fn apply(&self, changes: &[RowsOf]) -> Result<bool> {
            let name = TableName::parse("t").unwrap();
            let mut writer = TableWriter::new(self.0.path(), name.clone());
            let changed = apply(&mut writer, &schema(), "k", changes)?;
            if changed {
                let change = TableChange { name, description: None, data: writer.into() };
                let done = publish(self.0.path(), vec![change], &|_| true, chrono::Utc::now())?;
                assert!(done[0].error.is_none(), "{:?}", done[0].error);
            }
            Ok(changed)
        }

        fn all(&self) -> Vec<(String, i64)> {
            let (batches, _) = read_columns(self.0.path(), &TableName::parse("t").unwrap(), &["k", "n"]).unwrap();
            let mut rows = Vec::new();
            for batch in batches {
                let (keys, numbers) = (batch.column(0).as_string::<i32>(), batch.column(1));
                let numbers = numbers.as_primitive::<arrow::datatypes::Int64Type>();
                rows.extend((0..batch.num_rows()).map(|row| (keys.value(row).to_owned(), numbers.value(row))));
            }
            rows.sort();
            rows
        }

        fn parts(&self) -> Vec<String> {
            TableWriter::new(self.0.path(), TableName::parse("t").unwrap()).published_parts().unwrap()
        }
    }

    fn rows(of: &[(&str, i64)]) -> Vec<(String, i64)> {
        of.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect()
    }

    #[test]
    fn only_what_is_others_now_is_written() {
        let place = Place(tempfile::tempdir().unwrap());
        assert!(place.apply(&[]).unwrap());
        assert_eq!((place.all(), place.parts()), (vec![], vec!["empty".to_owned()]));
        assert!(!place.apply(&[]).unwrap());
        let first = [change("a", "2026-01", &[], Some(&[1, 2])), change("b", "2026-02", &[], Some(&[3]))];
        assert!(place.apply(&first).unwrap());
        assert_eq!(place.all(), rows(&[("a", 1), ("a", 2), ("b", 3)]));
        assert_eq!(place.parts(), ["2026-01", "2026-02"]);
        assert!(!place.apply(&first).unwrap());
        let inode = |part: &str| {
            use std::os::unix::fs::MetadataExt as _;
            std::fs::metadata(place.0.path().join(format!("data/t/{part}.parquet"))).unwrap().ino()
        };
        let before = inode("2026-02");
        // Unknown rows stay, the others are replaced, and what nobody touched is the same file.
        assert!(place.apply(&[change("a", "2026-01", &[], Some(&[2])), change("b", "2026-02", &[], None)]).unwrap());
        assert_eq!(place.all(), rows(&[("a", 2), ("b", 3)]));
        assert_eq!(inode("2026-02"), before);
        // Another month.
        assert!(place.apply(&[change("a", "2026-03", &["2026-01"], Some(&[2]))]).unwrap());
        assert_eq!(place.parts(), ["2026-02", "2026-03"]);
        // Gone.
        let gone = [change("a", "2026-03", &[], Some(&[])), change("b", "2026-02", &[], Some(&[]))];
        assert!(place.apply(&gone).unwrap());
        assert_eq!((place.all(), place.parts()), (vec![], vec!["empty".to_owned()]));
    }

    #[test]
    fn a_damaged_part_is_never_empty() {
        let place = Place(tempfile::tempdir().unwrap());
        let both = [change("a", "2026-01", &[], Some(&[1])), change("b", "2026-02", &[], Some(&[3]))];
        place.apply(&both).unwrap();
        let file = place.0.path().join("data/t/2026-01.parquet");
        std::fs::remove_file(&file).unwrap();
        std::fs::write(&file, b"PAR1 broken").unwrap();
        let error = place.apply(&[change("a", "2026-01", &[], Some(&[2]))]).unwrap_err();
        assert_eq!(error.code(), "not_parquet");
        let parts = BTreeSet::from(["2026-01".to_owned(), "2026-02".to_owned(), "2026-03".to_owned()]);
        let name = TableName::parse("t").unwrap();
        assert_eq!(damaged(place.0.path(), &name, &parts), BTreeSet::from(["2026-01".to_owned()]));
        assert_eq!(std::fs::read(&file).unwrap(), b"PAR1 broken");
    }
}
