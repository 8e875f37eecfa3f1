//! The ledger's state: its tables, what is derived from them, and the way in and out.

use crate::{
    applied::Applied,
    apply,
    command::Command,
    index::Indices,
    key::OnlyRow,
    record::{
        AlarmRecord, ApiTokenRecord, AttemptRecord, ClockRecord, ClusterRecord, CoordinatorRecord,
        FireRecord, HistoryRecord, HostRecord, JobPulse, JobRecord, JoinTokenRecord, MigrationRecord,
        NetworkRecord, NodeKey, NodeRecord, NodeRunRecord, OverdueRecord, RequestKey, RequestRecord,
        RunInputRecord, RunRecord, TaskRecord, TemplateRecord, TicketRecord, VmRecord, WorkflowRecord,
    },
    table::{Change, DecodeError, Row, Table, TableId},
};
use novacron_common::{
    ids::{
        AttemptKey, FireKey, HostId, JobId, MigrationId, NetworkId, NodeRef, RunId, TemplateId, TokenId,
        VmId, WorkflowId,
    },
    units::UnixMillis,
};

/// The state machine. A function of the commands applied, and of nothing else.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct State {
    clock: Table<ClockRecord>,
    cluster: Table<ClusterRecord>,
    coordinators: Table<CoordinatorRecord>,
    join_tokens: Table<JoinTokenRecord>,
    api_tokens: Table<ApiTokenRecord>,
    hosts: Table<HostRecord>,
    templates: Table<TemplateRecord>,
    vms: Table<VmRecord>,
    jobs: Table<JobRecord>,
    pulses: Table<JobPulse>,
    history: Table<HistoryRecord>,
    overdue: Table<OverdueRecord>,
    fires: Table<FireRecord>,
    attempts: Table<AttemptRecord>,
    migrations: Table<MigrationRecord>,
    requests: Table<RequestRecord>,
    tickets: Table<TicketRecord>,
    alarms: Table<AlarmRecord>,
    networks: Table<NetworkRecord>,
    workflows: Table<WorkflowRecord>,
    workflow_nodes: Table<NodeRecord>,
    runs: Table<RunRecord>,
    run_inputs: Table<RunInputRecord>,
    node_runs: Table<NodeRunRecord>,
    tasks: Table<TaskRecord>,
    index: Indices,
}

/// Which of [`State`]'s tables holds a kind of row.
pub trait Stored: Row {
    /// For reading.
    fn table(state: &State) -> &Table<Self>;
    /// For writing, beside what is derived from all tables.
    #[doc(hidden)]
    fn parts(state: &mut State) -> (&mut Table<Self>, &mut Indices);
}

macro_rules! stored {
    ($($record:ident in $field:ident),* $(,)?) => {
        $(impl Stored for $record {
            fn table(state: &State) -> &Table<Self> {
                &state.$field
            }
            fn parts(state: &mut State) -> (&mut Table<Self>, &mut Indices) {
                (&mut state.$field, &mut state.index)
            }
        })*

        impl State {
            /// Every row that changed since the last call, encoded: to be written to the store in one go, and to
            /// be told to whoever listens.
            pub fn take_changes(&mut self) -> Vec<Change> {
                let mut changes = Vec::new();
                $(self.$field.take_changes(&mut changes);)*
                changes
            }

            /// Every row, encoded: a snapshot.
            pub fn rows(&self) -> impl Iterator<Item = (TableId, Vec<u8>, Vec<u8>)> {
                std::iter::empty()$(.chain(self.$field.encoded_rows()))*
            }

            fn load_row(&mut self, table: TableId, key: &[u8], value: &[u8]) -> Result<(), DecodeError> {
                match table {
                    $(<$record as Row>::TABLE => self.$field.load(key, value)?.enter(&mut self.index),)*
                }
                Ok(())
            }
        }
    };
}

stored! {
    ClockRecord in clock,
    ClusterRecord in cluster,
    CoordinatorRecord in coordinators,
    JoinTokenRecord in join_tokens,
    ApiTokenRecord in api_tokens,
    HostRecord in hosts,
    TemplateRecord in templates,
    VmRecord in vms,
    JobRecord in jobs,
    JobPulse in pulses,
    HistoryRecord in history,
    OverdueRecord in overdue,
    FireRecord in fires,
    AttemptRecord in attempts,
    MigrationRecord in migrations,
    RequestRecord in requests,
    TicketRecord in tickets,
    AlarmRecord in alarms,
    NetworkRecord in networks,
    WorkflowRecord in workflows,
    NodeRecord in workflow_nodes,
    RunRecord in runs,
    RunInputRecord in run_inputs,
    NodeRunRecord in node_runs,
    TaskRecord in tasks,
}

impl State {
    /// Applies one committed command. Never fails half-way and never panics: what cannot be done is
    /// [`Applied::Refused`] and changes nothing but the ledger's clock. `_index` is the command's place in the log.
    pub fn apply(&mut self, _index: u64, command: Command) -> Applied {
        let stamp = self.now().max(command.at);
        if stamp != self.now() {
            self.write(ClockRecord { stamp });
        }
        apply::apply(self, command.body)
    }

    /// The state with these rows (of a snapshot or a store).
    ///
    /// # Errors
    /// [`DecodeError`] names the first row that cannot be read.
    pub fn load(rows: impl Iterator<Item = (TableId, Vec<u8>, Vec<u8>)>) -> Result<Self, DecodeError> {
        Self::try_load(rows.map(Ok))
    }

    /// The same of rows that may fail to come, one at a time: never all of them in memory twice.
    ///
    /// # Errors
    /// The first that fails to come, or cannot be read.
    pub fn try_load<E: From<DecodeError>>(
        rows: impl Iterator<Item = Result<(TableId, Vec<u8>, Vec<u8>), E>>,
    ) -> Result<Self, E> {
        let mut state = Self::default();
        for row in rows {
            let (table, key, value) = row?;
            state.load_row(table, &key, &value)?;
        }
        Ok(state)
    }

    /// The latest stamp of any command: the ledger's time.
    pub fn now(&self) -> UnixMillis {
        self.clock.get(&OnlyRow).map_or(UnixMillis(i64::MIN), |c| c.stamp)
    }

    /// What is derived from the rows.
    pub const fn index(&self) -> &Indices {
        &self.index
    }

    /// The cluster, once it was made.
    pub fn cluster(&self) -> Option<&ClusterRecord> {
        self.cluster.get(&OnlyRow)
    }

    /// The table of a kind of row.
    pub fn table<R: Stored>(&self) -> &Table<R> {
        R::table(self)
    }

    /// The coordinators.
    pub const fn coordinators(&self) -> &Table<CoordinatorRecord> {
        &self.coordinators
    }

    /// The API tokens.
    pub const fn api_tokens(&self) -> &Table<ApiTokenRecord> {
        &self.api_tokens
    }

    /// The hosts.
    pub const fn hosts(&self) -> &Table<HostRecord> {
        &self.hosts
    }

    /// The templates.
    pub const fn templates(&self) -> &Table<TemplateRecord> {
        &self.templates
    }

    /// The machines.
    pub const fn vms(&self) -> &Table<VmRecord> {
        &self.vms
    }

    /// The jobs.
    pub const fn jobs(&self) -> &Table<JobRecord> {
        &self.jobs
    }

    /// The fires.
    pub const fn fires(&self) -> &Table<FireRecord> {
        &self.fires
    }

    /// The attempts.
    pub const fn attempts(&self) -> &Table<AttemptRecord> {
        &self.attempts
    }

    /// The migrations.
    pub const fn migrations(&self) -> &Table<MigrationRecord> {
        &self.migrations
    }

    /// The workflows, also those that are being removed.
    pub const fn workflows(&self) -> &Table<WorkflowRecord> {
        &self.workflows
    }

    /// The nodes of workflows' definitions.
    pub const fn workflow_nodes(&self) -> &Table<NodeRecord> {
        &self.workflow_nodes
    }

    /// The runs of workflows.
    pub const fn runs(&self) -> &Table<RunRecord> {
        &self.runs
    }

    /// The nodes of runs.
    pub const fn node_runs(&self) -> &Table<NodeRunRecord> {
        &self.node_runs
    }

    /// A workflow.
    pub fn workflow(&self, id: WorkflowId) -> Option<&WorkflowRecord> {
        self.workflows.get(&id)
    }

    /// A node of a workflow's definition.
    pub fn workflow_node(&self, key: NodeKey) -> Option<&NodeRecord> {
        self.workflow_nodes.get(&key)
    }

    /// A run.
    pub fn run(&self, id: RunId) -> Option<&RunRecord> {
        self.runs.get(&id)
    }

    /// What a run was started with.
    pub fn run_input(&self, id: RunId) -> Option<&RunInputRecord> {
        self.run_inputs.get(&id)
    }

    /// A node of a run.
    pub fn node_run(&self, key: NodeRef) -> Option<&NodeRunRecord> {
        self.node_runs.get(&key)
    }

    /// What a node that is no job does.
    pub fn task(&self, id: JobId) -> Option<&TaskRecord> {
        self.tasks.get(&id)
    }

    /// A machine.
    pub fn vm(&self, id: VmId) -> Option<&VmRecord> {
        self.vms.get(&id)
    }

    /// A host.
    pub fn host(&self, id: HostId) -> Option<&HostRecord> {
        self.hosts.get(&id)
    }

    /// A template.
    pub fn template(&self, id: TemplateId) -> Option<&TemplateRecord> {
        self.templates.get(&id)
    }

    /// A job.
    pub fn job(&self, id: JobId) -> Option<&JobRecord> {
        self.jobs.get(&id)
    }

    /// What changes with each tick of a job.
    pub fn pulse(&self, id: JobId) -> Option<&JobPulse> {
        self.pulses.get(&id)
    }

    /// The summaries of a job's ticks.
    pub fn history(&self, job: JobId) -> Option<&HistoryRecord> {
        self.history.get(&job)
    }

    /// The alarm of a job whose fires have not succeeded when they were expected to.
    pub fn overdue(&self, job: JobId) -> Option<&OverdueRecord> {
        self.overdue.get(&job)
    }

    /// A fire.
    pub fn fire(&self, key: FireKey) -> Option<&FireRecord> {
        self.fires.get(&key)
    }

    /// An attempt.
    pub fn attempt(&self, key: AttemptKey) -> Option<&AttemptRecord> {
        self.attempts.get(&key)
    }

    /// A migration.
    pub fn migration(&self, id: MigrationId) -> Option<&MigrationRecord> {
        self.migrations.get(&id)
    }

    /// Requests with an idempotency key.
    pub const fn requests(&self) -> &Table<RequestRecord> {
        &self.requests
    }

    /// Coordinators whose clock is off.
    pub const fn alarms(&self) -> &Table<AlarmRecord> {
        &self.alarms
    }

    /// A request with an idempotency key.
    pub fn request(&self, key: &RequestKey) -> Option<&RequestRecord> {
        self.requests.get(key)
    }

    /// A tenant network.
    pub fn network(&self, id: NetworkId) -> Option<&NetworkRecord> {
        self.networks.get(&id)
    }

    /// A join token.
    pub fn join_token(&self, id: TokenId) -> Option<&JoinTokenRecord> {
        self.join_tokens.get(&id)
    }

    /// An API token.
    pub fn api_token(&self, id: TokenId) -> Option<&ApiTokenRecord> {
        self.api_tokens.get(&id)
    }

    /// Writes a row, and keeps what is derived from it.
    pub(crate) fn write<R: Stored>(&mut self, row: R) {
        let (table, index) = R::parts(self);
        table.put(row, index);
    }

    /// Removes a row, and what is derived from it.
    pub(crate) fn erase<R: Stored>(&mut self, key: &R::Key) {
        let (table, index) = R::parts(self);
        table.remove(key, index);
    }
}
