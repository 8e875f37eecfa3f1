//! Commands about machines.

use crate::placement::Offer;
use novacron_common::{
    api::VmDesired,
    ids::{HostId, VmId},
    record::VmObservation,
    spec::{Name, RestartPolicy, StopTerms, VmSpec},
};
use serde::{Deserialize, Serialize};

/// See [`super::CommandBody::VmCreate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmCreate {
    /// The new machine's id. The same id with the same spec again is answered as the first time.
    pub id: VmId,
    /// What is asked for.
    pub spec: VmSpec,
    /// Only this host, if named.
    pub host: Option<HostId>,
    /// Where, as the proposer found it. Without one, or if it is stale, `apply` places the machine itself.
    pub offer: Option<Offer>,
    /// Whether it is started at once.
    pub start: bool,
}

/// See [`super::CommandBody::VmPlace`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmPlace {
    /// Which.
    pub vm: VmId,
    /// Where, as the proposer found it; refused if it is stale.
    pub offer: Offer,
}

/// See [`super::CommandBody::VmDesire`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDesire {
    /// Which.
    pub vm: VmId,
    /// What is wanted of it.
    pub desired: VmDesired,
    /// How it is stopped.
    pub stop: StopTerms,
}

/// See [`super::CommandBody::VmRestart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRestart {
    /// Which.
    pub vm: VmId,
    /// How it is stopped.
    pub stop: StopTerms,
}

/// See [`super::CommandBody::VmUpdate`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmUpdate {
    /// Which.
    pub vm: VmId,
    /// A new name.
    pub name: Option<Name>,
    /// Whether it starts by itself.
    pub restart: Option<RestartPolicy>,
    /// Whether it may be moved by post-copy.
    pub post_copy: Option<bool>,
}

/// See [`super::CommandBody::VmObserve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmObserve {
    /// Who sees.
    pub host: HostId,
    /// What.
    pub observations: Vec<VmObservation>,
}
