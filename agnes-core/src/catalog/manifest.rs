//! The manifest: which files a caller may pull, and their hashes.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Catalog, CatalogError, ManifestAsset};
use crate::context::CallContext;
use crate::error::{Error, Result};
use crate::orchestrator::Part;
use crate::policy::{Distribution, PolicyError, RowScope};
use crate::registry::QueryMode;
use crate::sync::SyncStatus;

/// What a caller may pull.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Manifest {
    /// By published name.
    pub tables: BTreeMap<String, ManifestTable>,
    /// Files to pull that are no tables, by kind, where there are any: `docs` and `profiles`.
    #[serde(default)]
    pub assets: BTreeMap<String, ManifestAsset>,
    /// When this was made.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub server_time: DateTime<Utc>,
    /// Number of the published generation.
    #[serde(default)]
    pub generation: u64,
    /// SHA-256 over the tables and assets, but the times: equal when there is nothing to pull and
    /// nothing to tell.
    pub etag: String,
    /// Until when a copy of it may be worked from: a day. It is no part of the tag; a copy whose
    /// time is over is fetched anew, though nothing changed.
    #[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime))]
    pub expires_at: DateTime<Utc>,
    /// Ed25519 by a key of the installation, over the caller, the tag, the generation and the end
    /// of the copy, hexadecimal; [`Manifest::read`] and [`Catalog::verify_manifest`] check it.
    #[serde(default)]
    pub signature: String,
    /// The public half of that key, hexadecimal. Whoever pulls keeps the first one they see and
    /// takes no other.
    #[serde(default)]
    pub public_key: String,
}

/// One table of a manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManifestTable {
    /// What grants name.
    pub id: String,
    /// MD5 of the file's bytes; of a partitioned table a rollup over its parts; empty for
    /// remote tables.
    pub hash: String,
    /// SHA-256 of the file's bytes; none for partitioned and remote tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
    /// When the table was last brought up to date.
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, format = DateTime))]
    pub updated: Option<DateTime<Utc>>,
    /// Bytes of Parquet.
    pub size_bytes: u64,
    /// Rows.
    pub rows: u64,
    /// `local`, `materialized` or `remote` (no file).
    pub query_mode: QueryMode,
    /// Kind of the source; empty for a table that nobody registered.
    pub source_type: String,
    /// Parts of a partitioned table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parts: Option<Vec<ManifestPart>>,
    /// Whether the file holds the caller's part of the table alone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub slice: bool,
    /// What a policy took from the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub row_scope: Option<RowScope>,
    /// Of such a part: equal as long as the same rules make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rules: Option<String>,
    /// `error` when the last sync failed; the data is that of the last good one. Also when there is
    /// an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// Why the caller's part of the table cannot be given now. There is no file then; who has an older
    /// one, made by the same rules, keeps it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ManifestError>,
}

/// Why a table has no file in a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManifestError {
    /// Stable name.
    pub code: String,
    /// In words.
    pub message: String,
    /// One thing to try.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl ManifestError {
    /// What a caller may know of it: the words of other errors may name files, or hold values.
    fn of(table: &str, error: &Error) -> Self {
        let plain =
            |error: &Error| Self { code: error.code().to_owned(), message: error.to_string(), hint: error.hint() };
        match error.code() {
            "policy_failed" | "slice_too_large" | "slice_too_slow" => plain(error),
            _ => plain(&PolicyError::Unavailable { table: table.to_owned() }.into()),
        }
    }
}

/// One file of a partitioned table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ManifestPart {
    /// Path below the tables' folder, `/`-separated.
    pub path: String,
    /// MD5 of its bytes.
    pub hash: String,
    /// SHA-256 of its bytes.
    pub sha256: String,
    /// Bytes.
    pub size_bytes: u64,
}

impl From<&Part> for ManifestPart {
    fn from(part: &Part) -> Self {
        Self {
            path: part.path.clone(),
            hash: part.md5.clone(),
            sha256: part.sha256.clone(),
            size_bytes: part.size_bytes,
        }
    }
}

/// A manifest as a server sent it, checked. Of servers that sign nothing, it says so.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadManifest {
    /// What it says.
    pub manifest: Manifest,
    /// Whether the signature was there and right.
    pub is_signed: bool,
}

/// How long a copy of a manifest may be worked from.
const LIFE: TimeDelta = TimeDelta::days(1);

impl Manifest {
    /// What the signature is over.
    fn signed_text(&self, user: &str) -> Vec<u8> {
        let end = self.expires_at.timestamp_micros();
        json!(["manifest", 2, user, self.etag, self.generation, end]).to_string().into_bytes()
    }

    /// Reads what a server sent to `user`, and checks that it says what was signed, and by which
    /// key: the `pinned` one, or any where none is pinned yet. The tag is taken of the JSON as it
    /// came, so that what newer servers add is under the signature too. Whether it has expired or
    /// is older than another one is for the caller to ask.
    ///
    /// # Errors
    /// `manifest_unreadable`; `manifest_not_ours` for one that was changed, is somebody else's, or
    /// is signed by another key, or by none although one is pinned.
    pub fn read(body: &[u8], user: &str, pinned: Option<&str>) -> Result<ReadManifest> {
        let mut value: Value = serde_json::from_slice(body).map_err(|_| CatalogError::ManifestUnreadable)?;
        for (name, missing) in [("etag", json!("")), ("expires_at", value["server_time"].clone())] {
            if value.is_object() && value[name].is_null() {
                value[name] = missing;
            }
        }
        let tag = tag_of(&value["tables"], &value["assets"]);
        let manifest: Self = serde_json::from_value(value).map_err(|_| CatalogError::ManifestUnreadable)?;
        let is_signed = !manifest.signature.is_empty() && !manifest.public_key.is_empty();
        if !is_signed {
            return match pinned {
                Some(_) => Err(CatalogError::ManifestNotOurs.into()),
                None => Ok(ReadManifest { manifest, is_signed }),
            };
        }
        let is_pinned = pinned.is_none_or(|key| key == manifest.public_key);
        let text = manifest.signed_text(user);
        if tag != manifest.etag || !is_pinned || !verifies(&manifest.public_key, &text, &manifest.signature) {
            return Err(CatalogError::ManifestNotOurs.into());
        }
        Ok(ReadManifest { manifest, is_signed })
    }
}

/// Whether `signature` is of this text, by the key whose public half is given; both hexadecimal.
fn verifies(public_key: &str, text: &[u8], signature: &str) -> bool {
    let (Some(key), Some(signature)) = (unhex(public_key), unhex(signature)) else { return false };
    let key = aws_lc_rs::signature::UnparsedPublicKey::new(&aws_lc_rs::signature::ED25519, key);
    key.verify(text, &signature).is_ok()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()
        }
        _ => None,
    });
    pairs.collect()
}

impl Catalog<'_> {
    /// Checks that a manifest was made here for the caller, that nothing in it but times of syncs
    /// was changed since, and that it has not expired.
    ///
    /// # Errors
    /// `manifest_not_ours`, `manifest_expired`, `inactive_user`.
    pub async fn verify_manifest(&self, ctx: &CallContext, manifest: &Manifest) -> Result<()> {
        self.view(ctx).await?;
        let text = manifest.signed_text(ctx.principal().user_id());
        let whole = etag(&manifest.tables, &manifest.assets) == manifest.etag;
        let (key, _) = self.engine.instance_key().await?.sign_manifest(&text)?;
        if !whole || !verifies(&key, &text, &manifest.signature) {
            return Err(CatalogError::ManifestNotOurs.into());
        }
        if manifest.expires_at < self.engine.clock().now() {
            return Err(CatalogError::ManifestExpired.into());
        }
        Ok(())
    }

    /// The tables that the caller may pull: those they may read and did not switch off
    /// ([`Catalog::set_preferences`]), but internal tables and tables that stay on the
    /// server.
    ///
    /// # Errors
    /// `inactive_user`, `scope_denied`.
    pub async fn manifest(&self, ctx: &CallContext) -> Result<Manifest> {
        ctx.principal().require(crate::rbac::Ability::Manifest)?;
        let view = self.view(ctx).await?;
        let states = self.engine.sync_states().await?;
        let wanted = self.engine.preferences_of(ctx.principal().user_id()).await?;
        let key = self.engine.instance_key().await?;
        let mut tables = BTreeMap::new();
        for found in view.all() {
            let Some(published) = found.published.filter(|_| wanted.wants(&found.id, found.name())) else { continue };
            if found.row.is_some_and(|row| row.server_only || row.query_mode == QueryMode::Internal) {
                continue;
            }
            let (part, error) = match found.narrowed {
                None => (None, None),
                Some(part) if part.narrowing.distribution == Distribution::ServerOnly => continue,
                Some(part) if part.is_whole() => (None, None),
                Some(part) => match self.engine.slices().get(self.engine, part).await {
                    Ok(slice) => (Some(slice), None),
                    Err(error) => {
                        // Nothing rather than all of it.
                        tracing::warn!(table = found.name(), code = error.code(), "a slice is not offered: {error}");
                        (None, Some(ManifestError::of(found.name(), &error)))
                    }
                },
            };
            let slice = part.as_ref().map(|slice| &slice.part);
            let rules = found.narrowed.filter(|part| !part.is_whole()).map(|part| key.sign(part.policy_key.as_bytes()));
            let state = states.get(&found.name().to_lowercase());
            let failed = state.is_some_and(|s| s.status == SyncStatus::Error);
            tables.insert(
                found.name().to_owned(),
                ManifestTable {
                    hash: slice.map_or_else(|| published.manifest_hash.clone(), |part| part.md5.clone()),
                    sha256: match published.parts.as_slice() {
                        _ if slice.is_some() => slice.map(|part| part.sha256.clone()),
                        [only] if !published.partitioned => Some(only.sha256.clone()),
                        _ => None,
                    },
                    updated: state.and_then(|s| s.last_sync).or(published.extracted_at),
                    size_bytes: slice.map_or(published.size_bytes, |part| part.size_bytes),
                    rows: slice.map_or(published.rows, |part| part.rows),
                    row_scope: found.narrowed.filter(|_| slice.is_some()).and_then(|part| part.scope()),
                    slice: slice.is_some() || error.is_some(),
                    rules,
                    query_mode: published.mode,
                    source_type: found.row.and_then(|row| row.source_type.clone()).unwrap_or_default(),
                    parts: published.partitioned.then(|| published.parts.iter().map(ManifestPart::from).collect()),
                    status: (failed || error.is_some()).then(|| "error".to_owned()),
                    error,
                    id: found.id,
                },
            );
        }
        let assets = self.assets(ctx, &view).await?;
        let etag = etag(&tables, &assets);
        let now = self.engine.clock().now();
        self.engine.sign_in().pulled(ctx);
        let admin = view.is_admin(ctx);
        self.engine
            .audit()
            .event(ctx, "manifest.fetch")
            .params(json!({"tables": tables.len(), "admin": admin}))
            .later();
        let mut manifest = Manifest {
            tables,
            assets,
            server_time: now,
            generation: view.generation.number,
            etag,
            expires_at: now + LIFE,
            signature: String::new(),
            public_key: String::new(),
        };
        let text = manifest.signed_text(ctx.principal().user_id());
        (manifest.public_key, manifest.signature) = key.sign_manifest(&text)?;
        Ok(manifest)
    }
}

fn etag(tables: &BTreeMap<String, ManifestTable>, assets: &BTreeMap<String, ManifestAsset>) -> String {
    tag_of(&json!(tables), &json!(assets))
}

/// SHA-256 of tables and assets as JSON without spaces, members in the order of their names,
/// and without the time of each table's last sync: whatever else a server says of a table, now or
/// in a later version, is in it.
fn tag_of(tables: &Value, assets: &Value) -> String {
    let mut text = String::new();
    write_sorted(assets, None, &mut text);
    write_sorted(tables, Some(1), &mut text);
    crate::orchestrator::hex(&Sha256::digest(text.as_bytes()))
}

/// Writes JSON with sorted members; objects `timeless` levels below have no `updated`.
fn write_sorted(value: &Value, timeless: Option<u8>, out: &mut String) {
    let below = timeless.and_then(|levels| levels.checked_sub(1));
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> = members.iter().collect();
            members.sort_unstable_by_key(|(name, _)| *name);
            members.retain(|(name, _)| timeless != Some(0) || *name != "updated");
            out.push('{');
            for (n, (name, value)) in members.into_iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                write_sorted(value, below, out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_sorted(item, below, out);
            }
            out.push(']');
        }
        other => out.push_str(&other.to_string()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_tag_is_of_what_matters() {
        let tag = |text: &str| tag_of(&serde_json::from_str(text).unwrap(), &json!({}));
        let one = tag(r#"{"a": {"hash": "x", "updated": "1", "rows": 2}, "b": {}}"#);
        assert_eq!(one, tag(r#"{"b": {}, "a": {"rows": 2, "hash": "x", "updated": "2"}}"#));
        assert_eq!(one, tag(r#"{"b": {}, "a": {"rows": 2, "hash": "x"}}"#));
        for other in [
            r#"{"a": {"hash": "x", "rows": 3}, "b": {}}"#,
            r#"{"a": {"hash": "x", "rows": 2, "new": null}, "b": {}}"#,
            r#"{"a": {"hash": "x", "rows": 2}, "b": {}, "updated": {}}"#,
            r#"{"a": {"hash": "x", "rows": 2, "parts": [{"updated": 1}]}, "b": {}}"#,
        ] {
            assert_ne!(one, tag(other), "{other}");
        }
    }

    #[test]
    fn why_a_table_has_no_file_is_told_without_what_others_may_not_know() {
        let older = json!({
            "id": "t", "hash": "x", "updated": null, "size_bytes": 1, "rows": 1, "query_mode": "local", "source_type": "",
        });
        let mut table: ManifestTable = serde_json::from_value(older.clone()).unwrap();
        assert_eq!((json!(table), &table.error), (older, &None));
        let cause = std::io::Error::other("/secret/path is full");
        table.error = Some(ManifestError::of("t", &Error::io("write /secret/path", cause)));
        assert!(json!(table)["error"]["code"] == "slice_unavailable" && !json!(table).to_string().contains("secret"));
        let large = PolicyError::TooLarge { table: "t".to_owned(), limit_mb: 7 };
        assert!(ManifestError::of("t", &large.into()).message.contains("7 MiB"));
    }

    #[test]
    fn hexadecimal_is_read() {
        assert_eq!(unhex("00fF"), Some(vec![0, 255]));
        for wrong in ["0", "0g", "+1", "é"] {
            assert_eq!(unhex(wrong), None, "{wrong}");
        }
    }
}
