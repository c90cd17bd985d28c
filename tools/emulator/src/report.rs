//! What the TDX module knows of the TD's identity, and the TDREPORT it makes of it (`tdx.md` 1.5).

use sha2::{Digest, Sha384};
use tdx::report::{Attributes, Measurement, ReportMac, TdReport};
use testpki::{Platform, authenticate, is_authentic};

/// TDINFO and the machine's part of every TDREPORT, and the key for the MAC.
pub struct Identity {
    report: TdReport,
    key: [u8; 32],
}

impl Identity {
    /// A TD that has measured nothing yet, on a platform whose quoting enclave knows `key`. The attributes are those mainline QEMU sets.
    pub fn new(platform: &Platform, key: [u8; 32], xfam: u64, mrtd: Measurement) -> Self {
        let mut report = platform.report();
        report.td.attributes = Attributes::SEPT_VE_DISABLE;
        report.td.xfam = xfam;
        report.td.mr_td = mrtd;
        Self { report, key }
    }

    /// The TD's attributes.
    pub fn attributes(&self) -> u64 {
        self.report.td.attributes.0
    }

    /// The state components that the TD may use.
    pub fn xfam(&self) -> u64 {
        self.report.td.xfam
    }

    /// MRTD.
    pub fn mrtd(&self) -> Measurement {
        self.report.td.mr_td
    }

    /// RTMR 0 to 3.
    pub fn rtmr(&self) -> [Measurement; 4] {
        self.report.td.rtmr
    }

    /// MR.RTMR.EXTEND.
    pub fn extend(&mut self, index: usize, digest: &Measurement) {
        let register = &mut self.report.td.rtmr[index];
        let extended = Sha384::new()
            .chain_update(&register[..])
            .chain_update(digest)
            .finalize();
        register.copy_from_slice(&extended);
    }

    /// MR.VERIFYREPORT: whether this platform's module made what REPORTMACSTRUCT says.
    pub fn verify(&self, mac: &ReportMac) -> bool {
        let mut report = TdReport::zeroed();
        report.mac = *mac;
        mac.tee_type == ReportMac::TDX && is_authentic(&report, &self.key)
    }

    /// MR.REPORT.
    pub fn report(&self, data: &[u8; 64]) -> TdReport {
        let mut report = self.report;
        report.mac.report_data = *data;
        authenticate(&mut report, &self.key);
        report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::new(&Platform::default(), [1; 32], 7, [2; 48])
    }

    /// SHA-384 of 48 zero bytes and 48 bytes 0xab, from Python's hashlib.
    #[test]
    fn registers_are_extended_as_the_module_does() {
        let mut identity = identity();
        identity.extend(2, &[0xab; 48]);
        let hex = |bytes: [u8; 48]| bytes.map(|byte| format!("{byte:02x}")).concat();
        let expected = "73bbee246f69b6bf7824b9e7643701dad9ed70c94c9880d033c0ac87b5043d0dd70cad576882faf2f6679a22ededfea4";
        assert_eq!(hex(identity.rtmr()[2]), expected);
        assert_eq!(identity.rtmr()[3], [0; 48]);
    }

    #[test]
    fn reports_carry_data_and_measurements() {
        let report = identity().report(&[9; 64]);
        assert_eq!(report.mac.report_data, [9; 64]);
        assert_eq!(report.td.mr_td, [2; 48]);
        assert_eq!(report.td.attributes, Attributes::SEPT_VE_DISABLE);
        let hash = Sha384::digest(report.td.as_bytes());
        assert_eq!(report.mac.tee_info_hash[..], hash[..]);
        assert_ne!(report.mac.mac, [0; 32]);
        assert!(identity().verify(&report.mac));
        let mut changed = report.mac;
        changed.report_data[0] ^= 1;
        assert!(!identity().verify(&changed));
    }
}
