//! Files that people send, and those that become tables.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::process::Answer;
use super::world::World;

const MEBIBYTE: usize = 1 << 20;

fn told(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

/// Every file below a folder of the data folder.
fn files(world: &World, folder: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.path().is_dir() { walk(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    walk(&world.server.folder.path().join(folder), &mut found);
    found.sort();
    found
}

fn table(world: &World, name: &str, file: &str, content: &[u8]) -> Answer {
    world.upload("admin", "/api/upload/data", &[("table", name)], file, content)
}

fn rows(world: &World, who: &str, sql: &str) -> Value {
    world.query(who, sql, "application/json").json()["rows"].clone()
}

#[test]
fn sessions_artefacts_and_notes_are_kept_by_person() {
    let world = World::start();
    let session = |who: &str, name: &str, content: &[u8]| world.upload(who, "/api/upload/sessions", &[], name, content);
    let kept = session("member", "s-1.jsonl", b"one");
    assert_eq!((kept.status, kept.json()), (200, json!({"status": "ok", "filename": "s-1.jsonl", "size": 3})));
    assert_eq!(session("stranger", "s-1.jsonl", b"other").status, 200);
    assert_eq!(session("member", "s-1.jsonl", b"longer").json()["size"], 6);
    let found = files(&world, "user_sessions");
    let mut contents: Vec<_> = found.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    contents.sort();
    assert_eq!(contents, ["longer", "other"], "{found:?}");
    // Whoever sends may not have looked for secrets: nobody finds any here.
    let secret = "{\"a\":\"\\u0065yJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl\"}\n";
    assert_eq!(session("member", "s-2.jsonl", secret.as_bytes()).json()["size"], secret.len());
    let found = files(&world, "user_sessions").into_iter().find(|file| file.ends_with("s-2.jsonl")).unwrap();
    assert_eq!(std::fs::read_to_string(&found).unwrap(), "{\"a\":\"[REDACTED:jwt]\"}\n");
    assert_eq!(std::fs::read_dir(found.parent().unwrap()).unwrap().count(), 2, "nothing else is left");
    // Packed, it is kept as it was before; a stream that broke off keeps what is there.
    let lines = secret.repeat(1000);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed.write_all(lines.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    let kept = session("member", "s-2.jsonl.gz", &packed);
    assert_eq!(kept.json(), json!({"status": "ok", "filename": "s-2.jsonl", "size": lines.len()}));
    assert_eq!(kept.header("accept-encoding"), Some("gzip"));
    for broken in [&packed[..packed.len() - 9], b"plain", b""] {
        assert_eq!(told(&session("member", "s-2.jsonl.gz", broken)), (400, "invalid_gzip".to_owned()));
    }
    assert_eq!(std::fs::read_to_string(&found).unwrap(), "{\"a\":\"[REDACTED:jwt]\"}\n".repeat(1000));
    assert_eq!(std::fs::read_dir(found.parent().unwrap()).unwrap().count(), 2, "nothing else is left");
    assert_eq!(told(&session("member", ".gz", &packed)), (400, "invalid_upload_name".to_owned()));
    for name in ["a b.jsonl", "../x", "..", "a/b", &"x".repeat(201), "é"] {
        assert_eq!(told(&session("member", name, b"x")), (400, "invalid_upload_name".to_owned()), "{name}");
    }
    let member = world.get("member", "/auth/me").json();
    let id = member["user_id"].as_str().or(member["id"].as_str()).unwrap_or_else(|| panic!("{member}")).to_owned();
    assert!(world.server.folder.path().join("user_sessions").join(&id).is_dir());

    let artifact =
        |name: &str| world.upload("member", "/api/upload/artifacts", &[("other", "x")], name, b"content").json();
    assert_eq!(artifact("../../report 1.html")["filename"], "report 1.html");
    assert!(artifact(".bashrc")["filename"].as_str().unwrap().starts_with("upload_"));
    assert_eq!(files(&world, "user_artifacts").len(), 2);

    let notes = |body: Value| world.send("member", "POST", "/api/upload/local-md", &body);
    assert_eq!(notes(json!({"content": "# mine ž"})).json()["size"], 9);
    assert_eq!(notes(json!({"content": "# mine"})).json()["user"], json!(id));
    assert_eq!(notes(json!({"text": "x"})).status, 422);
    assert_eq!(notes(json!({"content": "x".repeat(2 * MEBIBYTE)})).status, 200);
    let found = files(&world, "user_local_md");
    assert_eq!(found.len(), 1);
    let name = found[0].file_name().unwrap().to_string_lossy().into_owned();
    assert_eq!((name.len(), name.ends_with(".md")), (27, true), "{name}");
    assert_eq!(std::fs::metadata(&found[0]).unwrap().len(), 2 * MEBIBYTE as u64);
    notes(json!({"content": "token=abcdefghijkl"}));
    assert_eq!(std::fs::read_to_string(&found[0]).unwrap(), "token=[REDACTED:secret]");

    for path in ["/api/upload/sessions", "/api/upload/artifacts", "/api/upload/data"] {
        let plain = world.send("admin", "POST", path, &json!({}));
        assert_eq!(told(&plain), (415, "unsupported_media_type".to_owned()), "{path}");
        let broken = format!(
            "POST {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n{}Content-Type: multipart/form-data; boundary=cut\r\n\
             Content-Length: 9\r\n\r\nnot a cut",
            world.authorization("admin")
        );
        assert_eq!(world.server.send(&broken).status, 400, "{path}");
        let empty = broken.replace("Content-Length: 9\r\n\r\nnot a cut", "Content-Length: 9\r\n\r\n--cut--\r\n");
        assert_eq!(world.server.send(&empty).status, 422, "{path}");
        assert_eq!(world.upload("nobody", path, &[], "a", b"x").status, 401, "{path}");
        assert_eq!(world.upload("narrow", path, &[], "a", b"x").status, 403, "{path}");
    }
    let log = world.get("admin", "/api/admin/activity?limit=200").text();
    for action in ["session.upload", "artifact.upload", "local_md.upload"] {
        assert!(log.contains(action), "{action} is not in the log");
    }
}

#[test]
fn what_is_too_large_or_never_ends_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("instance.yaml");
    std::fs::write(
        &config,
        "config_version: 1\ninstance: {name: t}\nauth: {allowed_domain: example.com}\nserver: {host: a, hostname: b}\n\
         uploads: {max_mb: 1, quota_mb: 2}\n",
    )
    .unwrap();
    let world = World::start_with(&["--config", config.to_str().unwrap()], &[]);
    let send = |path: &str, name: &str, bytes: usize| world.upload("admin", path, &[], name, &vec![b'x'; bytes]);
    for path in ["/api/upload/sessions", "/api/upload/artifacts", "/api/upload/data"] {
        for bytes in [MEBIBYTE + 1, 3 * MEBIBYTE] {
            assert_eq!(told(&send(path, "a.csv", bytes)), (413, "upload_too_large".to_owned()), "{path} {bytes}");
        }
    }
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    bomb.write_all(&vec![b'x'; MEBIBYTE + 1]).unwrap();
    let bomb = world.upload("member", "/api/upload/sessions", &[], "a.gz", &bomb.finish().unwrap());
    assert_eq!(told(&bomb), (413, "upload_too_large".to_owned()), "what it holds counts");
    assert_eq!(send("/api/upload/sessions", "a", MEBIBYTE).status, 200);
    assert_eq!(send("/api/upload/artifacts", "b", MEBIBYTE - 1).status, 200);
    assert_eq!(told(&send("/api/upload/artifacts", "c", 2)), (413, "upload_quota_exceeded".to_owned()));
    assert_eq!(send("/api/upload/sessions", "a", 2).status, 200, "what it replaces does not count");

    // A body without end, in chunks, and one of which only the head says how long it is.
    let head = |length: &str| {
        format!(
            "POST /api/upload/artifacts HTTP/1.1\r\nHost: t\r\n{}Content-Type: multipart/form-data; boundary=cut\r\n{length}\r\n\r\n",
            world.authorization("member")
        )
    };
    let part = "--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"big\"\r\n\r\n";
    let mut endless = TcpStream::connect(world.server.address).unwrap();
    endless.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    endless.write_all(head("Transfer-Encoding: chunked").as_bytes()).unwrap();
    write!(endless, "{:x}\r\n{part}\r\n", part.len()).unwrap();
    let chunk = vec![b'x'; 65536];
    for _ in 0..24 {
        let sent = write!(endless, "10000\r\n")
            .and_then(|()| endless.write_all(&chunk))
            .and_then(|()| write!(endless, "\r\n"));
        if sent.is_err() {
            break;
        }
    }
    let mut said = [0; 64];
    let read = endless.read(&mut said).unwrap();
    assert!(said[..read].starts_with(b"HTTP/1.1 413"), "{}", String::from_utf8_lossy(&said[..read]));
    let asked = head("Content-Length: 99999999999\r\nExpect: 100-continue\r\nConnection: close");
    assert_eq!(world.server.send(&asked).status, 413, "before anything was sent");

    // A client that goes away in the middle.
    let mut gone = TcpStream::connect(world.server.address).unwrap();
    gone.write_all(head("Content-Length: 600000").as_bytes()).unwrap();
    gone.write_all(part.as_bytes()).unwrap();
    gone.write_all(&vec![b'x'; 400_000]).unwrap();
    let member_files =
        || files(&world, "user_artifacts").into_iter().filter(|file| !file.ends_with("b")).collect::<Vec<_>>();
    wait_until(|| member_files().len() == 1);
    drop(gone);
    wait_until(|| member_files().is_empty());
    assert!(files(&world, "uploads").is_empty());
}

fn wait_until(done: impl Fn() -> bool) {
    for _ in 0..600 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("it never happened");
}

#[test]
fn files_become_tables_in_every_format() {
    let world = World::start();
    let mut book = rust_xlsxwriter::Workbook::new();
    let sheet = book.add_worksheet();
    for (at, text) in ["id", "name"].iter().enumerate() {
        sheet.write(0, u16::try_from(at).unwrap(), *text).unwrap();
    }
    sheet.write(1, 0, 1).unwrap();
    sheet.write(1, 1, "Ann").unwrap();
    sheet.write(2, 0, 2).unwrap();
    sheet.write(2, 1, "Bob").unwrap();
    let parquet = world.get("member", "/api/data/orders/download").body;
    for (name, file, content) in [
        ("from_csv", "Report.csv", b"id,name\n1,Ann\n2,Bob\n".to_vec()),
        ("from_tsv", "report.tsv", b"id\tname\n1\tAnn\n2\tBob\n".to_vec()),
        ("from_json", "report.json", br#"[{"id": 1, "name": "Ann"}, {"id": 2, "name": "Bob"}]"#.to_vec()),
        ("from_ndjson", "report.ndjson", b"{\"id\": 1, \"name\": \"Ann\"}\n{\"id\": 2, \"name\": \"Bob\"}\n".to_vec()),
        ("from_xlsx", "report.xlsx", book.save_to_buffer().unwrap()),
    ] {
        let made = table(&world, name, file, &content);
        assert_eq!(made.status, 201, "{file}: {}", made.text());
        let made = made.json();
        assert_eq!((&made["id"], &made["rows"], &made["replaced"]), (&json!(name), &json!(2), &json!(false)), "{made}");
        assert_eq!((&made["filename"], &made["size"]), (&json!(file), &json!(content.len())));
        assert_eq!(
            rows(&world, "admin", &format!("select id, name from {name} order by id")),
            json!([[1, "Ann"], [2, "Bob"]])
        );
        let run = world.get("admin", &format!("/api/sync/runs/{}", made["run_id"].as_str().unwrap())).json();
        assert_eq!(run["outcome"]["tables"][0]["table"], json!(name));
    }
    assert_eq!(table(&world, "from_parquet", "x.parquet", &parquet).json()["rows"], 4);
    // A table like every other: nobody's until it is granted, profiled, pulled, taken out.
    assert_eq!(world.get("member", "/api/v2/schema/from_csv").status, 403);
    world.command(&["admin", "grant", "create", "analysts", "table", "from_csv"]);
    assert_eq!(rows(&world, "member", "select count(*) from from_csv"), json!([[2]]));
    assert_eq!(world.get("member", "/api/catalog/profile/from_csv").json()["row_count"], 2);
    assert!(world.get("member", "/api/sync/manifest").json()["tables"]["from_csv"]["hash"].is_string());
    let fields = [
        ("table", "Prices"),
        ("description", "of today"),
        ("options", r#"{"delimiter": ";", "columns": {"price": "DECIMAL(9,2)"}}"#),
    ];
    let told_how = world.upload("admin", "/api/upload/data", &fields, "prices.csv", b"id;price\n1;2.50\n");
    assert_eq!((told_how.status, &told_how.json()["name"]), (201, &json!("prices")), "{}", told_how.text());
    let schema = world.get("admin", "/api/v2/schema/prices").json();
    assert_eq!(schema["columns"][1]["type"], "DECIMAL(9,2)");
    // Without a name the file's is taken.
    assert_eq!(world.upload("admin", "/api/upload/data", &[], "2026 Sales.csv", b"a\n1\n").status, 422);
    assert_eq!(world.upload("admin", "/api/upload/data", &[], "Sales 2026.csv", b"a\n1\n").json()["id"], "sales_2026");
    assert_eq!(world.send("admin", "DELETE", "/api/admin/registry/from_csv", &Value::Null).status, 204);
    assert!(!files(&world, "uploads").iter().any(|file| file.to_string_lossy().contains("from_csv")));
    world.command(&["sync"]);
    assert_eq!(world.get("admin", "/api/v2/schema/from_csv").status, 404, "it does not come back");
    assert!(world.get("admin", "/api/admin/activity?limit=200").text().contains("data.upload"));
    let beside = tempfile::tempdir().unwrap();
    let backup = beside.path().join("copy");
    world.command(&["backup", backup.to_str().unwrap()]);
    assert!(backup.join("uploads/from_tsv").is_dir());
}

#[test]
fn a_file_that_is_no_table_changes_nothing() {
    let world = World::start();
    let state = |world: &World| {
        let rows = world.get("admin", "/api/admin/registry").json()["tables"].clone();
        let shown =
            rows.as_array().unwrap().iter().map(|row| json!([row["id"], row["options"], row["last_sync_error"]]));
        (shown.collect::<Vec<_>>(), files(world, "uploads"))
    };
    let before = state(&world);
    for (file, content, code) in [
        ("a.parquet", &b"not parquet"[..], "file_damaged"),
        ("a.xlsx", b"not a workbook", "file_damaged"),
        ("a.json", b"[{\"a\": 1}, {", "file_damaged"),
        ("a.csv", b"", "file_empty"),
        ("a.exe", b"MZ", "unknown_format"),
        ("a", b"x,y\n1,2\n", "unknown_format"),
    ] {
        let refused = table(&world, "fresh", file, content);
        assert_eq!(told(&refused), (400, code.to_owned()), "{file}: {}", refused.text());
        assert!(!refused.text().contains(world.server.folder.path().to_str().unwrap()), "{}", refused.text());
        assert_eq!(state(&world), before, "{file}");
    }
    for (fields, status, code) in [
        (&[("table", "1st")][..], 422, "invalid_field"),
        (&[("table", "agnes_audit")], 409, "table_exists"),
        (&[("table", "orders")], 409, "table_exists"),
        (&[("table", "x"), ("sort", "a")], 422, "validation_failed"),
        (&[("table", "x"), ("options", "[1]")], 422, "validation_failed"),
        (&[("table", "x"), ("options", "{\"files\": \"/etc/passwd\"}")], 422, "invalid_field"),
        (&[("table", "x"), ("options", "{\"delimeter\": \";\"}")], 400, "invalid_config"),
    ] {
        let refused = world.upload("admin", "/api/upload/data", fields, "a.csv", b"a\n1\n");
        assert_eq!(told(&refused), (status, code.to_owned()), "{fields:?}: {}", refused.text());
        assert_eq!(state(&world), before, "{fields:?}");
    }
    for who in ["member", "stranger"] {
        assert_eq!(
            told(&world.upload(who, "/api/upload/data", &[], "a.csv", b"a\n1\n")),
            (403, "admin_required".to_owned())
        );
    }
    // What is there stays when its successor is broken, and goes when it is not.
    assert_eq!(table(&world, "stock", "a.csv", b"n\n1\n").status, 201);
    let before = state(&world);
    assert_eq!(told(&table(&world, "stock", "a.parquet", b"broken")), (400, "file_damaged".to_owned()));
    assert_eq!((rows(&world, "admin", "select n from stock"), state(&world)), (json!([[1]]), before));
    let replaced = table(&world, "Stock", "b.json", b"[{\"n\": 2}, {\"n\": 3}]");
    assert_eq!((replaced.status, &replaced.json()["replaced"]), (200, &json!(true)), "{}", replaced.text());
    assert_eq!(rows(&world, "admin", "select n from stock order by n"), json!([[2], [3]]));
    let left = files(&world, "uploads");
    assert!(left.len() == 1 && left[0].extension().is_some_and(|ending| ending == "json"), "{left:?}");
}

#[test]
fn many_uploads_at_once_all_become_their_table() {
    let world = World::start();
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let send = |at: usize| table(&world, &format!("t{at}"), "a.csv", format!("n\n{at}\n").as_bytes()).status;
        let all: Vec<_> = (0..4).map(|at| scope.spawn(move || send(at))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(statuses, [201; 4]);
    assert_eq!(rows(&world, "admin", "select (select n from t0), (select n from t3)"), json!([[0, 3]]));
}

#[test]
fn a_kill_leaves_the_old_file_or_the_new_one() {
    let mut world = World::start();
    let content = |at: usize| format!("n\n{}", format!("{at}\n").repeat(50_000));
    assert_eq!(table(&world, "stock", "a.csv", content(0).as_bytes()).status, 201);
    let mut known = 0;
    for (round, wait) in [5, 20, 40, 80, 160, 320].into_iter().enumerate() {
        let next = round + 1;
        // One file that never ends, one that is read and published meanwhile.
        let mut half = TcpStream::connect(world.server.address).unwrap();
        let head = format!(
            "POST /api/upload/sessions HTTP/1.1\r\nHost: t\r\n{}Content-Type: multipart/form-data; boundary=cut\r\n\
             Content-Length: 900000\r\n\r\n--cut\r\nContent-Disposition: form-data; name=\"file\"; filename=\"half\"\r\n\r\n{}",
            world.authorization("member"),
            "x".repeat(600_000)
        );
        half.write_all(head.as_bytes()).unwrap();
        let done = std::thread::scope(|scope| {
            let sent = scope.spawn(|| table(&world, "stock", "a.csv", content(next).as_bytes()).status);
            std::thread::sleep(Duration::from_millis(wait));
            world.server.signal("KILL");
            // It may not even have got through.
            sent.join().unwrap_or(0)
        });
        world = world.killed_and_started();
        let now = rows(&world, "admin", "select min(n), max(n), count(*) from stock");
        let whole = |at: usize| json!([[at, at, 50_000]]);
        assert!(now == whole(next) || (done != 200 && now == whole(known)), "round {round}, answer {done}: {now}");
        known = usize::try_from(now[0][0].as_u64().unwrap()).unwrap();
        for folder in ["uploads", "user_sessions"] {
            let left = files(&world, folder);
            assert!(!left.iter().any(|file| file.to_string_lossy().ends_with(".tmp")), "{left:?}");
            assert!(!left.iter().any(|file| file.ends_with("half")), "{left:?}");
        }
    }
    assert_eq!(table(&world, "stock", "a.csv", b"n\n7\n").status, 200);
    assert_eq!(files(&world, "uploads").len(), 1);
    assert_eq!(rows(&world, "admin", "select n from stock"), json!([[7]]));
}
