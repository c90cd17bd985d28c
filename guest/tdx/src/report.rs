//! TDREPORT: what the TDX module certifies about a TD, for the local machine only (Intel TDX Module ABI specification, TDREPORT_STRUCT).
//!
//! | bytes | part |
//! |---|---|
//! | 0..256 | [`ReportMac`]: hashes of the other two parts, the caller's data, and a MAC over all of that with a key of the processor |
//! | 256..495 | [`TeeTcbInfo`]: the TDX module |
//! | 495..512 | zero |
//! | 512..1024 | [`TdInfo`]: the TD |
//!
//! The structures are plain bytes and little-endian numbers without padding, so any 1024 bytes are one.

const _: () = assert!(cfg!(target_endian = "little"));

/// A SHA-384 digest, in measurements and hashes.
pub type Measurement = [u8; 48];

/// Bytes of a TDREPORT.
pub const REPORT: usize = 1024;

/// 64 bytes of the caller's choice that a report carries, aligned as the module wants them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct ReportData(pub [u8; 64]);

/// A TD's attributes: what the host chose and the module enforces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Attributes(pub u64);

impl Attributes {
    /// The host may read and change everything: no protection at all.
    pub const DEBUG: Self = Self(1 << 0);
    /// An access to memory that was not accepted ends the TD instead of raising an exception in it.
    pub const SEPT_VE_DISABLE: Self = Self(1 << 28);
    /// The TD can be moved to another machine.
    pub const MIGRATABLE: Self = Self(1 << 29);
    /// Protection keys for supervisor pages.
    pub const PKS: Self = Self(1 << 30);
    /// Performance counters.
    pub const PERFMON: Self = Self(1 << 63);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// The whole report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(1024))]
pub struct TdReport {
    /// Hashes, data and MAC.
    pub mac: ReportMac,
    /// The TDX module.
    pub tcb: TeeTcbInfo,
    /// Zero.
    pub reserved: [u8; 17],
    /// The TD.
    pub td: TdInfo,
}

/// REPORTMACSTRUCT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ReportMac {
    /// [`ReportMac::TDX`].
    pub tee_type: u8,
    /// 0.
    pub subtype: u8,
    /// 0, or 1 if the TD has service TDs.
    pub version: u8,
    /// Zero.
    pub reserved_0: [u8; 13],
    /// The processor's security version.
    pub cpu_svn: [u8; 16],
    /// SHA-384 of [`TeeTcbInfo`], all 239 bytes.
    pub tee_tcb_info_hash: Measurement,
    /// SHA-384 of [`TdInfo`], all 512 bytes.
    pub tee_info_hash: Measurement,
    /// The caller's bytes.
    pub report_data: [u8; 64],
    /// Zero.
    pub reserved_1: [u8; 32],
    /// HMAC-SHA-256 of the 224 bytes before it, with a key that never leaves the processor.
    pub mac: [u8; 32],
}

impl ReportMac {
    /// The type of a report on a TD.
    pub const TDX: u8 = 0x81;
}

/// TEE_TCB_INFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TeeTcbInfo {
    /// Which of the fields below are valid.
    pub valid: [u8; 8],
    /// Security versions of the TDX module and its parts.
    pub tee_tcb_svn: [u8; 16],
    /// Measurement of the TDX module.
    pub mr_seam: Measurement,
    /// Measurement of the module's signer; zero for Intel's.
    pub mr_signer_seam: Measurement,
    /// The module's attributes; zero.
    pub attributes: [u8; 8],
    /// Security versions with which the module was updated while running; equal to the first if it was not.
    pub tee_tcb_svn_2: [u8; 16],
    /// Zero.
    pub reserved: [u8; 95],
}

/// TDINFO.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct TdInfo {
    /// ATTRIBUTES.
    pub attributes: Attributes,
    /// XFAM: the extended processor state that the TD may use.
    pub xfam: u64,
    /// Measurement of the memory the TD started with.
    pub mr_td: Measurement,
    /// Set by the host: software-defined identity of the configuration.
    pub mr_config_id: Measurement,
    /// Set by the host: software-defined identity of the owner.
    pub mr_owner: Measurement,
    /// Set by the host: software-defined identity of the owner's configuration.
    pub mr_owner_config: Measurement,
    /// The runtime-extendable measurement registers.
    pub rtmr: [Measurement; 4],
    /// Digest of the TD's service TDs; zero if it has none.
    pub servtd_hash: Measurement,
    /// Zero.
    pub reserved: [u8; 64],
}

const _: () = assert!(size_of::<TdReport>() == REPORT);
const _: () = assert!(size_of::<ReportMac>() == 256 && align_of::<ReportMac>() == 1);
const _: () = assert!(size_of::<TeeTcbInfo>() == 239 && align_of::<TeeTcbInfo>() == 1);
const _: () = assert!(size_of::<TdInfo>() == 512);

impl TdReport {
    /// A report of zeroes, to be written over.
    pub const fn zeroed() -> Self {
        Self::from_bytes(&[0; REPORT])
    }

    /// The report that these bytes are.
    pub const fn from_bytes(bytes: &[u8; REPORT]) -> Self {
        // SAFETY: the sizes are equal, and any bytes are valid for structures of nothing but numbers.
        unsafe { core::mem::transmute::<[u8; REPORT], Self>(*bytes) }
    }

    /// The bytes of the report.
    pub const fn as_bytes(&self) -> &[u8; REPORT] {
        // SAFETY: the sizes are equal, and there is no padding: the fields' sizes add up to the whole.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }

    /// The bytes that [`ReportMac::mac`] authenticates.
    pub fn authenticated_bytes(&self) -> &[u8] {
        &self.as_bytes()[..core::mem::offset_of!(ReportMac, mac)]
    }
}

impl TeeTcbInfo {
    /// The bytes that [`ReportMac::tee_tcb_info_hash`] covers.
    pub const fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: the sizes are equal, and a structure of bytes has no padding.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

impl TdInfo {
    /// The bytes that [`ReportMac::tee_info_hash`] covers.
    pub const fn as_bytes(&self) -> &[u8; size_of::<Self>()] {
        // SAFETY: the sizes are equal, and there is no padding: the fields' sizes add up to the whole.
        unsafe { &*core::ptr::from_ref(self).cast() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quote;
    use core::mem::offset_of;
    use std::path::{Path, PathBuf};
    use std::string::String;
    use std::vec::Vec;
    use std::{env, eprintln, format, fs};

    #[test]
    fn fields_are_where_the_specification_has_them() {
        assert_eq!(
            [
                offset_of!(TdReport, tcb),
                offset_of!(TdReport, reserved),
                offset_of!(TdReport, td)
            ],
            [256, 495, 512]
        );
        assert_eq!(
            [
                offset_of!(ReportMac, cpu_svn),
                offset_of!(ReportMac, tee_tcb_info_hash),
                offset_of!(ReportMac, tee_info_hash),
                offset_of!(ReportMac, report_data),
                offset_of!(ReportMac, mac)
            ],
            [16, 32, 80, 128, 224]
        );
        assert_eq!(
            [
                offset_of!(TeeTcbInfo, tee_tcb_svn),
                offset_of!(TeeTcbInfo, mr_seam),
                offset_of!(TeeTcbInfo, mr_signer_seam),
                offset_of!(TeeTcbInfo, attributes),
                offset_of!(TeeTcbInfo, tee_tcb_svn_2),
                offset_of!(TeeTcbInfo, reserved)
            ],
            [8, 24, 72, 120, 128, 144]
        );
        assert_eq!(
            [
                offset_of!(TdInfo, xfam),
                offset_of!(TdInfo, mr_td),
                offset_of!(TdInfo, mr_config_id),
                offset_of!(TdInfo, mr_owner),
                offset_of!(TdInfo, mr_owner_config),
                offset_of!(TdInfo, rtmr),
                offset_of!(TdInfo, servtd_hash),
                offset_of!(TdInfo, reserved)
            ],
            [8, 16, 64, 112, 160, 208, 400, 448]
        );
        assert_eq!(align_of::<TdReport>(), 1024);
        assert_eq!(align_of::<ReportData>(), 64);
    }

    #[test]
    fn bytes_survive() {
        let bytes = core::array::from_fn(|index| (index * 7) as u8);
        assert_eq!(TdReport::from_bytes(&bytes).as_bytes(), &bytes);
        assert_eq!(TdReport::from_bytes(&bytes).td.as_bytes(), &bytes[512..]);
        assert_eq!(
            TdReport::from_bytes(&bytes).tcb.as_bytes(),
            &bytes[256..495]
        );
        assert_eq!(
            TdReport::from_bytes(&bytes).authenticated_bytes(),
            &bytes[..224]
        );
    }

    /// Folder of genuine quotes and reports, or `None` (an error where oracles are required).
    fn vectors() -> Option<PathBuf> {
        let root = env::var_os("VITRINE_VECTORS").map_or_else(
            || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
            PathBuf::from,
        );
        let folder = root.join("quotes");
        if folder.is_dir() {
            return Some(folder);
        }
        let required = env::var_os("VITRINE_REQUIRE_ORACLES").is_some_and(|value| value == "1");
        assert!(!required, "no quotes at {}", folder.display());
        eprintln!("SKIPPED: no quotes at {}", folder.display());
        None
    }

    fn report(folder: &Path, name: &str) -> TdReport {
        let path = folder.join(format!("tdreports/{name}.bin"));
        let bytes = fs::read(&path).expect("a report");
        TdReport::from_bytes(&bytes.try_into().expect("1024 bytes"))
    }

    /// The value of `"name": "hex"` in a description of a report or quote.
    fn field(description: &str, name: &str) -> Vec<u8> {
        let key = format!("\"{name}\": \"");
        let start = description
            .find(&key)
            .unwrap_or_else(|| panic!("no field {name}"))
            + key.len();
        let digits: String = description[start..]
            .chars()
            .take_while(|digit| *digit != '"')
            .collect();
        (0..digits.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits"))
            .collect()
    }

    #[test]
    fn genuine_reports_are_read_as_others_read_them() {
        let Some(folder) = vectors() else { return };
        for name in ["gc-reporttype1", "ita-aztdx", "kinvolk-hcl"] {
            let TdReport { mac, tcb, td, .. } = report(&folder, name);
            let description = fs::read_to_string(folder.join(format!("tdreports/{name}.json")))
                .expect("a description");
            assert_eq!(mac.tee_type, ReportMac::TDX);
            let fields: [(&str, &[u8]); 23] = [
                (
                    "REPORTTYPE",
                    &[mac.tee_type, mac.subtype, mac.version, mac.reserved_0[0]],
                ),
                ("CPUSVN", &mac.cpu_svn),
                ("TEE_TCB_INFO_HASH", &mac.tee_tcb_info_hash),
                ("TEE_INFO_HASH", &mac.tee_info_hash),
                ("REPORTDATA", &mac.report_data),
                ("MAC", &mac.mac),
                ("TEE_TCB_INFO.VALID", &tcb.valid),
                ("TEE_TCB_SVN", &tcb.tee_tcb_svn),
                ("MRSEAM", &tcb.mr_seam),
                ("MRSIGNERSEAM", &tcb.mr_signer_seam),
                ("SEAMATTRIBUTES", &tcb.attributes),
                ("TEE_TCB_SVN_2", &tcb.tee_tcb_svn_2),
                ("TDATTRIBUTES", &td.attributes.0.to_le_bytes()),
                ("XFAM", &td.xfam.to_le_bytes()),
                ("MRTD", &td.mr_td),
                ("MRCONFIGID", &td.mr_config_id),
                ("MROWNER", &td.mr_owner),
                ("MROWNERCONFIG", &td.mr_owner_config),
                ("RTMR0", &td.rtmr[0]),
                ("RTMR1", &td.rtmr[1]),
                ("RTMR2", &td.rtmr[2]),
                ("RTMR3", &td.rtmr[3]),
                ("SERVTD_HASH", &td.servtd_hash),
            ];
            for (key, value) in fields {
                assert_eq!(value, field(&description, key), "{key} of {name}");
            }
        }
    }

    /// Offsets and lengths by the specification's tables, not by the structures above.
    const OFFSETS: [(&str, usize, usize); 22] = [
        ("REPORTTYPE", 0, 4),
        ("CPUSVN", 16, 16),
        ("TEE_TCB_INFO_HASH", 32, 48),
        ("TEE_INFO_HASH", 80, 48),
        ("REPORTDATA", 128, 64),
        ("MAC", 224, 32),
        ("TEE_TCB_INFO.VALID", 256, 8),
        ("TEE_TCB_SVN", 264, 16),
        ("MRSEAM", 280, 48),
        ("MRSIGNERSEAM", 328, 48),
        ("SEAMATTRIBUTES", 376, 8),
        ("TDATTRIBUTES", 512, 8),
        ("XFAM", 520, 8),
        ("MRTD", 528, 48),
        ("MRCONFIGID", 576, 48),
        ("MROWNER", 624, 48),
        ("MROWNERCONFIG", 672, 48),
        ("RTMR0", 720, 48),
        ("RTMR1", 768, 48),
        ("RTMR2", 816, 48),
        ("RTMR3", 864, 48),
        ("SERVTD_HASH", 912, 48),
    ];

    #[test]
    fn a_request_for_a_quote_carries_a_genuine_report_where_hosts_read_it() {
        let Some(folder) = vectors() else { return };
        for name in ["gc-reporttype1", "ita-aztdx", "kinvolk-hcl"] {
            let mut request = Vec::from(quote::request_header());
            request.extend(report(&folder, name).as_bytes());
            // Version, status, length in, length out (QEMU's `tdx_get_quote_header`); then the report.
            assert_eq!(request[..8], 1u64.to_le_bytes());
            assert_eq!(request[8..16], 0u64.to_le_bytes());
            assert_eq!(request[16..20], 1024u32.to_le_bytes());
            assert_eq!(request[20..24], 0u32.to_le_bytes());
            assert_eq!(request.len(), 24 + 1024);
            let description = fs::read_to_string(folder.join(format!("tdreports/{name}.json")))
                .expect("a description");
            for (key, offset, length) in OFFSETS {
                let bytes = &request[24 + offset..][..length];
                assert_eq!(bytes, field(&description, key), "{key} of {name}");
            }
        }
    }

    #[test]
    fn a_genuine_quote_matches_the_report_of_its_td_only() {
        let Some(folder) = vectors() else { return };
        let quote = fs::read(folder.join("ita-aztdx-00806f.bin")).expect("a quote");
        let mut own = report(&folder, "ita-aztdx");
        let body = quote::Body::find(&quote).expect("a quote of a TD");
        // The report was made before the quote's nonce; everything else is the same TD.
        own.mac.report_data = *body.report_data();
        assert_eq!(body.compare(&own), Ok(()));
        assert_eq!(
            body.compare(&report(&folder, "kinvolk-hcl")),
            Err(quote::Difference::TeeTcbSvn)
        );
    }
}
