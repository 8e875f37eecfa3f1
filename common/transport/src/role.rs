//! Who a process is, and what it may ask of whom.

use novacron_common::{
    ids::{ClusterId, HostId},
    wire::StreamKind,
};
use std::fmt;

/// What a certificate says of its holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A member of the replicated ledger.
    Coordinator {
        /// Its Raft node number.
        node: u64,
    },
    /// The agent of a host.
    Agent {
        /// Its host.
        host: HostId,
    },
}

/// A role without who.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RoleKind {
    /// Any coordinator.
    Coordinator,
    /// Any agent.
    Agent,
}

impl Role {
    /// Without who.
    pub const fn kind(&self) -> RoleKind {
        match self {
            Self::Coordinator { .. } => RoleKind::Coordinator,
            Self::Agent { .. } => RoleKind::Agent,
        }
    }

    /// The URI that a certificate carries as subject alternative name (the form of a SPIFFE ID).
    pub fn to_uri(&self, cluster: ClusterId) -> String {
        match self {
            Self::Coordinator { node } => format!("novacron://{cluster}/coordinator/{node}"),
            Self::Agent { host } => format!("novacron://{cluster}/agent/{host}"),
        }
    }

    /// The role in `uri`, if it is one of this cluster's.
    pub fn from_uri(uri: &str, cluster: ClusterId) -> Option<Self> {
        let (authority, path) = uri.strip_prefix("novacron://")?.split_once('/')?;
        if authority.parse() != Ok(cluster) {
            return None;
        }
        match path.split_once('/')? {
            ("coordinator", node) => node.parse().ok().map(|node| Self::Coordinator { node }),
            ("agent", host) => host.parse().ok().map(|host| Self::Agent { host }),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator { node } => write!(f, "coordinator {node}"),
            Self::Agent { host } => write!(f, "agent of {host}"),
        }
    }
}

/// Whether `opener` (`None`: no certificate) may open a stream of `kind` to a process of kind `acceptor`.
pub fn permitted(kind: StreamKind, opener: Option<RoleKind>, acceptor: RoleKind) -> bool {
    use RoleKind::{Agent, Coordinator};
    matches!(
        (kind, opener, acceptor),
        (StreamKind::Join, _, Coordinator)
            | (StreamKind::Renew, Some(_), Coordinator)
            | (StreamKind::Session | StreamKind::Control, Some(Agent), Coordinator)
            | (StreamKind::Command | StreamKind::Console | StreamKind::Exec, Some(Coordinator), Agent)
            | (StreamKind::Raft | StreamKind::Forward, Some(Coordinator), Coordinator)
            | (StreamKind::Lane | StreamKind::Image | StreamKind::Probe, Some(Agent), Agent)
            | (StreamKind::Gossip, Some(_), _)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_certificate_only_joining_is_possible() {
        for kind in StreamKind::ALL {
            for acceptor in [RoleKind::Agent, RoleKind::Coordinator] {
                let expected = *kind == StreamKind::Join && acceptor == RoleKind::Coordinator;
                assert_eq!(permitted(*kind, None, acceptor), expected, "{kind}");
            }
        }
    }

    #[test]
    fn an_agent_may_not_speak_raft() {
        assert!(!permitted(StreamKind::Raft, Some(RoleKind::Agent), RoleKind::Coordinator));
        assert!(!permitted(StreamKind::Command, Some(RoleKind::Agent), RoleKind::Agent));
    }

    #[test]
    fn a_role_of_another_cluster_is_none() {
        let (ours, theirs) = (ClusterId::from_u128(1), ClusterId::from_u128(2));
        for role in [Role::Coordinator { node: 3 }, Role::Agent { host: HostId::from_u128(5) }] {
            assert_eq!(Role::from_uri(&role.to_uri(ours), ours), Some(role));
            assert_eq!(Role::from_uri(&role.to_uri(theirs), ours), None);
        }
        assert_eq!(Role::from_uri("novacron://x/agent/y", ours), None);
    }
}
