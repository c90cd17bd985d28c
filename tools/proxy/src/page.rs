//! What is known of every server, for a person: one page without scripts, which loads itself again every few seconds.

use core::fmt::Write;
use std::time::UNIX_EPOCH;

use verifier::{Check, Outcome, Report, date};

use crate::pool::Pool;
use crate::upstream::{Standing, State, Upstream};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}\
    h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
    th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid #ddd;vertical-align:top}\
    td{overflow-wrap:anywhere}code{font-size:.85em}.good{color:#060}.bad{color:#a00}.warning{background:#fd8;padding:.75rem}";

/// The page.
pub(crate) fn page(pool: &Pool) -> String {
    let mut page = String::new();
    // Writing to a string does not fail.
    let _ = write_page(pool, &mut page);
    page
}

fn write_page(pool: &Pool, page: &mut String) -> core::fmt::Result {
    write!(
        page,
        "<!DOCTYPE html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>\
         <title>Vitrine proxy</title><style>{STYLE}</style><h1>Vitrine proxy</h1>"
    )?;
    for mode in pool.weaker_modes() {
        write!(
            page,
            "<p class=warning>A weaker mode is in force: <code>--{}</code>. What is shown below proves less than it should.</p>",
            mode.name()
        )?;
    }
    for upstream in pool.upstreams() {
        write_upstream(upstream, page)?;
    }
    write!(
        page,
        "<p>The same for programs: <a href=/vitrine/status>/vitrine/status</a></p></html>"
    )
}

fn write_upstream(upstream: &Upstream, page: &mut String) -> core::fmt::Result {
    let state = upstream.state();
    write!(page, "<h2>{}</h2>", Escaped(&upstream.address.to_string()))?;
    let (class, standing, reason) = match &state.standing {
        Standing::Unknown => ("", "not tried yet", ""),
        Standing::Accepted if state.reports.is_empty() => ("bad", "accepted without evidence", ""),
        Standing::Accepted => ("good", "accepted", ""),
        Standing::Refused(words) => ("bad", "refused", words.as_str()),
        Standing::Unreachable(words) => ("bad", "unreachable", words.as_str()),
    };
    write!(page, "<p><strong class=\"{class}\">{standing}</strong>")?;
    if !reason.is_empty() {
        write!(page, ": {}", Escaped(reason))?;
    }
    if let Some(since) = state.since {
        let seconds = since.duration_since(UNIX_EPOCH).unwrap_or_default();
        write!(page, " &middot; since {}", date::format(seconds.as_secs()))?;
    }
    write_health(&state, page)?;
    write!(
        page,
        " &middot; {} connections verified, {} in use, {} requests</p>",
        state.verified, state.busy, state.requests
    )?;
    for report in &state.reports {
        write_report(report, page)?;
    }
    Ok(())
}

fn write_health(state: &State, page: &mut String) -> core::fmt::Result {
    let Some(health) = &state.health else {
        return Ok(());
    };
    let name = format!("{:?}", health.state).to_lowercase();
    write!(page, " &middot; {name}")?;
    match &health.model {
        Some(model) => write!(page, ", model {}", Escaped(model)),
        None => Ok(()),
    }
}

fn write_report(report: &Report, page: &mut String) -> core::fmt::Result {
    write!(
        page,
        "<table><caption>{} &middot; trust anchor: {}</caption><tr><th>Check<th>Outcome<th>Found<th>Expected",
        report.verdict,
        Escaped(&report.anchor)
    )?;
    for Check {
        name,
        expected,
        found,
        outcome,
    } in &report.checks
    {
        let (class, word) = match outcome {
            Outcome::Passed => ("good", "passed"),
            Outcome::Failed(code) => ("bad", code.name()),
            Outcome::Noted => ("", "noted"),
        };
        write!(
            page,
            "<tr><td>{name}<td class=\"{class}\">{word}<td><code>{}</code><td><code>{}</code>",
            Escaped(found),
            Escaped(expected)
        )?;
    }
    write!(page, "</table>")
}

/// Text that a server may have chosen, as text of a page.
struct Escaped<'a>(&'a str);

impl core::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_server_says_becomes_markup() {
        let hostile = "<script>alert('x')</script> & \"y\"";
        assert_eq!(
            Escaped(hostile).to_string(),
            "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &quot;y&quot;"
        );
    }
}
