//! Settings are shown masked, changed only to what would start, and a source is asked before it is kept.

use std::path::Path;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::connector::{
    Capability, CheckItem, Connector, ConnectorRegistry, DiscoveredTable, ExtractReport, ExtractRequest, SourceContext,
};
use crate::extract::TableWriter;
use crate::layout::DataFolder;
use crate::rbac::{ClientKind, Principal};
use crate::secret::Secret;
use crate::store::memory::MemoryStore;

/// Answers to the right token alone.
#[derive(Debug)]
struct Door;

#[async_trait]
impl Connector for Door {
    fn kind(&self) -> &'static str {
        "keboola"
    }
    fn capability(&self) -> Capability {
        Capability::default()
    }
    fn normalise_config(&self, config: &Value) -> Result<Value> {
        Ok(config.clone())
    }
    async fn check(&self, source: &SourceContext) -> Result<Vec<CheckItem>> {
        let token =
            source.secrets.get("KEBOOLA_STORAGE_TOKEN").map(|token| token.expose().to_owned()).unwrap_or_default();
        let url = source.config["stack_url"].as_str().unwrap_or("nowhere");
        Ok(vec![CheckItem { name: "token".to_owned(), ok: token == "right", detail: format!("{url} saw {token}") }])
    }
    async fn discover(&self, _: &SourceContext) -> Result<Vec<DiscoveredTable>> {
        Ok(Vec::new())
    }
    async fn extract(
        &self,
        _: &SourceContext,
        _: &ExtractRequest,
        writer: TableWriter,
    ) -> Result<(TableWriter, ExtractReport)> {
        Ok((writer, ExtractReport::default()))
    }
}

const FILE: &str = "config_version: 1
instance: {name: Acme, subtitle: from the file}
auth: {allowed_domain: acme.example}
server: {host: 127.0.0.1, hostname: acme.example}
jira: {api_token: \"${JIRA_API_TOKEN:-}\", domain: ''}
";

fn owner() -> CallContext {
    CallContext::new(Principal::trusted_owner_of_the_data_folder("test", ClientKind::Api))
}

async fn engine(root: &Path) -> Engine {
    let file = root.join("instance.yaml");
    if !file.exists() {
        std::fs::write(&file, FILE).unwrap();
    }
    let folder = DataFolder::new(root.join("data"));
    std::fs::create_dir_all(folder.state_dir()).unwrap();
    let environment = Environment::load(&folder, |_| None, None).unwrap();
    let loaded = Config::load(&LoadOptions {
        file: Some(file.clone()),
        overlay: Some(folder.config_overlay()),
        env: &|name| environment.var(name),
        lenient: false,
    });
    Engine::builder(folder.root())
        .config(loaded.unwrap().config)
        .store(Arc::new(MemoryStore::new()))
        .connectors(ConnectorRegistry::new().with(Door))
        .secrets(Arc::new(environment.clone()))
        .config_files(ConfigFiles { file, environment, lenient: false })
        .open()
        .await
        .unwrap()
}

fn code<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.unwrap_err().code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_and_sent_back_changes_nothing() {
    let root = tempfile::tempdir().unwrap();
    let (engine, ctx) = (engine(root.path()).await, owner());
    let settings = engine.settings();
    let overlay = engine.folder().config_overlay();
    let first = json!({
        "instance": {"brand": "a ${HOME} $ b", "home": {"show_automode": false}},
        "jira": {"api_token": "t0p-secret", "webhook_secret": "other"},
        "email": {"smtp_port": 25, "smtp_password": "p=#'\" x"},
        "theme": {"primary": "#fff"},
    });
    let done = settings.update(&ctx, &first, false).await.unwrap();
    assert_eq!((done.diff_count, done.restart_required), (7, true));
    assert_eq!(done.sections_updated, ["email", "instance", "jira", "theme"]);
    let view = settings.view(&ctx).await.unwrap();
    assert_eq!(view.sections["instance"]["brand"], "a ${HOME} $ b");
    assert_eq!(view.sections["instance"]["home"]["show_automode"], false);
    assert!(view.sections["instance"]["home"].get("show_status_frame").is_none());
    assert_eq!((&view.sections["jira"]["api_token"], &view.sections["jira"]["domain"]), (&json!("***"), &json!("")));
    let written = std::fs::read_to_string(&overlay).unwrap();
    assert!(!written.contains("t0p-secret") && !serde_json::to_string(&view).unwrap().contains("t0p-secret"));
    assert!(!written.contains("from the file"), "{written}");
    // All of it sent back: nothing is touched.
    let again = settings.update(&ctx, &view.sections, false).await.unwrap();
    assert_eq!((again.diff_count, again.restart_required, again.sections_updated.len()), (0, false, 0));
    assert_eq!(std::fs::read_to_string(&overlay).unwrap(), written);
    // Unset is not false, and not what the file says either.
    let unset = json!({"instance": {"subtitle": null, "brand": null, "home": {"show_automode": null}}});
    assert_eq!(settings.update(&ctx, &unset, false).await.unwrap().diff_count, 3);
    let view = settings.view(&ctx).await.unwrap();
    assert!(view.sections["instance"].get("brand").is_none() && view.sections["instance"].get("home").is_none());
    assert_eq!(view.sections["instance"]["subtitle"], Value::Null);
    assert!(view.overlay_keys.contains(&"jira.api_token".to_owned()));
    engine.close().await.unwrap();

    // The next start reads it, secrets among it.
    let folder = DataFolder::new(root.path().join("data"));
    let environment = Environment::load(&folder, |_| None, None).unwrap();
    assert_eq!(environment.var("JIRA_API_TOKEN").as_deref(), Some("t0p-secret"));
    assert_eq!(environment.var("SMTP_PASSWORD").as_deref(), Some("p=#'\" x"));
    super::tests::engine(root.path()).await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_that_would_not_start() {
    let root = tempfile::tempdir().unwrap();
    let (engine, ctx) = (engine(root.path()).await, owner());
    let settings = engine.settings();
    for (sections, danger, wanted) in [
        (json!({"nothing": {}}), false, "unknown_section"),
        (json!({"query": {"threads": 1}}), false, "unknown_section"),
        (json!({"instance": 1}), false, "invalid_setting"),
        (json!({"instance": {"nme": "x"}}), false, "invalid_setting"),
        (json!({"instance": {"name": 1}}), false, "invalid_setting"),
        (json!({"instance": {"name": ["x"]}}), false, "invalid_setting"),
        (json!({"instance": {"name": null}}), false, "settings_would_not_start"),
        (json!({"email": {"smtp_port": 0}}), false, "invalid_setting"),
        (json!({"email": {"smtp_port": 70000}}), false, "invalid_setting"),
        (json!({"materialize": {"lock_ttl_seconds": 59}}), false, "invalid_setting"),
        (json!({"theme": {"primary": "red;}"}}), false, "invalid_setting"),
        (json!({"jira": {"api_token": "a\nB=c"}}), false, "invalid_setting"),
        (json!({"data_source": {"keboola": {"token_env": "JWT_SECRET_KEY"}}}), false, "invalid_setting"),
        (json!({"ai": {"base_url": "https://169.254.169.254/"}}), false, "private_url"),
        (json!({"openmetadata": {"url": "http://a.example"}}), false, "private_url"),
        (json!({"auth": {"allowed_domain": "*"}}), false, "confirm_danger_required"),
        (json!({"auth": {"disabled_providers": ["passwort"]}}), true, "settings_would_not_start"),
        (json!({"auth": {"allowed_domain": null}}), true, "settings_would_not_start"),
        (json!({"auth": {"disabled_providers": ["password", "email"]}}), true, "settings_would_not_start"),
        (json!({"corporate_memory": {"spaces": [{"name": "a", "api_key": "k"}]}}), false, "invalid_setting"),
        (json!({"corporate_memory": {"spaces": [[{"deep": {"Token": "k"}}]]}}), false, "invalid_setting"),
    ] {
        assert_eq!(code(settings.update(&ctx, &sections, danger).await), wanted, "{sections}");
    }
    assert!(!engine.folder().config_overlay().exists() && !engine.folder().env_overlay().exists());
    // What applies at once does.
    assert!(engine.live_config().access_requests.enabled);
    let off = settings.update(&ctx, &json!({"access_requests": {"enabled": false}}), false).await.unwrap();
    assert!(!off.restart_required && !engine.live_config().access_requests.enabled);
    let danger = settings.update(&ctx, &json!({"auth": {"allowed_domain": "*"}}), true).await.unwrap();
    assert!(danger.restart_required);
    std::fs::write(engine.folder().config_overlay(), "a: [").unwrap();
    assert_eq!(code(settings.update(&ctx, &json!({"instance": {"brand": "x"}}), false).await), "overlay_corrupt");
    assert_eq!(code(settings.view(&ctx).await), "overlay_corrupt");
    let stranger = CallContext::new(Principal::user("x", crate::rbac::AuthMethod::Session, ClientKind::Web));
    assert_eq!(code(settings.view(&stranger).await), "inactive_user");
    engine.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_asked_before_it_is_kept() {
    let root = tempfile::tempdir().unwrap();
    let (engine, ctx) = (engine(root.path()).await, owner());
    let settings = engine.settings();
    let url = "https://connection.keboola.example";
    let with = |kind: &str, token: Option<&str>, url: Option<&str>| Configure {
        data_source: kind.to_owned(),
        keboola_token: token.map(Secret::new),
        keboola_url: url.map(str::to_owned),
        ..Configure::default()
    };
    for (wanted, expected) in [
        (with("bigquery", None, None), "source_not_offered"),
        (with("keboola", Some("wrong"), Some(url)), "connection_failed"),
        (with("keboola", Some("right"), Some("https://10.0.0.1")), "private_url"),
        (with("keboola", None, Some(url)), "invalid_setting"),
    ] {
        let error = settings.configure(&ctx, &wanted).await.unwrap_err();
        assert_eq!(error.code(), expected);
        assert!(!error.to_string().contains("wrong"), "{error}");
    }
    assert!(!engine.folder().config_overlay().exists());
    let done = settings.configure(&ctx, &with("keboola", Some("right"), Some(url))).await.unwrap();
    assert_eq!(done.data_source, "keboola");
    // A stored token goes to the stored host alone.
    let elsewhere = with("keboola", None, Some("https://evil.example"));
    assert_eq!(code(settings.configure(&ctx, &elsewhere).await), "invalid_setting");
    let named = Configure { instance_name: Some("New".to_owned()), ..with("local", None, None) };
    assert_eq!(
        settings.configure(&ctx, &named).await.unwrap(),
        Configured { data_source: "local".to_owned(), detail: None }
    );
    let view = settings.view(&ctx).await.unwrap();
    assert_eq!(
        (&view.sections["data_source"]["type"], &view.sections["instance"]["name"]),
        (&json!("local"), &json!("New"))
    );
    assert_eq!(view.sections["data_source"]["keboola"]["storage_token"], "***");
    engine.close().await.unwrap();
}
