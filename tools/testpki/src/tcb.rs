//! TCB info and QE identity: what Intel says about security versions, as the JSON that is signed.
//!
//! Form: Intel PCS v4, TCB info version 3 and enclave identity version 2.

use serde::Serialize;

use crate::{Error, Platform};

/// How long the genuine documents are valid.
pub(crate) const VALID_SECONDS: u64 = 30 * 24 * 3600;
/// MRSIGNER of the imagined quoting enclave.
pub(crate) const QE_MRSIGNER: [u8; 32] = [0x51; 32];
/// ISVPRODID of a TD quoting enclave.
pub(crate) const QE_PRODUCT: u16 = 2;

/// A TCB status as the documents spell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Status {
    UpToDate,
    SWHardeningNeeded,
    ConfigurationNeeded,
    ConfigurationAndSWHardeningNeeded,
    OutOfDate,
    OutOfDateConfigurationNeeded,
    Revoked,
}

/// A security version number of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Svn {
    pub svn: u8,
}

/// The least security versions of a platform level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Svns {
    #[serde(rename = "sgxtcbcomponents")]
    pub sgx: Vec<Svn>,
    #[serde(rename = "pcesvn")]
    pub pce_svn: u16,
    #[serde(rename = "tdxtcbcomponents", skip_serializing_if = "Vec::is_empty")]
    pub tdx: Vec<Svn>,
}

/// The least security version of a module level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ModuleSvn {
    pub isvsvn: u8,
}

/// The least security version of a quoting enclave level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct QeSvn {
    pub isvsvn: u16,
}

/// A level: the versions it takes and what Intel thinks of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Level<T> {
    pub tcb: T,
    pub tcb_date: String,
    pub tcb_status: Status,
    #[serde(rename = "advisoryIDs", skip_serializing_if = "Vec::is_empty")]
    pub advisory_ids: Vec<String>,
}

/// Who signed a TDX module and how it must be configured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Module {
    #[serde(with = "hex::serde")]
    pub mrsigner: [u8; 48],
    #[serde(with = "hex::serde")]
    pub attributes: [u8; 8],
    #[serde(with = "hex::serde")]
    pub attributes_mask: [u8; 8],
}

/// A major version of the TDX module and its levels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleIdentity {
    /// `TDX_` and the major version in two digits.
    pub id: String,
    #[serde(flatten)]
    pub module: Module,
    pub tcb_levels: Vec<Level<ModuleSvn>>,
}

/// TCB info version 3.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcbInfo {
    pub id: String,
    pub version: u8,
    pub issue_date: String,
    pub next_update: String,
    #[serde(with = "hex::serde")]
    pub fmspc: [u8; 6],
    #[serde(with = "hex::serde")]
    pub pce_id: [u8; 2],
    pub tcb_type: u32,
    pub tcb_evaluation_data_number: u32,
    pub tdx_module: Module,
    pub tdx_module_identities: Vec<ModuleIdentity>,
    pub tcb_levels: Vec<Level<Svns>>,
}

/// QE identity version 2.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct QeIdentity {
    pub id: String,
    pub version: u8,
    pub issue_date: String,
    pub next_update: String,
    pub tcb_evaluation_data_number: u32,
    #[serde(with = "hex::serde")]
    pub miscselect: [u8; 4],
    #[serde(with = "hex::serde")]
    pub miscselect_mask: [u8; 4],
    #[serde(with = "hex::serde")]
    pub attributes: [u8; 16],
    #[serde(with = "hex::serde")]
    pub attributes_mask: [u8; 16],
    #[serde(with = "hex::serde")]
    pub mrsigner: [u8; 32],
    pub isvprodid: u16,
    pub tcb_levels: Vec<Level<QeSvn>>,
}

impl<T> Level<T> {
    /// A level of no advisories, dated long ago.
    pub fn new(tcb: T, status: Status) -> Self {
        Self {
            tcb,
            tcb_date: "2024-03-13T00:00:00Z".into(),
            tcb_status: status,
            advisory_ids: Vec::new(),
        }
    }
}

impl Module {
    /// Intel signs with the zero key; no attribute may be set.
    fn production() -> Self {
        Self {
            mrsigner: [0; 48],
            attributes: [0; 8],
            attributes_mask: [0xff; 8],
        }
    }
}

impl TcbInfo {
    /// TCB info issued at `issued` (seconds since 1970) in which `platform` is up to date, and the one before it is not.
    pub fn new(platform: &Platform, issued: u64) -> Result<Self, Error> {
        let svns = |components: &[u8; 16]| components.map(|svn| Svn { svn }).to_vec();
        let current = Svns {
            sgx: svns(&platform.components),
            pce_svn: platform.pce_svn,
            tdx: svns(&platform.tee_tcb_svn),
        };
        let mut former = current.clone();
        // Component 2 of the module's versions is its microcode; 0 and 1 are judged by the module identities.
        for svn in former.sgx[..2].iter_mut().chain(&mut former.tdx[2..3]) {
            svn.svn = svn.svn.saturating_sub(1);
        }
        let [module_svn, major, ..] = platform.tee_tcb_svn;
        let module_levels = vec![
            Level::new(ModuleSvn { isvsvn: module_svn }, Status::UpToDate),
            Level::new(ModuleSvn { isvsvn: 0 }, Status::OutOfDate),
        ];
        Ok(Self {
            id: "TDX".into(),
            version: 3,
            issue_date: rfc3339(issued)?,
            next_update: rfc3339(issued + VALID_SECONDS)?,
            fmspc: platform.fmspc,
            pce_id: platform.pce_id,
            tcb_type: 0,
            tcb_evaluation_data_number: 20,
            tdx_module: Module::production(),
            tdx_module_identities: vec![ModuleIdentity {
                id: format!("TDX_{major:02}"),
                module: Module::production(),
                tcb_levels: module_levels,
            }],
            tcb_levels: vec![
                Level::new(current, Status::UpToDate),
                Level {
                    advisory_ids: vec!["INTEL-SA-00960".into()],
                    ..Level::new(former, Status::OutOfDate)
                },
            ],
        })
    }
}

impl QeIdentity {
    /// A QE identity issued at `issued` (seconds since 1970) in which the platform's quoting enclave is up to date.
    pub fn new(platform: &Platform, issued: u64) -> Result<Self, Error> {
        let mut attributes = [0; 16];
        // Initialised, 64-bit.
        attributes[0] = 0x11;
        let mut attributes_mask = [0; 16];
        attributes_mask[..8].copy_from_slice(&[0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        let level = |isvsvn, status| Level::new(QeSvn { isvsvn }, status);
        Ok(Self {
            id: "TD_QE".into(),
            version: 2,
            issue_date: rfc3339(issued)?,
            next_update: rfc3339(issued + VALID_SECONDS)?,
            tcb_evaluation_data_number: 20,
            miscselect: [0; 4],
            miscselect_mask: [0xff; 4],
            attributes,
            attributes_mask,
            mrsigner: QE_MRSIGNER,
            isvprodid: QE_PRODUCT,
            tcb_levels: vec![
                level(platform.qe_svn, Status::UpToDate),
                level(0, Status::OutOfDate),
            ],
        })
    }
}

/// `2026-03-01T12:00:00Z`, from seconds since 1970.
pub fn rfc3339(seconds: u64) -> Result<String, Error> {
    let time = crate::certificate::date(seconds)?;
    Ok(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        time.year(),
        u8::from(time.month()),
        time.day(),
        time.hour(),
        time.minute(),
        time.second()
    ))
}
