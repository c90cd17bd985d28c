//! How a model is opened, and what the evidence says before and after.

use serde_json::Value;

use super::super::READY;
use super::fixture::{BLINDLY, Fixture, NO_EVIDENCE, eventually, refused, succeeded};
use crate::failure::{Result, ensure};
use crate::guest::{Guest, Setup};
use crate::sealed::expected_rtmr3;

/// `vitrine`'s exit code for evidence that is genuine and not what is accepted.
const POLICY_UNSATISFIED: i32 = 22;

/// Without its key the machine tells that it is sealed and refuses prompts; with it, it becomes what was computed from files alone, and answers
/// as the plain model does.
pub fn opens_with_its_key(fixture: &Fixture) -> Result<()> {
    let sealed = &fixture.sealed;
    let mut guest = fixture.start_sealed(&sealed.file, &[], None)?;
    is_sealed(fixture, &guest)?;
    let before = fixture.verdict(&guest, &sealed.sealed_sha256)?;
    ensure!(
        before["verdict"] == "policy-unsatisfied" && before["code"] == "model-mismatch",
        "a machine without a model is judged {before}"
    );
    ensure!(
        before["measurements"]["rtmr3"] == "0".repeat(96),
        "RTMR[3] before the model: {before}"
    );
    its_state_is_told_unverified(fixture, &guest)?;
    let ready = fixture.open(&mut guest)?;

    let (vitrine, image) = (&fixture.world.vitrine, &fixture.world.image.path);
    let rtmr3 = expected_rtmr3(vitrine, image, &fixture.plain, sealed)?;
    // Either digest names the model: that of the file on the disk, and the one a model hub shows.
    for digest in [&sealed.sealed_sha256, &sealed.plaintext_sha256] {
        let after = fixture.verdict(&guest, digest)?;
        ensure!(
            after["verdict"] == "accepted" && after["measurements"]["rtmr3"] == *rtmr3,
            "the machine with its model is judged {after}, and RTMR[3] should be {rtmr3}"
        );
        fixture.answers(&guest, &ready, &["--model-digest", digest])?;
    }
    let health = fixture.judged_health(&guest, &sealed.sealed_sha256)?;
    succeeded("vitrine health", &health)?;
    let told: Value = serde_json::from_str(&health.stdout)?;
    ensure!(
        told["state"] == "ready" && told["verified"] == true,
        "`vitrine health` of an accepted machine: {told}"
    );
    let other = fixture.verdict(&guest, &fixture.other.sealed_sha256)?;
    ensure!(
        other["code"] == "model-mismatch",
        "as another model the machine is judged {other}"
    );
    guest.check_alive()
}

/// `/health` says so, and prompts are refused with the time after which to ask again.
fn is_sealed(fixture: &Fixture, guest: &Guest) -> Result<()> {
    let health = fixture.health(guest)?;
    ensure!(
        health.status == 503 && health.body["state"] == "sealed",
        "/health of a sealed machine: {} {}",
        health.status,
        health.body
    );
    let prompt = fixture.prompt(guest)?;
    ensure!(
        (prompt.status, prompt.code()) == (503, "model_sealed") && prompt.retry_after.is_some(),
        "a prompt to a sealed machine: {} {}",
        prompt.status,
        prompt.body
    );
    Ok(())
}

/// `vitrine health` refuses a machine without the model that is demanded, and tells how far it is all the same.
fn its_state_is_told_unverified(fixture: &Fixture, guest: &Guest) -> Result<()> {
    let health = fixture.judged_health(guest, &fixture.sealed.sealed_sha256)?;
    refused(
        "vitrine health",
        &health,
        POLICY_UNSATISFIED,
        "unverified: sealed: the model waits for its key",
    )?;
    let told: Value = serde_json::from_str(&health.stdout)?;
    ensure!(
        health.stderr.contains("model-mismatch")
            && told["state"] == "sealed"
            && told["verified"] == false,
        "`vitrine health` of a sealed machine: {told} {}",
        health.stderr
    );
    Ok(())
}

/// In plain QEMU there is no evidence, so nobody gets the key who is not told to be trusted blindly; the rest is the same.
pub fn outside_a_trust_domain(fixture: &Fixture) -> Result<()> {
    let world = fixture.world;
    let setup = Setup::new(
        &world.vitrine,
        &world.image.path,
        Some(&fixture.sealed.file),
        2,
    );
    let mut guest = Guest::start(&Setup {
        accelerator: "tcg",
        ..setup
    })?;
    guest.wait_sealed(READY, || {})?;
    is_sealed(fixture, &guest)?;
    let refusal = fixture.provision(&guest, &fixture.sealed, &[])?;
    refused("vitrine provision", &refusal, NO_EVIDENCE, "no evidence")?;
    is_sealed(fixture, &guest)?;
    let provisioned = fixture.provision(&guest, &fixture.sealed, &[BLINDLY])?;
    succeeded("vitrine provision", &provisioned)?;
    let ready = guest.wait_ready(READY, || {})?;
    fixture.answers(&guest, &ready, &[BLINDLY])?;
    guest.check_alive()
}

/// A plain model is measured the same way, and its machine takes no key.
pub fn a_plain_model_is_measured(fixture: &Fixture) -> Result<()> {
    let mut guest = fixture.start(&fixture.plain, &[], None)?;
    let ready = guest.wait_ready(READY, || {})?;
    let digest = &fixture.sealed.plaintext_sha256;
    eventually("the certificate names the model", || {
        Ok(fixture.verdict(&guest, digest)?["verdict"] == "accepted")
    })?;
    fixture.answers(&guest, &ready, &["--model-digest", digest])?;
    let sealed = fixture.verdict(&guest, &fixture.sealed.sealed_sha256)?;
    ensure!(
        sealed["code"] == "model-mismatch",
        "a plain model passes for the sealed one: {sealed}"
    );
    let refusal = fixture.provision(&guest, &fixture.sealed, &[])?;
    refused(
        "vitrine provision",
        &refusal,
        POLICY_UNSATISFIED,
        "model-mismatch",
    )?;
    let key = fixture.send_key(&guest, &[0; 16])?;
    ensure!(
        (key.status, key.code()) == (409, "not_sealed"),
        "a key for a plain model: {} {}",
        key.status,
        key.body
    );
    guest.check_alive()
}
