//! `POST /model-key`: the key of a sealed model; and `GET /endorsement`: the owner's word for this machine.
//!
//! The request is `{"key": "<32 hexadecimal digits>"}`, with `"signature"` (128 digits) where the configuration names a
//! provisioner, and with `"endorsement": {"not_after": <seconds since 1970>, "signature": "<128 digits>"}` if the owner leaves
//! one. `attestation::provisioning` defines what is signed. The machine cannot judge an endorsement, nor has to: it keeps the
//! one that came with the key, and shows it with what else its readers need.

use alloc::{string::String, vec::Vec};

use attestation::provisioning::RELEASE_LABEL;
use seal::FileKey;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use super::{ApiError, Service, json};
use crate::{
    Health, Inference,
    hex::{self, Hex},
    http::{Request, Response, Status},
    tls::Session,
    vault::Refusal,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Body {
    key: Hex<{ FileKey::LENGTH }>,
    signature: Option<Hex<64>>,
    endorsement: Option<Endorsement>,
}

/// What the owner left: the end of its validity, and the signature.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Endorsement {
    not_after: u64,
    signature: Hex<64>,
}

/// What a reader needs to judge an endorsement.
#[derive(Serialize)]
struct Shown {
    boot: String,
    public_key: String,
    session_signature: String,
    endorsement: Option<ShownEndorsement>,
}

#[derive(Serialize)]
struct ShownEndorsement {
    not_after: u64,
    signature: String,
}

impl<I: Inference> Service<I> {
    /// Takes the model's key.
    pub(super) fn take_key(
        &mut self,
        request: &mut Request,
        session: &Session,
    ) -> Result<Response, ApiError> {
        let body = serde_json::from_slice::<Body>(&request.body);
        request.body.zeroize();
        // The parser's message could quote the key.
        let mut body = body.map_err(|error| {
            ApiError::not_json(format_args!("error at column {}", error.column()))
        })?;
        let key = FileKey::from(body.key.0);
        body.key.0.zeroize();
        let exporter = session
            .export(RELEASE_LABEL, key.expose())
            .ok_or_else(|| ApiError::internal("the session has no exporter"))?;
        let signature = body.signature.as_ref().map(|signature| &signature.0[..]);
        self.vault
            .offer(key, &exporter, signature, self.now)
            .map_err(ApiError::refused_key)?;
        self.endorsement = body.endorsement;
        self.health = Health::Loading { percent: 0 };
        Ok(Response {
            status: Status::ACCEPTED,
            content_type: "application/json",
            headers: Vec::new(),
            body: b"{\"state\":\"loading\"}".to_vec(),
        })
    }

    /// Shows the endorsement, and what ties it to this connection.
    pub(super) fn show_endorsement(&self, session: &Session) -> Result<Response, ApiError> {
        let signature = self
            .attestor
            .vouch_for(session.leaf())
            .map_err(|_| ApiError::internal("signing failed"))?;
        let shown = Shown {
            boot: hex::encode(self.attestor.boot()),
            public_key: hex::encode(self.attestor.public_key()),
            session_signature: hex::encode(&signature),
            endorsement: self
                .endorsement
                .as_ref()
                .map(|endorsement| ShownEndorsement {
                    not_after: endorsement.not_after,
                    signature: hex::encode(&endorsement.signature.0),
                }),
        };
        Ok(Response {
            status: Status::OK,
            content_type: "application/json",
            headers: Vec::new(),
            body: json(&shown),
        })
    }
}

impl ApiError {
    /// Why a key was not taken.
    fn refused_key(refusal: Refusal) -> Self {
        match refusal {
            Refusal::NotSealed => Self::conflict("not_sealed", "the model here is not sealed"),
            Refusal::AlreadyOpen => Self::conflict(
                "already_provisioned",
                "the model here has its key already, and takes no second one",
            ),
            Refusal::NotTheProvisioner => Self::forbidden(
                "not_the_provisioner",
                "the key must be signed by the provisioner that the configuration names",
            ),
            Refusal::WrongKey => {
                Self::forbidden("wrong_key", "the key is not that of the model here")
            }
            Refusal::Closed(time) => Self::too_many_keys(time),
        }
    }
}
