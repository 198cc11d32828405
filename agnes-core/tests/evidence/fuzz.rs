//! The parser wall under texts made at random: it never panics, never hangs, keeps its
//! memory bounded, and what it accepts names only what may be read.
//!
//! Failures are made small and name their seed; `AGNES_FUZZ_SECONDS` says how long to go on.

use std::time::{Duration, Instant};

use agnes_core::ErrorKind;
use agnes_core::sandbox::{Gate, MAX_SQL_BYTES, Readable, RelationKind};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};

use crate::support::{alone, data, fuzz_seconds, fuzz_seed, lines, rows};

const GRANTED: [&str; 5] = ["customers", "events", "issues", "model_scores", "orders"];

struct Bob;

impl Readable for Bob {
    fn find(&self, name: &str) -> Option<RelationKind> {
        GRANTED.contains(&name).then_some(RelationKind::Local)
    }
    fn names(&self) -> Vec<&str> {
        GRANTED.to_vec()
    }
    fn sees_everything(&self) -> bool {
        false
    }
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    gate: Gate,
}

impl Bench {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let gate = runtime.block_on(Gate::start()).unwrap();
        Self { runtime, gate }
    }

    /// What must hold of every text.
    fn holds(&self, text: &str) -> Result<(), TestCaseError> {
        let read = async { tokio::time::timeout(Duration::from_secs(60), self.gate.parse(text)).await };
        let parsed = match self.runtime.block_on(read) {
            Err(_) => return Err(TestCaseError::fail(format!("it hangs: {}", short(text)))),
            Ok(Ok(parsed)) => parsed,
            // A panic of the parser is an internal error of its caller.
            Ok(Err(e)) => {
                prop_assert!(e.kind() != ErrorKind::Internal, "{e:?}: {}", short(text));
                prop_assert!(e.to_string().len() < 2000, "{e}");
                return Ok(());
            }
        };
        let Ok(checked) = parsed.resolve(&Bob) else { return Ok(()) };
        for (name, _) in checked.relations() {
            prop_assert!(GRANTED.contains(&name.as_str()), "{name}: {}", short(text));
        }
        if parsed_again_is_needed(text) {
            // What would run is itself a query that is accepted, with the same relations.
            let again = self.runtime.block_on(self.gate.parse(checked.sql()));
            let again = again.ok().and_then(|parsed| parsed.resolve(&Bob).ok());
            let same = again.is_some_and(|again| again.relations() == checked.relations());
            prop_assert!(same || !checked.system().is_empty(), "not accepted again: {}", short(checked.sql()));
        }
        Ok(())
    }
}

/// A PIVOT that looks its values up is written anew later.
fn parsed_again_is_needed(text: &str) -> bool {
    !text.to_uppercase().contains("PIVOT")
}

fn short(text: &str) -> String {
    text.chars().take(400).collect()
}

/// Runs `holds` on what `made` gives, for about `time`.
fn run<S: Strategy<Value = String>>(name: &str, time: Duration, least: u32, made: S) {
    if !alone(name) {
        return;
    }
    let bench = Bench::new();
    let begun = Instant::now();
    let mut round = 0;
    while round == 0 || begun.elapsed() < time {
        let mut seed = [0_u8; 32];
        seed[..8].copy_from_slice(&(fuzz_seed() + round).to_le_bytes());
        let config = Config { cases: least, failure_persistence: None, max_shrink_iters: 2000, ..Config::default() };
        let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
        let outcome = TestRunner::new_with_rng(config, rng).run(&made, |text| bench.holds(&text));
        if let Err(e) = outcome {
            panic!("AGNES_FUZZ_SEED={}: {e}", fuzz_seed() + round);
        }
        round += 1;
    }
    // It serves afterwards, and has not grown.
    assert!(bench.holds("SELECT 1").is_ok());
    if let Some(megabytes) = peak_megabytes() {
        assert!(megabytes < 1024, "{megabytes} MB at its peak");
    }
}

fn peak_megabytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
}

/// Statements to change: honest ones and attacks.
fn corpus() -> Vec<String> {
    let mut all = Vec::new();
    for file in std::fs::read_dir(data("honest")).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|end| end == "sql") {
            all.extend(lines(&std::fs::read_to_string(file).unwrap()).map(str::to_owned));
        }
    }
    for file in ["attacks/parser.tsv", "attacks/engine.tsv"] {
        all.extend(rows(&std::fs::read_to_string(data(file)).unwrap()).map(|[_, _, sql]: [String; 3]| sql));
    }
    all.sort();
    all
}

#[test]
fn arbitrary_bytes() {
    let bytes = proptest::collection::vec(any::<u8>(), 0..600).prop_map(|b| String::from_utf8_lossy(&b).into_owned());
    let quotes = "[ \\n\\t;'\"$`()\\[\\]{},.:*?@#\\-/\\\\eEuU&x0-9a-z\\u{0}\\u{feff}\\u{a0}éß🦆]{0,120}";
    run("fuzz::arbitrary_bytes", fuzz_seconds(2), 300, prop_oneof![bytes, quotes, "\\PC{0,200}"]);
}

#[test]
fn valid_sql_that_was_changed() {
    let corpus = corpus();
    let one = proptest::sample::select(corpus);
    let word = proptest::sample::select(vec![
        "SELECT",
        "FROM",
        "salaries",
        "orders",
        "read_text('x')",
        "(",
        ")",
        ",",
        "*",
        "WITH",
        "AS",
        "UNION ALL",
        "PIVOT",
        "ON",
        "LATERAL",
        "COPY",
        "TO",
        "INSERT INTO",
        "getenv('x')",
        "'x.csv'",
        ";",
        "--",
        "/*",
        "*/",
        "$$",
        "'",
        "\"",
        "EXPLAIN",
        "DESCRIBE",
        "RECURSIVE",
        "current_setting('x')",
        "query('x')",
        "information_schema.tables",
        "SHOW TABLES",
        "?",
        "`",
        "\0",
    ]);
    let edit = (any::<u8>(), any::<prop::sample::Index>(), any::<prop::sample::Index>(), word);
    let made = (one.clone(), one, proptest::collection::vec(edit, 1..6)).prop_map(|(text, other, edits)| {
        edits.into_iter().fold(text, |text, (kind, a, b, word)| changed(&text, &other, kind, a, b, word))
    });
    run("fuzz::valid_sql_that_was_changed", fuzz_seconds(4), 500, made);
}

/// One change to `text`, at the ends of tokens or anywhere.
fn changed(text: &str, other: &str, kind: u8, a: prop::sample::Index, b: prop::sample::Index, word: &str) -> String {
    let words: Vec<&str> = text.split_inclusive(' ').collect();
    let chars: Vec<char> = text.chars().collect();
    if words.is_empty() || chars.is_empty() {
        return word.to_owned();
    }
    let (at, to) = (a.index(words.len()), b.index(words.len()));
    match kind % 8 {
        0 => [&words[..at], &[word, " "], &words[at..]].concat().concat(),
        1 => [&words[..at], &words[at + 1..]].concat().concat(),
        2 => [&words[..at], &[word, " "], &words[at + 1..]].concat().concat(),
        3 => {
            let mut words = words;
            words.swap(at, to);
            words.concat()
        }
        4 => [&words[..at], &["(", other, ") "], &words[at..]].concat().concat(),
        5 => words[..at].concat() + other,
        6 => {
            let at = a.index(chars.len());
            chars[..at].iter().chain(&chars[at + 1..]).collect()
        }
        _ => {
            let at = a.index(chars.len());
            chars[..at].iter().chain(&[chars[b.index(chars.len())]]).chain(&chars[at..]).collect()
        }
    }
}

#[test]
fn deep_nesting() {
    let around: Vec<(&str, &str)> = vec![
        ("(", ")"),
        ("[", "]"),
        ("{'a': ", "}"),
        ("NOT ", ""),
        ("- ", ""),
        ("~", ""),
        ("", " + 1"),
        ("", "::INT"),
        ("", " AND 1"),
        ("abs(", ")"),
        ("list_transform([1], x -> ", ")"),
        ("CASE WHEN true THEN ", " END"),
        ("(SELECT ", ")"),
        ("(SELECT * FROM (SELECT ", "))"),
        ("(WITH a AS (SELECT 1) SELECT ", ")"),
        ("EXISTS (SELECT ", ")"),
        ("COALESCE(", ")"),
        ("", "[1]"),
        ("", ".a"),
        ("TRY(", ")"),
        ("", " COLLATE NOCASE"),
        ("", " UNION SELECT 1"),
        ("", ", 1"),
        ("", " IN (1)"),
        ("", " BETWEEN 1 AND 1"),
        ("/*", "*/"),
        ("'", "'"),
        ("\"", "\""),
        ("$a$", ""),
        ("SELECT ", ""),
        ("EXPLAIN ", ""),
        ("FROM ", ""),
    ];
    let layer = (proptest::sample::select(around), prop_oneof![1..40_usize, 100..300_usize, 1000..20_000_usize]);
    let made = (proptest::collection::vec(layer, 1..4), any::<bool>()).prop_map(|(layers, start)| {
        let mut text = "1".to_owned();
        for ((before, after), times) in layers {
            let times = times.min(MAX_SQL_BYTES * 2 / (before.len() + after.len()).max(1));
            text = format!("{}{text}{}", before.repeat(times), after.repeat(times));
        }
        if start { format!("SELECT {text}") } else { text }
    });
    run("fuzz::deep_nesting", fuzz_seconds(4), 60, made);
}
