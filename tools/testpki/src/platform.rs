//! The imagined machine: what its PCK certificate says of it and what its module and quoting enclave report.

use serde::{Deserialize, Serialize};

/// What a PCK certificate says about a platform, and the versions of the TDX module and quoting enclave on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Family-model-stepping-platform-custom SKU. The default spells "VTEST" and belongs to no processor.
    pub fmspc: [u8; 6],
    /// Provisioning certification enclave identity.
    pub pce_id: [u8; 2],
    /// Platform provisioning identifier.
    pub ppid: [u8; 16],
    /// Platform instance identifier.
    pub instance: [u8; 16],
    /// The 16 SGX TCB component security versions. 0: early microcode update, 1: late microcode update.
    pub components: [u8; 16],
    /// Security version of the provisioning certification enclave.
    pub pce_svn: u16,
    /// TEE_TCB_SVN: module security version, module major version, late microcode update, 13 more.
    pub tee_tcb_svn: [u8; 16],
    /// Security version of the quoting enclave.
    pub qe_svn: u16,
    /// The platform may grow by packages.
    pub dynamic: bool,
    /// Platform root keys are cached by the registration back end.
    pub cached_keys: bool,
    /// Simultaneous multithreading is on.
    pub smt: bool,
}

/// Like the platforms of the genuine quotes: module 1.5, dynamic, with SMT.
impl Default for Platform {
    fn default() -> Self {
        Self {
            fmspc: *b"VTEST\0",
            pce_id: [0; 2],
            ppid: *b"vitrine test pid",
            instance: *b"vitrine instance",
            components: [7, 7, 2, 2, 3, 1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0],
            pce_svn: 11,
            tee_tcb_svn: [5, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            qe_svn: 4,
            dynamic: true,
            cached_keys: false,
            smt: true,
        }
    }
}
