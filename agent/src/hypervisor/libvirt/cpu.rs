//! The processor that KVM guests see: the host's own, or a model that all hosts of a mixed fleet have, without which a
//! machine moves only to hosts that are at least as new as its own.

use serde::Deserialize;
use std::str::FromStr;

/// `hypervisor.cpu_model` in agent.toml.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum CpuModel {
    /// What libvirt finds nearest to the host's (`host-model`).
    #[default]
    Host,
    /// One of libvirt's models (`virsh cpu-models x86_64`).
    Named(String),
}

/// Not the name of a model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is neither \"host-model\" nor a model's name (letters, digits, '-', '_' and '.'): see `virsh cpu-models x86_64`"
)]
pub struct NoCpuModel(String);

impl FromStr for CpuModel {
    type Err = NoCpuModel;

    fn from_str(text: &str) -> Result<Self, NoCpuModel> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        match text {
            "host-model" => Ok(Self::Host),
            name if (1..=64).contains(&name.len()) && name.chars().all(is_name) => {
                Ok(Self::Named(name.to_owned()))
            }
            _ => Err(NoCpuModel(text.to_owned())),
        }
    }
}

impl TryFrom<String> for CpuModel {
    type Error = NoCpuModel;

    fn try_from(text: String) -> Result<Self, NoCpuModel> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_own_and_a_models_name_are_taken_and_the_rest_is_refused_with_the_remedy() {
        assert_eq!("host-model".parse(), Ok(CpuModel::Host));
        assert_eq!("Skylake-Client-v1".parse(), Ok(CpuModel::Named("Skylake-Client-v1".to_owned())));
        for wrong in ["", "a b", "x'/>", &"m".repeat(65)] {
            let said = wrong.parse::<CpuModel>().unwrap_err().to_string();
            assert!(said.contains("virsh cpu-models"), "{said}");
        }
    }
}
