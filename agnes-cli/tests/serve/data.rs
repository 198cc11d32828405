//! What laptops pull: manifest and files.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::process::Answer;
use super::world::World;

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn ids(bytes: Vec<u8>, folder: &std::path::Path) -> Vec<i64> {
    let file = folder.join("pulled.parquet");
    std::fs::write(&file, bytes).unwrap();
    let reader =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(file).unwrap());
    let mut ids = Vec::new();
    for batch in reader.unwrap().build().unwrap() {
        for row in agnes_core::query::json_rows(&batch.unwrap()) {
            ids.push(row["id"].as_i64().unwrap());
        }
    }
    ids
}

#[test]
fn the_manifest_names_what_may_be_pulled_and_changes_with_it() {
    let world = World::start();
    let manifest = world.get("member", "/api/sync/manifest");
    let tables = manifest.json()["tables"].clone();
    assert_eq!(tables.as_object().unwrap().keys().collect::<Vec<_>>(), ["orders"]);
    for field in ["id", "hash", "sha256", "updated", "size_bytes", "rows", "query_mode", "source_type"] {
        assert!(!tables["orders"][field].is_null(), "{field}: {tables}");
    }
    let tag = manifest.header("etag").unwrap().to_owned();
    let again = |who: &str| {
        let fields = format!("{}If-None-Match: {tag}\r\n", world.authorization(who));
        let answer = world.server.get_with("/api/sync/manifest", &fields);
        (answer.status, answer.body.len())
    };
    assert_eq!(again("member"), (304, 0));
    assert_eq!(again("admin").0, 200);
    assert_eq!(world.get("stranger", "/api/sync/manifest").json()["tables"], json!({}));
    let off = json!({"datasets": {"orders": false, "people": true}});
    let set = world.send("member", "POST", "/api/sync/settings", &off).json();
    assert_eq!(set["updated"], json!({"orders": {"enabled": false}, "people": {"error": "no permission"}}));
    assert_eq!(again("member").0, 200, "what they want changed");
    assert_eq!(world.get("member", "/api/sync/manifest").json()["tables"], json!({}));
    assert_eq!(world.get("member", "/api/sync/settings").json()["enabled_datasets"], json!([]));
}

#[test]
fn files_are_what_the_manifest_says_whole_and_in_ranges() {
    let world = World::start();
    let told = world.get("member", "/api/sync/manifest").json()["tables"]["orders"].clone();
    let whole = world.get("member", "/api/data/orders/download");
    assert_eq!(whole.status, 200);
    assert_eq!(json!(sha256(&whole.body)), told["sha256"]);
    let tag = format!("\"{}\"", told["hash"].as_str().unwrap());
    for (name, value) in [
        ("etag", tag.as_str()),
        ("accept-ranges", "bytes"),
        ("content-type", "application/octet-stream"),
        ("content-disposition", "attachment; filename=\"orders.parquet\""),
        ("x-agnes-content-md5", told["hash"].as_str().unwrap()),
    ] {
        assert_eq!(whole.header(name), Some(value), "{name}");
    }
    let with = |fields: &str| -> Answer {
        world.server.get_with("/api/data/orders/download", &format!("{}{fields}", world.authorization("member")))
    };
    let size = whole.body.len();
    for (range, from, to) in
        [("bytes=0-9", 0, 10), ("bytes=10-", 10, size), ("bytes=-4", size - 4, size), ("bytes=5-999999999", 5, size)]
    {
        let part = with(&format!("Range: {range}\r\n"));
        assert_eq!((part.status, part.body.as_slice()), (206, &whole.body[from..to]), "{range}");
        assert_eq!(part.header("content-range"), Some(format!("bytes {from}-{}/{size}", to - 1).as_str()));
    }
    let beyond = with(&format!("Range: bytes={size}-\r\n"));
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some(format!("bytes */{size}").as_str())));
    assert_eq!(with(&format!("Range: bytes=0-9\r\nIf-Range: {tag}\r\n")).status, 206);
    let other = with("Range: bytes=0-9\r\nIf-Range: \"other\"\r\n");
    assert_eq!((other.status, other.body.len()), (200, size));
    for held in [tag.clone(), format!("\"a\", {tag}"), "*".to_owned(), format!("W/{tag}")] {
        let answer = with(&format!("If-None-Match: {held}\r\n"));
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{held}");
        assert_eq!(answer.header("etag"), Some(tag.as_str()));
    }
    assert_eq!(with("If-None-Match: \"a\"\r\n").status, 200);
    let head = world.server.send(&format!(
        "HEAD /api/data/orders/download HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{}\r\n",
        world.authorization("member")
    ));
    assert_eq!(
        (head.status, head.body.len(), head.header("content-length")),
        (200, 0, Some(size.to_string().as_str()))
    );
}

#[test]
fn each_part_of_a_table_in_parts_is_a_file_of_its_own() {
    let world = World::start();
    let folder = world.server.folder.path().join("files/visits");
    std::fs::create_dir(&folder).unwrap();
    for (name, ids) in [("a", "1\n2\n"), ("b", "3\n"), ("c", "4\n5\n6\n")] {
        std::fs::write(folder.join(format!("{name}.csv")), format!("id\n{ids}")).unwrap();
    }
    world.command(&["sync"]);
    world.command(&["admin", "grant", "create", "analysts", "table", "visits"]);
    let told = world.get("member", "/api/sync/manifest").json()["tables"]["visits"].clone();
    let parts = told["parts"].as_array().unwrap_or_else(|| panic!("{told}")).clone();
    assert_eq!(parts.len(), 3);
    assert_ne!(told["hash"], "");
    let whole = world.get("member", "/api/data/visits/download");
    assert_eq!((whole.status, &whole.json()["code"]), (404, &json!("no_such_part")), "there is no one file");
    let mut found = Vec::new();
    let mut tags = Vec::new();
    for part in &parts {
        let path = part["path"].as_str().unwrap();
        let address = format!("/api/data/visits/download?part={}", path.replace('/', "%2F"));
        let file = world.get("member", &address);
        assert_eq!((file.status, json!(sha256(&file.body))), (200, part["sha256"].clone()), "{path}");
        assert_eq!(part["size_bytes"], file.body.len());
        let tag = format!("\"{}\"", part["hash"].as_str().unwrap());
        assert_eq!(file.header("etag"), Some(tag.as_str()));
        let with =
            |fields: &str| world.server.get_with(&address, &format!("{}{fields}", world.authorization("member")));
        let first = with(&format!("Range: bytes=0-3\r\nIf-Range: {tag}\r\n"));
        assert_eq!((first.status, first.body.as_slice()), (206, &b"PAR1"[..]));
        if let Some(other) = tags.last() {
            assert_eq!(with(&format!("Range: bytes=0-3\r\nIf-Range: {other}\r\n")).status, 200, "of another part");
        }
        assert_eq!(with(&format!("If-None-Match: {tag}\r\n")).status, 304);
        found.extend(ids(file.body, world.server.folder.path()));
        tags.push(tag);
    }
    found.sort_unstable();
    assert_eq!(found, [1, 2, 3, 4, 5, 6]);
    for part in ["", "..%2F..%2Fx", "visits", "*"] {
        let answer = world.get("member", &format!("/api/data/visits/download?part={part}"));
        assert_eq!((answer.status, &answer.json()["code"]), (404, &json!("no_such_part")), "{part}");
    }
    assert_eq!(world.get("stranger", "/api/data/visits/download?part=x").status, 403);
}

#[test]
fn who_may_take_what() {
    let world = World::start();
    let told = |who: &str, path: &str| {
        let answer = world.get(who, path);
        let code = if answer.body.is_empty() { Value::Null } else { answer.json()["code"].clone() };
        (answer.status, code.as_str().unwrap_or_default().to_owned())
    };
    for (who, path, status, code) in [
        ("nobody", "/api/data/orders/download", 401, "auth_required"),
        ("stranger", "/api/data/orders/download", 403, "access_denied"),
        ("stranger", "/api/data/nothing/download", 403, "access_denied"),
        ("admin", "/api/data/nothing/download", 404, "table_not_found"),
        ("member", "/api/data/people/download", 403, "access_denied"),
        ("member", "/api/data/agnes_audit/download", 403, "not_distributable"),
        ("member", "/api/data/orders/download?part=x", 404, "no_such_part"),
        ("member", "/api/data/..%2F..%2Fstate%2Fsystem.duckdb/download", 404, "table_not_found"),
        ("member", "/api/data/orders/check-access", 204, ""),
        ("admin", "/api/data/people/check-access", 204, ""),
        ("stranger", "/api/data/orders/check-access", 403, "access_denied"),
        ("nobody", "/api/data/orders/check-access", 401, "auth_required"),
        ("member", "/api/data/a%20b/check-access", 404, "table_not_found"),
    ] {
        assert_eq!(told(who, path), (status, code.to_owned()), "{who} {path}");
    }
    let detail = world.get("member", "/api/data/agnes_audit/download").json()["detail"].clone();
    assert_eq!(detail["reason"], "not_distributable");
}

#[test]
fn of_a_narrowed_table_only_the_part_leaves_the_server() {
    let world = World::start();
    let before = world.get("member", "/api/data/orders/download");
    world.command(&["admin", "policy", "create", "analysts", "orders", "--rows", "status = 'paid'"]);
    let told = world.get("member", "/api/sync/manifest").json()["tables"]["orders"].clone();
    assert_eq!((&told["slice"], &told["rows"]), (&json!(true), &json!(2)));
    let part = world.get("member", "/api/data/orders/download");
    assert_eq!(json!(sha256(&part.body)), told["sha256"]);
    assert_ne!(part.header("etag"), before.header("etag"), "the old file is not taken for the new one");
    assert_eq!(ids(part.body, world.server.folder.path()), [1, 3]);
    let all = world.get("admin", "/api/data/orders/download");
    assert_eq!(ids(all.body, world.server.folder.path()), [1, 2, 3, 4]);
}
