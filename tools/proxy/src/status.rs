//! What is known of every server, for programs.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::pool::Pool;
use crate::upstream::{Standing, Upstream};

/// The body of `GET /vitrine/status`.
pub(crate) fn status(pool: &Pool) -> Value {
    let upstreams: Vec<Value> = pool.upstreams().iter().map(|one| upstream(one)).collect();
    let modes: Vec<&str> = pool.weaker_modes().iter().map(|mode| mode.name()).collect();
    json!({ "weaker_modes": modes, "upstreams": upstreams })
}

fn upstream(upstream: &Upstream) -> Value {
    let state = upstream.state();
    let (standing, reason) = match &state.standing {
        Standing::Unknown => ("unknown", None),
        Standing::Accepted => ("accepted", None),
        Standing::Refused(words) => ("refused", Some(words)),
        Standing::Unreachable(words) => ("unreachable", Some(words)),
    };
    let reports: Vec<Value> = state.reports.iter().map(|report| report.json()).collect();
    json!({
        "address": upstream.address.to_string(),
        "standing": standing,
        "reason": reason,
        "since": state.since.map(seconds),
        "health": state.health,
        "connections": { "idle": state.idle(), "busy": state.busy, "verified": state.verified },
        "requests": state.requests,
        "reports": reports,
    })
}

/// Seconds since 1970.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs()
}
