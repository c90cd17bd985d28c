//! `[trust]`: who may bring the model's key, and the least the platform must be.

use alloc::{string::String, vec::Vec};

use attestation::{
    claims::{MAX_ADVISORIES, MAX_ADVISORY, MinimumTcb},
    provisioning::PublicKey,
};
use serde::Deserialize;

/// Security version numbers in a TCB level.
const COMPONENTS: usize = 16;

/// `[trust]`: who may bring the model's key, and what certificates demand of the platform.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trust {
    provisioner: Option<Key>,
    minimum_cpu_svn: [u8; COMPONENTS],
    minimum_tdx_svn: [u8; COMPONENTS],
    minimum_tcb_evaluation: u32,
    refused_advisories: Advisories,
}

/// An Ed25519 public key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
struct Key(PublicKey);

/// Sorted, each once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<String>")]
struct Advisories(Vec<String>);

impl Trust {
    /// The Ed25519 key that must sign for a model's key; None if anybody may bring it who has it.
    pub fn provisioner(&self) -> Option<PublicKey> {
        self.provisioner.map(|key| key.0)
    }

    /// The least a platform must be. A client may ask for more, not for less.
    pub fn minimum_tcb(&self) -> MinimumTcb {
        MinimumTcb {
            cpu: self.minimum_cpu_svn,
            tdx: self.minimum_tdx_svn,
            evaluation: self.minimum_tcb_evaluation,
            refused_advisories: self.refused_advisories.0.clone(),
        }
    }
}

impl TryFrom<String> for Key {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const EXPECTED: &str = "must be an Ed25519 public key of 64 hexadecimal digits";
        crate::hex::decode(&text).map(Self).ok_or(EXPECTED)
    }
}

impl TryFrom<Vec<String>> for Advisories {
    type Error = &'static str;

    fn try_from(mut names: Vec<String>) -> Result<Self, Self::Error> {
        let sound = |name: &String| {
            (1..=MAX_ADVISORY).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic())
        };
        if names.len() > MAX_ADVISORIES || !names.iter().all(sound) {
            return Err("must be at most 64 names such as \"INTEL-SA-00837\"");
        }
        names.sort();
        names.dedup();
        Ok(Self(names))
    }
}
