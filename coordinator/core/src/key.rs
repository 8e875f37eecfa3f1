//! Keys as bytes that sort as the keys do: big endian, sign bit flipped where there is a sign.

use crate::{
    record::{NodeKey, RequestKey},
    table::RowKey,
};
use novacron_common::{
    ids::{
        AttemptKey, FireCause, FireKey, HostId, JobId, MigrationId, NetworkId, NodeRef, RunId, TemplateId,
        TokenId, VmId, WorkflowId,
    },
    spec::Sha256Digest,
    units::UnixMillis,
};

macro_rules! id_keys {
    ($($name:ident),*) => {$(
        impl RowKey for $name {
            fn to_bytes(self) -> Vec<u8> {
                self.uuid().as_u128().to_be_bytes().to_vec()
            }
            fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Some(Self::from_u128(u128::from_be_bytes(bytes.try_into().ok()?)))
            }
        }
    )*};
}

id_keys!(VmId, HostId, JobId, MigrationId, TemplateId, TokenId, WorkflowId, RunId, NetworkId);

impl RowKey for RequestKey {
    fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

impl RowKey for Sha256Digest {
    fn to_bytes(self) -> Vec<u8> {
        self.0.to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }
}

/// The key of a table with one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OnlyRow;

impl RowKey for OnlyRow {
    fn to_bytes(self) -> Vec<u8> {
        vec![0]
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        (bytes == [0]).then_some(Self)
    }
}

impl RowKey for u64 {
    fn to_bytes(self) -> Vec<u8> {
        self.to_be_bytes().to_vec()
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self::from_be_bytes(bytes.try_into().ok()?))
    }
}

const SIGN: u64 = 1 << 63;

impl RowKey for FireKey {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.job.to_bytes();
        bytes.extend((self.scheduled_at.0.cast_unsigned() ^ SIGN).to_be_bytes());
        bytes.push(match self.cause {
            FireCause::Schedule => 0,
            FireCause::Manual => 1,
            FireCause::Node => 2,
        });
        bytes
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (job, rest) = bytes.split_at_checked(16)?;
        let (at, cause) = rest.split_at_checked(8)?;
        let cause = match cause {
            [0] => FireCause::Schedule,
            [1] => FireCause::Manual,
            [2] => FireCause::Node,
            _ => return None,
        };
        let at = u64::from_be_bytes(at.try_into().ok()?) ^ SIGN;
        Some(Self { job: JobId::from_bytes(job)?, scheduled_at: UnixMillis(at.cast_signed()), cause })
    }
}

impl RowKey for NodeKey {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.workflow.to_bytes();
        bytes.extend(self.version.to_be_bytes());
        bytes.extend(self.node.to_be_bytes());
        bytes
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (workflow, rest) = bytes.split_at_checked(16)?;
        let (version, node) = two(rest)?;
        Some(Self { workflow: WorkflowId::from_bytes(workflow)?, version, node })
    }
}

impl RowKey for NodeRef {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.run.to_bytes();
        bytes.extend(self.node.to_be_bytes());
        bytes.extend(self.item.to_be_bytes());
        bytes
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (run, rest) = bytes.split_at_checked(16)?;
        let (node, item) = two(rest)?;
        Some(Self { run: RunId::from_bytes(run)?, node, item })
    }
}

fn two(bytes: &[u8]) -> Option<(u32, u32)> {
    let (first, second) = bytes.split_at_checked(4)?;
    Some((u32::from_be_bytes(first.try_into().ok()?), u32::from_be_bytes(second.try_into().ok()?)))
}

impl RowKey for AttemptKey {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = self.fire.to_bytes();
        bytes.extend(self.number.to_be_bytes());
        bytes
    }
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (fire, number) = bytes.split_at_checked(25)?;
        Some(Self { fire: FireKey::from_bytes(fire)?, number: u32::from_be_bytes(number.try_into().ok()?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_sort_as_keys_do_and_read_back() {
        let fire =
            |job, at, cause| FireKey { job: JobId::from_u128(job), scheduled_at: UnixMillis(at), cause };
        let keys = [
            fire(1, i64::MIN, FireCause::Manual),
            fire(1, -5, FireCause::Schedule),
            fire(1, 5, FireCause::Schedule),
            fire(1, 5, FireCause::Manual),
            fire(1, 5, FireCause::Node),
            fire(2, 0, FireCause::Schedule),
        ];
        assert!(keys.is_sorted());
        assert!(keys.map(RowKey::to_bytes).is_sorted());
        for key in keys {
            assert_eq!(FireKey::from_bytes(&key.to_bytes()), Some(key));
            let attempt = AttemptKey { fire: key, number: 258 };
            assert_eq!(AttemptKey::from_bytes(&attempt.to_bytes()), Some(attempt));
        }
    }

    #[test]
    fn keys_of_nodes_sort_and_read_back() {
        let node = |run, node, item| NodeRef { run: RunId::from_u128(run), node, item };
        let keys = [node(1, 0, 0), node(1, 0, 300), node(1, 256, 1), node(2, 0, 0)];
        assert!(keys.is_sorted() && keys.map(RowKey::to_bytes).is_sorted());
        let defined = NodeKey { workflow: WorkflowId::from_u128(3), version: 4, node: 70_000 };
        assert_eq!(NodeKey::from_bytes(&defined.to_bytes()), Some(defined));
        assert!(keys.iter().all(|key| NodeRef::from_bytes(&key.to_bytes()) == Some(*key)));
        assert_eq!(NodeRef::from_bytes(&[0; 25]), None);
    }

    #[test]
    fn bytes_of_another_shape_are_no_key() {
        assert_eq!(VmId::from_bytes(&[0; 15]), None);
        assert_eq!(FireKey::from_bytes(&[9; 25]), None);
        assert_eq!(AttemptKey::from_bytes(&[0; 25]), None);
        assert_eq!(OnlyRow::from_bytes(&[]), None);
    }
}
