//! Raft's figures, in one place.

use openraft::{Config, ConfigError, SnapshotPolicy};
use std::{sync::Arc, time::Duration};

/// A leader is heard from this often (`leadership.rs`).
pub(super) const HEARTBEAT: Duration = Duration::from_millis(100);
/// Deadline of one replication request and of one question whether this node still leads, milliseconds. openraft has one
/// figure for it and for the heartbeat; but coordinators may be further apart than a heartbeat, or busy for as long, and a
/// request that is given up is sent again and makes them busier. Two that are lost must still not cost the leadership.
const RPC_DEADLINE_MS: u64 = 250;
/// A follower that hears nothing for the leader's lease (openraft takes the maximum for it) and then for a random time
/// between these two stands for election (`election.rs`): six to eight missed heartbeats. What a leader that dies costs
/// is at most the lease, the maximum, and an election: 400 + 400 + the few milliseconds of two synced votes and one
/// entry. A shorter lease mistakes a slow disk for a dead leader.
const ELECTION_MIN_MS: u64 = 200;
const ELECTION_MAX_MS: u64 = 400;

/// For how long a follower that heard from a leader votes for nobody else.
pub(super) const LEASE: Duration = Duration::from_millis(ELECTION_MAX_MS);
/// The shortest time-out after it.
pub(super) const ELECTION_MIN: Duration = Duration::from_millis(ELECTION_MIN_MS);
/// The longest.
pub(super) const ELECTION_MAX: Duration = Duration::from_millis(ELECTION_MAX_MS);
/// Deadline of one chunk of a snapshot, milliseconds; the last one includes its installation.
const SNAPSHOT_CHUNK_DEADLINE_MS: u64 = 30_000;
/// Bytes of snapshot in one request, well below a frame.
const SNAPSHOT_CHUNK_BYTES: u64 = 1 << 20;
/// When the log is cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Compaction {
    /// Entries between two snapshots. An entry is a group of commands.
    pub snapshot_every: u64,
    /// Entries kept behind a snapshot, so that a node that was away shortly need not take all of it.
    pub keep_behind: u64,
    /// Purging costs a sync; it is done for at least so many entries.
    pub purge_batch: u64,
}

impl Default for Compaction {
    fn default() -> Self {
        Self { snapshot_every: 10_000, keep_behind: 2_000, purge_batch: 500 }
    }
}

/// Most entries in one replication request; the log also limits its bytes.
const REPLICATION_ENTRIES_MAX: u64 = 300;

/// openraft's configuration.
pub(super) fn raft(compaction: Compaction) -> Result<Arc<Config>, ConfigError> {
    let Compaction { snapshot_every, keep_behind, purge_batch } = compaction;
    let config = Config {
        cluster_name: "novacron".into(),
        heartbeat_interval: RPC_DEADLINE_MS,
        enable_heartbeat: false,
        enable_elect: false,
        // Not used, but must lie between the other two.
        election_timeout_min: ELECTION_MAX_MS - 1,
        election_timeout_max: ELECTION_MAX_MS,
        install_snapshot_timeout: SNAPSHOT_CHUNK_DEADLINE_MS,
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(snapshot_every),
        replication_lag_threshold: snapshot_every + keep_behind,
        max_in_snapshot_log_to_keep: keep_behind,
        purge_batch_size: purge_batch,
        max_payload_entries: REPLICATION_ENTRIES_MAX,
        ..Config::default()
    };
    Ok(Arc::new(config.validate()?))
}
