//! Typed ids: a `VmId` is never taken for a `HostId`, neither by the compiler nor by a person who pastes it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// A text that is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a {kind} id: write it as {prefix}-<32 hex digits>")]
pub struct BadId {
    /// What was given (cut to 80 characters).
    pub text: String,
    /// The kind of id that was wanted.
    pub kind: &'static str,
    /// The prefix that such ids carry.
    pub prefix: &'static str,
}

macro_rules! typed_ids {
    ($($(#[$doc:meta])* $name:ident = $prefix:literal),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The text before the dash.
            pub const PREFIX: &'static str = $prefix;

            /// A new, time-ordered id (RFC 9562, UUID version 7). Not for `core`, where ids arrive in commands.
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id with these 128 bits.
            pub const fn from_u128(bits: u128) -> Self {
                Self(Uuid::from_u128(bits))
            }

            /// The bare UUID, as libvirt wants it.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "-{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { text: text.chars().take(80).collect(), kind: stringify!($name), prefix: $prefix };
                let digits = text.strip_prefix(concat!($prefix, "-")).ok_or_else(bad)?;
                if digits.len() != 32 { return Err(bad()); }
                Uuid::try_parse(digits).map(Self).map_err(|_| bad())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                if to.is_human_readable() { to.collect_str(self) } else { self.0.as_u128().serialize(to) }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                if from.is_human_readable() {
                    String::deserialize(from)?.parse().map_err(de::Error::custom)
                } else {
                    u128::deserialize(from).map(Self::from_u128)
                }
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                <String as utoipa::PartialSchema>::schema()
            }
        }
        impl utoipa::ToSchema for $name {}
    )*};
}

typed_ids! {
    /// One virtual machine, KVM or namespace.
    VmId = "vm",
    /// One hypervisor host (one agent).
    HostId = "host",
    /// One image definition.
    TemplateId = "tpl",
    /// One scheduled job.
    JobId = "job",
    /// One migration, from request to report.
    MigrationId = "mig",
    /// Machines that move together, so that what they have in common crosses once.
    GangId = "gang",
    /// One workflow.
    WorkflowId = "wf",
    /// One API or join token (the id is public, the secret is not).
    TokenId = "tok",
    /// The cluster itself; part of every certificate.
    ClusterId = "cl",
    /// One run of a workflow.
    RunId = "run",
    /// One tenant network.
    NetworkId = "net",
}

/// One node of a workflow's run, for which a fire was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeRef {
    /// The run.
    pub run: RunId,
    /// The node's place in the definition that the run started with.
    pub node: u32,
    /// Which item, where the node fans out over a list; 0 where it does not.
    pub item: u32,
}

/// One committed fire of a job: the job and the instant it was scheduled for. This pair is the key of the
/// ledger's record, which is why a tick cannot be committed twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FireKey {
    /// The job that is due.
    pub job: JobId,
    /// The scheduled instant (not the moment at which it was noticed).
    pub scheduled_at: crate::units::UnixMillis,
    /// What caused it. A manual fire never collides with a scheduled one.
    pub cause: FireCause,
}

/// Why a fire exists.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum FireCause {
    /// The schedule was due.
    Schedule,
    /// Somebody asked for it (`POST /jobs/{id}/execute`).
    Manual,
    /// A node of a workflow's run that is no job: `job` is then the id of its task.
    Node,
}

impl fmt::Display for FireKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.cause {
            FireCause::Schedule => 's',
            FireCause::Manual => 'm',
            FireCause::Node => 'n',
        };
        write!(f, "fire-{}-{kind}{}", self.job.uuid().simple(), self.scheduled_at.0)
    }
}

impl FromStr for FireKey {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = || BadId { text: text.chars().take(80).collect(), kind: "fire", prefix: "fire" };
        let (job, tail) = text.strip_prefix("fire-").and_then(|t| t.split_once('-')).ok_or_else(bad)?;
        let cause = match tail.as_bytes().first() {
            Some(b's') => FireCause::Schedule,
            Some(b'm') => FireCause::Manual,
            Some(b'n') => FireCause::Node,
            _ => return Err(bad()),
        };
        Ok(Self {
            job: Uuid::try_parse(job).map(JobId::from).map_err(|_| bad())?,
            scheduled_at: crate::units::UnixMillis(tail[1..].parse().map_err(|_| bad())?),
            cause,
        })
    }
}

/// One try at a fire; the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The fire that is tried.
    pub fire: FireKey,
    /// 1 for the first try.
    pub number: u32,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.fire, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::units::UnixMillis;

    #[test]
    fn an_id_of_another_kind_is_refused_by_name() {
        let host = HostId::from_u128(7).to_string();
        let error = host.parse::<VmId>().unwrap_err();
        assert!(error.to_string().contains("vm-<32 hex digits>"), "{error}");
        assert_eq!(host.parse::<HostId>().unwrap(), HostId::from_u128(7));
    }

    #[test]
    fn a_fire_key_round_trips_through_its_text() {
        for cause in [FireCause::Schedule, FireCause::Manual, FireCause::Node] {
            let key =
                FireKey { job: JobId::from_u128(9), scheduled_at: UnixMillis(1_700_000_000_123), cause };
            assert_eq!(key.to_string().parse::<FireKey>().unwrap(), key);
        }
        assert!("fire-x".parse::<FireKey>().is_err());
        assert!("fire--".parse::<FireKey>().is_err());
    }
}
