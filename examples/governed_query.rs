//! Who may read what: two people, one grant, and what each of them gets.
//!
//! `cargo run -p agnes-examples --example governed_query`

use agnes_core::connector::Progress;
use agnes_core::query::{Params, Query};
use agnes_core::rbac::{AuthMethod, ClientKind, Principal, ResourceType};
use agnes_core::registry::NewSource;
use agnes_core::sync::SyncRequest;
use agnes_core::{CallContext, Engine};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let place = tempfile::tempdir()?;
    let files = place.path().join("files");
    std::fs::create_dir(&files)?;
    std::fs::write(files.join("orders.csv"), "id,region,revenue\n1,north,10.5\n2,south,20\n")?;
    std::fs::write(files.join("salaries.csv"), "name,salary\nAda,5000\n")?;

    let engine = Engine::builder(place.path().join("data")).connectors(agnes_connectors::builtin()).open().await?;
    let admin = CallContext::new(Principal::trusted_owner_of_the_data_folder("an example", ClientKind::Api));
    let config = serde_json::json!({"path": files});
    let source = NewSource { name: "shop".to_owned(), kind: "files".to_owned(), config, schedule: None };
    engine.sources().add(&admin, source).await?;
    engine.sync().run(&admin, SyncRequest::default(), Progress::default()).await?;

    // A person, a group, a grant.
    let identity = engine.identity();
    let ann = identity.add_user(&admin, "ann@acme.example", Some("Ann")).await?;
    identity.create_group(&admin, "sales", None).await?;
    identity.add_member(&admin, "sales", &ann.email).await?;
    let grant = identity.grant(&admin, "sales", ResourceType::Table, "orders").await?;

    // A frontend makes this context after it found out who is calling.
    let as_ann = CallContext::new(Principal::user(&ann.id, AuthMethod::Session, ClientKind::Web));

    let query =
        Query::new("SELECT id, revenue FROM orders WHERE region = ?").params(Params::Positional(vec!["north".into()]));
    println!("{}", agnes_examples::table(engine.query(&as_ann, query).await?).await?);

    for sql in ["SELECT * FROM salaries", "SELECT * FROM 'files/salaries.csv'", "DROP TABLE orders"] {
        match engine.query(&as_ann, Query::new(sql)).await {
            Ok(_) => return Err(format!("`{sql}` should have been refused").into()),
            Err(error) => println!("{sql}\n  {:?}: {error}", error.kind()),
        }
    }

    // A grant that is taken back is gone from the next query on.
    identity.revoke(&admin, &grant.grant.id).await?;
    let refused = engine.query(&as_ann, Query::new("SELECT id FROM orders")).await.map(drop);
    println!(
        "after the grant was taken back: {}",
        refused.as_ref().err().map_or_else(String::new, ToString::to_string)
    );
    assert!(refused.is_err(), "the grant is gone");

    engine.close().await?;
    Ok(())
}
