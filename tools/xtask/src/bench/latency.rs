//! How long handshakes and attestations take, with nothing else to do and while answers of several lengths of context are computed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use client::Request;
use serde::Serialize;

use super::served::{Delivery, Front, Served, first_token};
use super::statistics::Percentiles;
use crate::failure::{Result, ensure};

/// Bytes of an attestation.
const EVIDENCE_LIMIT: usize = 1 << 20;
/// Tokens of the answers that are computed meanwhile: few enough that the context is what it is said to be.
const MEANWHILE: u32 = 256;

/// Milliseconds in one situation.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Latency {
    /// Tokens before the answer that is being computed meanwhile; none if nothing is.
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

/// Measures `samples` new connections, while an answer after `context` tokens is computed.
pub fn measure(served: &Served, samples: u32, context: Option<u32>) -> Result<Latency> {
    let front = served.front()?;
    let mut decoding = None;
    let (mut handshakes, mut attestations) = (Vec::new(), Vec::new());
    while handshakes.len() < samples as usize {
        if let Some(tokens) = context
            && decoding.as_ref().is_none_or(Decoding::is_over)
        {
            decoding = Some(Decoding::begin(&front, tokens)?);
        }
        let (handshake, attestation) = attest(&front)?;
        if decoding.as_ref().is_some_and(Decoding::is_over) {
            // For part of it nothing was computed.
            continue;
        }
        handshakes.push(handshake.as_secs_f64() * 1e3);
        attestations.push(attestation.as_secs_f64() * 1e3);
    }
    Ok(Latency {
        context,
        handshake_ms: Percentiles::of(&handshakes),
        attestation_ms: Percentiles::of(&attestations),
    })
}

/// An answer that is being computed, and taken in by a thread; dropping it closes its connection, which ends it.
struct Decoding {
    /// Set by either side.
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Decoding {
    /// Returns once the prompt of `context` tokens is done.
    fn begin(front: &Front, context: u32) -> Result<Self> {
        let prompt: Vec<u32> = (0..context).map(|index| 100 + index % 1000).collect();
        let question = front.question(&prompt, MEANWHILE, Delivery::Streamed)?;
        let mut response = first_token(front.connect()?, &question)?;
        let over = Arc::new(AtomicBool::new(false));
        let reader = thread::spawn({
            let over = Arc::clone(&over);
            move || {
                let mut part = Vec::new();
                while !over.load(Ordering::Relaxed)
                    && response.read_part(&mut part).is_ok()
                    && !part.is_empty()
                {
                    part.clear();
                }
                over.store(true, Ordering::Relaxed);
            }
        });
        Ok(Self {
            over,
            reader: Some(reader),
        })
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

impl Drop for Decoding {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(reader) = self.reader.take() {
            // It panics nowhere, and the next token ends its wait.
            let _ = reader.join();
        }
    }
}
