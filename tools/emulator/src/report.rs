//! What the TDX module knows of the TD's identity, and the TDREPORT it makes of it (`tdx.md` 1.5, Intel TDX Module ABI, "TDREPORT_STRUCT").

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha384};

/// Bytes of a TDREPORT.
pub const SIZE: usize = 1024;
/// Bytes of the MAC structure that the MAC covers.
pub const MAC_COVERS: usize = 224;
const TCB_INFO: usize = 256;
/// Bytes of TEE_TCB_INFO that its hash covers.
const TCB_INFO_LENGTH: usize = 239;
const TD_INFO: usize = 512;

/// Attributes of a TD that mainline QEMU sets: SEPT_VE_DISABLE (bit 28).
pub const DEFAULT_ATTRIBUTES: u64 = 1 << 28;

/// TDINFO, and the key of this "machine" for the MAC.
#[derive(Clone)]
pub struct Identity {
    pub attributes: u64,
    pub xfam: u64,
    pub mrtd: [u8; 48],
    pub mr_config_id: [u8; 48],
    pub mr_owner: [u8; 48],
    pub mr_owner_config: [u8; 48],
    pub rtmr: [[u8; 48]; 4],
    /// The key that processor and quoting service share.
    pub mac_key: [u8; 32],
}

impl Identity {
    /// MR.RTMR.EXTEND.
    pub fn extend(&mut self, index: usize, digest: &[u8; 48]) {
        let register = &mut self.rtmr[index];
        let extended = Sha384::new()
            .chain_update(&register[..])
            .chain_update(digest)
            .finalize();
        register.copy_from_slice(&extended);
    }

    /// TEE_TCB_INFO of a TDX module 1.5 with security version numbers of the test platform.
    fn tcb_info(&self) -> [u8; TCB_INFO_LENGTH] {
        let mut info = [0; TCB_INFO_LENGTH];
        // Which fields are valid: TEE_TCB_SVN, MRSEAM, MRSIGNERSEAM, ATTRIBUTES, TEE_TCB_SVN2.
        info[..8].copy_from_slice(&0x0003_01ff_u64.to_le_bytes());
        info[8..10].copy_from_slice(&TEE_TCB_SVN[..2]);
        let module = Sha384::digest(b"vitrine emulated TDX module");
        info[24..72].copy_from_slice(&module);
        info
    }

    /// TDINFO.
    fn td_info(&self) -> [u8; 512] {
        let mut info = [0; 512];
        info[..8].copy_from_slice(&self.attributes.to_le_bytes());
        info[8..16].copy_from_slice(&self.xfam.to_le_bytes());
        let registers = [
            &self.mrtd,
            &self.mr_config_id,
            &self.mr_owner,
            &self.mr_owner_config,
        ];
        for (index, register) in registers.into_iter().chain(&self.rtmr).enumerate() {
            info[16 + 48 * index..][..48].copy_from_slice(register);
        }
        info
    }

    /// MR.REPORT.
    pub fn report(&self, data: &[u8; 64]) -> [u8; SIZE] {
        let (tcb_info, td_info) = (self.tcb_info(), self.td_info());
        let mut report = [0; SIZE];
        report[0] = 0x81;
        report[16..32].copy_from_slice(&CPU_SVN);
        report[32..80].copy_from_slice(&Sha384::digest(tcb_info));
        report[80..128].copy_from_slice(&Sha384::digest(td_info));
        report[128..192].copy_from_slice(data);
        report[TCB_INFO..TCB_INFO + TCB_INFO_LENGTH].copy_from_slice(&tcb_info);
        report[TD_INFO..].copy_from_slice(&td_info);
        let mac = self.mac(&report[..MAC_COVERS]);
        report[MAC_COVERS..MAC_COVERS + 32].copy_from_slice(&mac);
        report
    }

    fn mac(&self, bytes: &[u8]) -> [u8; 32] {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(&self.mac_key).expect("HMAC takes keys of any length");
        mac.update(bytes);
        mac.finalize().into_bytes().into()
    }
}

/// The security versions of the emulated processor and TDX module.
pub const CPU_SVN: [u8; 16] = [2, 2, 2, 2, 3, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0];
/// As CPU_SVN.
pub const TEE_TCB_SVN: [u8; 16] = [5, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
