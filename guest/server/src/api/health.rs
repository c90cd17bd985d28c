//! `GET /health`: how far the machine has come, for people and for load balancers.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};

use serde::Serialize;

use super::json;
use crate::{
    QuoteError,
    evidence::Standing,
    http::{Response, Status},
    load::Load,
};

/// The state of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// The machine is up and nothing else.
    #[default]
    Booting,
    /// The model is sealed, and its key has not come.
    Sealed,
    /// The model is being read, and decrypted if it was sealed.
    Loading {
        /// How much of it has been, 0 to 100.
        percent: u8,
    },
    /// The model is there, and tried out before anybody has to wait for it.
    Warming,
    /// Requests are answered.
    Ready {
        /// From reset to ready, in milliseconds.
        boot_ms: u64,
    },
    /// Running answers are finished and nothing new is taken on, because the evidence has expired and cannot be renewed.
    Draining,
    /// There is no model and there will be none.
    Failed {
        /// One line for the operator.
        reason: String,
    },
}

/// What the service runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    /// The instruction set the kernels use: "avx2", say.
    pub isa: String,
    /// CPUs in use.
    pub vcpus: usize,
}

/// The body of the answer.
#[derive(Serialize)]
struct Body<'a> {
    state: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    isa: &'a str,
    vcpus: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    evidence: Standing,
    /// Why there is no newer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    evidence_failure: Option<String>,
    computing_ms: u128,
    serving_ms: u128,
}

/// 200 when ready, 503 otherwise; the same JSON object either way.
pub(super) fn respond(
    health: &Health,
    platform: &Platform,
    model: Option<&str>,
    evidence: (Standing, Option<QuoteError>),
    load: Load,
) -> Response {
    let mut body = Body {
        state: "booting",
        percent: None,
        reason: None,
        isa: &platform.isa,
        vcpus: platform.vcpus,
        boot_ms: None,
        model,
        evidence: evidence.0,
        evidence_failure: evidence.1.map(|error| error.to_string()),
        computing_ms: load.computing.as_millis(),
        serving_ms: load.serving.as_millis(),
    };
    let mut status = Status::SERVICE_UNAVAILABLE;
    match health {
        Health::Booting => {}
        Health::Loading { percent } => {
            body.state = "loading";
            body.percent = Some(*percent);
        }
        Health::Sealed => body.state = "sealed",
        Health::Warming => body.state = "warming",
        Health::Draining => body.state = "draining",
        Health::Ready { boot_ms } => {
            body.state = "ready";
            body.boot_ms = Some(*boot_ms);
            status = Status::OK;
        }
        Health::Failed { reason } => {
            body.state = "failed";
            body.reason = Some(reason);
        }
    }
    Response {
        status,
        content_type: "application/json",
        headers: Vec::new(),
        body: json(&body),
    }
}
