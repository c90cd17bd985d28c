//! How long handshakes and attestations take, with nothing else to do and while answers of several lengths of context are computed.

use std::time::{Duration, Instant};

use client::{Request, Session};
use serde::Serialize;

use super::served::{Delivery, Front, Served};
use super::statistics::Percentiles;
use crate::failure::{Result, ensure};

/// Bytes of an attestation.
const EVIDENCE_LIMIT: usize = 1 << 20;
/// More tokens than will be waited for.
const ENDLESS: u32 = 1 << 10;
/// What the server says in between is enough to know that it computes.
const FIRST_PIECE: &[u8] = b"token_ids";

/// Milliseconds in one situation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Tokens of the answer that is being computed meanwhile; none if nothing is.
    pub context: Option<u32>,
    /// From connecting to the end of the TLS handshake.
    pub handshake_ms: Percentiles,
    /// From asking for fresh evidence to having it.
    pub attestation_ms: Percentiles,
}

/// One new connection, and fresh evidence on it: how long either takes. The evidence is not judged, which would be the client's time.
pub fn attest(front: &Front) -> Result<(Duration, Duration)> {
    let started = Instant::now();
    let session = front.connect()?;
    let handshake = started.elapsed();
    let nonce = format!("{:064x}", started.elapsed().as_nanos());
    let body = format!(r#"{{"nonce":"{nonce}","purpose":"session"}}"#);
    let asked = Instant::now();
    let mut response = session.request(&Request::post("/attestation", body.as_bytes()))?;
    let (status, evidence) = (response.status(), response.read_whole(EVIDENCE_LIMIT)?);
    ensure!(
        status == 200,
        "the guest gives no evidence: {status} {}",
        String::from_utf8_lossy(&evidence)
    );
    Ok((handshake, asked.elapsed()))
}

/// Measures `samples` new connections, while an answer with `context` tokens of prompt is computed.
pub fn measure(served: &Served, samples: u32, context: Option<u32>) -> Result<Latency> {
    let front = served.front()?;
    let busy = context.map(|tokens| begin(&front, tokens)).transpose()?;
    let (mut handshakes, mut attestations) = (Vec::new(), Vec::new());
    for _ in 0..samples {
        let (handshake, attestation) = attest(&front)?;
        handshakes.push(handshake.as_secs_f64() * 1e3);
        attestations.push(attestation.as_secs_f64() * 1e3);
    }
    // Closing the connection ends the answer.
    drop(busy);
    Ok(Latency {
        context,
        handshake_ms: Percentiles::of(&handshakes),
        attestation_ms: Percentiles::of(&attestations),
    })
}

/// Has an answer computed that goes on until the value is dropped; returns once its prompt is done.
fn begin(front: &Front, context: u32) -> Result<client::Response> {
    let prompt: Vec<u32> = (0..context).map(|index| 100 + index % 1000).collect();
    let body = front.question(&prompt, ENDLESS, Delivery::Streamed)?;
    let session: Session = front.connect()?;
    let mut response = session.request(&Request::post("/v1/completions", &body))?;
    ensure!(
        response.status() == 200,
        "the guest answers {}",
        response.status()
    );
    let (mut part, mut seen) = (Vec::new(), Vec::new());
    while !seen
        .windows(FIRST_PIECE.len())
        .any(|bytes| bytes == FIRST_PIECE)
    {
        response.read_part(&mut part)?;
        ensure!(
            !part.is_empty(),
            "the answer ends before its first token: {}",
            String::from_utf8_lossy(&seen)
        );
        seen.extend_from_slice(&part);
    }
    Ok(response)
}
