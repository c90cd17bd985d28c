//! What a quote proves about the platform, read from documents and certificates whose signatures have been verified.
//!
//! The TCB status is evaluated once more, with the verification library's own comparison of levels: it gives none where it refuses for
//! reasons that are policy here. Where it gives one, the two must agree.

use dcap_qvl::intel::PckExtension;
use dcap_qvl::quote::TDReport10;
use dcap_qvl::tcb_info::TdxModuleTcbLevel;
use dcap_qvl::{
    QeIdentity, SvnComponent, SvnShortfall, TcbInfo, TcbLevel, TcbStatus, TcbStatusWithAdvisory,
};

use crate::chain::{Broken, check_pce};
use crate::code::Code;
use crate::collateral::Collateral;
use crate::date;
use crate::quote::UntrustedQuote;

/// A platform behind a quote whose chain holds, with the report it signed.
pub struct Platform {
    /// The domain's report.
    pub(crate) report: TDReport10,
    /// MRSERVICETD and the hash of the service domains bound now, of the reports that have them.
    pub(crate) service_tds: Vec<[u8; 48]>,
    /// Security versions of the module at launch, then of the one loaded now if the report says.
    pub(crate) tdx_svns: Vec<[u8; 16]>,
    /// What the platform's certificate says.
    pub(crate) pck: PckExtension,
    /// Intel's word.
    pub(crate) status: TcbStatus,
    /// Everything that applies, sorted.
    pub(crate) advisories: Vec<String>,
    /// The date of the platform's level, seconds since 1970.
    pub(crate) tcb_date: u64,
    /// How far it is from the newest level.
    pub(crate) lag: Option<String>,
    /// The lower of both documents' evaluation numbers.
    pub(crate) evaluation: u32,
    /// The earlier of both documents' issue dates, seconds since 1970.
    pub(crate) issued: u64,
}

impl Platform {
    /// Reads it. Only for a quote and collateral whose chain holds.
    pub(crate) fn read(quote: &UntrustedQuote, collateral: &Collateral) -> Result<Self, Broken> {
        let documents = collateral.documents();
        let malformed = |what: &str| Broken::new(Code::CollateralMalformed, what);
        let tcb_info: TcbInfo =
            serde_json::from_str(&documents.tcb_info).map_err(|_| malformed("TCB info"))?;
        let qe_identity: QeIdentity =
            serde_json::from_str(&documents.qe_identity).map_err(|_| malformed("QE identity"))?;
        let pck = dcap_qvl::intel::extract_cert_chain(quote.parsed())
            .ok()
            .and_then(|chain| dcap_qvl::intel::parse_pck_extension(chain.first()?).ok())
            .ok_or_else(|| Broken::new(Code::ChainInvalid, "the platform's certificate"))?;
        check_pce(&tcb_info, &pck.pce_id)?;

        let report = *quote.report();
        let mut tdx_svns = vec![report.tee_tcb_svn];
        tdx_svns.extend(quote.extension().map(|extension| extension.tee_tcb_svn2));
        let mut service_tds = Vec::new();
        service_tds.extend(quote.extension().map(|extension| extension.mr_service_td));
        let extended = quote.parsed().report.as_td15_ex();
        service_tds.extend(extended.map(|report| report.cur_service_td_hash));

        let levels = sorted_levels(&tcb_info);
        let launch = Evaluation::of(&tcb_info, &levels, &pck, &tdx_svns[0])?;
        let current = match tdx_svns.get(1) {
            Some(svns) => Some(Evaluation::of(&tcb_info, &levels, &pck, svns)?),
            None => None,
        };
        let qe_svn = qe_svn(quote);
        let qe = qe_identity
            .tcb_levels
            .iter()
            .find(|level| level.tcb.isvsvn <= qe_svn)
            .ok_or_else(|| {
                Broken::new(Code::TcbLevelUnmatched, "no level for this quoting enclave")
            })?;
        let qe = TcbStatusWithAdvisory::new(qe.tcb_status, qe.advisory_ids.clone());

        let merged = launch.status.clone().merge(&qe);
        let mut status = merged.status;
        let mut advisories = merged.advisory_ids;
        if let Some(current) = &current {
            let current = current.status.clone().merge(&qe);
            advisories.extend(current.advisory_ids);
            status = relaunch(status, current.status);
        }
        advisories.sort();
        advisories.dedup();

        let date = |text: &str| date::parse(text).ok_or_else(|| malformed("a date"));
        Ok(Self {
            lag: lag(documents, &levels, &launch, &pck, &tdx_svns[0]),
            tcb_date: launch.date,
            evaluation: tcb_info
                .tcb_evaluation_data_number
                .min(qe_identity.tcb_evaluation_data_number),
            issued: date(&tcb_info.issue_date)?.min(date(&qe_identity.issue_date)?),
            report,
            service_tds,
            tdx_svns,
            pck,
            status,
            advisories,
        })
    }
}

/// Intel's levels from best to worst: by SGX components, PCE, TDX components.
fn sorted_levels(tcb_info: &TcbInfo) -> Vec<TcbLevel> {
    let mut levels = tcb_info.tcb_levels.clone();
    levels.sort_by(|one, other| {
        let key = |level: &TcbLevel| {
            (
                level.tcb.sgx_components.clone(),
                level.tcb.pce_svn,
                level.tcb.tdx_components.clone(),
            )
        };
        key(other).cmp(&key(one))
    });
    levels
}

/// The levels that a platform has reached with one set of TDX security versions.
struct Evaluation {
    status: TcbStatusWithAdvisory,
    /// The older of the platform's and the module's level.
    date: u64,
}

impl Evaluation {
    fn of(
        tcb_info: &TcbInfo,
        levels: &[TcbLevel],
        pck: &PckExtension,
        tdx_svns: &[u8; 16],
    ) -> Result<Self, Broken> {
        let unmatched = |what: &str| Broken::new(Code::TcbLevelUnmatched, what);
        let reached = |level: &&TcbLevel| {
            level
                .shortfalls(&pck.cpu_svn, pck.pce_svn, Some(tdx_svns))
                .is_ok_and(|shortfalls| shortfalls.is_empty())
        };
        let platform = levels
            .iter()
            .find(reached)
            .ok_or_else(|| unmatched("no TCB level for this platform"))?;
        let module: Option<&TdxModuleTcbLevel> = match tcb_info.tdx_module_identity(tdx_svns) {
            Ok(None) => None,
            Ok(Some(identity)) => Some(
                identity
                    .tcb_levels
                    .iter()
                    .find(|level| level.shortfall(tdx_svns).is_none())
                    .ok_or_else(|| unmatched("no TCB level for this TDX module"))?,
            ),
            Err(_) => return Err(unmatched("no identity for this TDX module")),
        };
        let date = |text: &str| {
            date::parse(text).ok_or_else(|| Broken::new(Code::CollateralMalformed, "a TCB date"))
        };
        let mut status =
            TcbStatusWithAdvisory::new(platform.tcb_status, platform.advisory_ids.clone());
        let mut oldest = date(&platform.tcb_date)?;
        if let Some(module) = module {
            status = status.merge(&TcbStatusWithAdvisory::new(
                module.tcb_status,
                module.advisory_ids.clone(),
            ));
            oldest = oldest.min(date(&module.tcb_date)?);
        }
        Ok(Self {
            status,
            date: oldest,
        })
    }
}

/// A domain that was launched on an outdated platform which has been updated since: Intel's `checkForRelaunch`. Revocation of either wins.
fn relaunch(launch: TcbStatus, current: TcbStatus) -> TcbStatus {
    use TcbStatus::*;
    let needs_configuration = |status| {
        matches!(
            status,
            ConfigurationNeeded | OutOfDateConfigurationNeeded | ConfigurationAndSWHardeningNeeded
        )
    };
    match (launch, current) {
        (Revoked, _) | (_, Revoked) => Revoked,
        (
            OutOfDate | OutOfDateConfigurationNeeded,
            UpToDate | SWHardeningNeeded | ConfigurationNeeded | ConfigurationAndSWHardeningNeeded,
        ) => match needs_configuration(launch) || needs_configuration(current) {
            true => TDRelaunchAdvisedConfigurationNeeded,
            false => TDRelaunchAdvised,
        },
        _ => launch,
    }
}

/// The security version of the quoting enclave that signed: ISVSVN of its report.
fn qe_svn(quote: &UntrustedQuote) -> u16 {
    const ISVSVN: usize = 258;
    let report = quote.parsed().qe_report();
    u16::from_le_bytes([report[ISVSVN], report[ISVSVN + 1]])
}

/// How far a platform is from the newest level: days, and the components that are behind, by the names that Intel gives them.
fn lag(
    documents: &dcap_qvl::QuoteCollateralV3,
    levels: &[TcbLevel],
    launch: &Evaluation,
    pck: &PckExtension,
    tdx_svns: &[u8; 16],
) -> Option<String> {
    const DAY: u64 = 24 * 60 * 60;
    let newest = levels.first()?;
    let behind = newest
        .shortfalls(&pck.cpu_svn, pck.pce_svn, Some(tdx_svns))
        .ok()?;
    let date = date::parse(&newest.tcb_date)?;
    if behind.is_empty() && launch.date >= date {
        return None;
    }
    let names = ComponentNames::read(&documents.tcb_info);
    let behind: Vec<String> = behind
        .iter()
        .map(|shortfall| names.describe(shortfall))
        .collect();
    let mut text = format!(
        "{} days behind the level of {}",
        date.saturating_sub(launch.date) / DAY,
        date::format(date)
    );
    if !behind.is_empty() {
        text = format!("{text}: {}", behind.join(", "));
    }
    Some(text)
}

/// What Intel calls the components of a TCB level.
#[derive(Default)]
struct ComponentNames {
    sgx: Vec<String>,
    tdx: Vec<String>,
}

impl ComponentNames {
    fn read(tcb_info: &str) -> Self {
        let document: serde_json::Value = serde_json::from_str(tcb_info).unwrap_or_default();
        let tcb = &document["tcbLevels"][0]["tcb"];
        let names = |list: &str| {
            let components = tcb[list].as_array();
            components
                .into_iter()
                .flatten()
                .map(|component| component["type"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        Self {
            sgx: names("sgxtcbcomponents"),
            tdx: names("tdxtcbcomponents"),
        }
    }

    fn describe(&self, shortfall: &SvnShortfall) -> String {
        let named = |kind: &str, index: u8, names: &[String]| match names
            .get(usize::from(index))
            .map(String::as_str)
        {
            None | Some("") => format!("{kind} component {index}"),
            Some(name) => format!("{kind} component {index} ({name})"),
        };
        let what = match shortfall.component {
            SvnComponent::Sgx(index) => named("SGX", index, &self.sgx),
            SvnComponent::Tdx(index) => named("TDX", index, &self.tdx),
            SvnComponent::PceSvn => "PCE".into(),
            SvnComponent::TdxModuleIsvSvn => "TDX module".into(),
        };
        format!("{what} is {}, needs {}", shortfall.have, shortfall.needs)
    }
}
