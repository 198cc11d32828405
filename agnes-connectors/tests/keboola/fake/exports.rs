//! Exports: rows in slices, jobs, and the files they end in.

use std::io::Write as _;

use serde_json::{Value, json};

use super::{Damage, Row, S3_KEY, S3_SECRET, SIGNATURE, State, Store, Table};
use crate::wire::{Answer, form, put_blob};

/// A slice with the types of its columns, as a warehouse unloads it.
fn parquet(table: &Table, columns: &[String], places: &[usize], rows: &[&Row]) -> Vec<u8> {
    use agnes_core::ident::{quote_ident, quote_literal};
    let folder = tempfile::tempdir().unwrap();
    let db = agnes_core::duck::ScratchDb::open(folder.path(), &agnes_core::duck::ScratchLimits::default()).unwrap();
    let select = columns.iter().enumerate().map(|(n, name)| {
        let kind = table.types.iter().find(|(column, _)| column == name).map(|(_, kind)| kind.as_str());
        let value = match kind {
            None => format!("c{n}"),
            Some("BOOLEAN") => format!("CASE WHEN c{n} <> '' THEN lower(c{n}) IN ('true', '1', 'yes') END"),
            Some(kind) => {
                let kind = match kind {
                    "INTEGER" => "BIGINT",
                    "FLOAT" => "DOUBLE",
                    "TIMESTAMP_TZ" => "TIMESTAMPTZ",
                    kind => kind,
                };
                format!("CAST(nullif(c{n}, '') AS {kind})")
            }
        };
        format!("{value} AS {}", quote_ident(name))
    });
    let line = |row: &&Row| places.iter().map(|at| quote_literal(&row.values[*at])).collect::<Vec<_>>().join(", ");
    let values: Vec<String> = rows.iter().map(|row| format!("({})", line(row))).collect();
    let names: Vec<String> = (0..columns.len()).map(|n| format!("c{n}")).collect();
    let file = folder.path().join("slice.parquet");
    db.execute(&format!(
        "COPY (SELECT {} FROM (VALUES {}) AS rows({})) TO {} (FORMAT parquet)",
        select.collect::<Vec<_>>().join(", "),
        values.join(", "),
        names.join(", "),
        quote_literal(&file.to_string_lossy())
    ))
    .unwrap();
    std::fs::read(file).unwrap()
}

impl State {
    pub(super) fn export(&mut self, url: &str, id: &str, body: &[u8]) -> Answer {
        let (before, change, counts_table) = (self.before_export.take(), self.at_export.take(), self.counts_table);
        let (damage, slices, plain, unsliced) = (self.damage, self.slices, self.plain, self.unsliced);
        let (end, ended) = (if self.crlf { "\r\n" } else { "\n" }, self.ended || self.crlf);
        let Some(table) = self.tables.get_mut(id) else { return Answer::error(404, "The table was not found") };
        if let Some(change) = before {
            change(table);
        }
        let form = form(body);
        let get = |name: &str| form.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let number = |name: &str| get(name).and_then(|text| text.parse::<i64>().ok());
        let (since, until) = (number("changedSince"), number("changedUntil"));
        let columns: Vec<String> = match get("columns") {
            Some(names) => names.split(',').map(str::to_owned).collect(),
            None => table.columns.clone(),
        };
        let at = |name: &str| table.columns.iter().position(|column| column == name);
        let mut rows: Vec<&Row> = table.rows.iter().collect();
        rows.retain(|row| since.is_none_or(|s| row.changed >= s) && until.is_none_or(|u| row.changed <= u));
        for i in 0.. {
            let Some(column) = get(&format!("whereFilters[{i}][column]")) else { break };
            let operator = get(&format!("whereFilters[{i}][operator]")).unwrap_or("eq").to_owned();
            let values: Vec<&str> = (0..).map_while(|j| get(&format!("whereFilters[{i}][values][{j}]"))).collect();
            let Some(at) = at(column) else { return Answer::error(400, "Column not found") };
            rows.retain(|row| {
                let value = row.values[at].as_str();
                match operator.as_str() {
                    "eq" | "in" => values.contains(&value),
                    "ne" | "notIn" => !values.contains(&value),
                    "ge" => value >= values[0],
                    "gt" => value > values[0],
                    "le" => value <= values[0],
                    _ => value < values[0],
                }
            });
        }
        let places: Vec<usize> = columns.iter().filter_map(|column| at(column)).collect();
        if let Some(limit) = number("limit") {
            rows.truncate(usize::try_from(limit).unwrap());
        }
        let count = if counts_table { table.rows.len() } else { rows.len() } as u64;
        let mut files: Vec<(String, Vec<u8>)> = Vec::new();
        let gzip = get("gzip") == Some("1") && !plain;
        let per = rows.len().div_ceil(slices).max(1);
        let header = columns.iter().map(|c| quoted(c)).collect::<Vec<_>>().join(",");
        let chunks: Vec<&[&Row]> = if unsliced { vec![&rows[..]] } else { rows.chunks(per).collect() };
        for (n, chunk) in chunks.into_iter().enumerate() {
            let line = |row: &&Row| places.iter().map(|at| quoted(&row.values[*at])).collect::<Vec<_>>().join(",");
            let mut text = chunk.iter().map(line).collect::<Vec<_>>().join(end);
            if unsliced {
                text = format!("{header}{end}{text}");
            }
            if damage == Damage::Wide && n == 1 {
                text.push_str(",\"one more\"");
            }
            // The last line of a slice may or may not have an end.
            if n % 2 == 0 || ended {
                text.push_str(end);
            }
            if get("fileType") == Some("parquet") {
                files.push((format!("{id}_{n}_0_0.snappy.parquet"), parquet(table, &columns, &places, chunk)));
                continue;
            }
            let name = format!("{id}.csv_{n}_0_0.csv{}", if gzip { ".gz" } else { "" });
            files.push((name, if gzip { zipped(text.as_bytes()) } else { text.into_bytes() }));
        }
        if let Some(change) = change {
            change(table);
        }
        let (job, file) = (self.next, self.next + 1);
        self.next += 2;
        if let Store::S3(folder) = &self.store {
            for (name, bytes) in &files {
                let path = folder.join(format!("exports/exp-{file}/{name}"));
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(path, bytes).unwrap();
            }
        }
        if let Store::Blobs { port, account, sas } = &self.store {
            let target = |name: &str| format!("/{account}/box/exp-{file}/{name}?{sas}");
            files.iter().for_each(|(name, bytes)| put_blob(*port, &target(name), bytes));
            let manifest =
                self.manifest(&files, |name| format!("azure://{account}.blob.core.windows.net/box/exp-{file}/{name}"));
            put_blob(*port, &target("manifest"), manifest.to_string().as_bytes());
        }
        self.files.insert(file, files);
        self.jobs.insert(job, (self.polls, file, count));
        self.running.insert(job);
        self.most_running = self.most_running.max(self.running.len());
        let url = format!("{url}/v2/storage/jobs/{job}");
        Answer { status: 202, ..Answer::json(&json!({"id": job, "status": "waiting", "url": url})) }
    }

    pub(super) fn job(&mut self, id: u64) -> Answer {
        let waits = self.jobs.len() < self.polls_until_exports;
        let Some((polls, file, rows)) = self.jobs.get_mut(&id) else { return Answer::error(404, "Job not found") };
        if *polls > 0 || waits {
            *polls = polls.saturating_sub(1);
            return Answer::json(&json!({"id": id, "status": "processing", "results": []}));
        }
        if let Some(words) = &self.job_fails {
            let error = json!({"code": "storage.jobs.error", "message": words});
            return Answer::json(&json!({"id": id, "status": "error", "results": null, "error": error}));
        }
        self.running.remove(&id);
        let mut results = json!({"file": {"id": *file}});
        if self.counts {
            results["totalRowsCount"] = json!(*rows);
        }
        Answer::json(&json!({"id": id, "status": "success", "results": results}))
    }

    /// The list of slices, not in the order of their rows.
    pub(super) fn manifest(&self, files: &[(String, Vec<u8>)], url: impl Fn(&str) -> String) -> Value {
        let mut names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
        if self.damage == Damage::Missing {
            names.pop();
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        let entries: Vec<Value> = names.iter().map(|name| json!({"url": url(name), "mandatory": true})).collect();
        json!({ "entries": entries })
    }

    pub(super) fn file(&mut self, url: &str, id: u64) -> Answer {
        let Some(files) = self.files.get(&id) else { return Answer::error(404, "File not found") };
        let signed = |name: &str| format!("{url}/blob/{id}/{name}?X-Sig={SIGNATURE}{}", self.generation);
        let name = files.first().map_or("none.csv", |(name, _)| name.as_str());
        let mut out = json!({
            "id": id, "name": name, "isSliced": !self.unsliced, "region": "eu-central-1",
            "url": if self.unsliced { signed(name) } else { signed("manifest") },
            "provider": "aws", "s3Path": {"bucket": "exports", "key": format!("exp-{id}/")},
            "credentials": {"AccessKeyId": S3_KEY, "SecretAccessKey": S3_SECRET, "SessionToken": "session"},
            "gcsCredentials": [], "absCredentials": [],
        });
        if self.wrong_s3_secret {
            out["credentials"]["SecretAccessKey"] = json!("another");
        }
        match &self.store {
            Store::Google => {
                out["provider"] = json!("gcp");
                out["gcsCredentials"] = json!({"access_token": SIGNATURE, "projectId": "p"});
                out["gcsPath"] = json!({"bucket": "box", "key": format!("{id}/")});
            }
            Store::Azure => {
                let sas = format!(
                    "BlobEndpoint=https://account.blob.core.windows.net;SharedAccessSignature=sv=1&sig={SIGNATURE}"
                );
                out["provider"] = json!("azure");
                out["absCredentials"] = json!({"SASConnectionString": sas});
            }
            Store::Blobs { port, account, sas } => {
                let place = format!("http://127.0.0.1:{port}/{account}");
                out["provider"] = json!("azure");
                out["url"] = json!(format!("{place}/box/exp-{id}/manifest?{sas}"));
                out["absPath"] = json!({"container": "box", "name": format!("exp-{id}/")});
                let sas = format!("BlobEndpoint={place};SharedAccessSignature={sas}");
                out["absCredentials"] = json!({"SASConnectionString": sas});
            }
            Store::Signed | Store::S3(_) => {}
        }
        Answer::json(&out)
    }
}

fn quoted(value: &str) -> String {
    format!("\"{}\"", value.replace('"', "\"\""))
}

fn zipped(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}
