//! The verbs: each is the engine method it names, as a value.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{LocalError, Verb};
use crate::audit::{AuditEvent, AuditFilter};
use crate::catalog::{CatalogTable, Manifest, Sample, TableSchema};
use crate::connector::{CheckItem, DiscoveredTable, Progress};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::identity::{BreakGlass, EffectiveAccess, GrantRow, GroupRow, MemberRow, User};
use crate::maintenance::{BackupIndex, DoctorReport};
use crate::orchestrator::{GcReport, RebuildOutcome, SourceOutcome};
use crate::policy::{AccessChange, AccessPreview, Policy, PolicyCheck, PolicyRow, PolicyRules, PolicyVersion};
use crate::query::{Receipt, Replay};
use crate::rbac::{Grant, Group, Member, ResourceType};
use crate::registry::{NewSource, RegisteredTable, SourceAdded, SourceRow};
use crate::sync::{SyncHistory, SyncRequest, SyncRun, SyncState};

/// Makes a struct and a [`Verb`] of each line, and one table that finds them by name.
macro_rules! verbs {
    ($(
        $(#[$doc:meta])*
        $name:ident($wire:literal) { $($(#[$field_doc:meta])* $field:ident: $type:ty),* $(,)? } -> $reply:ty
        = |$engine:ident, $ctx:ident, $progress:ident| $work:expr;
    )*) => {
        $(
            $(#[$doc])*
            #[derive(Debug, Clone, Serialize, Deserialize)]
            pub struct $name { $($(#[$field_doc])* pub $field: $type),* }

            impl Verb for $name {
                const NAME: &'static str = $wire;
                type Reply = $reply;

                async fn run(self, $engine: &Engine, $ctx: &CallContext, $progress: Progress) -> Result<$reply> {
                    let Self { $($field),* } = self;
                    let _ = &$progress;
                    $work.await
                }
            }
        )*

        /// Runs the verb of this name on the holder's side.
        pub(super) async fn dispatch(
            name: &str,
            args: Value,
            engine: &Engine,
            ctx: &CallContext,
            progress: Progress,
        ) -> Result<Value> {
            match name {
                $($wire => Box::pin(handle::<$name>(args, engine, ctx, progress)).await,)*
                _ => Err(LocalError::UnknownVerb { verb: crate::ident::printable(name, 64) }.into()),
            }
        }
    };
}

async fn handle<V: Verb>(args: Value, engine: &Engine, ctx: &CallContext, progress: Progress) -> Result<Value> {
    let verb: V = serde_json::from_value(args).map_err(|e| LocalError::BadMessage { reason: e.to_string() })?;
    let reply = verb.run(engine, ctx, progress).await?;
    serde_json::to_value(reply).map_err(|e| Error::internal("encode a reply", e))
}

verbs! {
    /// Adds an active user.
    AddUser("identity.add_user") {
        /// Address.
        email: String,
        /// For people.
        name: Option<String>,
    } -> User = |engine, ctx, _progress| engine.identity().add_user(ctx, &email, name.as_deref());

    /// Makes an address an active Admin, whoever it is; for the owner of the data folder.
    MakeAdmin("identity.break_glass") {
        /// Address.
        email: String,
    } -> BreakGlass = |engine, ctx, _progress| engine.identity().break_glass(ctx, &email);

    /// Lists the users.
    Users("identity.users") {} -> Vec<User> = |engine, ctx, _progress| engine.identity().users(ctx);

    /// Finds one user.
    GetUser("identity.user") {
        /// Id, address or unique prefix.
        user: String,
    } -> User = |engine, ctx, _progress| engine.identity().user(ctx, &user);

    /// Lets a user in or locks them out.
    SetActive("identity.set_active") {
        /// Id, address or unique prefix.
        user: String,
        /// In or out.
        active: bool,
    } -> User = |engine, ctx, _progress| engine.identity().set_active(ctx, &user, active);

    /// Deletes a user.
    RemoveUser("identity.remove_user") {
        /// Id, address or unique prefix.
        user: String,
    } -> User = |engine, ctx, _progress| engine.identity().remove_user(ctx, &user);

    /// What a user may use, and through which group.
    GetEffectiveAccess("identity.effective_access") {
        /// Id, address or unique prefix.
        user: String,
    } -> EffectiveAccess = |engine, ctx, _progress| engine.identity().effective_access(ctx, &user);

    /// Makes a group.
    CreateGroup("identity.create_group") {
        /// Its name.
        name: String,
        /// For people.
        description: Option<String>,
    } -> Group = |engine, ctx, _progress| engine.identity().create_group(ctx, &name, description.as_deref());

    /// Lists the groups.
    Groups("identity.groups") {} -> Vec<GroupRow> = |engine, ctx, _progress| engine.identity().groups(ctx);

    /// Deletes a group.
    DeleteGroup("identity.delete_group") {
        /// Id, name or unique prefix.
        group: String,
    } -> Group = |engine, ctx, _progress| engine.identity().delete_group(ctx, &group);

    /// Lists the members of a group.
    Members("identity.members") {
        /// Id, name or unique prefix.
        group: String,
    } -> Vec<MemberRow> = |engine, ctx, _progress| engine.identity().members(ctx, &group);

    /// Adds a user to a group.
    AddMember("identity.add_member") {
        /// Id, name or unique prefix.
        group: String,
        /// Id, address or unique prefix.
        user: String,
    } -> Member = |engine, ctx, _progress| engine.identity().add_member(ctx, &group, &user);

    /// Takes a user out of a group.
    RemoveMember("identity.remove_member") {
        /// Id, name or unique prefix.
        group: String,
        /// Id, address or unique prefix.
        user: String,
    } -> () = |engine, ctx, _progress| engine.identity().remove_member(ctx, &group, &user);

    /// Lists the grants, or those of one group.
    Grants("identity.grants") {
        /// Id, name or unique prefix.
        group: Option<String>,
    } -> Vec<GrantRow> = |engine, ctx, _progress| engine.identity().grants(ctx, group.as_deref());

    /// Opens a resource to a group.
    CreateGrant("identity.grant") {
        /// Id, name or unique prefix.
        group: String,
        /// Which kind of resource.
        resource_type: ResourceType,
        /// Which resource.
        resource_id: String,
    } -> GrantRow = |engine, ctx, _progress| engine.identity().grant(ctx, &group, resource_type, &resource_id);

    /// Closes it again.
    RevokeGrant("identity.revoke") {
        /// The grant's id or a unique prefix of it.
        grant: String,
    } -> Grant = |engine, ctx, _progress| engine.identity().revoke(ctx, &grant);

    /// Narrows what a group sees of a table.
    CreatePolicy("policies.create") {
        /// Id, name or unique prefix.
        group: String,
        /// Id or name.
        table: String,
        /// What it says.
        rules: PolicyRules,
    } -> PolicyRow = |engine, ctx, _progress| engine.policies().create(ctx, &group, &table, rules);

    /// Lists the policies, or those of one table or group.
    ListPolicies("policies.list") {
        /// Id or name.
        table: Option<String>,
        /// Id, name or unique prefix.
        group: Option<String>,
    } -> Vec<PolicyRow> = |engine, ctx, _progress| engine.policies().list(ctx, table.as_deref(), group.as_deref());

    /// One policy.
    GetPolicy("policies.get") {
        /// Id or unique prefix.
        policy: String,
    } -> PolicyRow = |engine, ctx, _progress| engine.policies().get(ctx, &policy);

    /// What a policy said, newest first.
    PolicyHistory("policies.history") {
        /// Id or unique prefix.
        policy: String,
    } -> Vec<PolicyVersion> = |engine, ctx, _progress| engine.policies().history(ctx, &policy);

    /// Gives a policy other rules.
    UpdatePolicy("policies.update") {
        /// Id or unique prefix.
        policy: String,
        /// What it says, whole.
        rules: PolicyRules,
        /// The version that the change was made from.
        expected: Option<u32>,
    } -> PolicyRow = |engine, ctx, _progress| engine.policies().update(ctx, &policy, rules, expected);

    /// Removes a policy.
    RemovePolicy("policies.remove") {
        /// Id or unique prefix.
        policy: String,
    } -> Policy = |engine, ctx, _progress| engine.policies().remove(ctx, &policy);

    /// Tries policies on the data as it is now.
    CheckPolicies("policies.check") {
        /// Id or unique prefix; all without one.
        policy: Option<String>,
    } -> Vec<PolicyCheck> = |engine, ctx, _progress| engine.policies().check(ctx, policy.as_deref());

    /// Who would gain or lose what by a change of access.
    PreviewAccess("policies.preview") {
        /// The change; it is not made.
        change: AccessChange,
    } -> AccessPreview = |engine, ctx, _progress| engine.policies().preview(ctx, change);

    /// Asks the query of a receipt again.
    ReplayReceipt("query.replay") {
        /// The receipt.
        receipt: Receipt,
    } -> Replay = |engine, ctx, _progress| engine.replay(ctx, &receipt);

    /// Adds a source, finds its tables and registers them.
    AddSource("sources.add") {
        /// The source.
        new: NewSource,
    } -> SourceAdded = |engine, ctx, _progress| engine.sources().add(ctx, new);

    /// Lists the sources.
    Sources("sources.list") {} -> Vec<SourceRow> = |engine, ctx, _progress| engine.sources().list(ctx);

    /// Removes a source.
    RemoveSource("sources.remove") {
        /// Its name.
        name: String,
        /// Delete what was read from it as well.
        drop_data: bool,
    } -> () = |engine, ctx, _progress| engine.sources().remove(ctx, &name, drop_data);

    /// Checks that a source answers.
    CheckSource("sources.check") {
        /// Its name.
        name: String,
    } -> Vec<CheckItem> = |engine, ctx, _progress| engine.sources().check(ctx, &name);

    /// Lists what a source offers.
    DiscoverSource("sources.discover") {
        /// Its name.
        name: String,
    } -> Vec<DiscoveredTable> = |engine, ctx, _progress| engine.sources().discover(ctx, &name);

    /// Lists the registered tables.
    Tables("registry.list") {} -> Vec<RegisteredTable> = |engine, ctx, _progress| engine.registry().list(ctx);

    /// One registered table.
    GetTable("registry.get") {
        /// Id or name.
        table: String,
    } -> RegisteredTable = |engine, ctx, _progress| engine.registry().get(ctx, &table);

    /// Registers a table.
    RegisterTable("registry.register") {
        /// The row.
        table: RegisteredTable,
    } -> RegisteredTable = |engine, ctx, _progress| engine.registry().register(ctx, table);

    /// Changes a registered table.
    UpdateTable("registry.update") {
        /// The row, whole.
        table: RegisteredTable,
    } -> RegisteredTable = |engine, ctx, _progress| engine.registry().update(ctx, table);

    /// Takes a table out of the registry.
    UnregisterTable("registry.unregister") {
        /// Id or name.
        table: String,
    } -> RegisteredTable = |engine, ctx, _progress| engine.registry().unregister(ctx, &table);

    /// Runs a sync and waits for its end; reports progress.
    RunSync("sync.run") {
        /// Which tables.
        request: SyncRequest,
    } -> SyncRun = |engine, ctx, progress| engine.sync().run(ctx, request, progress.clone());

    /// Starts a sync in the background of the holder.
    TriggerSync("sync.trigger") {
        /// Which tables.
        request: SyncRequest,
    } -> SyncRun = |engine, ctx, _progress| engine.sync().trigger(ctx, request);

    /// Lists sync runs, newest first.
    Runs("sync.runs") {
        /// At most this many.
        limit: usize,
    } -> Vec<SyncRun> = |engine, ctx, _progress| engine.sync().runs(ctx, limit);

    /// One sync run.
    GetRun("sync.get") {
        /// Its id.
        id: String,
    } -> SyncRun = |engine, ctx, _progress| engine.sync().get(ctx, &id);

    /// Stops a sync run; `false` when it had ended.
    CancelRun("sync.cancel") {
        /// Its id.
        id: String,
    } -> bool = |engine, ctx, _progress| engine.sync().cancel(ctx, &id);

    /// State of every table's sync.
    SyncStates("sync.state") {} -> Vec<SyncState> = |engine, ctx, _progress| engine.sync().state(ctx);

    /// Past syncs of one table, newest first.
    SyncHistoryOf("sync.history") {
        /// Its name.
        table: String,
        /// At most this many.
        limit: usize,
    } -> Vec<SyncHistory> = |engine, ctx, _progress| engine.sync().history(ctx, &table, limit);

    /// Publishes what is in the extracts folder.
    Rebuild("orchestrator.rebuild") {} -> RebuildOutcome = |engine, ctx, _progress| engine.orchestrator().rebuild(ctx);

    /// Publishes one source.
    RebuildSource("orchestrator.rebuild_source") {
        /// Its name.
        source: String,
    } -> SourceOutcome = |engine, ctx, _progress| engine.orchestrator().rebuild_source(ctx, &source);

    /// The tables the caller may read.
    CatalogTables("catalog.tables") {} -> Vec<CatalogTable> = |engine, ctx, _progress| engine.catalog().tables(ctx);

    /// Columns of a table.
    GetSchema("catalog.schema") {
        /// Id or name.
        table: String,
    } -> TableSchema = |engine, ctx, _progress| engine.catalog().schema(ctx, &table);

    /// Some rows of a table.
    GetSample("catalog.sample") {
        /// Id or name.
        table: String,
        /// How many.
        rows: usize,
    } -> Sample = |engine, ctx, _progress| engine.catalog().sample(ctx, &table, rows);

    /// A table's statistics.
    GetProfile("catalog.profile") {
        /// Id or name.
        table: String,
    } -> Value = |engine, ctx, _progress| engine.catalog().profile(ctx, &table);

    /// A table's statistics, made again.
    RefreshProfile("catalog.refresh_profile") {
        /// Id or name.
        table: String,
    } -> Value = |engine, ctx, _progress| engine.catalog().refresh_profile(ctx, &table);

    /// Waits for the profiles that are being made.
    FinishProfiles("catalog.finish_profiles") {} -> () = |engine, ctx, progress| engine.catalog().finish_profiles(ctx, &progress);

    /// What the caller may pull.
    CatalogManifest("catalog.manifest") {} -> Manifest = |engine, ctx, _progress| engine.catalog().manifest(ctx);

    /// Copies the folder's state and data.
    Backup("maintenance.backup") {
        /// The folder to make; absolute, since the holder may run elsewhere.
        target: PathBuf,
    } -> BackupIndex = |engine, ctx, _progress| engine.maintenance().backup(ctx, &target);

    /// Deletes what nothing refers to.
    CollectGarbage("maintenance.gc") {
        /// Only say what would go.
        dry_run: bool,
    } -> GcReport = |engine, ctx, _progress| engine.maintenance().gc(ctx, dry_run);

    /// Says what is wrong.
    Doctor("maintenance.doctor") {} -> DoctorReport = |engine, ctx, _progress| engine.maintenance().doctor(ctx);

    /// Reads the audit log.
    ListAudit("audit.list") {
        /// Which rows.
        filter: AuditFilter,
    } -> Vec<AuditEvent> = |engine, ctx, _progress| engine.audit().list(ctx, &filter);
}
