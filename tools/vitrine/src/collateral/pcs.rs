//! Intel's provisioning certification service, version 4, and caches of it in data centres (PCCS) that speak the same.
//!
//! What it gives is not trusted: it is signed, and the verifier checks that. A copy is kept until it expires, but asked for anew after
//! a day, so that a revocation is noticed; when the service does not answer, a copy that has not expired will do.

use core::fmt;
use core::time::Duration;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use verifier::{Code, Collateral, UntrustedQuote};

use crate::memory::{self, clock};

const TIMEOUT: Duration = Duration::from_secs(20);
/// One document with its headers; genuine ones have at most 20 KB.
const MAX_DOCUMENT: u64 = 128 << 10;
/// How long a copy is used without asking.
const FRESH: u64 = 24 * 60 * 60;
/// Intel's own service has the root's revocation list elsewhere.
const INTEL_ROOT_CRL: &str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der";

/// A service.
pub struct Service {
    base: String,
    agent: ureq::Agent,
}

/// Why a service gave nothing.
#[derive(Debug)]
pub enum ServiceError {
    /// No answer, or one of an error.
    Http {
        url: String,
        error: Box<ureq::Error>,
    },
    /// An answer that is not what was asked for: which part of it.
    Answer { url: String, part: &'static str },
}

impl ServiceError {
    /// The service answers, and has no such document.
    fn is_not_found(&self) -> bool {
        match self {
            Self::Http { error, .. } => matches!(**error, ureq::Error::StatusCode(404)),
            Self::Answer { .. } => false,
        }
    }
}

impl fmt::Display for ServiceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http { url, error } => write!(f, "{url}: {error}")?,
            Self::Answer { url, part } => write!(f, "{url}: {part} is missing or not readable")?,
        }
        f.write_str("\n--collateral takes a file, a directory or another service instead.")
    }
}

/// A signed document and the chain of its signer.
struct Signed {
    document: String,
    /// Hexadecimal.
    signature: String,
    chain: String,
}

#[derive(Deserialize)]
struct TcbInfo<'a> {
    #[serde(rename = "tcbInfo", borrow)]
    document: &'a RawValue,
    signature: String,
}

#[derive(Deserialize)]
struct EnclaveIdentity<'a> {
    #[serde(rename = "enclaveIdentity", borrow)]
    document: &'a RawValue,
    signature: String,
}

impl Service {
    /// The service at a base URL, which ends before `/sgx` and `/tdx`.
    pub fn new(base: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .max_redirects(3)
            .user_agent("vitrine")
            .build();
        Self {
            base: base.to_owned(),
            agent: config.into(),
        }
    }

    /// Collateral for a quote, as JSON, from the copy kept or from the service. A quote whose platform is not known has none.
    pub fn collateral(
        &self,
        quote: &UntrustedQuote,
        now: u64,
    ) -> Result<Result<Vec<u8>, Code>, ServiceError> {
        let (Some(fmspc), Some(issuer)) = (quote.fmspc(), quote.pck_issuer()) else {
            return Ok(Err(Code::CollateralMissing));
        };
        let fmspc: String = fmspc.iter().map(|byte| format!("{byte:02x}")).collect();
        let authority = authority(&issuer);
        let copy = self.copy(&fmspc, authority);
        let kept = copy.as_ref().and_then(|file| Copy::read(file, now));
        if let Some(Copy { fresh: true, json }) = kept {
            return Ok(Ok(json));
        }
        match (self.fetch(&fmspc, authority), kept) {
            (Ok(json), _) => {
                if let Some(file) = copy {
                    keep(&file, &json);
                }
                Ok(Ok(json))
            }
            (Err(error), Some(copy)) => {
                eprintln!("warning: {error}\nUsing the copy that was kept; it has not expired.");
                Ok(Ok(copy.json))
            }
            (Err(error), None) if error.is_not_found() => Ok(Err(Code::CollateralMissing)),
            (Err(error), None) => Err(error),
        }
    }

    /// Asks for everything.
    fn fetch(&self, fmspc: &str, authority: &str) -> Result<Vec<u8>, ServiceError> {
        let tcb = self.signed(
            &format!("{}/tdx/certification/v4/tcb?fmspc={fmspc}", self.base),
            "TCB-Info-Issuer-Chain",
            |body| {
                let TcbInfo {
                    document,
                    signature,
                } = serde_json::from_slice(body).ok()?;
                Some((document.get().to_owned(), signature))
            },
        )?;
        let identity = self.signed(
            &format!("{}/tdx/certification/v4/qe/identity", self.base),
            "SGX-Enclave-Identity-Issuer-Chain",
            |body| {
                let EnclaveIdentity {
                    document,
                    signature,
                } = serde_json::from_slice(body).ok()?;
                Some((document.get().to_owned(), signature))
            },
        )?;
        let url = format!(
            "{}/sgx/certification/v4/pckcrl?ca={authority}&encoding=der",
            self.base
        );
        let (pck_crl, chain) = self.get(&url, Some("SGX-PCK-CRL-Issuer-Chain"))?;
        let bundle = serde_json::json!({
            "pck_crl_issuer_chain": chain,
            "root_ca_crl": self.root_crl()?,
            "pck_crl": list(&pck_crl),
            "tcb_info_issuer_chain": tcb.chain,
            "tcb_info": tcb.document,
            "tcb_info_signature": tcb.signature,
            "qe_identity_issuer_chain": identity.chain,
            "qe_identity": identity.document,
            "qe_identity_signature": identity.signature,
        });
        Ok(bundle.to_string().into_bytes())
    }

    /// A document, exactly as it was signed: nothing of it is parsed and written again.
    fn signed(
        &self,
        url: &str,
        header: &'static str,
        split: impl Fn(&[u8]) -> Option<(String, String)>,
    ) -> Result<Signed, ServiceError> {
        let (body, chain) = self.get(url, Some(header))?;
        let (document, signature) = split(&body).ok_or_else(|| ServiceError::Answer {
            url: url.to_owned(),
            part: "the signed document",
        })?;
        Ok(Signed {
            document,
            signature,
            chain,
        })
    }

    /// The root's revocation list, hexadecimal.
    fn root_crl(&self) -> Result<String, ServiceError> {
        let here = format!("{}/sgx/certification/v4/rootcacrl", self.base);
        let url = match self.base == super::INTEL {
            true => INTEL_ROOT_CRL,
            false => &here,
        };
        Ok(list(&self.get(url, None)?.0))
    }

    /// A body, and the chain of certificates in a header, which is URL-encoded PEM.
    fn get(
        &self,
        url: &str,
        header: Option<&'static str>,
    ) -> Result<(Vec<u8>, String), ServiceError> {
        let failed = |error| ServiceError::Http {
            url: url.to_owned(),
            error: Box::new(error),
        };
        let mut response = self.agent.get(url).call().map_err(failed)?;
        let chain = match header {
            None => String::new(),
            Some(name) => response
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
                .and_then(|value| {
                    percent_encoding::percent_decode_str(value)
                        .decode_utf8()
                        .ok()
                })
                .ok_or_else(|| ServiceError::Answer {
                    url: url.to_owned(),
                    part: name,
                })?
                .into_owned(),
        };
        let body = response.body_mut().with_config().limit(MAX_DOCUMENT);
        Ok((body.read_to_vec().map_err(failed)?, chain))
    }

    /// Where the copy for a family of processors is kept; `None` where the user has no home.
    fn copy(&self, fmspc: &str, authority: &str) -> Option<PathBuf> {
        let set = |name| std::env::var_os(name).filter(|value| !value.is_empty());
        let cache = match set("XDG_CACHE_HOME") {
            Some(cache) => PathBuf::from(cache),
            None => PathBuf::from(set("HOME")?).join(".cache"),
        };
        let service: String = self
            .base
            .chars()
            .map(|c| match c.is_ascii_alphanumeric() || c == '.' {
                true => c,
                false => '-',
            })
            .collect();
        Some(cache.join(format!(
            "vitrine/collateral/{service}-{authority}-{fmspc}.json"
        )))
    }
}

/// What the service calls the authority that issued a platform's certificate, by that authority's name.
fn authority(issuer: &str) -> &'static str {
    match issuer.contains("Processor CA") {
        true => "processor",
        false => "platform",
    }
}

/// A revocation list in hexadecimal; caches answer with that, Intel with DER.
fn list(body: &[u8]) -> String {
    match core::str::from_utf8(body).map(str::trim) {
        Ok(text) if text.bytes().all(|byte| byte.is_ascii_hexdigit()) => text.to_owned(),
        _ => body.iter().map(|byte| format!("{byte:02x}")).collect(),
    }
}

/// A copy that has not expired.
struct Copy {
    json: Vec<u8>,
    /// Whether it need not be asked for anew.
    fresh: bool,
}

impl Copy {
    fn read(file: &PathBuf, now: u64) -> Option<Self> {
        let json = crate::trust::read(file, verifier::MAX_COLLATERAL).ok()?;
        let subject = Collateral::parse(&json).ok()?.subject()?;
        let written = fs::metadata(file).ok()?.modified().ok()?;
        let written = written
            .duration_since(std::time::UNIX_EPOCH)
            .ok()?
            .as_secs();
        (subject.issued..=subject.expires)
            .contains(&now)
            .then(|| Self {
                json,
                fresh: clock::now().saturating_sub(written) < FRESH,
            })
    }
}

/// Keeps a copy; without it the next verification asks again, which is worth no more than a word.
fn keep(file: &Path, json: &[u8]) {
    let written = memory::replace(file, json);
    if let Err(error) = written {
        eprintln!(
            "warning: {}: {error}; collateral is not kept",
            file.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_authority_has_a_list_of_its_own() {
        let name = |kind| format!("CN=Intel SGX PCK {kind} CA,O=Intel Corporation,L=Santa Clara");
        assert_eq!(authority(&name("Processor")), "processor");
        assert_eq!(authority(&name("Platform")), "platform");
    }

    #[test]
    fn lists_come_in_either_form() {
        assert_eq!(list(b"30820122\n"), "30820122");
        assert_eq!(list(&[0x30, 0x82, 0x01]), "308201");
    }
}
