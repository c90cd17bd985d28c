//! What makes a QEMU machine a trust domain: the `tdx-guest` object, and the quote service it talks to.
//!
//! Mainline QEMU, 10.1 or newer, on a kernel that hosts TDs (QEMU's `docs/system/i386/tdx.rst`). SEPT_VE_DISABLE is its default; nothing
//! else is asked for, so that the TD's attributes are those the manifest requires.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::Serialize;

/// What the machine's `confidential-guest-support` names.
pub const ID: &str = "tdx0";
/// Where Intel's quote generation service listens unless told otherwise.
pub const DEFAULT_QUOTE_SERVICE: &str = "unix:/run/tdx-qgs/qgs.socket";

/// Where QEMU reaches the quote generation service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum QuoteService {
    /// A Unix socket.
    Unix { path: PathBuf },
    /// A port on a vsock context. QEMU takes both numbers as text.
    Vsock { cid: String, port: String },
}

impl FromStr for QuoteService {
    type Err = String;

    /// `unix:PATH` or `vsock://CID:PORT`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "write unix:PATH or vsock://CID:PORT".to_owned();
        if let Some(path) = text.strip_prefix("unix:") {
            return match path.is_empty() {
                true => Err(wrong()),
                false => Ok(Self::Unix { path: path.into() }),
            };
        }
        let (cid, port) = text
            .strip_prefix("vsock://")
            .and_then(|rest| rest.split_once(':'))
            .ok_or_else(wrong)?;
        let (cid, port): (u32, u32) = (
            cid.parse().map_err(|_| wrong())?,
            port.parse().map_err(|_| wrong())?,
        );
        Ok(Self::Vsock {
            cid: cid.to_string(),
            port: port.to_string(),
        })
    }
}

impl fmt::Display for QuoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix { path } => write!(f, "unix:{}", path.display()),
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
        }
    }
}

/// QEMU's object of type `tdx-guest`.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct TdxGuest<'a> {
    qom_type: &'static str,
    id: &'static str,
    quote_generation_socket: &'a QuoteService,
}

/// The value of `-object` for a TD whose quotes come from `quotes`.
pub fn object(quotes: &QuoteService) -> String {
    let guest = TdxGuest {
        qom_type: "tdx-guest",
        id: ID,
        quote_generation_socket: quotes,
    };
    serde_json::to_string(&guest).expect("text and nothing else")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_object_is_what_qemu_documents() {
        let object = |text: &str| {
            let quotes = text.parse().unwrap();
            serde_json::from_str::<serde_json::Value>(&object(&quotes)).unwrap()
        };
        assert_eq!(
            object("unix:/run/a,b \"c\".socket"),
            serde_json::json!({"qom-type": "tdx-guest", "id": "tdx0",
                "quote-generation-socket": {"type": "unix", "path": "/run/a,b \"c\".socket"}})
        );
        assert_eq!(
            object("vsock://2:4050")["quote-generation-socket"],
            serde_json::json!({"type": "vsock", "cid": "2", "port": "4050"})
        );
    }

    #[test]
    fn addresses_read_back_and_nonsense_is_refused() {
        for text in [DEFAULT_QUOTE_SERVICE, "vsock://2:4050"] {
            assert_eq!(text.parse::<QuoteService>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "unix:",
            "/run/x",
            "vsock://2",
            "vsock://x:1",
            "vsock://2:-1",
            "tcp://h:1",
        ] {
            assert!(text.parse::<QuoteService>().is_err(), "{text}");
        }
    }
}
