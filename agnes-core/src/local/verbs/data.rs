//! Verbs about data: where it comes from, what is known of it, and what happened to it.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::audit::{AuditEvent, AuditFilter, PastSync};
use crate::catalog::{CatalogTable, DescribedColumns, Manifest, Sample, TableSchema};
use crate::connector::{CheckItem, ColumnsTold, DiscoveredTable, Progress};
use crate::context::CallContext;
use crate::engine::Engine;
use crate::error::Result;
use crate::identity::Me;
use crate::local::Verb;
use crate::maintenance::{BackupIndex, DoctorReport, Pulse};
use crate::orchestrator::{GcReport, RebuildOutcome, SourceOutcome};
use crate::query::{Receipt, Replay};
use crate::registry::{
    ColumnMetadata, NewSource, Offer, OfferTaken, RegisteredTable, Registration, SourceAdded, SourceRow, TableFields,
};
use crate::scan::{ScanEstimate, ScanRequest};
use crate::sync::{SyncHistory, SyncRequest, SyncRun, SyncState};

verbs! {
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

    /// Registers the table that fields describe.
    RegisterFields("registry.register_fields") {
        /// By name.
        fields: TableFields,
    } -> Registration = |engine, ctx, _progress| engine.registry().register_fields(ctx, &fields);

    /// Checks what registering would do.
    PrecheckTable("registry.precheck") {
        /// By name.
        fields: TableFields,
    } -> Registration = |engine, ctx, _progress| engine.registry().precheck(ctx, &fields);

    /// Changes fields of a registered table.
    UpdateFields("registry.update_fields") {
        /// Id or name.
        table: String,
        /// By name; null takes a value away.
        fields: TableFields,
    } -> RegisteredTable = |engine, ctx, _progress| engine.registry().update_fields(ctx, &table, &fields);

    /// Lists the tables that sources offer.
    Offers("sources.offers") {
        /// Its name; all without one.
        source: Option<String>,
    } -> Offer = |engine, ctx, _progress| engine.sources().offers(ctx, source.as_deref());

    /// Registers the tables that sources offer.
    TakeOffers("sources.take_offers") {
        /// Its name; all without one.
        source: Option<String>,
        /// Its kind; any without one.
        source_type: Option<String>,
        /// Only say what would be done.
        dry_run: bool,
    } -> OfferTaken = |engine, ctx, _progress| engine
        .sources()
        .take_offers(ctx, source.as_deref(), source_type.as_deref(), dry_run);

    /// What people wrote about the columns of a table.
    GetColumns("catalog.described_columns") {
        /// Id or name.
        table: String,
    } -> DescribedColumns = |engine, ctx, _progress| engine.catalog().described_columns(ctx, &table);

    /// Writes what is known of columns of a table.
    DescribeColumns("catalog.describe_columns") {
        /// Id or name.
        table: String,
        /// By name.
        columns: Vec<ColumnMetadata>,
    } -> usize = |engine, ctx, _progress| engine.catalog().describe_columns(ctx, &table, &columns);

    /// Tells the source of a table what people wrote about its columns.
    PushColumns("catalog.push_columns") {
        /// Id or name.
        table: String,
    } -> ColumnsTold = |engine, ctx, _progress| engine.catalog().push_columns(ctx, &table);

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

    /// How much a scan would read.
    EstimateScan("scan.estimate") {
        /// What to scan.
        request: ScanRequest,
    } -> ScanEstimate = |engine, ctx, _progress| engine.estimate_scan(ctx, &request);

    /// Who the caller is.
    WhoAmI("sign_in.me") {} -> Me = |engine, ctx, _progress| engine.sign_in().me(ctx);

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

    /// How the installation is doing, in a few words.
    GetPulse("maintenance.pulse") {} -> Pulse = |engine, ctx, _progress| async {
        engine.maintenance().pulse(ctx).await.map(|pulse| (*pulse).clone())
    };

    /// Past syncs of every table, newest first.
    PastSyncs("audit.syncs") {
        /// How far back, minutes.
        since_minutes: i64,
        /// At most this many.
        limit: usize,
    } -> Vec<PastSync> = |engine, ctx, _progress| engine.audit().syncs(ctx, since_minutes, limit);

    /// Reads the audit log.
    ListAudit("audit.list") {
        /// Which rows.
        filter: AuditFilter,
    } -> Vec<AuditEvent> = |engine, ctx, _progress| engine.audit().list(ctx, &filter);
}
