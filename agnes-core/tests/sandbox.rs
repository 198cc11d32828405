//! The parser wall by itself: bounds, what it reports, texts made at random. What it lets
//! through and what not is in `evidence/`.

#![allow(clippy::unwrap_used)]

use agnes_core::error::ErrorKind;
use agnes_core::sandbox::{Checked, Gate, Readable, RelationKind};

struct Bob;

const GRANTED: [&str; 5] = ["customers", "events", "issues", "model_scores", "orders"];

impl Readable for Bob {
    fn find(&self, name: &str) -> Option<RelationKind> {
        if GRANTED.contains(&name) {
            Some(RelationKind::Local)
        } else if name.starts_with("agnes_") {
            Some(RelationKind::Internal)
        } else {
            None
        }
    }
    fn names(&self) -> Vec<&str> {
        GRANTED.to_vec()
    }
    fn sees_everything(&self) -> bool {
        false
    }
}

async fn check(gate: &Gate, sql: &str) -> agnes_core::Result<Checked> {
    Ok(gate.parse(sql).await?.resolve(&Bob)?)
}

#[tokio::test]
async fn sizes_and_depths_are_bounded() {
    let gate = Gate::start().await.unwrap();
    let code = async |sql: String| check(&gate, &sql).await.map(|_| ()).map_err(|e| e.code().to_owned());
    assert_eq!(code(format!("SELECT '{}'", "x".repeat(64 * 1024 - 9))).await, Ok(()));
    assert_eq!(code(format!("SELECT '{}'", "x".repeat(64 * 1024 - 8))).await, Err("sql_too_long".into()));
    assert_eq!(
        code(format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000))).await,
        Err("query_too_complex".into())
    );
    assert_eq!(
        code(format!("SELECT {}1{}", "[".repeat(10_000), "]".repeat(10_000))).await,
        Err("query_too_complex".into())
    );
    for deep in [
        format!("SELECT {} 1", "NOT ".repeat(10_000)),
        format!("SELECT {} 1", "- ".repeat(20_000)),
        format!("SELECT 1 {}", "+ 1 ".repeat(10_000)),
        format!("SELECT 1 {}", "::INT".repeat(10_000)),
        format!("SELECT 1 {}", "UNION SELECT 1 ".repeat(4_000)),
        format!("FROM range(1) {}", ", range(1)".repeat(6_000)),
        format!("SELECT a{}", ".a".repeat(30_000)),
        format!("SELECT {} 1 {}", "CASE WHEN true THEN ".repeat(2_000), " END".repeat(2_000)),
        format!("WITH {} SELECT 1", (0..2000).map(|n| format!("c{n} AS (SELECT 1)")).collect::<Vec<_>>().join(", ")),
    ] {
        let shown = deep.chars().take(60).collect::<String>();
        let got = code(deep).await;
        let fine = got.as_ref().map_or_else(|code| code == "query_too_complex" || code == "sql_syntax", |()| true);
        assert!(fine, "{shown}: {got:?}");
    }
    assert_eq!(code("SELECT 'a\0b'".to_owned()).await, Err("nul_character".into()));
    assert_eq!(code(format!("SELECT {}", vec!["1"; 20_000].join(","))).await, Ok(()));
    // The parser is still there.
    assert_eq!(code("SELECT 1".to_owned()).await, Ok(()));
}

#[tokio::test]
async fn relations_and_parameters_are_reported() {
    let gate = Gate::start().await.unwrap();
    let checked = check(&gate, "WITH a AS (FROM Orders) SELECT $who FROM a, events WHERE id = $id").await.unwrap();
    let names: Vec<_> = checked.relations().iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["events", "orders"]);
    assert_eq!(checked.params().iter().collect::<Vec<_>>(), ["id", "who"]);
    assert_eq!(checked.sql(), "WITH a AS (FROM Orders) SELECT $who FROM a, events WHERE id = $id");
    let checked = check(&gate, "SELECT ?, ?").await.unwrap();
    assert_eq!(checked.params().iter().collect::<Vec<_>>(), ["1", "2"]);
    let refused = check(&gate, "SELECT * FROM ordrs").await.unwrap_err();
    assert_eq!(refused.hint().as_deref(), Some("did you mean `orders`?"));
    let same = check(&gate, "SELECT * FROM salaries").await.unwrap_err().to_string();
    assert_eq!(
        same.replace("salaries", "x"),
        check(&gate, "SELECT * FROM nothing").await.unwrap_err().to_string().replace("nothing", "x")
    );
}

#[tokio::test]
async fn the_catalog_is_asked_through_relations_of_the_grant_set() {
    let gate = Gate::start().await.unwrap();
    for (sql, expected) in [
        ("SHOW TABLES", "__agnes_show_tables"),
        ("SELECT name FROM (SHOW TABLES) ORDER BY 1", "__agnes_show_tables"),
        ("SELECT table_name FROM information_schema.tables", "__agnes_tables"),
        ("SELECT c.column_name FROM Information_Schema.COLUMNS c", "__agnes_columns"),
        ("SELECT information_schema.tables.table_name FROM information_schema.tables", "__agnes_tables"),
        ("EXPLAIN SELECT * FROM information_schema.tables, orders", "__agnes_tables"),
    ] {
        let checked = check(&gate, sql).await.unwrap();
        assert!(checked.sql().contains(expected), "{sql}: {}", checked.sql());
        assert!(!checked.sql().to_lowercase().contains("information_schema"), "{sql}: {}", checked.sql());
        assert_eq!(checked.system().len(), 1, "{sql}");
    }
    // In a literal and under a CTE of that name nothing changes.
    let sql = "WITH tables AS (SELECT 1) SELECT 'information_schema.tables' FROM tables";
    assert_eq!(check(&gate, sql).await.unwrap().sql(), sql);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]
    #[test]
    fn random_texts_never_panic(
        bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        words in proptest::collection::vec(proptest::sample::select(vec![
            "SELECT", "FROM", "orders", "salaries", "(", ")", "PIVOT", "ON", "IN", "USING", "sum(id)", "WITH", "AS", ",", "*",
            "EXPLAIN", ";", "'", "\"", "$$", "--", "/*", "*/", "UNION", "x", "1", "?", "DESCRIBE", "SHOW TABLES", "`", "read_text('x')",
        ]), 0..14),
    ) {
        use std::sync::OnceLock;
        static SHARED: OnceLock<(tokio::runtime::Runtime, Gate)> = OnceLock::new();
        let (runtime, gate) = SHARED.get_or_init(|| {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let gate = runtime.block_on(Gate::start()).unwrap();
            (runtime, gate)
        });
        for text in [String::from_utf8_lossy(&bytes).into_owned(), words.join(" ")] {
            match runtime.block_on(check(gate, &text)) {
                Ok(checked) => proptest::prop_assert!(checked.relations().iter().all(|(name, _)| GRANTED.contains(&name.as_str()))),
                Err(e) => proptest::prop_assert!(e.kind() != ErrorKind::Internal, "{text}: {e:?}"),
            }
        }
    }
}
