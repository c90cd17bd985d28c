//! Machines that cannot serve: each says why in one line, on the console and over `/health`, and none panics.

use std::fs;
use std::path::{Path, PathBuf};

use client::State;
use synthesis::Mix;

use super::{READY, Suite, World};
use crate::failure::{Context, Failure, Result, ensure};
use crate::guest::{Guest, Setup};

/// A machine with something wrong.
struct Fault {
    name: &'static str,
    /// The model's file, made from a good one.
    model: fn(&World) -> Result<Option<PathBuf>>,
    config: Option<&'static str>,
    memory_mib: u32,
    /// What the reason must mention, in lower case.
    mentions: &'static [&'static str],
}

const FAULTS: &[Fault] = &[
    Fault {
        name: "no-model",
        model: |_| Ok(None),
        config: None,
        memory_mib: 512,
        mentions: &["model"],
    },
    Fault {
        name: "corrupt-header",
        model: |world| {
            changed(world, "magic", |bytes| bytes[..4].copy_from_slice(b"GGML")).map(Some)
        },
        config: None,
        memory_mib: 512,
        mentions: &["gguf"],
    },
    Fault {
        name: "hostile-header",
        // The number of tensors.
        model: |world| changed(world, "count", |bytes| bytes[8..16].fill(0xff)).map(Some),
        config: None,
        memory_mib: 512,
        mentions: &["tensor"],
    },
    Fault {
        name: "cut-model",
        model: |world| changed(world, "cut", |bytes| bytes.truncate(bytes.len() / 2)).map(Some),
        config: None,
        memory_mib: 512,
        mentions: &["tensor"],
    },
    Fault {
        name: "little-memory",
        model: |world| world.model(Mix::Q8_0).map(Some),
        config: None,
        memory_mib: 64,
        mentions: &["memory"],
    },
    Fault {
        name: "config-typo",
        model: |world| world.model(Mix::Q8_0).map(Some),
        config: Some("[model]\ncontxt = 4096\n"),
        memory_mib: 512,
        mentions: &["contxt"],
    },
    Fault {
        name: "config-not-toml",
        model: |world| world.model(Mix::Q8_0).map(Some),
        config: Some("[model\n"),
        memory_mib: 512,
        mentions: &["config"],
    },
];

fn name(fault: &Fault) -> String {
    format!("e2e/failures/{}", fault.name)
}

/// Whether any of these tests is asked for.
pub fn wanted(suite: &Suite) -> bool {
    FAULTS
        .iter()
        .filter(|fault| suite.wants(&name(fault)))
        .count()
        > 0
}

/// Runs the tests.
pub fn run(suite: &mut Suite, world: &World) {
    for fault in FAULTS {
        suite.check(&name(fault), || fails_clearly(fault, world));
    }
}

fn fails_clearly(fault: &Fault, world: &World) -> Result<()> {
    let model = (fault.model)(world)?;
    let mut guest = Guest::start(&Setup {
        config: fault.config,
        memory_mib: Some(fault.memory_mib),
        accelerator: "tcg",
        ..Setup::new(&world.vitrine, &world.image.path, model.as_deref(), 2)
    })?;
    let reason = guest.wait_failed(READY)?;
    let lower = reason.to_lowercase();
    for word in fault.mentions {
        ensure!(
            lower.contains(word),
            "the reason does not mention {word:?}: {reason}"
        );
    }
    guest.check_alive()?;
    let failures = guest.console();
    let failures = failures
        .iter()
        .filter(|line| line.contains("failed"))
        .count();
    ensure!(
        failures == 1,
        "the console tells of {failures} failures{}",
        guest.last_words()
    );

    let mut client = guest.client()?;
    let health = client.health()?;
    ensure!(
        health.state == State::Failed && health.reason.as_deref() == Some(&*reason),
        "the console says {reason:?}, /health says {health:?}"
    );
    refuses_to_answer(&guest)?;
    guest.check_alive()
}

/// A prompt gets 503 and an OpenAI error.
fn refuses_to_answer(guest: &Guest) -> Result<()> {
    let request = client::ChatRequest {
        model: "any".into(),
        messages: vec![client::Message::new("user", "Hello")],
        sampling: client::Sampling::default(),
        thinking: None,
    };
    match guest.client()?.chat(&request) {
        Err(client::Error::Refused { status: 503, .. }) => Ok(()),
        other => Err(Failure::new(format!(
            "a guest that failed should answer 503: {other:?}"
        ))),
    }
}

/// A copy of a good model with something changed.
fn changed(world: &World, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> Result<PathBuf> {
    let good = world.model(Mix::Q8_0)?;
    let mut bytes = read(&good)?;
    change(&mut bytes);
    let path = good.with_file_name(format!("{name}.gguf"));
    fs::write(&path, bytes).context("write a model")?;
    Ok(path)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).context("read a model")?;
    ensure!(bytes.len() > 1 << 20, "the model is smaller than expected");
    Ok(bytes)
}
