//! The configuration: a small TOML file on a disk of its own. Every key has a default, so that no file
//! at all is a valid one.
//!
//! ```toml
//! [listen]
//! tcp = 8443             # TCP port over virtio-net; 0 for none
//! vsock = 8443           # vsock port; 0 for none
//! address = "dhcp"       # or a static one with its prefix length: "192.0.2.10/24"
//! gateway = "192.0.2.1"  # default route of a static address; none if absent
//!
//! [limits]
//! connections = 32           # open at a time
//! queue = 16                 # requests waiting for the engine, before 429
//! challenges = 8             # clients waiting for evidence, before 503
//! request_bytes = 262144     # one request body
//! header_bytes = 16384       # one request line with its headers
//! answer_tokens = 1024       # answer of a chat request that does not say
//! handshake_seconds = 10     # to complete TLS
//! header_seconds = 10        # from a request's first byte to the end of its headers
//! body_seconds = 60          # from there to the end of its body
//! idle_seconds = 60          # between requests
//! write_seconds = 30         # for a client to take some of the bytes waiting for it
//! certificate_seconds = 600  # validity of a certificate; it is replaced after two thirds of it
//!
//! [model]
//! name = "qwen3"         # what clients call it; the file's own name if absent
//! context = 4096         # tokens of one sequence, prompt and answer
//! max_sequences = 8      # computed at a time
//! threads = 0            # CPUs to compute on; 0 for all
//! kv = "f16"             # precision of the KV cache: "f16" or "q8_0"
//! version = 0            # the owner raises it with every release of the model
//!
//! [trust]
//! # Who brings the key of a sealed model signs for it with this Ed25519 key; if absent, anybody who has the key may bring it.
//! provisioner = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
//! # What clients are told to demand of the platform: least security versions of its sixteen TCB components and of TEE_TCB_SVN,
//! # the least tcbEvaluationDataNumber it is judged by, and advisories that must not apply to it, such as "INTEL-SA-00837".
//! minimum_cpu_svn = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
//! minimum_tdx_svn = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
//! minimum_tcb_evaluation = 0
//! refused_advisories = []
//! ```
//!
//! The operator, not a client, writes this file, and may well mistype: an unknown key, a wrong type or
//! a value out of bounds is an error of one line that names the place.
//!
//! What of it is measured, [`Config::canonical`] says.

mod canonical;

mod trust;

use alloc::{format, string::String};
use core::{fmt, net::Ipv4Addr, ops::RangeInclusive, time::Duration};

use serde::Deserialize;

pub use trust::Trust;

/// Everything the operator can set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where clients connect.
    pub listen: Listen,
    /// What clients may use up.
    pub limits: Limits,
    /// How the model is served.
    pub model: Model,
    /// Who may bring its key, and what the platform must be.
    pub trust: Trust,
}

/// `[listen]`: where clients connect.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// TCP port over virtio-net; 0 for none.
    pub tcp: u16,
    /// vsock port; 0 for none.
    pub vsock: u32,
    /// How the network card gets its address.
    pub address: Address,
    /// Default route of a static address.
    pub gateway: Option<Ipv4Addr>,
}

/// How the network card gets its IPv4 address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Address {
    /// From a DHCP server.
    #[default]
    Dhcp,
    /// From the configuration.
    Static {
        /// The address.
        address: Ipv4Addr,
        /// Bits of it that name the network, 0 to 32.
        prefix: u8,
    },
}

/// `[limits]`: what clients may use up. Bytes, seconds and counts as the names say.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Connections open at a time.
    pub connections: usize,
    /// Requests waiting for the engine.
    pub queue: usize,
    /// Challenges waiting for a quote.
    pub challenges: usize,
    /// One request body.
    pub request_bytes: usize,
    /// One request line with its headers.
    pub header_bytes: usize,
    /// Length of a chat answer whose request does not say, in tokens.
    pub answer_tokens: usize,
    handshake_seconds: u64,
    header_seconds: u64,
    body_seconds: u64,
    idle_seconds: u64,
    write_seconds: u64,
    certificate_seconds: u64,
}

/// How long a client may take for what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timeouts {
    pub(crate) handshake: Duration,
    pub(crate) header: Duration,
    pub(crate) body: Duration,
    pub(crate) idle: Duration,
    pub(crate) write: Duration,
}

/// `[model]`: how the model is served.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Model {
    /// What clients call it; the name in the model file if absent.
    pub name: Option<String>,
    /// Tokens of one sequence, prompt and answer.
    pub context: usize,
    /// Sequences computed at a time.
    pub max_sequences: usize,
    /// CPUs to compute on; 0 for all.
    pub threads: usize,
    /// Precision of the KV cache.
    pub kv: KvPrecision,
    /// The owner raises it with every release of the model; clients refuse to go back.
    pub version: u64,
}

/// Precision of the KV cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum KvPrecision {
    /// 16-bit floating point.
    #[default]
    #[serde(rename = "f16")]
    F16,
    /// 8-bit blocks: half the memory, slightly less exact.
    #[serde(rename = "q8_0")]
    Q8_0,
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            tcp: 8443,
            vsock: 8443,
            address: Address::Dhcp,
            gateway: None,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 32,
            queue: 16,
            challenges: 8,
            request_bytes: 256 << 10,
            header_bytes: 16 << 10,
            answer_tokens: 1024,
            handshake_seconds: 10,
            header_seconds: 10,
            body_seconds: 60,
            idle_seconds: 60,
            write_seconds: 30,
            certificate_seconds: 600,
        }
    }
}

impl Default for Model {
    fn default() -> Self {
        Self {
            name: None,
            context: 4096,
            max_sequences: 8,
            threads: 0,
            kv: KvPrecision::F16,
            version: 0,
        }
    }
}

impl Limits {
    /// How long a certificate is valid.
    pub(crate) fn certificate_lifetime(&self) -> Duration {
        Duration::from_secs(self.certificate_seconds)
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        Timeouts {
            handshake: Duration::from_secs(self.handshake_seconds),
            header: Duration::from_secs(self.header_seconds),
            body: Duration::from_secs(self.body_seconds),
            idle: Duration::from_secs(self.idle_seconds),
            write: Duration::from_secs(self.write_seconds),
        }
    }
}

impl Config {
    /// Parses a configuration file.
    ///
    /// # Errors
    /// The first thing wrong with it.
    pub fn parse(file: &[u8]) -> Result<Self, ConfigError> {
        let text = core::str::from_utf8(file).map_err(|error| ConfigError {
            line: Some(line_at(file, error.valid_up_to())),
            message: "the file is not UTF-8 text".into(),
        })?;
        let config: Self = toml::from_str(text).map_err(|error| {
            let start = error.span().map(|span| span.start);
            let key = start.and_then(|start| key_at(text, start));
            // The library lists what it expected on further lines; one line is promised here.
            let message = error.message().lines().next().unwrap_or("it is not TOML");
            ConfigError {
                line: start.map(|start| line_at(file, start)),
                message: match key {
                    Some(key) if !message.contains(key) => format!("`{key}`: {message}"),
                    _ => message.into(),
                },
            }
        })?;
        config.check().map_err(|(key, problem)| ConfigError {
            line: key_position(text, key).map(|start| line_at(file, start)),
            message: format!("`{key}` must be {problem}"),
        })?;
        Ok(config)
    }

    /// Checks what types cannot say. The error names the key and what its value must be.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let limits = &self.limits;
        within("connections", limits.connections, 1..=1024)?;
        within("queue", limits.queue, 1..=1024)?;
        within("challenges", limits.challenges, 1..=1024)?;
        within("request_bytes", limits.request_bytes, 1024..=64 << 20)?;
        within("header_bytes", limits.header_bytes, 1024..=64 << 10)?;
        within("answer_tokens", limits.answer_tokens, 1..=1 << 20)?;
        for (key, seconds) in [
            ("handshake_seconds", limits.handshake_seconds),
            ("header_seconds", limits.header_seconds),
            ("body_seconds", limits.body_seconds),
            ("idle_seconds", limits.idle_seconds),
            ("write_seconds", limits.write_seconds),
        ] {
            within(key, seconds, 1..=3600)?;
        }
        within("certificate_seconds", limits.certificate_seconds, 15..=3000)?;
        within("context", self.model.context, 16..=1 << 20)?;
        within("max_sequences", self.model.max_sequences, 1..=256)?;
        within("threads", self.model.threads, 0..=1024)?;
        if let Some(name) = &self.model.name {
            let printable = name.chars().all(|c| !c.is_control());
            if !printable || !(1..=128).contains(&name.len()) {
                return Err(("name", "1 to 128 bytes of printable text".into()));
            }
        }
        if self.listen.tcp == 0 && self.listen.vsock == 0 {
            return Err((
                "tcp",
                "a port, or `vsock` must be one: nothing listens".into(),
            ));
        }
        match (self.listen.address, self.listen.gateway) {
            (Address::Dhcp, Some(_)) => {
                Err(("gateway", "absent when the address comes from DHCP".into()))
            }
            (Address::Static { address, prefix }, Some(gateway))
                if !same_network(address, gateway, prefix) =>
            {
                Err(("gateway", "in the network of `address`".into()))
            }
            _ => Ok(()),
        }
    }
}

fn within<T: PartialOrd + fmt::Display>(
    key: &'static str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<(), (&'static str, String)> {
    if range.contains(&value) {
        return Ok(());
    }
    Err((
        key,
        format!("from {} to {}, not {value}", range.start(), range.end()),
    ))
}

/// Whether two addresses agree in their first `prefix` bits.
fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    let host_bits = 32_u32.saturating_sub(prefix.into());
    let network = |address: Ipv4Addr| address.to_bits().checked_shr(host_bits).unwrap_or(0);
    network(one) == network(other)
}

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const EXPECTED: &str = "must be \"dhcp\" or an IPv4 address with a prefix length, such as \
                                \"192.0.2.10/24\"";
        if text == "dhcp" {
            return Ok(Self::Dhcp);
        }
        let (address, prefix) = text.split_once('/').ok_or(EXPECTED)?;
        let address = address.parse().map_err(|_| EXPECTED)?;
        let prefix = prefix
            .parse()
            .ok()
            .filter(|&bits| bits <= 32)
            .ok_or(EXPECTED)?;
        Ok(Self::Static { address, prefix })
    }
}

/// The number of the line that holds the byte at `position`, from 1.
fn line_at(file: &[u8], position: usize) -> usize {
    let before = &file[..position.min(file.len())];
    before.iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// The key whose line holds the byte at `position`.
fn key_at(text: &str, position: usize) -> Option<&str> {
    let start = text
        .get(..position)?
        .rfind('\n')
        .map_or(0, |newline| newline + 1);
    let (key, _) = text.get(start..)?.lines().next()?.split_once('=')?;
    Some(key.trim()).filter(|key| !key.is_empty())
}

/// Where a line sets `key`; all keys have different names.
fn key_position(text: &str, key: &str) -> Option<usize> {
    let mut position = 0;
    for line in text.split_inclusive('\n') {
        if line
            .split_once('=')
            .is_some_and(|(name, _)| name.trim() == key)
        {
            return Some(position);
        }
        position += line.len();
    }
    None
}

/// What is wrong with a configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The line, from 1, where one can be named.
    line: Option<usize>,
    message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "configuration, line {line}: {}", self.message),
            None => write!(f, "configuration: {}", self.message),
        }
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests;
