//! Agnes inside your own program: a folder of files becomes tables, SQL gives Arrow.
//!
//! `cargo run -p agnes-examples --example embed`

use agnes_core::connector::Progress;
use agnes_core::query::Query;
use agnes_core::rbac::{ClientKind, Principal};
use agnes_core::registry::NewSource;
use agnes_core::sync::SyncRequest;
use agnes_core::{CallContext, Engine};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = tempfile::tempdir()?;
    let exports = place.path().join("exports");
    std::fs::create_dir(&exports)?;
    std::fs::write(exports.join("orders.csv"), "id,region,revenue\n1,north,10.5\n2,south,20\n3,north,5.25\n")?;

    // A data folder and this program are a whole installation.
    let engine = Engine::builder(place.path().join("data")).connectors(agnes_connectors::builtin()).open().await?;
    // Who calls: here the program that owns the folder. The long name is meant to show in review.
    let owner = Principal::trusted_owner_of_the_data_folder("an example of embedding", ClientKind::Api);
    let ctx = CallContext::new(owner);

    let shop = NewSource {
        name: "shop".to_owned(),
        kind: "files".to_owned(),
        config: serde_json::json!({"path": exports}),
        schedule: None,
    };
    engine.sources().add(&ctx, shop).await?;
    let run = engine.sync().run(&ctx, SyncRequest::default(), Progress::default()).await?;
    println!("sync: {}", run.state.as_str());

    let sql = "SELECT region, sum(revenue) AS revenue FROM orders GROUP BY region ORDER BY region";
    let shown = agnes_examples::table(engine.query(&ctx, Query::new(sql)).await?).await?;
    println!("{shown}");
    assert!(shown.contains("15.75"), "the north sold for 15.75");

    engine.close().await?;
    Ok(())
}
