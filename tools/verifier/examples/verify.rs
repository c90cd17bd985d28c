//! A verifier and nothing else: judges the platform behind a quote. `cargo xtask verifier` says how much has to be trusted for this.
//!
//! `verify QUOTE COLLATERAL SECONDS`: files, and the time of judgement in seconds since 1970. Prints the verdict as JSON; the exit code is
//! the verdict's.

use std::process::ExitCode;
use std::{env, fs};

use verifier::{Collateral, Policy, Scope, TrustAnchor, Verifier};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match judge(&arguments) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("error: {error}\nusage: verify QUOTE COLLATERAL SECONDS");
            ExitCode::from(2)
        }
    }
}

fn judge(arguments: &[String]) -> Result<u8, Box<dyn std::error::Error>> {
    let [quote, collateral, now] = arguments else {
        return Err("three arguments are needed".into());
    };
    let verifier = Verifier {
        policy: Policy::default(),
        anchor: TrustAnchor::intel(),
        scope: Scope::PlatformOnly,
        now: now.parse()?,
        seen: None,
    };
    let collateral = Collateral::parse(&fs::read(collateral)?);
    let report = verifier.quote(&fs::read(quote)?, collateral);
    println!("{}", report.json());
    Ok(report.verdict.exit_code())
}
