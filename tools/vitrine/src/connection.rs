//! The options of every command that talks to a server, and the client they make.

use core::time::Duration;
use std::sync::Arc;

use client::{Address, Client, Health, Options};
use verifier::Scope;

use crate::failure::Failure;
use crate::owner::Owner;
use crate::trust::Trust;

/// Where the server is and what it must show
#[derive(clap::Args, Debug)]
pub struct Connection {
    /// The server: tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT
    #[arg(long, value_name = "ADDRESS")]
    to: Address,
    /// Accept a server that is not in a trust domain: whoever runs it reads everything (development only)
    #[arg(long, conflicts_with_all = ["Trust", "Owner"])]
    insecure_no_tee: bool,
    /// Verify a connection anew before it is used after this time
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    max_age: u32,
    #[command(flatten)]
    trust: Trust,
    #[command(flatten)]
    owner: Owner,
}

impl Connection {
    /// Whether the server is not asked for evidence.
    pub fn is_insecure(&self) -> bool {
        self.insecure_no_tee
    }

    /// What a server says of itself over a connection that nobody has judged. Nothing private is sent.
    pub fn unverified_health(&self) -> Result<Health, client::Error> {
        let options = Options::new(client::Trust::InsecureNoTee);
        Client::new(self.to.clone(), options)?.health()
    }

    /// A client; warns on stderr when it is told to trust blindly.
    pub fn client(&self) -> Result<Client, Failure> {
        let trust = match self.insecure_no_tee {
            true => client::Trust::InsecureNoTee,
            false => {
                let judge = self
                    .trust
                    .judge(Scope::Everything)?
                    .demanding(self.owner.key());
                client::Trust::Evidence(Arc::new(judge))
            }
        };
        if self.insecure_no_tee {
            eprintln!(
                "warning: --insecure-no-tee: nothing shows who or what answers at {}; it can read everything sent to it",
                self.to
            );
        }
        let mut options = Options::new(trust);
        options.max_age = Duration::from_secs(self.max_age.into());
        Ok(Client::new(self.to.clone(), options)?)
    }
}
