//! What a configuration says, and what is wrong with it.

use super::*;

const HEAD: &str = "config_version: 1\ninstance: {name: Acme}\nauth: {allowed_domain: acme.example}\nserver: {host: 127.0.0.1, hostname: agnes.acme.example}\n";

fn load(file: &str, overlay: &str, lenient: bool) -> Result<Loaded> {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("instance.yaml"), folder.path().join("overlay.yaml"));
    std::fs::write(&a, file).unwrap();
    std::fs::write(&b, overlay).unwrap();
    let env = |name: &str| match name {
        "SET" => Some("42".to_owned()),
        "EMPTY" => Some(String::new()),
        "AGNES_REMOTE_ATTACH_EXTENSIONS" => Some("postgres, sqlite".to_owned()),
        _ => None,
    };
    Config::load(&LoadOptions { file: Some(a), overlay: Some(b), env: &env, lenient })
}

fn code(file: &str) -> (String, String, Option<String>) {
    let error = load(file, "", false).unwrap_err();
    (error.code().to_owned(), error.to_string(), error.hint())
}

#[test]
fn no_file_means_defaults() {
    let loaded = Config::load(&LoadOptions {
        file: Some("/nowhere/instance.yaml".into()),
        overlay: None,
        env: &|_| None,
        lenient: false,
    });
    assert_eq!(loaded.unwrap().config.query, Config::default().query);
}

#[test]
fn values_variables_and_overlay() {
    let file = format!(
        "{HEAD}query: {{timeout_seconds: '${{SET}}', threads: '${{UNSET:-3}}'}}\nremote_attach: {{hosts: [a.example, b.example]}}\n"
    );
    let overlay =
        "query: {timeout_seconds: 7}\nremote_attach: {hosts: [c.example]}\ninstance: {subtitle: 'a $${literal}'}\n";
    let config = load(&file, overlay, false).unwrap().config;
    assert_eq!((config.query.timeout.as_secs(), config.query.threads), (7, 3));
    assert_eq!(config.attach.hosts, ["c.example"]);
    assert_eq!(config.attach.extensions.unwrap(), ["postgres", "sqlite"]);
    assert_eq!(config.instance_name.as_deref(), Some("Acme"));
}

#[test]
fn errors_name_file_key_and_variable() {
    let (unset, words, hint) = code(&format!("{HEAD}jira: {{api_token: '${{JIRA_TOKEN}}'}}\n"));
    assert_eq!(unset, "config_unset_variable");
    assert!(
        words.contains("instance.yaml") && words.contains("jira.api_token") && words.contains("JIRA_TOKEN"),
        "{words}"
    );
    assert!(hint.unwrap().contains(":-"));
    let (unknown, words, hint) = code(&format!("{HEAD}query: {{timeout_secs: 3}}\n"));
    assert_eq!(unknown, "config_unknown_key");
    assert!(words.contains("query.timeout_secs"), "{words}");
    assert_eq!(hint.unwrap(), "did you mean `query.timeout_seconds`?");
    let (unknown, _, hint) = code(&format!("{HEAD}querry: {{timeout_seconds: 3}}\n"));
    assert_eq!((unknown.as_str(), hint.unwrap().as_str()), ("config_unknown_key", "did you mean `query`?"));
    assert_eq!(code("a: [1\n").0, "config_not_yaml");
    assert_eq!(code("- a\n").0, "config_not_yaml");
    assert_eq!(code(&format!("{HEAD}remote_attach: {{hosts: 3}}\n")).0, "config_invalid_value");
    assert_eq!(code(&format!("{HEAD}instance: {{name: '${{A'}}\n")).0, "config_not_yaml", "a key twice");
    let (missing, words, _) = code("instance: {name: Acme}\n");
    assert_eq!(missing, "config_missing_keys");
    assert!(
        words.contains("auth.allowed_domain") && words.contains("server.host") && !words.contains("instance.name"),
        "{words}"
    );
}

#[test]
fn lenient_turns_errors_into_warnings() {
    let file = format!("{HEAD}query: {{timeout_secs: 3, threads: many}}\njira: {{api_token: '${{JIRA_TOKEN}}'}}\n");
    let loaded = load(&file, "", true).unwrap();
    assert_eq!(loaded.warnings.len(), 3, "{:?}", loaded.warnings);
    assert_eq!(loaded.config.query.threads, 2);
}

#[test]
fn every_known_key_is_accepted_and_its_nearest_is_itself() {
    for key in super::keys::KNOWN {
        let key = key.strip_suffix(".*").unwrap_or(key);
        assert!(keys::is_known(key), "{key}");
        if key.contains('.') {
            assert_eq!(keys::nearest(&format!("{key}x")).as_deref(), Some(key));
        }
    }
    for unknown in ["quer", "query.timeout_second", "instance.name.x", "query.", "", "themes", "profiler.sample"] {
        assert!(!keys::is_known(unknown), "{unknown}");
    }
}

#[test]
fn a_value_out_of_bounds_is_said_and_the_default_stays() {
    let default = Config::default();
    for (key, value) in [
        ("query.timeout_seconds", "0"),
        ("query.timeout_seconds", "-1"),
        ("query.timeout_seconds", "1.5"),
        ("query.timeout_seconds", "soon"),
        ("query.timeout_seconds", "1e30"),
        ("query.timeout_seconds", "[1]"),
        ("query.memory_mb", "0"),
        ("query.memory_mb", "99999999999999999999"),
        ("query.threads", "0"),
        ("query.threads", "100000"),
        ("query.max_total", "0"),
        ("query.max_sql_bytes", "1"),
        ("sync.attempts", "0"),
        ("sync.table_timeout_seconds", "0"),
        ("generations.keep", "0"),
        ("profiler.memory_mb", "8192"),
        ("profiler.histogram_bins", "0"),
        ("profiler.sample_size", "0"),
        ("profiler.alert_missing_pct", "101"),
        ("api.sample_cache_ttl_seconds", "99999999999"),
        ("audit.retention_days", "-5"),
    ] {
        let (section, name) = key.split_once('.').unwrap();
        let loaded = load(&format!("{HEAD}{section}: {{{name}: {value}}}\n"), "", false).unwrap();
        assert_eq!(loaded.warnings.len(), 1, "{key}: {value}: {:?}", loaded.warnings);
        assert!(
            loaded.warnings[0].contains(key) && loaded.warnings[0].contains("instance.yaml"),
            "{:?}",
            loaded.warnings
        );
        assert_eq!(format!("{:?}", loaded.config.query), format!("{:?}", default.query), "{key}: {value}");
        assert_eq!(loaded.config.profiler, default.profiler);
        assert_eq!(loaded.config.sync, default.sync);
        assert_eq!(loaded.config.generations, default.generations);
        assert_eq!(loaded.config.cache, default.cache);
    }
}

#[test]
fn the_schedule_of_materialized_tables_is_one_or_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance.yaml");
    std::fs::write(&file, HEAD).unwrap();
    for (text, schedule, warnings) in
        [("daily 05:00", "daily 05:00", 0), ("hourly", "every 1h", 1), (" ", "every 1h", 0)]
    {
        let env = |name: &str| (name == "AGNES_DEFAULT_SYNC_SCHEDULE").then(|| text.to_owned());
        let options = LoadOptions { file: Some(file.clone()), overlay: None, env: &env, lenient: false };
        let loaded = Config::load(&options).unwrap();
        assert_eq!((loaded.config.sync.materialized_schedule.as_str(), loaded.warnings.len()), (schedule, warnings));
    }
}

#[test]
fn every_value_reaches_its_field() {
    let text = "query: {max_sql_bytes: 2048, timeout_seconds: 5, memory_mb: 512, threads: 3, spill_mb: 7, max_per_user: 2, \
                max_total: 9, wait_seconds: 0, instances: 4, isolation: process, strict: true}\n\
                remote_attach: {extensions: [postgres], token_envs: [PG_TOKEN], hosts: [h.example], database_hosts: ['db.example:5432'], \
                sqlite_folders: [/srv/sqlite], extension_folder: /srv/ext, allow_install: true}\n\
                connectors: {folder: /srv/connectors, timeout_seconds: 61, env: ['crm=CRM_TOKEN']}\n\
                sync: {table_timeout_seconds: 60, attempts: 1, parallel_sources: 5}\n\
                generations: {keep: 8, max_age_days: 2}\n\
                profiler: {sample_size: 10, max_categorical_distinct: 11, top_values_limit: 12, histogram_bins: 13, sample_rows_limit: 14, \
                sample_values_limit: 15, alert_high_missing_pct: 16.5, alert_missing_pct: 17, alert_imbalance_pct: 18, \
                alert_high_cardinality: 19, memory_mb: 100}\n\
                remote_query: {timeout_seconds: 21, max_bq_registration_rows: 22, max_memory_mb: 23}\n\
                api: {sample_cache_ttl_seconds: 24}\naudit: {retention_days: 25}\n";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance.yaml");
    std::fs::write(&file, format!("{HEAD}{text}")).unwrap();
    let loaded =
        Config::load(&LoadOptions { file: Some(file), overlay: None, env: &|_| None, lenient: false }).unwrap();
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let (config, second) = (loaded.config, std::time::Duration::from_secs);
    assert_eq!(
        config.query,
        super::super::QueryConfig {
            max_sql_bytes: 2048,
            timeout: second(5),
            memory_bytes: 512 << 20,
            threads: 3,
            spill_bytes: 7 << 20,
            max_per_user: 2,
            max_total: 9,
            wait: second(0),
            instances: 4,
            isolation: super::super::IsolationMode::Process,
            strict: true,
        }
    );
    assert_eq!(
        config.attach,
        super::super::AttachConfig {
            extensions: Some(vec!["postgres".to_owned()]),
            token_envs: Some(vec!["PG_TOKEN".to_owned()]),
            hosts: vec!["h.example".to_owned()],
            database_hosts: vec!["db.example:5432".to_owned()],
            sqlite_folders: vec!["/srv/sqlite".into()],
            extension_folder: Some("/srv/ext".into()),
            allow_install: true,
        }
    );
    let connectors = &config.connectors;
    assert_eq!((connectors.folder.as_deref(), connectors.timeout), (Some("/srv/connectors".as_ref()), second(61)));
    assert_eq!(connectors.env, ["crm=CRM_TOKEN"]);
    assert_eq!((config.sync.table_timeout, config.sync.attempts, config.sync.parallel_sources), (second(60), 1, 5));
    assert_eq!((config.generations.keep, config.generations.max_age), (8, second(2 * 86_400)));
    let profiler = &config.profiler;
    assert_eq!(
        (profiler.sample_size, profiler.max_categorical_distinct, profiler.top_values_limit, profiler.histogram_bins),
        (10, 11, 12, 13)
    );
    assert_eq!((profiler.sample_rows_limit, profiler.sample_values_limit, profiler.memory_bytes), (14, 15, 100 << 20));
    assert_eq!(
        (profiler.alert_high_missing_pct, profiler.alert_missing_pct, profiler.alert_imbalance_pct),
        (16.5, 17.0, 18.0)
    );
    assert_eq!(profiler.alert_high_cardinality, 19);
    let remote = &config.remote_query;
    assert_eq!((remote.timeout, remote.max_rows, remote.max_bytes), (second(21), 22, 23 << 20));
    assert_eq!((config.cache.sample, config.audit_retention_days), (second(24), 25));
}

#[test]
fn a_value_of_the_wrong_kind_is_an_error() {
    for text in [
        "query: 5",
        "query: [timeout_seconds]",
        "instance: {home: yes please}",
        "remote_attach: {allow_install: maybe}",
        "remote_attach: {extension_folder: 3}",
        "remote_attach: {hosts: [1]}",
        "remote_attach: {extensions: postgres}",
    ] {
        // The overlay replaces or adds to what the file says.
        let error = load(HEAD, &format!("{text}\n"), false).unwrap_err();
        assert_eq!(error.code(), "config_invalid_value", "{text}: {error}");
    }
    let loaded = load(HEAD, "query:\nremote_attach: {allow_install: 'true', hosts: }\n", false).unwrap();
    assert!(loaded.config.attach.allow_install && loaded.config.attach.hosts.is_empty());
}

#[test]
fn a_damaged_overlay_fails_the_start_and_secrets_stay_out_of_words() {
    assert_eq!(load(HEAD, "query: {timeout_seconds: 3\n", false).unwrap_err().code(), "config_not_yaml");
    let secret = "hunter2-hunter2";
    for text in
        [format!("jira: {{api_token: {secret}\n"), format!("jira: {{api_token: '{secret}', api_token: '{secret}'}}\n")]
    {
        let error = load(HEAD, &text, false).unwrap_err();
        assert!(!error.to_string().contains(secret), "{error}");
        assert!(!format!("{:?}", error.hint()).contains(secret));
    }
    let loaded = load(&format!("{HEAD}jira: {{api_token: {secret}}}\n"), "", false).unwrap();
    assert!(!format!("{loaded:?}").contains(secret));
}

#[test]
fn variables() {
    let subtitle = |text: &str| -> Result<Value> {
        let folder = tempfile::tempdir().unwrap();
        let env = |name: &str| match name {
            "SET" => Some("a ${OTHER} b".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let options = LoadOptions { file: Some(folder.path().to_owned()), overlay: None, env: &env, lenient: false };
        let mut value = Value::from(text);
        expand(&mut value, "instance.yaml", "instance.subtitle", &options, &mut Vec::new())?;
        Ok(value)
    };
    for (text, wanted) in [
        ("plain $ {x} $x }", "plain $ {x} $x }"),
        ("${SET}", "a ${OTHER} b"),
        ("x${SET}y${SET}", "xa ${OTHER} bya ${OTHER} b"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b}", "a:-b"),
        ("${EMPTY:-c}", "c"),
        ("${EMPTY}", ""),
        ("$${SET}", "${SET}"),
        ("$${SET} ${NONE:-d} $${", "${SET} d ${"),
    ] {
        assert_eq!(subtitle(text).unwrap(), wanted, "{text}");
    }
    assert_eq!(subtitle("${SET").unwrap_err().code(), "config_open_variable");
    assert_eq!(subtitle("${NONE}").unwrap_err().code(), "config_unset_variable");
    assert_eq!(subtitle("${}").unwrap_err().code(), "config_unset_variable");
}

#[test]
fn where_people_may_sign_in_elsewhere() {
    let with = |section: &str, pairs: &[(&str, &str)]| {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("instance.yaml");
        std::fs::write(&file, format!("{HEAD}{section}\n").replace("auth: {", "auth: {oidc: {label: Acme}, ")).unwrap();
        let env = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        Config::load(&LoadOptions { file: Some(file), overlay: None, env: &env, lenient: false })
            .map(|loaded| loaded.config)
    };
    let none = with("", &[("GOOGLE_CLIENT_ID", "id"), ("GOOGLE_CLIENT_SECRET", " ")]).unwrap();
    assert!(none.oidc.is_empty() && !none.directory.is_on() && none.allowed_private_hosts.is_empty());
    let both = [
        ("GOOGLE_CLIENT_ID", "g"),
        ("GOOGLE_CLIENT_SECRET", "s3cret"),
        ("AGNES_OIDC_ISSUER", "https://id.acme.example/realm"),
        ("AGNES_OIDC_CLIENT_ID", "a"),
        ("GOOGLE_ADMIN_SDK_MOCK_GROUPS", "A@acme.example, b@acme.example"),
        ("AGNES_GOOGLE_GROUP_PREFIX", "Agnes-"),
        ("AGNES_GROUP_ADMIN_EMAIL", "Boss@acme.example"),
    ];
    let config = with("security: {allowed_private_hosts: [id.acme.example]}", &both).unwrap();
    let known: Vec<_> = config.oidc.iter().map(|one| (one.name, one.label.as_str(), one.issuer.as_str())).collect();
    let expected =
        [("google", "Google", "https://accounts.google.com"), ("oidc", "Acme", "https://id.acme.example/realm")];
    assert_eq!(known, expected);
    assert!(config.oidc[1].client_secret.is_none() && !format!("{config:?}").contains("s3cret"));
    assert_eq!(config.allowed_private_hosts, ["id.acme.example"]);
    let directory = &config.directory;
    assert_eq!(directory.mock_groups.as_ref().map(Vec::len), Some(2));
    assert_eq!((directory.prefix.as_deref(), directory.admin.as_deref()), (Some("agnes-"), Some("boss@acme.example")));
    for wrong in [
        &[("AGNES_OIDC_ISSUER", "https://id.acme.example")] as &[(&str, &str)],
        &[("AGNES_OIDC_CLIENT_ID", "a")],
        &[("AGNES_OIDC_CLIENT_ID", "a"), ("AGNES_OIDC_ISSUER", "id.acme.example")],
        &[("AGNES_OIDC_CLIENT_ID", "a"), ("AGNES_OIDC_ISSUER", "https://id.acme.example/?x")],
        &[("AGNES_GOOGLE_GROUP_PREFIX", "agnes-")],
    ] {
        assert_eq!(with("", wrong).unwrap_err().code(), "config_invalid_value", "{wrong:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(300))]
    /// Whatever a file holds, loading answers.
    #[test]
    fn no_text_panics(text in "[a-z0-9:{}\\[\\], \n$.&*!|>'\"-]{0,120}", lenient in proptest::bool::ANY) {
        drop(load(&format!("{HEAD}{text}"), &text, lenient));
    }
}

#[test]
fn who_may_sign_in_how() {
    let auth = |text: &str| {
        format!("config_version: 1\ninstance: {{name: Acme}}\nauth: {text}\nserver: {{host: h, hostname: h}}\n")
    };
    let file = auth("{allowed_domain: 'Acme.example, other.example', disabled_providers: [email]}");
    let config = load(&file, "access_requests: {enabled: false}", false).unwrap().config;
    assert!(config.auth.allows("ann@ACME.example") && config.auth.allows("x@y@other.example"));
    assert!(!config.auth.allows("ann@sub.acme.example") && !config.auth.allows("acme.example@evil.example"));
    assert!(config.auth.offers("password") && !config.auth.offers("email"));
    assert!(!config.access_requests.enabled && Config::default().access_requests.enabled);
    let any = load(&auth("{allowed_domain: '*'}"), "", false).unwrap().config;
    assert!(any.auth.allows("ann@anywhere.example") && any.access_requests.enabled);
    let (typo, words, _) = code(&auth("{allowed_domain: '*', disabled_providers: [passwort]}"));
    assert_eq!(typo, "config_invalid_value");
    assert!(words.contains("auth.disabled_providers") && words.contains("password"), "{words}");
}

#[test]
fn who_decides_who_is_active() {
    let file = |auth: &str| {
        format!(
            "config_version: 1\ninstance: {{name: Acme}}\nauth: {{allowed_domain: '*'{auth}}}\nserver: {{host: h, hostname: h}}\n"
        )
    };
    let directory = |auth: &str| load(&file(auth), "", false).unwrap().config.auth.directory_lifecycle;
    assert!(directory(", sso_lifecycle: directory"));
    assert!(!directory("") && !directory(", sso_lifecycle: local"));
    assert_eq!(code(&file(", sso_lifecycle: ldap")).0, "config_invalid_value");
}

#[test]
fn jira_is_named_by_its_section_or_by_variables() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("instance.yaml");
    let of = |text: &str, domain: &'static str| {
        std::fs::write(&file, format!("{HEAD}{text}")).unwrap();
        let env = |name: &str| match name {
            "JIRA_DOMAIN" => Some(domain.to_owned()),
            "JIRA_DATA_DIR" => Some("/srv/jira".to_owned()),
            _ => None,
        };
        let options = LoadOptions { file: Some(file.clone()), overlay: None, env: &env, lenient: false };
        let sources = Config::load(&options).unwrap().config.data_source;
        assert_eq!(sources.jira_raw.unwrap().to_str(), Some("/srv/jira"));
        serde_json::Value::from(sources.settings["jira"].clone())
    };
    assert_eq!(of("", " "), serde_json::json!({}));
    assert_eq!(of("jira: {email: a@b.c}\n", ""), serde_json::json!({}));
    assert_eq!(of("jira: {email: a@b.c}\n", "x.example"), serde_json::json!({"domain": "x.example", "email": "a@b.c"}));
    assert_eq!(of("jira: {domain: y.example}\n", "x.example"), serde_json::json!({"domain": "y.example"}));
}
