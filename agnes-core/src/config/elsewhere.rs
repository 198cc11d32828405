//! Where people may sign in elsewhere, and whose directory says which groups they are in.

use super::load::invalid;
use super::values::Values;
use super::{Config, ConfigError};
use crate::secret::Secret;

/// Google's issuer, as its ID tokens name it.
const GOOGLE: &str = "https://accounts.google.com";

/// An identity provider that speaks OpenID Connect.
#[derive(Debug, Clone)]
pub struct OidcConfig {
    /// `google` or `oidc`: name of the way to sign in, and part of its addresses.
    pub name: &'static str,
    /// What its button says.
    pub label: String,
    /// The issuer, exactly as its ID tokens name it.
    pub issuer: String,
    /// Who Agnes is there.
    pub client_id: String,
    /// What proves it; a public client has none.
    pub client_secret: Option<Secret>,
}

/// The company's directory of groups, and what its groups mean here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DirectoryConfig {
    /// `GOOGLE_ADMIN_SDK_SUBJECT`: the administrator in whose name it is read; switches it on.
    pub subject: Option<String>,
    /// `GOOGLE_ADMIN_SDK_SA_EMAIL`: the service account that may do so.
    pub service_account: Option<String>,
    /// `GOOGLE_ADMIN_SDK_MOCK_GROUPS`: everybody's groups, in place of the directory.
    pub mock_groups: Option<Vec<String>>,
    /// `AGNES_GOOGLE_GROUP_PREFIX`: only groups whose address begins with it count, and who
    /// is in none of them may not sign in. Lower case.
    pub prefix: Option<String>,
    /// `AGNES_GROUP_ADMIN_EMAIL`: the group that is `Admin` here. Lower case.
    pub admin: Option<String>,
    /// `AGNES_GROUP_EVERYONE_EMAIL`: the group that is `Everyone` here. Lower case.
    pub everyone: Option<String>,
}

impl DirectoryConfig {
    /// Whether anybody's groups come from it.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.subject.is_some() || self.mock_groups.is_some()
    }
}

impl Values<'_> {
    /// Where people may sign in elsewhere, and the directory.
    pub(super) fn elsewhere(&self, config: &mut Config) -> Result<(), ConfigError> {
        let google_id = self.env_or("GOOGLE_CLIENT_ID", "auth.google_client_id")?;
        let google_secret = self.env_or("GOOGLE_CLIENT_SECRET", "auth.google_client_secret")?;
        if let (Some(client_id), Some(secret)) = (google_id, google_secret) {
            config.oidc.push(OidcConfig {
                name: "google",
                label: "Google".to_owned(),
                issuer: GOOGLE.to_owned(),
                client_id,
                client_secret: Some(Secret::new(secret)),
            });
        }
        let issuer = self.env_or("AGNES_OIDC_ISSUER", "auth.oidc.issuer")?;
        let client_id = self.env_or("AGNES_OIDC_CLIENT_ID", "auth.oidc.client_id")?;
        let secret = self.env_or("AGNES_OIDC_CLIENT_SECRET", "auth.oidc.client_secret")?;
        let label = self.env_or("AGNES_OIDC_LABEL", "auth.oidc.label")?;
        match (issuer, client_id) {
            (Some(issuer), Some(client_id)) => {
                let plain = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '?' | '#' | '@');
                let is_url = issuer.starts_with("https://") || issuer.starts_with("http://");
                if !is_url || !issuer.chars().all(plain) {
                    return Err(invalid(self.file(), "auth.oidc.issuer", "it is a URL without query and fragment"));
                }
                let label = crate::ident::printable(label.as_deref().unwrap_or("single sign-on"), 40);
                let client_secret = secret.map(Secret::new);
                config.oidc.push(OidcConfig { name: "oidc", label, issuer, client_id, client_secret });
            }
            (None, None) => {}
            (None, Some(_)) => return Err(invalid(self.file(), "auth.oidc.issuer", "a client needs its issuer")),
            (Some(_), None) => return Err(invalid(self.file(), "auth.oidc.client_id", "an issuer needs a client")),
        }
        let lower = |name: &str| self.variable(name).map(|text| text.to_lowercase());
        config.directory = DirectoryConfig {
            subject: self.variable("GOOGLE_ADMIN_SDK_SUBJECT"),
            service_account: self.variable("GOOGLE_ADMIN_SDK_SA_EMAIL"),
            mock_groups: self.env_list("GOOGLE_ADMIN_SDK_MOCK_GROUPS"),
            prefix: lower("AGNES_GOOGLE_GROUP_PREFIX"),
            admin: lower("AGNES_GROUP_ADMIN_EMAIL"),
            everyone: lower("AGNES_GROUP_EVERYONE_EMAIL"),
        };
        if config.directory.prefix.is_some() && !config.directory.is_on() {
            // A gate without a directory would stand open.
            let how = "it needs the directory: set `GOOGLE_ADMIN_SDK_SUBJECT`";
            return Err(invalid("the environment", "AGNES_GOOGLE_GROUP_PREFIX", how));
        }
        Ok(())
    }
}
