//! What becomes of those who disturb the opening of a model: a host that changes its disk, strangers with wrong keys, owners of other models.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use super::super::READY;
use super::fixture::{Fixture, eventually, refused, succeeded};
use crate::failure::{Context as _, Result, ensure};
use crate::guest::Guest;

/// `vitrine`'s exit codes for what failed, and for evidence that is genuine and not what is accepted.
const FAILED: i32 = 1;
const POLICY_UNSATISFIED: i32 = 22;

/// A changed byte in the last chunk is noticed when all others have been decrypted, however often the key comes: nothing is served and nothing
/// measured. The same machine opens the disk once it is as it was.
pub fn a_damaged_disk_never_serves(fixture: &Fixture) -> Result<()> {
    let path = fixture.world.directory.path().join("damaged.age");
    fs::copy(&fixture.sealed.file, &path).context("copy the sealed model")?;
    let disk = OpenOptions::new().read(true).write(true).open(&path);
    let disk = disk.context(format!("open {}", path.display()))?;
    let end = disk.metadata().context("measure the disk")?.len() - 1;
    flip(&disk, end)?;
    let mut guest = fixture.start_sealed(&path, &[], None)?;
    for _ in 0..2 {
        ensure!(!opens(fixture, &guest)?, "the guest opens a damaged disk");
        has_no_model(fixture, &guest)?;
    }
    flip(&disk, end)?;
    // What the guest read before that, it has still to refuse.
    let opened = opens(fixture, &guest)? || opens(fixture, &guest)?;
    ensure!(opened, "the guest refuses the disk as it was sealed");
    let ready = guest.wait_ready(READY, || {})?;
    let digest = &fixture.sealed.sealed_sha256;
    fixture.answers(&guest, &ready, &["--model-digest", digest])?;
    guest.check_alive()
}

/// Brings the key, and waits until the model is open, or refused and the guest sealed again.
fn opens(fixture: &Fixture, guest: &Guest) -> Result<bool> {
    let refusals = || {
        let console = guest.console();
        let refusals = console
            .iter()
            .filter(|line| line.contains("is not authentic"));
        refusals.count()
    };
    let before = refusals();
    let provisioned = fixture.provision(guest, &fixture.sealed, &[])?;
    succeeded("vitrine provision", &provisioned)?;
    let mut opened = false;
    eventually("the model is open or refused", || {
        let state = fixture.health(guest)?.body["state"].clone();
        opened = state == "ready";
        Ok(opened || refusals() > before && state == "sealed")
    })?;
    Ok(opened)
}

fn flip(disk: &File, place: u64) -> Result<()> {
    let mut byte = [0];
    disk.read_exact_at(&mut byte, place)
        .context("read the disk")?;
    disk.write_all_at(&[byte[0] ^ 1], place)
        .context("change the disk")
}

/// Prompts are refused, and RTMR[3] is as at reset.
fn has_no_model(fixture: &Fixture, guest: &Guest) -> Result<()> {
    let prompt = fixture.prompt(guest)?;
    ensure!(
        (prompt.status, prompt.code()) == (503, "model_sealed"),
        "a prompt after the refusal: {} {}",
        prompt.status,
        prompt.body
    );
    let verdict = fixture.verdict(guest, &fixture.sealed.sealed_sha256)?;
    ensure!(
        verdict["measurements"]["rtmr3"] == "0".repeat(96),
        "RTMR[3] after the refusal: {verdict}"
    );
    Ok(())
}

/// Strangers' keys and those of other models are refused, and make everybody wait; the right one is taken after that.
pub fn wrong_keys_have_to_wait(fixture: &Fixture) -> Result<()> {
    let mut guest = fixture.start_sealed(&fixture.sealed.file, &[], None)?;
    let stranger = fixture.send_key(&guest, &[0x5a; 16])?;
    ensure!(
        (stranger.status, stranger.code()) == (403, "wrong_key"),
        "a stranger's key: {} {}",
        stranger.status,
        stranger.body
    );
    let next = fixture.send_key(&guest, &[0xa5; 16])?;
    ensure!(
        (next.status, next.code()) == (429, "too_many_wrong_keys"),
        "the next key: {} {}",
        next.status,
        next.body
    );
    let wait = |seconds: Option<u64>| thread::sleep(Duration::from_secs(seconds.unwrap_or(0) + 1));
    ensure!(
        next.retry_after.is_some(),
        "it is not said how long to wait"
    );
    wait(next.retry_after);
    let other = fixture.provision(&guest, &fixture.other, &[])?;
    refused(
        "vitrine provision",
        &other,
        FAILED,
        "not that of the model here",
    )?;
    has_no_model(fixture, &guest)?;
    let early = fixture.send_key(&guest, &[0x5a; 16])?;
    ensure!(early.status == 429, "the third key: {}", early.status);
    wait(early.retry_after);
    let ready = fixture.open(&mut guest)?;
    fixture.answers(
        &guest,
        &ready,
        &["--model-digest", &fixture.sealed.sealed_sha256],
    )?;
    guest.check_alive()
}

/// Whatever key comes once the model is open: its owner is told before it leaves, and the machine takes none.
pub fn a_second_model_is_refused(fixture: &Fixture) -> Result<()> {
    let mut guest = fixture.start_sealed(&fixture.sealed.file, &[], None)?;
    let ready = fixture.open(&mut guest)?;
    let before = registers(fixture, &guest)?;
    for model in [&fixture.other, &fixture.sealed] {
        let refusal = fixture.provision(&guest, model, &[])?;
        refused(
            "vitrine provision",
            &refusal,
            POLICY_UNSATISFIED,
            "model-mismatch",
        )?;
    }
    let key = fixture.send_key(&guest, &[0x5a; 16])?;
    ensure!(
        (key.status, key.code()) == (409, "already_provisioned"),
        "a second key: {} {}",
        key.status,
        key.body
    );
    ensure!(
        registers(fixture, &guest)? == before,
        "the registers are not what they were"
    );
    fixture.answers(
        &guest,
        &ready,
        &["--model-digest", &fixture.sealed.sealed_sha256],
    )?;
    guest.check_alive()
}

fn registers(fixture: &Fixture, guest: &Guest) -> Result<Value> {
    let verdict = fixture.verdict(guest, &fixture.sealed.sealed_sha256)?;
    let measured = &verdict["measurements"];
    Ok(["mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"]
        .map(|name| measured[name].clone())
        .into())
}
