//! What a TDREPORT says, and writing one: 1024 bytes with two hashes and a MAC, as TDG.MR.REPORT does.

use ring::{digest, hmac};

use crate::Platform;

/// Bytes of a TDREPORT.
pub(crate) const REPORT_BYTES: usize = 1024;
/// TDATTRIBUTES bit 28.
const SEPT_VE_DISABLE: u64 = 1 << 28;

/// Where the parts of a TDREPORT lie (Intel TDX module 1.5 base specification; checked against genuine reports).
pub(crate) mod at {
    use std::ops::Range;

    pub const TYPE: usize = 0;
    pub const SUBTYPE: usize = 1;
    pub const VERSION: usize = 2;
    pub const CPU_SVN: Range<usize> = 16..32;
    pub const TEE_TCB_INFO_HASH: Range<usize> = 32..80;
    pub const TEE_INFO_HASH: Range<usize> = 80..128;
    pub const REPORT_DATA: Range<usize> = 128..192;
    /// What the MAC covers.
    pub const AUTHENTICATED: Range<usize> = 0..224;
    pub const MAC: Range<usize> = 224..256;
    pub const TEE_TCB_INFO: Range<usize> = 256..495;
    pub const VALID: Range<usize> = 256..264;
    pub const TEE_TCB_SVN: Range<usize> = 264..280;
    pub const MRSEAM: Range<usize> = 280..328;
    pub const MRSIGNERSEAM: Range<usize> = 328..376;
    pub const SEAM_ATTRIBUTES: Range<usize> = 376..384;
    pub const TEE_TCB_SVN_2: Range<usize> = 384..400;
    pub const TD_INFO: Range<usize> = 512..1024;
    /// ATTRIBUTES to RTMR3, in the order of a quote's body.
    pub const TD_FIELDS: Range<usize> = 512..912;
    pub const SERVTD_HASH: Range<usize> = 912..960;
}

/// What a TDREPORT says of a TD and of the module that runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Td {
    /// SVNs of the module at the launch of the TD.
    pub tee_tcb_svn: [u8; 16],
    /// SVNs of the module now.
    pub tee_tcb_svn_2: [u8; 16],
    pub mrseam: [u8; 48],
    pub mrsignerseam: [u8; 48],
    pub seam_attributes: u64,
    pub attributes: u64,
    pub xfam: u64,
    pub mrtd: [u8; 48],
    pub mrconfigid: [u8; 48],
    pub mrowner: [u8; 48],
    pub mrownerconfig: [u8; 48],
    pub rtmr: [[u8; 48]; 4],
    /// Hash of the bound service TDs; zero without any.
    pub servtd_hash: [u8; 48],
    pub report_data: [u8; 64],
}

impl Td {
    /// A production TD with AVX-512 that measured nothing, on `platform`.
    pub fn new(platform: &Platform) -> Self {
        Self {
            tee_tcb_svn: platform.tee_tcb_svn,
            tee_tcb_svn_2: platform.tee_tcb_svn,
            mrseam: [0x5e; 48],
            mrsignerseam: [0; 48],
            seam_attributes: 0,
            attributes: SEPT_VE_DISABLE,
            xfam: 0x0006_02e7,
            mrtd: [0x4d; 48],
            mrconfigid: [0; 48],
            mrowner: [0; 48],
            mrownerconfig: [0; 48],
            rtmr: [[0; 48]; 4],
            servtd_hash: [0; 48],
            report_data: [0; 64],
        }
    }

    /// The TDREPORT of `platform`'s module, authenticated with its report key.
    pub fn report(&self, platform: &Platform, report_key: &[u8; 32]) -> [u8; REPORT_BYTES] {
        let mut report = [0; REPORT_BYTES];
        report[at::TYPE] = 0x81;
        report[at::CPU_SVN].copy_from_slice(&platform.components);
        report[at::REPORT_DATA].copy_from_slice(&self.report_data);
        // Which of the following fields are valid; the value in all genuine reports seen.
        report[at::VALID].copy_from_slice(&0x0003_01ff_u64.to_le_bytes());
        report[at::TEE_TCB_SVN].copy_from_slice(&self.tee_tcb_svn);
        report[at::MRSEAM].copy_from_slice(&self.mrseam);
        report[at::MRSIGNERSEAM].copy_from_slice(&self.mrsignerseam);
        report[at::SEAM_ATTRIBUTES].copy_from_slice(&self.seam_attributes.to_le_bytes());
        report[at::TEE_TCB_SVN_2].copy_from_slice(&self.tee_tcb_svn_2);
        let fields = [
            &self.attributes.to_le_bytes()[..],
            &self.xfam.to_le_bytes(),
            &self.mrtd,
            &self.mrconfigid,
            &self.mrowner,
            &self.mrownerconfig,
            self.rtmr.as_flattened(),
        ]
        .concat();
        report[at::TD_FIELDS].copy_from_slice(&fields);
        report[at::SERVTD_HASH].copy_from_slice(&self.servtd_hash);
        seal(&mut report, report_key);
        report
    }
}

/// Writes both hashes and the MAC over what a TDREPORT says.
pub(crate) fn seal(report: &mut [u8; REPORT_BYTES], report_key: &[u8; 32]) {
    for (hash, of) in [
        (at::TEE_TCB_INFO_HASH, at::TEE_TCB_INFO),
        (at::TEE_INFO_HASH, at::TD_INFO),
    ] {
        let digest = digest::digest(&digest::SHA384, &report[of]);
        report[hash].copy_from_slice(digest.as_ref());
    }
    let mac = hmac::sign(&mac_key(report_key), &report[at::AUTHENTICATED]);
    report[at::MAC].copy_from_slice(mac.as_ref());
}

/// The report key as HMAC-SHA-256 takes it.
pub(crate) fn mac_key(report_key: &[u8; 32]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, report_key)
}
