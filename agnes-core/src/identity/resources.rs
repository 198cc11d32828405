//! What can be granted: the kinds of resource, what there is of each, and everything that a
//! page of access shows at once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::groups::rows as group_rows;
use super::{GrantRow, GroupRow, Identity};
use crate::context::CallContext;
use crate::engine::TableIndex;
use crate::error::Result;
use crate::orchestrator::Generation;
use crate::rbac::{INTERNAL_TABLES, ResourceType};

/// The memory domains there are.
const MEMORY_DOMAINS: [&str; 6] = ["finance", "engineering", "product", "data", "operations", "infrastructure"];
/// Where tables without a bucket are listed.
const NO_BUCKET: &str = "(no bucket)";

/// A kind of resource, in words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceKind {
    /// What grants say.
    pub key: ResourceType,
    /// For people.
    pub display_name: String,
    /// For people.
    pub description: String,
    /// How its ids are written.
    pub id_format: String,
}

/// Resources that belong together, such as the tables of one bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceBlock {
    /// Unique among the blocks of its kind.
    pub id: String,
    /// For people.
    pub name: String,
    /// By name.
    pub items: Vec<ResourceItem>,
}

/// One resource.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceItem {
    /// What grants name.
    pub resource_id: String,
    /// For people.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of a table: the kind of its source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_type: Option<String>,
    /// Of a table: `local`, `remote` or `materialized`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query_mode: Option<String>,
}

/// Groups, grants, and what can be granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessOverview {
    /// System groups first, then by name.
    pub groups: Vec<GroupRow>,
    /// By group, kind and id.
    pub grants: Vec<GrantRow>,
    /// What there is of each kind.
    pub resources: Vec<(ResourceKind, Vec<ResourceBlock>)>,
}

impl ResourceType {
    /// This kind of resource, in words.
    #[must_use]
    pub fn in_words(self) -> ResourceKind {
        let (display_name, description, id_format) = match self {
            Self::Table => ("Tables", "Rows, columns, samples, profiles and files of a table", "<table_id>"),
            Self::MarketplacePlugin => {
                ("Marketplace plugins", "A plugin of a marketplace", "<marketplace_slug>/<plugin_name>")
            }
            Self::MemoryDomain => ("Memory domains", "What is remembered of one domain", "<domain>"),
        };
        ResourceKind {
            key: self,
            display_name: display_name.to_owned(),
            description: description.to_owned(),
            id_format: id_format.to_owned(),
        }
    }

    /// What there is of this kind, as far as this build knows it.
    fn blocks(self, index: &TableIndex, generation: &Generation) -> Vec<ResourceBlock> {
        match self {
            Self::Table => tables(index, generation),
            // There is no marketplace whose plugins could be listed.
            Self::MarketplacePlugin => Vec::new(),
            Self::MemoryDomain => {
                let item = |name: &str| ResourceItem {
                    resource_id: name.to_owned(),
                    name: name.to_owned(),
                    ..ResourceItem::default()
                };
                let name = "Domains".to_owned();
                vec![ResourceBlock { id: "domains".to_owned(), name, items: MEMORY_DOMAINS.map(item).to_vec() }]
            }
        }
    }

    /// Whether grants of this kind that name `id` open something.
    pub(super) fn exists(self, id: &str, index: &TableIndex, generation: &Generation) -> bool {
        match self {
            Self::Table => index.find(id).is_some() || generation.table(&id.to_lowercase()).is_some(),
            Self::MarketplacePlugin => false,
            Self::MemoryDomain => MEMORY_DOMAINS.contains(&id),
        }
    }
}

/// Registered and published tables but the internal ones, which nobody has to be granted.
fn tables(index: &TableIndex, generation: &Generation) -> Vec<ResourceBlock> {
    let is_internal = |name: &str| INTERNAL_TABLES.iter().any(|internal| internal.eq_ignore_ascii_case(name));
    let mut buckets: BTreeMap<(bool, String), Vec<ResourceItem>> = BTreeMap::new();
    for row in index.iter().filter(|row| !is_internal(&row.name)) {
        let bucket = row.bucket.clone().filter(|bucket| !bucket.trim().is_empty());
        // What has no bucket comes last.
        let place = (bucket.is_none(), bucket.unwrap_or_else(|| NO_BUCKET.to_owned()));
        buckets.entry(place).or_default().push(ResourceItem {
            resource_id: row.id.clone(),
            name: row.name.clone(),
            description: row.description.clone(),
            source_type: row.source_type.clone(),
            query_mode: Some(row.query_mode.as_str().to_owned()),
        });
    }
    for table in generation.tables() {
        let name = table.name.as_str();
        if index.by_name(name).is_none() && !is_internal(name) {
            buckets.entry((true, NO_BUCKET.to_owned())).or_default().push(ResourceItem {
                resource_id: name.to_lowercase(),
                name: name.to_owned(),
                description: table.description.clone(),
                source_type: Some("local".to_owned()),
                query_mode: Some(table.mode.as_str().to_owned()),
            });
        }
    }
    buckets
        .into_iter()
        .map(|((_, name), mut items)| {
            items.sort_by(|a, b| a.name.cmp(&b.name));
            ResourceBlock { id: name.clone(), name, items }
        })
        .collect()
}

impl Identity<'_> {
    /// The kinds of resource that can be granted.
    ///
    /// # Errors
    /// `admin_required`.
    pub async fn resource_kinds(&self, ctx: &CallContext) -> Result<Vec<ResourceKind>> {
        self.engine.access().await?.require_admin(ctx.principal())?;
        Ok(ResourceType::ALL.map(ResourceType::in_words).to_vec())
    }

    /// Groups, grants, and what can be granted: everything that a page of access shows.
    ///
    /// # Errors
    /// `admin_required`, `service_forbidden`.
    pub async fn access_overview(&self, ctx: &CallContext) -> Result<AccessOverview> {
        let grants = self.grants(ctx, None).await?;
        let (index, generation) = (self.engine.table_index().await?, self.engine.generation());
        let resources = ResourceType::ALL.map(|kind| (kind.in_words(), kind.blocks(&index, &generation)));
        let groups = group_rows(&*self.engine.access().await?, &self.engine.config().directory);
        Ok(AccessOverview { groups, grants, resources: resources.to_vec() })
    }
}
