//! Where a server listens, as a user writes it.
//!
//! | form              | reaches                                                                  |
//! |-------------------|--------------------------------------------------------------------------|
//! | `tcp://HOST:PORT` | TCP; an IPv6 address stands in brackets                                   |
//! | `vsock://CID:PORT`| a virtual machine on this host, through the kernel's AF_VSOCK             |
//! | `unix:PATH#PORT`  | the same through a socket that speaks `CONNECT PORT`, as vhost-device-vsock and Firecracker offer |
//!
//! `Display` prints what [`Address::from_str`] reads back to an equal value.

use core::fmt;
use core::str::FromStr;
use std::net::Ipv6Addr;

/// A server's address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// TCP to a host name or IP address (IPv6 without its brackets).
    Tcp { host: String, port: u16 },
    /// AF_VSOCK to a context identifier.
    Vsock { cid: u32, port: u32 },
    /// A Unix socket that connects on to a vsock port of one guest.
    Unix { path: String, port: u32 },
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AddressError {
    /// None of the three schemes.
    Scheme(String),
    /// The port is absent.
    PortMissing(&'static str),
    /// The port is not a number in range.
    Port(String),
    /// The vsock context identifier is not a number below 2^32 - 1.
    Cid(String),
    /// The host is empty or holds a character no host has.
    Host(String),
    /// The Unix path is empty or holds a NUL byte.
    Path,
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scheme(text) => write!(
                f,
                "`{text}` is not an address: write tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT"
            ),
            Self::PortMissing(form) => write!(f, "the port is missing: write {form}"),
            Self::Port(port) => write!(f, "`{port}` is not a port number"),
            Self::Cid(cid) => write!(f, "`{cid}` is not a vsock context identifier (a number)"),
            Self::Host(host) => write!(
                f,
                "`{host}` is not a host name or IP address (IPv6 goes in brackets: tcp://[::1]:8443)"
            ),
            Self::Path => write!(
                f,
                "the socket path is empty or not usable: write unix:PATH#PORT"
            ),
        }
    }
}

impl core::error::Error for AddressError {}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(rest) = text.strip_prefix("tcp://") {
            let (host, port) = rest
                .rsplit_once(':')
                .ok_or(AddressError::PortMissing("tcp://HOST:PORT"))?;
            let host = parse_host(host)?;
            let port = parse_number(port)
                .and_then(|port| u16::try_from(port).ok())
                .filter(|&port| port != 0)
                .ok_or_else(|| AddressError::Port(port.to_owned()))?;
            Ok(Self::Tcp { host, port })
        } else if let Some(rest) = text.strip_prefix("vsock://") {
            let (cid, port) = rest
                .rsplit_once(':')
                .ok_or(AddressError::PortMissing("vsock://CID:PORT"))?;
            let cid = parse_number(cid)
                .filter(|&cid| cid != u32::MAX)
                .ok_or_else(|| AddressError::Cid(cid.to_owned()))?;
            Ok(Self::Vsock {
                cid,
                port: parse_vsock_port(port)?,
            })
        } else if let Some(rest) = text.strip_prefix("unix:") {
            let (path, port) = rest
                .rsplit_once('#')
                .ok_or(AddressError::PortMissing("unix:PATH#PORT"))?;
            if path.is_empty() || path.contains('\0') {
                return Err(AddressError::Path);
            }
            Ok(Self::Unix {
                path: path.to_owned(),
                port: parse_vsock_port(port)?,
            })
        } else {
            Err(AddressError::Scheme(text.to_owned()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp://[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp://{host}:{port}"),
            Self::Vsock { cid, port } => write!(f, "vsock://{cid}:{port}"),
            Self::Unix { path, port } => write!(f, "unix:{path}#{port}"),
        }
    }
}

/// A host name, an IPv4 address, or an IPv6 address in brackets (returned without them).
fn parse_host(text: &str) -> Result<String, AddressError> {
    let bad = || AddressError::Host(text.to_owned());
    if let Some(inner) = text.strip_prefix('[') {
        let inner = inner.strip_suffix(']').ok_or_else(bad)?;
        inner.parse::<Ipv6Addr>().map_err(|_| bad())?;
        return Ok(inner.to_owned());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    if text.is_empty() || !text.chars().all(allowed) {
        return Err(bad());
    }
    Ok(text.to_owned())
}

/// AF_VSOCK ports are 32 bits wide; the all-ones value means "any" and reaches nobody.
fn parse_vsock_port(text: &str) -> Result<u32, AddressError> {
    parse_number(text)
        .filter(|&port| port != 0 && port != u32::MAX)
        .ok_or_else(|| AddressError::Port(text.to_owned()))
}

/// Decimal digits only: `str::parse` would also take a sign.
fn parse_number(text: &str) -> Option<u32> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_the_three_forms() {
        assert_eq!(
            "tcp://127.0.0.1:8443".parse(),
            Ok(Address::Tcp {
                host: "127.0.0.1".into(),
                port: 8443
            })
        );
        assert_eq!(
            "tcp://[::1]:443".parse(),
            Ok(Address::Tcp {
                host: "::1".into(),
                port: 443
            })
        );
        assert_eq!(
            "vsock://3:8443".parse(),
            Ok(Address::Vsock { cid: 3, port: 8443 })
        );
        assert_eq!(
            "unix:/run/a#b.sock#8443".parse(),
            Ok(Address::Unix {
                path: "/run/a#b.sock".into(),
                port: 8443
            })
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let error = |text: &str| text.parse::<Address>().unwrap_err();
        assert!(matches!(
            error("https://example.com"),
            AddressError::Scheme(_)
        ));
        assert!(matches!(error("tcp://host"), AddressError::PortMissing(_)));
        assert!(matches!(error("tcp://host:0"), AddressError::Port(_)));
        assert!(matches!(error("tcp://host:65536"), AddressError::Port(_)));
        assert!(matches!(error("tcp://host:+5"), AddressError::Port(_)));
        assert!(matches!(error("tcp://::1:8443"), AddressError::Host(_)));
        assert!(matches!(error("tcp://[::1:8443"), AddressError::Host(_)));
        assert!(matches!(error("tcp://:8443"), AddressError::Host(_)));
        assert!(matches!(error("tcp://a/b:1"), AddressError::Host(_)));
        assert!(matches!(error("vsock://guest:1"), AddressError::Cid(_)));
        assert!(matches!(
            error("vsock://4294967295:1"),
            AddressError::Cid(_)
        ));
        assert!(matches!(error("unix:/run/x"), AddressError::PortMissing(_)));
        assert_eq!(error("unix:#1"), AddressError::Path);
    }

    fn address() -> impl Strategy<Value = Address> {
        prop_oneof![
            ("[a-z0-9._-]{1,30}", 1..=u16::MAX)
                .prop_map(|(host, port)| Address::Tcp { host, port }),
            (any::<[u16; 8]>(), 1..=u16::MAX).prop_map(|(ip, port)| Address::Tcp {
                host: Ipv6Addr::from(ip).to_string(),
                port
            }),
            (0..u32::MAX, 1..u32::MAX).prop_map(|(cid, port)| Address::Vsock { cid, port }),
            ("[^\0]{1,40}", 1..u32::MAX).prop_map(|(path, port)| Address::Unix { path, port }),
        ]
    }

    proptest! {
        #[test]
        fn display_round_trips(address in address()) {
            prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,60}") {
            if let Ok(address) = text.parse::<Address>() {
                prop_assert_eq!(address.to_string().parse::<Address>(), Ok(address));
            }
        }
    }
}
