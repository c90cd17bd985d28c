//! Sealed models, end to end: a machine that boots without the key, is judged, gets the key and answers; and what becomes of those who
//! disturb that.
//!
//! Each test is one machine with a tiny model. All of them run the image in the emulator, whose quotes are signed under a test root; one
//! runs it outside a trust domain too.

mod attacks;
mod evidence;
mod fixture;
mod opening;
mod speed;

use super::super::Suite;
use super::World;
use crate::failure::Result;
use fixture::Fixture;

/// A test on machines of its own.
type Test = fn(&Fixture) -> Result<()>;

const TESTS: &[(&str, Test)] = &[
    ("opens-with-its-key", opening::opens_with_its_key),
    ("outside-a-trust-domain", opening::outside_a_trust_domain),
    (
        "plain-model-is-measured",
        opening::a_plain_model_is_measured,
    ),
    ("first-request", speed::the_first_request_is_as_fast),
    ("damaged-disk", attacks::a_damaged_disk_never_serves),
    ("wrong-keys", attacks::wrong_keys_have_to_wait),
    ("second-model", attacks::a_second_model_is_refused),
    (
        "quotes-fail",
        evidence::the_quoting_service_fails_for_a_while,
    ),
    ("draining", evidence::an_outage_outlasts_the_certificate),
    ("rotation", evidence::certificates_are_replaced_under_load),
    ("wrong-clock", evidence::a_wrong_clock_is_told),
];

fn name(test: &str) -> String {
    format!("e2e/sealed/{test}")
}

/// Whether any test here is asked for.
pub fn wanted(suite: &Suite) -> bool {
    let wanted = TESTS.iter().filter(|(test, _)| suite.wants(&name(test)));
    wanted.count() > 0
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    if !wanted(suite) {
        return;
    }
    let fixture = match Fixture::new(world) {
        Ok(fixture) => fixture,
        Err(failure) => return suite.fail("e2e/sealed", &failure),
    };
    for (test, check) in TESTS {
        suite.check(&name(test), || check(&fixture));
    }
}
