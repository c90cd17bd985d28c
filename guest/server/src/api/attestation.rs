//! `POST /attestation`: fresh evidence for this connection.
//!
//! The request is `{"nonce": "<64 hexadecimal digits>", "purpose": "session"}`, or `"key-release"` before a model's key is
//! sent; the answer is the CBOR that `attestation::challenge` defines.

use alloc::vec::Vec;

use attestation::challenge::{EXPORTER_LABEL, Purpose};
use serde::Deserialize;

use super::{ApiError, Service};
use crate::{
    Inference,
    evidence::{Peer, QueueFull, Ticket},
    hex::Hex,
    http::{Request, Response, Status},
    tls::Session,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    nonce: Hex<32>,
    purpose: RequestedPurpose,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum RequestedPurpose {
    Session,
    KeyRelease,
}

impl<I: Inference> Service<I> {
    /// Takes a challenge on, to be answered when the quote is there.
    pub(super) fn attest(
        &mut self,
        request: &Request,
        session: &Session,
    ) -> Result<Ticket, ApiError> {
        let body: Body = serde_json::from_slice(&request.body).map_err(ApiError::not_json)?;
        if !self.attestor.has_domain() {
            return Err(ApiError::no_evidence());
        }
        let exporter = session.export(EXPORTER_LABEL, &body.nonce.0);
        let peer = Peer {
            leaf: session.leaf(),
            exporter: exporter.ok_or_else(|| ApiError::internal("the session has no exporter"))?,
        };
        let purpose = match body.purpose {
            RequestedPurpose::Session => Purpose::Session,
            RequestedPurpose::KeyRelease => Purpose::KeyRelease,
        };
        self.attestor
            .challenge(purpose, body.nonce.0, &peer)
            .map_err(|QueueFull| ApiError::evidence_delayed("too many challenges are waiting"))
    }

    /// The response to a challenge, once there is one.
    pub(crate) fn take_attestation(
        &mut self,
        ticket: Ticket,
    ) -> Option<Result<Response, ApiError>> {
        let answer = self.attestor.take_answer(ticket)?;
        Some(match answer {
            Ok(body) => Ok(Response {
                status: Status::OK,
                content_type: "application/cbor",
                headers: Vec::new(),
                body,
            }),
            Err(error) => Err(ApiError::evidence_delayed(error)),
        })
    }
}
