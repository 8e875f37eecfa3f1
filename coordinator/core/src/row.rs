//! What each kind of row is found by, and what is derived from it.

mod workflow;

use crate::{
    index::{Indices, Named},
    key::OnlyRow,
    record::{
        AlarmRecord, ApiTokenRecord, AttemptRecord, Claim, ClockRecord, ClusterRecord, CoordinatorRecord,
        FireRecord, HistoryRecord, HostRecord, JobPulse, JobRecord, JoinTokenRecord, MigrationRecord,
        NetworkRecord, OverdueRecord, RequestKey, RequestRecord, TemplateRecord, TicketRecord, VmRecord,
    },
    table::{Row, TableId},
};
use novacron_common::{
    ids::{AttemptKey, FireKey, HostId, JobId, MigrationId, NetworkId, TemplateId, TokenId, VmId},
    spec::Sha256Digest,
};

impl Row for ClockRecord {
    type Key = OnlyRow;
    const TABLE: TableId = TableId::Clock;
    fn key(&self) -> OnlyRow {
        OnlyRow
    }
}

impl Row for ClusterRecord {
    type Key = OnlyRow;
    const TABLE: TableId = TableId::Cluster;
    fn key(&self) -> OnlyRow {
        OnlyRow
    }
}

impl Row for CoordinatorRecord {
    type Key = u64;
    const TABLE: TableId = TableId::Coordinators;
    fn key(&self) -> u64 {
        self.node
    }
}

impl Row for JoinTokenRecord {
    type Key = TokenId;
    const TABLE: TableId = TableId::JoinTokens;
    fn key(&self) -> TokenId {
        self.id
    }
}

impl Row for ApiTokenRecord {
    type Key = TokenId;
    const TABLE: TableId = TableId::ApiTokens;
    fn key(&self) -> TokenId {
        self.id
    }
}

impl Row for HostRecord {
    type Key = HostId;
    const TABLE: TableId = TableId::Hosts;
    fn key(&self) -> HostId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        index.name(Named::Host(self.id), &self.name);
    }
    fn leave(&self, index: &mut Indices) {
        index.unname(Named::Host(self.id), &self.name);
    }
}

impl Row for TemplateRecord {
    type Key = TemplateId;
    const TABLE: TableId = TableId::Templates;
    fn key(&self) -> TemplateId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        index.name(Named::Template(self.id), &self.spec.name);
    }
    fn leave(&self, index: &mut Indices) {
        index.unname(Named::Template(self.id), &self.spec.name);
    }
}

impl Row for NetworkRecord {
    type Key = NetworkId;
    const TABLE: TableId = TableId::Networks;
    fn key(&self) -> NetworkId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        index.networks.add(self);
    }
    fn leave(&self, index: &mut Indices) {
        index.networks.drop(self);
    }
}

impl VmRecord {
    /// What it takes of its host.
    pub const fn claim(&self) -> Claim {
        Claim { cpus: self.spec.cpus, memory: self.spec.memory, storage: self.spec.storage }
    }
}

impl Row for VmRecord {
    type Key = VmId;
    const TABLE: TableId = TableId::Vms;
    fn key(&self) -> VmId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        index.name(Named::Vm(self.id), &self.spec.name);
        index.add_vm(self);
    }
    fn leave(&self, index: &mut Indices) {
        index.unname(Named::Vm(self.id), &self.spec.name);
        index.drop_vm(self);
    }
}

impl Row for JobRecord {
    type Key = JobId;
    const TABLE: TableId = TableId::Jobs;
    fn key(&self) -> JobId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        index.name(Named::Job(self.id), &self.spec.name);
    }
    fn leave(&self, index: &mut Indices) {
        index.unname(Named::Job(self.id), &self.spec.name);
    }
}

impl Row for JobPulse {
    type Key = JobId;
    const TABLE: TableId = TableId::Pulses;
    fn key(&self) -> JobId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        index.due.extend(self.next_at.map(|at| (at, self.id)));
    }
    fn leave(&self, index: &mut Indices) {
        if let Some(at) = self.next_at {
            index.due.remove(&(at, self.id));
        }
    }
    fn replace(&self, old: &Self, index: &mut Indices) {
        // Most writes of a pulse are counts.
        if self.next_at != old.next_at {
            old.leave(index);
            self.enter(index);
        }
    }
}

impl Row for HistoryRecord {
    type Key = JobId;
    const TABLE: TableId = TableId::History;
    fn key(&self) -> JobId {
        self.job
    }
}

impl Row for OverdueRecord {
    type Key = JobId;
    const TABLE: TableId = TableId::Overdue;
    fn key(&self) -> JobId {
        self.job
    }
}

impl Row for FireRecord {
    type Key = FireKey;
    const TABLE: TableId = TableId::Fires;
    fn key(&self) -> FireKey {
        self.key
    }
    fn enter(&self, index: &mut Indices) {
        index.fires.enter(self);
    }
    fn leave(&self, index: &mut Indices) {
        index.fires.leave(self);
    }
}

impl Row for AttemptRecord {
    type Key = AttemptKey;
    const TABLE: TableId = TableId::Attempts;
    fn key(&self) -> AttemptKey {
        self.key
    }
    fn enter(&self, index: &mut Indices) {
        index.fires.enter_attempt(self);
    }
    fn leave(&self, index: &mut Indices) {
        index.fires.leave_attempt(self);
    }
}

impl Row for MigrationRecord {
    type Key = MigrationId;
    const TABLE: TableId = TableId::Migrations;
    fn key(&self) -> MigrationId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        if !self.is_final() {
            index.migrating.insert(self.id);
        }
        if let Some(host) = self.claims_on() {
            index.reserve(host, &self.claim);
        }
    }
    fn leave(&self, index: &mut Indices) {
        index.migrating.remove(&self.id);
        if let Some(host) = self.claims_on() {
            index.release(host, &self.claim);
        }
    }
}

impl Row for RequestRecord {
    type Key = RequestKey;
    const TABLE: TableId = TableId::Requests;
    fn key(&self) -> RequestKey {
        self.key
    }
    fn enter(&self, index: &mut Indices) {
        index.add_request(self);
    }
    fn leave(&self, index: &mut Indices) {
        index.drop_request(self);
    }
}

impl Row for TicketRecord {
    type Key = Sha256Digest;
    const TABLE: TableId = TableId::Tickets;
    fn key(&self) -> Sha256Digest {
        self.digest
    }
}

impl Row for AlarmRecord {
    type Key = u64;
    const TABLE: TableId = TableId::Alarms;
    fn key(&self) -> u64 {
        self.node
    }
}
