//! The options of every command that talks to a server, and the client they make.

use std::sync::Arc;

use client::{Address, Client, Options};
use verifier::Scope;

use crate::failure::Failure;
use crate::trust::Trust;

/// Where the server is and what it must show
#[derive(clap::Args, Debug)]
pub struct Connection {
    /// The server: tcp://HOST:PORT, vsock://CID:PORT or unix:PATH#PORT
    #[arg(long, value_name = "ADDRESS")]
    to: Address,
    /// Accept a server that is not in a trust domain: whoever runs it reads everything (development only)
    #[arg(long)]
    insecure_no_tee: bool,
    #[command(flatten)]
    trust: Trust,
}

impl Connection {
    /// A client; warns on stderr when it is told to trust blindly.
    pub fn client(&self) -> Result<Client, Failure> {
        let trust = match self.insecure_no_tee {
            true => client::Trust::InsecureNoTee,
            false => client::Trust::Evidence(Arc::new(self.trust.judge(Scope::Everything)?)),
        };
        if self.insecure_no_tee {
            eprintln!(
                "warning: --insecure-no-tee: nothing shows who or what answers at {}; it can read everything sent to it",
                self.to
            );
        }
        Ok(Client::new(self.to.clone(), Options::new(trust))?)
    }
}
