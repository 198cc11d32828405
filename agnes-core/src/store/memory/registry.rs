//! Tables, sources, view ownership.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::MemoryStore;
use crate::error::Result;
use crate::ident::printable;
use crate::rbac::ResourceType;
use crate::registry::{
    ColumnMetadata, OwnershipRepository, RegisteredSource, RegisteredTable, RegistryError, SourceRepository,
    TableRepository,
};

fn same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
}

#[async_trait]
impl TableRepository for MemoryStore {
    async fn insert(&self, table: &RegisteredTable) -> Result<bool> {
        let mut state = self.state();
        let taken = |row: &RegisteredTable| {
            [&table.id, &table.name].iter().any(|key| same(&row.id, key) || same(&row.name, key))
        };
        if state.tables.values().any(taken) {
            return Ok(false);
        }
        state.tables.insert(table.id.clone(), table.clone());
        Ok(true)
    }

    async fn upsert(&self, table: &RegisteredTable) -> Result<()> {
        let mut state = self.state();
        let mut row = table.clone();
        if let Some(before) = state.tables.get(&table.id) {
            row.registered_by.clone_from(&before.registered_by);
            row.registered_at = before.registered_at;
        }
        state.tables.insert(row.id.clone(), row);
        Ok(())
    }

    async fn find(&self, id_or_name: &str) -> Result<Option<RegisteredTable>> {
        let state = self.state();
        let by_id = state.tables.values().find(|table| same(&table.id, id_or_name));
        Ok(by_id.or_else(|| state.tables.values().find(|table| same(&table.name, id_or_name))).cloned())
    }

    async fn list(&self) -> Result<Vec<RegisteredTable>> {
        let mut tables: Vec<RegisteredTable> = self.state().tables.values().cloned().collect();
        tables.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
        Ok(tables)
    }

    async fn delete(&self, id: &str) -> Result<bool> {
        let mut state = self.state();
        let Some(row) = state.tables.values().find(|table| same(&table.id, id)).cloned() else { return Ok(false) };
        state.tables.remove(&row.id);
        state.states.retain(|name, _| !same(name, &row.name));
        state.sync_revision += 1;
        state.history.retain(|past| !same(&past.table_id, &row.name));
        state.profiles.retain(|name, _| !same(name, &row.name));
        state.owners.retain(|name, _| !same(name, &row.name));
        state.columns.retain(|(table, _), _| !same(table, &row.id));
        state.metadata.retain(|table, _| !same(table, &row.id));
        state.delete_grants_of(ResourceType::Table, &row.id);
        Ok(true)
    }

    async fn column_metadata(&self, table_id: &str) -> Result<Vec<ColumnMetadata>> {
        let state = self.state();
        Ok(state.columns.iter().filter(|((table, _), _)| table == table_id).map(|(_, column)| column.clone()).collect())
    }

    async fn set_column_metadata(&self, table_id: &str, columns: &[ColumnMetadata], now: DateTime<Utc>) -> Result<()> {
        let mut state = self.state();
        for column in columns {
            let column = ColumnMetadata { updated_at: Some(now), ..column.clone() };
            state.columns.insert((table_id.to_owned(), column.column_name.clone()), column);
        }
        Ok(())
    }
}

#[async_trait]
impl SourceRepository for MemoryStore {
    async fn insert(&self, source: &RegisteredSource) -> Result<()> {
        let mut state = self.state();
        let key = source.name.as_str().to_lowercase();
        if state.sources.contains_key(&key) {
            return Err(RegistryError::SourceExists { source_name: source.name.to_string() }.into());
        }
        state.sources.insert(key, source.clone());
        Ok(())
    }

    async fn update(&self, source: &RegisteredSource) -> Result<()> {
        let mut state = self.state();
        let Some(row) = state.sources.get_mut(&source.name.as_str().to_lowercase()) else {
            let source_name = printable(source.name.as_str(), 64);
            return Err(RegistryError::SourceNotFound { source_name, suggestion: None }.into());
        };
        row.config.clone_from(&source.config);
        row.schedule.clone_from(&source.schedule);
        Ok(())
    }

    async fn get(&self, name: &str) -> Result<Option<RegisteredSource>> {
        Ok(self.state().sources.get(&name.to_lowercase()).cloned())
    }

    async fn list(&self) -> Result<Vec<RegisteredSource>> {
        let mut sources: Vec<RegisteredSource> = self.state().sources.values().cloned().collect();
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sources)
    }

    async fn delete(&self, name: &str) -> Result<bool> {
        Ok(self.state().sources.remove(&name.to_lowercase()).is_some())
    }
}

#[async_trait]
impl OwnershipRepository for MemoryStore {
    async fn all(&self) -> Result<Vec<(String, String)>> {
        Ok(self.state().owners.iter().map(|(view, source)| (view.clone(), source.clone())).collect())
    }

    async fn apply(
        &self,
        claims: &[(String, String)],
        releases: &[(String, String)],
        _now: DateTime<Utc>,
    ) -> Result<()> {
        let mut state = self.state();
        for (view, source) in releases {
            if state.owners.get(view) == Some(source) {
                state.owners.remove(view);
            }
        }
        for (view, source) in claims {
            state.owners.entry(view.clone()).or_insert_with(|| source.clone());
        }
        Ok(())
    }
}
