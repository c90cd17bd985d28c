//! A `vitrine proxy` as its users have it: a process, asked with curl.

use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use super::World;
use crate::failure::{Failure, Result};
use crate::guest::free_port;
use crate::interrupt;
use crate::process::{self, Process};

/// For it to find out something about its servers.
const SETTLE: Duration = Duration::from_secs(90);
/// For a request that needs no computation.
pub const SOON: Duration = Duration::from_secs(60);

/// A running `vitrine proxy`.
pub struct Endpoint {
    _process: Process,
    base: String,
}

impl Endpoint {
    /// Starts it with these options, and waits until each of its servers was tried.
    pub fn start(world: &World, options: &[&str]) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let mut command = world.vitrine(&["proxy", "--listen", &listen]);
        command
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let endpoint = Self {
            _process: Process::start(&mut command)?,
            base: format!("http://{listen}"),
        };
        endpoint.wait("tried each server", |upstreams| {
            upstreams.iter().all(|one| one.standing != "unknown")
        })?;
        Ok(endpoint)
    }

    /// Its URL, without a path.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `curl` on a path.
    pub fn curl(&self, path: &str) -> Command {
        let mut command = Command::new("curl");
        command.args(["--silent", "--show-error", "--max-time", "170"]);
        command.arg(format!("{}{path}", self.base));
        command
    }

    /// `curl` with a question.
    pub fn ask(&self, prompt: &str, tokens: u32, stream: bool) -> Command {
        let mut command = self.curl("/v1/chat/completions");
        let body = json!({
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": tokens, "temperature": 0, "stream": stream,
        });
        command.args(["--header", "Content-Type: application/json", "--data"]);
        command.arg(body.to_string());
        command
    }

    /// What it tells programs of its servers.
    pub fn status(&self) -> Result<Value> {
        let text = process::text(&mut self.curl("/vitrine/status"), SOON)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Its servers, in the order in which it was given them.
    pub fn upstreams(&self) -> Result<Vec<Upstream>> {
        Ok(serde_json::from_value(self.status()?["upstreams"].take())?)
    }

    /// Waits until `condition` holds of the servers.
    pub fn wait(
        &self,
        what: &str,
        condition: impl Fn(&[Upstream]) -> bool,
    ) -> Result<Vec<Upstream>> {
        let deadline = Instant::now() + SETTLE;
        loop {
            interrupt::check()?;
            // Nobody listens yet in the first moment.
            let upstreams = self.upstreams();
            match &upstreams {
                Ok(found) if condition(found) => return upstreams,
                _ if Instant::now() < deadline => thread::sleep(Duration::from_millis(200)),
                Ok(found) => {
                    return Err(Failure::new(format!("the proxy has not {what}: {found:?}")));
                }
                Err(_) => return upstreams,
            }
        }
    }
}

/// A server as `/vitrine/status` tells of it.
#[derive(Debug, Deserialize)]
pub struct Upstream {
    pub standing: String,
    pub reason: Option<String>,
    pub connections: Connections,
    pub requests: u64,
    pub reports: Vec<Value>,
}

#[derive(Debug, Deserialize)]
pub struct Connections {
    pub verified: u64,
}
