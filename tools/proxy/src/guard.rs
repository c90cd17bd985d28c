//! Who may ask. Any page in a browser on this machine can reach a loopback address; what it cannot do is to name another host than
//! its own, or to hide where it comes from.

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, ORIGIN};

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intrusion {
    /// It was meant for a host that this is not: a name that was made to point here.
    Host,
    /// It comes from a page of another server.
    Origin,
}

impl Intrusion {
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Self::Host => "this is only for localhost",
            Self::Origin => "this is not for pages of other servers",
        }
    }
}

/// Whether a request comes from a program of this machine, or from this proxy's own page.
pub(crate) fn check(headers: &HeaderMap, listening: SocketAddr) -> Result<(), Intrusion> {
    let text = |name| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap_or_default())
    };
    let host = text(HOST).unwrap_or_default();
    if listening.ip().is_loopback() && !is_loopback(host) {
        return Err(Intrusion::Host);
    }
    match text(ORIGIN) {
        Some(origin) if origin.strip_prefix("http://") != Some(host) => Err(Intrusion::Origin),
        _ => Ok(()),
    }
}

/// Whether the value of a `Host` field is this machine's own, whatever the port.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name
        .strip_prefix('[')
        .and_then(|name| name.strip_suffix(']'));
    match address.unwrap_or(name).parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hyper::header::HeaderValue;

    fn headers(host: &str, origin: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, HeaderValue::from_str(origin).unwrap());
        }
        headers
    }

    #[test]
    fn programs_of_this_machine_may_ask() {
        let listening = SocketAddr::from(([127, 0, 0, 1], 8080));
        for host in [
            "localhost:8080",
            "127.0.0.1:8080",
            "[::1]:8080",
            "LocalHost",
            "127.0.0.9",
            "[::1]",
        ] {
            assert_eq!(check(&headers(host, None), listening), Ok(()), "{host}");
        }
        let own = headers("localhost:8080", Some("http://localhost:8080"));
        assert_eq!(check(&own, listening), Ok(()));
    }

    #[test]
    fn pages_of_others_may_not() {
        let listening = SocketAddr::from(([127, 0, 0, 1], 8080));
        for host in [
            "attacker.example:8080",
            "attacker.example",
            "",
            "127.0.0.1.attacker.example",
            "192.0.2.1:8080",
        ] {
            assert_eq!(
                check(&headers(host, None), listening),
                Err(Intrusion::Host),
                "{host}"
            );
        }
        for origin in [
            "https://attacker.example",
            "null",
            "https://localhost:8080",
            "http://localhost:8081",
        ] {
            let headers = headers("localhost:8080", Some(origin));
            assert_eq!(
                check(&headers, listening),
                Err(Intrusion::Origin),
                "{origin}"
            );
        }
        // Whoever listens for others is called by other names.
        let open = SocketAddr::from(([0, 0, 0, 0], 8080));
        assert_eq!(check(&headers("box.example:8080", None), open), Ok(()));
    }
}
