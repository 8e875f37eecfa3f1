//! What a restore would undo: the present state against that of the backup, by kind and name.

use novacron_core::{State, TableId, record::NetworkRecord, table::RowKey};
use std::{collections::BTreeMap, fmt};

/// Rows that come and go by themselves; nobody misses them.
const PASSING: &[TableId] = &[TableId::Clock, TableId::Requests, TableId::Tickets, TableId::Alarms];
/// Names that are printed of each kind.
const SHOWN_MAX: usize = 20;

/// Of one kind of thing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableDifference {
    /// Which kind.
    pub table: TableId,
    /// Made since: they would be gone.
    pub lost: Vec<String>,
    /// Changed since: they would be as they were.
    pub reverted: Vec<String>,
    /// Removed since: they would be there again.
    pub returning: Vec<String>,
}

/// Of everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Difference(pub Vec<TableDifference>);

type Key = (TableId, Vec<u8>);

/// A row with the name that people know it by.
struct Row {
    name: String,
    value: Vec<u8>,
}

struct Rows(BTreeMap<Key, Row>);

impl Rows {
    /// The names of a table's rows for which `keep` holds.
    fn of(&self, table: TableId, keep: impl Fn(&Key, &Row) -> bool) -> Vec<String> {
        let kept = self.0.iter().filter(|(key, row)| key.0 == table && keep(key, row));
        kept.map(|(_, row)| row.name.clone()).collect()
    }
}

impl Difference {
    /// What would change if `present` were replaced by `backup`.
    pub fn between(present: &State, backup: &State) -> Self {
        let (present, backup) = (named(present), named(backup));
        let mut tables = Vec::new();
        for table in TableId::ALL.iter().filter(|table| !PASSING.contains(table)) {
            let lost = present.of(*table, |key, _| !backup.0.contains_key(key));
            let changed = |key: &Key, row: &Row| backup.0.get(key).is_some_and(|old| old.value != row.value);
            let reverted = present.of(*table, changed);
            let returning = backup.of(*table, |key, _| !present.0.contains_key(key));
            if !(lost.is_empty() && reverted.is_empty() && returning.is_empty()) {
                tables.push(TableDifference { table: *table, lost, reverted, returning });
            }
        }
        Self(tables)
    }

    /// Whether anything that is there now would not be, or not be the same. A removal that is undone loses nothing
    /// but the removal, and counts too.
    pub fn loses(&self) -> bool {
        !self.0.is_empty()
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for of in &self.0 {
            let kinds = [
                (&of.lost, "would be lost"),
                (&of.reverted, "would be as before"),
                (&of.returning, "would come back"),
            ];
            for (names, what) in kinds.iter().filter(|(names, _)| !names.is_empty()) {
                let shown = names.iter().take(SHOWN_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
                let more = if names.len() > SHOWN_MAX { ", …" } else { "" };
                writeln!(f, "{}: {} {what}: {shown}{more}", of.table.name(), names.len())?;
            }
        }
        Ok(())
    }
}

fn named(state: &State) -> Rows {
    let names = names(state);
    let rows = state.rows().map(|(table, key, value)| {
        let name = names.get(&(table, key.clone())).cloned().unwrap_or_else(|| hex::encode(&key));
        ((table, key), Row { name, value })
    });
    Rows(rows.collect())
}

fn names(state: &State) -> BTreeMap<(TableId, Vec<u8>), String> {
    let vms = state.vms().iter().map(|vm| (TableId::Vms, vm.id.to_bytes(), vm.spec.name.to_string()));
    let jobs = state.jobs().iter().map(|job| (TableId::Jobs, job.id.to_bytes(), job.spec.name.to_string()));
    let hosts = state.hosts().iter().map(|host| (TableId::Hosts, host.id.to_bytes(), host.name.to_string()));
    let templates =
        state.templates().iter().map(|t| (TableId::Templates, t.id.to_bytes(), t.spec.name.to_string()));
    let networks = state.table::<NetworkRecord>().iter();
    let networks = networks.map(|n| (TableId::Networks, n.id.to_bytes(), n.spec.name.to_string()));
    let tokens = state.api_tokens().iter().map(|t| (TableId::ApiTokens, t.id.to_bytes(), t.name.to_string()));
    let coordinators =
        state.coordinators().iter().map(|c| (TableId::Coordinators, c.node.to_bytes(), c.name.to_string()));
    let fires = state.fires().iter().map(|f| (TableId::Fires, f.key.to_bytes(), f.key.to_string()));
    let all = vms
        .chain(networks)
        .chain(jobs)
        .chain(hosts)
        .chain(templates)
        .chain(tokens)
        .chain(coordinators)
        .chain(fires);
    all.map(|(table, key, name)| ((table, key), name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{api::TokenRole, ids::TokenId, spec::Sha256Digest, units::UnixMillis};
    use novacron_core::{Command, CommandBody, command::TokenPut};

    fn put(state: &mut State, id: u128, name: &str) {
        let token = TokenPut {
            id: TokenId::from_u128(id),
            name: name.parse().unwrap(),
            role: TokenRole::Admin,
            secret_sha256: Sha256Digest([7; 32]),
        };
        state.apply(1, Command { at: UnixMillis(5), body: CommandBody::TokenPut(token) });
    }

    #[test]
    fn what_was_made_changed_and_removed_since_is_named() {
        let (mut present, mut backup) = (State::default(), State::default());
        for state in [&mut present, &mut backup] {
            put(state, 1, "same");
        }
        assert!(!Difference::between(&present, &backup).loses());
        put(&mut present, 2, "made");
        put(&mut present, 3, "changed");
        put(&mut backup, 3, "before");
        put(&mut backup, 4, "removed");
        let difference = Difference::between(&present, &backup);
        assert!(difference.loses());
        let is = |name: &str| vec![name.to_owned()];
        let table = TableId::ApiTokens;
        let expected =
            TableDifference { table, lost: is("made"), reverted: is("changed"), returning: is("removed") };
        assert_eq!(difference.0, [expected]);
        assert!(difference.to_string().contains("api_tokens: 1 would be lost: made"), "{difference}");
    }
}
