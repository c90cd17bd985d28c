//! TDREPORTs: sound ones to start from, and the hashes and the MAC by which the quoting enclave believes them.

use ring::{digest, hmac};
use tdx::report::{Attributes, ReportMac, TdReport};

use crate::Platform;

/// TEE_TCB_INFO.VALID in every genuine report seen.
const VALID: u64 = 0x0003_01ff;
/// x87, SSE, AVX, AVX-512, PKRU and AMX: the XFAM of genuine TDs.
const XFAM: u64 = 0x0006_02e7;

impl Platform {
    /// What this platform's module would report of a production TD that measured nothing; no hash and no MAC yet.
    pub fn report(&self) -> TdReport {
        let mut report = TdReport::zeroed();
        report.mac.tee_type = ReportMac::TDX;
        report.mac.cpu_svn = self.components;
        report.tcb.valid = VALID.to_le_bytes();
        report.tcb.tee_tcb_svn = self.tee_tcb_svn;
        report.tcb.tee_tcb_svn_2 = self.tee_tcb_svn;
        report.tcb.mr_seam = [0x5e; 48];
        report.td.attributes = Attributes::SEPT_VE_DISABLE;
        report.td.xfam = XFAM;
        report.td.mr_td = [0x4d; 48];
        report
    }
}

/// Writes both hashes and the MAC, as the TDX module does under the key it shares with the quoting enclave.
pub fn authenticate(report: &mut TdReport, report_key: &[u8; 32]) {
    report.mac.tee_tcb_info_hash = sha384(report.tcb.as_bytes());
    report.mac.tee_info_hash = sha384(report.td.as_bytes());
    let mac = hmac::sign(&mac_key(report_key), report.authenticated_bytes());
    report.mac.mac.copy_from_slice(mac.as_ref());
}

/// Whether the MAC of a report is by this key.
pub fn is_authentic(report: &TdReport, report_key: &[u8; 32]) -> bool {
    let key = mac_key(report_key);
    hmac::verify(&key, report.authenticated_bytes(), &report.mac.mac).is_ok()
}

/// SHA-384.
pub(crate) fn sha384(bytes: &[u8]) -> [u8; 48] {
    let mut hash = [0; 48];
    hash.copy_from_slice(digest::digest(&digest::SHA384, bytes).as_ref());
    hash
}

/// The report key as HMAC-SHA-256 takes it.
pub(crate) fn mac_key(report_key: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, report_key)
}
