//! The fields that admins may edit while the server runs.

use serde_json::{Value, json};

use crate::config::keys;

/// Sections that may be edited.
pub(super) const SECTIONS: &[&str] = &[
    "instance",
    "data_source",
    "email",
    "telegram",
    "jira",
    "theme",
    "server",
    "auth",
    "ai",
    "openmetadata",
    "desktop",
    "corporate_memory",
    "materialize",
    "guardrails",
    "access_requests",
];

/// Sections in which a mistake locks people out.
pub(super) const DANGER: &[&str] = &["auth", "server"];

/// Sections that apply at once.
pub(super) const LIVE: &[&str] = &["theme", "instance", "guardrails", "access_requests"];

/// Keys that hold a secret have one of these in their name.
pub(super) const SECRET_PATTERNS: &[&str] = &["secret", "token", "password", "api_key"];

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Kind {
    /// A line of text, or several.
    Text,
    /// A secret.
    Secret,
    /// `true` or `false`.
    Flag,
    /// A whole number.
    Number(u64, u64),
    /// An address of another server.
    Url,
    /// A list of texts.
    List,
    /// One of these.
    Choice(&'static [&'static str]),
    /// A colour of CSS.
    Colour,
    /// A length of CSS.
    Length,
    /// Names of fonts.
    Font,
    /// A picture in SVG.
    Svg,
    /// Whatever is below it, too.
    Any,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Secret => "secret",
            Self::Flag => "bool",
            Self::Number(..) => "int",
            Self::Url => "url",
            Self::List => "list",
            Self::Choice(_) => "choice",
            Self::Colour => "colour",
            Self::Length => "length",
            Self::Font => "font",
            Self::Svg => "svg",
            Self::Any => "any",
        }
    }
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    /// Dotted.
    pub(super) key: &'static str,
    pub(super) kind: Kind,
    /// JSON; empty for none.
    default: &'static str,
    help: &'static str,
    /// Where its secret is kept, where a name is known to others.
    variable: &'static str,
}

const fn field(key: &'static str, kind: Kind, default: &'static str, help: &'static str) -> Field {
    Field { key, kind, default, help, variable: "" }
}

const fn secret(key: &'static str, variable: &'static str, help: &'static str) -> Field {
    Field { key, kind: Kind::Secret, default: "", help, variable }
}

const MANY: u64 = 1_000_000_000;

/// Every field of [`SECTIONS`].
pub(super) const FIELDS: &[Field] = &[
    field("instance.name", Kind::Text, "", "Name of the installation"),
    field("instance.subtitle", Kind::Text, "", "A line below the name"),
    field("instance.copyright", Kind::Text, "", "A line at the foot of every page"),
    field("instance.brand", Kind::Text, "", "Name of the product as pages show it"),
    field("instance.workspace_dir", Kind::Text, "\"Agnes\"", "Folder of a laptop's workspace"),
    field("instance.logo_svg", Kind::Svg, "", "Logo, as SVG without scripts"),
    field("instance.overview", Kind::Text, "", "Markdown on the home page"),
    field("instance.sync_interval", Kind::Text, "\"1 hour\"", "How often laptops are told to pull"),
    field("instance.admin_email", Kind::Text, "", "Whom people may ask"),
    field("instance.home_route", Kind::Text, "\"/dashboard\"", "Where sign-in lands"),
    field("instance.home.show_automode", Kind::Flag, "true", "Show how to let the assistant work alone"),
    field("instance.home.show_status_frame", Kind::Flag, "true", "Show the state of the installation"),
    field("instance.gws.client_id", Kind::Text, "", "Client of the Google Workspace connection"),
    secret("instance.gws.client_secret", "", "Its secret"),
    field("instance.gws.project_id", Kind::Text, "", "Its project"),
    field("instance.gws.oauthlib_insecure_transport", Kind::Flag, "false", "Allow it over plain HTTP"),
    field("instance.atlassian.base_url", Kind::Url, "", "Address of Jira and Confluence"),
    field("data_source.type", Kind::Choice(&["local", "keboola", "bigquery"]), "\"local\"", "The primary source"),
    secret("data_source.keboola.storage_token", "KEBOOLA_STORAGE_TOKEN", "Token of the Storage API"),
    field("data_source.keboola.stack_url", Kind::Url, "", "Address of the stack"),
    field("data_source.keboola.project_id", Kind::Text, "", "Its project"),
    field("data_source.bigquery.project", Kind::Text, "", "Project of the data"),
    field("data_source.bigquery.location", Kind::Text, "", "Region"),
    field("data_source.bigquery.billing_project", Kind::Text, "", "Project that pays; the data's when empty"),
    field(
        "data_source.bigquery.max_bytes_per_materialize",
        Kind::Number(0, 1 << 50),
        "10737418240",
        "Most bytes of one materialization; 0 for any",
    ),
    field(
        "data_source.bigquery.bq_max_scan_bytes",
        Kind::Number(0, 1 << 50),
        "5368709120",
        "Most bytes of one query; 0 for any",
    ),
    field("data_source.bigquery.query_timeout_ms", Kind::Number(0, MANY), "600000", "How long a job may take"),
    field("data_source.bigquery.session_pool_size", Kind::Number(0, 1000), "4", "Without effect: no sessions are kept"),
    field(
        "data_source.bigquery.materialize_fetch_timeout_seconds",
        Kind::Number(0, 86_400),
        "900",
        "How long a download may stand still; 0 for any time",
    ),
    field("email.from_address", Kind::Text, "", "Sender of mails"),
    field("email.from_name", Kind::Text, "", "Name of the sender"),
    field("email.smtp_host", Kind::Text, "", "Mail server"),
    field("email.smtp_port", Kind::Number(1, 65_535), "587", "Its port"),
    field("email.smtp_user", Kind::Text, "", "Who signs in there"),
    field("email.smtp_use_tls", Kind::Any, "true", "Encrypted: true, starttls, implicit or false"),
    secret("email.smtp_password", "SMTP_PASSWORD", "Their password"),
    secret("email.sendgrid_api_key", "SENDGRID_API_KEY", "Key of the SendGrid API, which goes before SMTP"),
    secret("telegram.bot_token", "TELEGRAM_BOT_TOKEN", "Token of the bot"),
    field("telegram.bot_username", Kind::Text, "", "Name of the bot"),
    field("telegram.domain_suffix", Kind::Text, "", "Domain of its people"),
    field("jira.domain", Kind::Text, "", "Host of Jira"),
    field("jira.email", Kind::Text, "", "Who signs in there"),
    secret("jira.api_token", "JIRA_API_TOKEN", "Their token"),
    secret("jira.webhook_secret", "JIRA_WEBHOOK_SECRET", "Secret of its webhooks"),
    field("jira.sla_email", Kind::Text, "", "Who asks for service levels"),
    secret("jira.sla_api_token", "JIRA_SLA_API_TOKEN", "Their token"),
    field("jira.cloud_id", Kind::Text, "", "Id of the cloud"),
    field("theme.primary", Kind::Colour, "", "Main colour"),
    field("theme.primary_dark", Kind::Colour, "", "Main colour, darker"),
    field("theme.primary_light", Kind::Colour, "", "Main colour, lighter"),
    field("theme.text_primary", Kind::Colour, "", "Text"),
    field("theme.text_secondary", Kind::Colour, "", "Text of less weight"),
    field("theme.background", Kind::Colour, "", "Behind everything"),
    field("theme.surface", Kind::Colour, "", "Behind cards"),
    field("theme.border", Kind::Colour, "", "Lines"),
    field("theme.font_primary", Kind::Font, "", "Fonts of text"),
    field("theme.font_url", Kind::Url, "", "Where the font is"),
    field("theme.radius", Kind::Length, "", "Roundness of corners"),
    field("theme.success", Kind::Colour, "", "What is well"),
    field("theme.warning", Kind::Colour, "", "What should be looked at"),
    field("theme.error", Kind::Colour, "", "What is not well"),
    field("server.hostname", Kind::Text, "", "Public name"),
    field("server.host", Kind::Text, "", "Address of the machine"),
    field("server.app_dir", Kind::Text, "", "Folder of the deployment"),
    field("server.ssh_alias", Kind::Text, "", "Name in the SSH configuration"),
    field("server.ssh_key", Kind::Text, "", "Path of the SSH key"),
    field("server.project_dir", Kind::Text, "", "Folder of the project"),
    field("auth.allowed_domain", Kind::Text, "", "Domains that may sign in, by commas; `*` for any"),
    secret("auth.webapp_secret_key", "SESSION_SECRET", "Signs short-lived cookies"),
    field("auth.google_client_id", Kind::Text, "", "Client of the Google sign-in"),
    secret("auth.google_client_secret", "GOOGLE_CLIENT_SECRET", "Its secret"),
    field("auth.oidc.issuer", Kind::Url, "", "Issuer of an OpenID provider"),
    field("auth.oidc.client_id", Kind::Text, "", "Client there"),
    secret("auth.oidc.client_secret", "AGNES_OIDC_CLIENT_SECRET", "Its secret"),
    field("auth.oidc.label", Kind::Text, "", "What its button says"),
    field("auth.username_strip_domain", Kind::Any, "", "Kept for older installations; nothing reads it here"),
    field("auth.username_prefix", Kind::Text, "", "Kept for older installations; nothing reads it here"),
    field("auth.disabled_providers", Kind::List, "[]", "Ways to sign in that are switched off"),
    field("auth.magic_link_one_click", Kind::Flag, "false", "Opening a mailed link signs in at once"),
    field("auth.reveal_provider", Kind::Flag, "false", "Say that an account has no password"),
    field("auth.sso_lifecycle", Kind::Text, "\"local\"", "Who ends accounts"),
    field("ai.provider", Kind::Choice(&["anthropic", "openai_compat"]), "", "Whose models"),
    secret("ai.api_key", "LLM_API_KEY", "Key of their API"),
    field("ai.base_url", Kind::Url, "", "Address of their API"),
    field("ai.model", Kind::Text, "\"claude-haiku-4-5-20251001\"", "Which model"),
    field("ai.structured_output", Kind::Choice(&["auto", "strict", "json"]), "\"auto\"", "How answers are structured"),
    field("openmetadata.url", Kind::Url, "", "Address of the catalog"),
    secret("openmetadata.token", "OPENMETADATA_TOKEN", "Its token"),
    field("openmetadata.cache_ttl_seconds", Kind::Number(0, MANY), "3600", "How long its answers are kept"),
    field("openmetadata.verify_ssl", Kind::Flag, "true", "Check its certificate"),
    field("desktop.jwt_issuer", Kind::Text, "\"data-analyst\"", "Issuer of desktop tokens"),
    secret("desktop.jwt_secret", "DESKTOP_JWT_SECRET", "Signs desktop tokens"),
    field("desktop.url_scheme", Kind::Text, "\"data-analyst\"", "Scheme of links that open the application"),
    field("corporate_memory", Kind::Any, "", "Shared notes"),
    field("materialize.lock_ttl_seconds", Kind::Number(60, 604_800), "86400", "Age of a lock that nobody holds"),
    field("guardrails.enabled", Kind::Flag, "true", "Review what people submit"),
    field("guardrails.review_model", Kind::Text, "\"haiku\"", "Model of the review"),
    field("guardrails.blocked_quota_per_day", Kind::Number(0, MANY), "50", "Refused submissions of one person a day"),
    field("guardrails.blocked_bundle_ttl_days", Kind::Number(0, 36_500), "30", "How long refused ones are kept"),
    field("guardrails.stuck_review_grace_seconds", Kind::Number(0, MANY), "1800", "How long a review may take"),
    field("guardrails.min_description_chars", Kind::Number(0, MANY), "60", "Shortest description"),
    field("guardrails.min_command_description_chars", Kind::Number(0, MANY), "25", "Shortest description of a command"),
    field("guardrails.min_distinct_words", Kind::Number(0, MANY), "5", "Fewest different words"),
    field("guardrails.min_body_chars", Kind::Number(0, MANY), "200", "Shortest body"),
    field("access_requests.enabled", Kind::Flag, "true", "People may ask for access"),
    field("access_requests.show_locked", Kind::Flag, "false", "They see what they may ask for"),
];

impl Field {
    /// The field of a key; of one below a field that takes anything, that one.
    pub(super) fn of(key: &str) -> Option<&'static Self> {
        FIELDS.iter().find(|field| {
            field.key == key
                || field.kind == Kind::Any && key.strip_prefix(field.key).is_some_and(|rest| rest.starts_with('.'))
        })
    }

    /// Whether there are fields below this key.
    pub(super) fn is_group(key: &str) -> bool {
        FIELDS.iter().any(|field| field.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.')))
    }

    /// The variable that keeps its secret.
    pub(super) fn variable(&self) -> String {
        match self.variable {
            "" => format!("AGNES_SECRET_{}", self.key.replace('.', "_").to_uppercase()),
            known => known.to_owned(),
        }
    }

    /// What editors are told.
    pub(super) fn described(&self, is_set: &dyn Fn(&str) -> bool) -> Value {
        let (_, key) = self.key.split_once('.').unwrap_or(("", self.key));
        let mut told = json!({"key": key, "type": self.kind.name(), "help": self.help});
        told["default"] = serde_json::from_str(self.default).unwrap_or(Value::Null);
        match self.kind {
            Kind::Choice(choices) => told["choices"] = json!(choices),
            Kind::Number(least, most) => (told["minimum"], told["maximum"]) = (json!(least), json!(most)),
            _ => {}
        }
        if let Some(variable) = overriding(self.key, is_set) {
            told["env_override"] = json!(variable);
        }
        told
    }
}

/// The variable of the environment that beats this key now.
pub(super) fn overriding(key: &str, is_set: &dyn Fn(&str) -> bool) -> Option<&'static str> {
    keys::OVERRIDES.iter().find(|(variable, over)| *over == key && is_set(variable)).map(|(variable, _)| *variable)
}

/// Whether a key of this name holds a secret.
pub(super) fn is_secret(name: &str) -> bool {
    let name = name.rsplit('.').next().unwrap_or(name).to_lowercase();
    !name.ends_with("_env") && SECRET_PATTERNS.iter().any(|pattern| name.contains(pattern))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key that exists and cannot be edited, or the other way round, is a mistake.
    #[test]
    fn fields_are_the_keys_of_their_sections() {
        for known in keys::KNOWN {
            let section = known.split('.').next().unwrap_or_default();
            // Names of variables are for files: whoever edits may not choose which one is read.
            if SECTIONS.contains(&section) && !known.ends_with(".*") && !known.ends_with("_env") {
                assert!(Field::of(known).is_some(), "`{known}` has no field");
            }
        }
        for field in FIELDS {
            assert!(keys::is_known(field.key), "`{}` is no key", field.key);
            assert!(SECTIONS.contains(&field.key.split('.').next().unwrap_or_default()), "{}", field.key);
            assert_eq!(field.kind == Kind::Secret, is_secret(field.key), "{}", field.key);
            assert!(field.default.is_empty() || serde_json::from_str::<Value>(field.default).is_ok(), "{}", field.key);
        }
    }
}
