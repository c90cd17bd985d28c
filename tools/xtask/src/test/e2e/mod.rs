//! End to end: the image in QEMU, clients of ours and of others, and the same engine on the host to compare with.
//!
//! A scenario is one machine and what is checked on it. Every guest is a child process that ends with its scenario; every wait has
//! a limit.

mod adversary;
mod answers;
mod attacks;
mod domains;
mod endpoint;
mod failures;
mod hostile;
mod http;
mod ovmf;
mod provision;
mod proxy;
mod sealed;
mod tls;
mod trust_domain;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use measurements::Manifest;
use serde::Deserialize;
use synthesis::Mix;
use tempfile::TempDir;

use super::Suite;
use crate::failure::{Context as _, Failure, Result, ensure};
use crate::guest::{Guest, Ready, Setup};
use crate::image_step::{self, Image};
use crate::models;
use crate::packages::exists;
use crate::process;
use crate::release;
use crate::tcb;
use crate::tools;
use crate::workspace::Workspace;

/// From QEMU's start to ready with a model of a few megabytes; TCG on a busy machine is slow.
const READY: Duration = Duration::from_secs(180);
/// For one program that asks one thing.
const ANSWER: Duration = Duration::from_secs(180);

/// What all scenarios share.
pub struct World {
    workspace: Workspace,
    vitrine: PathBuf,
    vsock_device: PathBuf,
    image: Image,
    directory: TempDir,
}

/// A machine that should come up, and what is checked once it is up.
struct Scenario {
    name: &'static str,
    mix: Mix,
    /// On top of `Setup::new`.
    adjust: for<'a> fn(&mut Setup<'a>, &'a World),
    checks: &'static [(&'static str, Check)],
}

/// A test on a running guest. Its name begins with the program it compares with, where that is not ours: [`ORACLES`].
type Check = fn(&mut Context) -> Result<()>;

/// What a check works with.
struct Context<'a> {
    world: &'a World,
    guest: &'a mut Guest,
    ready: Ready,
    cpus: u32,
    model: &'a Path,
}

/// Everything a machine of QEMU's user network needs when it does not ask for its address.
const CONFIGURATION: &str = r#"
[listen]
tcp = 9443
vsock = 0
address = "10.0.2.15/24"
gateway = "10.0.2.2"

[model]
name = "renamed"
context = 128
threads = 1
"#;

/// Clients we did not write.
const ORACLES: [&str; 2] = ["curl", "openssl"];

const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "one-cpu-512m",
        mix: Mix::Q8_0,
        adjust: |setup, _| (setup.cpus, setup.memory_mib) = (1, Some(512)),
        checks: &[
            ("state", http::health_tells_the_state),
            ("greedy", answers::greedy),
            ("sampled", answers::sampled),
        ],
    },
    Scenario {
        name: "two-cpus-vsock",
        mix: Mix::Q4KM,
        adjust: |setup, world| setup.vsock = Some(&world.vsock_device),
        checks: &[
            ("state", http::health_tells_the_state),
            ("greedy", answers::greedy),
            ("sampled", answers::sampled),
            ("vsock-greedy", answers::greedy_over_vsock),
            ("vsock-sampled", answers::sampled_over_vsock),
            ("not-streamed", answers::not_streamed),
            ("curl-completions", answers::completions),
            ("eight-at-once", answers::eight_at_once),
            ("example-client", answers::the_example_client_chats),
            ("no-evidence-is-refused", answers::no_evidence_is_refused),
            ("openssl-tls13", tls::openssl_speaks_tls13),
            ("openssl-tls12", tls::tls12_is_refused),
            (
                "openssl-certificate",
                tls::the_certificate_is_self_signed_p256,
            ),
            ("openssl-request", http::openssl_asks),
            ("curl-state", http::curl_tells_the_state),
            ("curl-models", http::curl_lists_models),
            ("curl-chat", http::curl_chats),
            ("curl-stream", http::curl_streams),
            ("curl-keep-alive", http::curl_reuses_its_connection),
            (
                "openssl-malformed",
                http::malformed_requests_get_their_status,
            ),
            ("curl-refused", http::bad_parameters_get_an_openai_error),
            (
                "openssl-slow-and-cut",
                http::slow_and_cut_requests_disturb_nobody,
            ),
            ("not-tls", tls::bytes_that_are_not_tls_disturb_nobody),
            ("greedy-again", answers::greedy),
        ],
    },
    Scenario {
        name: "four-cpus-6g",
        mix: Mix::F16,
        // More emulated CPUs than real ones: a step of the engine may take seconds, and a handshake several steps.
        adjust: |setup, _| (setup.cpus, setup.memory_mib) = (4, Some(6144)),
        checks: &[
            ("state", http::health_tells_the_state),
            ("greedy", answers::greedy),
            ("sampled", answers::sampled),
            ("eight-at-once", answers::eight_at_once),
        ],
    },
    Scenario {
        name: "configured",
        mix: Mix::Q8_0,
        adjust: |setup, _| (setup.config, setup.port) = (Some(CONFIGURATION), 9443),
        checks: &[
            ("state", http::health_tells_the_state),
            ("name", http::the_model_has_the_configured_name),
            ("context", http::the_configured_context_is_the_limit),
            ("greedy", answers::greedy),
        ],
    },
    Scenario {
        // The same image, byte for byte, as a trust domain: the emulator instead of QEMU, private memory in 4 KiB pages as mainline KVM has it.
        // A virtualization exception would end it.
        name: "td-one-cpu",
        mix: Mix::Q8_0,
        adjust: |setup, _| {
            (setup.backend, setup.cpus, setup.memory_mib) = ("emulator", 1, Some(512));
            setup.emulator = &["--strict"];
        },
        checks: &[
            ("state", http::health_tells_the_state),
            ("greedy", answers::greedy),
            ("sampled", answers::sampled),
            ("idle", trust_domain::idle_costs_nothing),
            ("wakes", trust_domain::a_request_wakes_it_at_once),
        ],
    },
    Scenario {
        name: "td-two-cpus",
        mix: Mix::Q4KM,
        adjust: |setup, world| {
            (setup.backend, setup.emulator) = ("emulator", &["--strict"]);
            setup.vsock = Some(&world.vsock_device);
        },
        checks: &[
            ("state", http::health_tells_the_state),
            ("greedy", answers::greedy),
            ("sampled", answers::sampled),
            ("vsock-greedy", answers::greedy_over_vsock),
            ("vsock-sampled", answers::sampled_over_vsock),
            ("eight-at-once", answers::eight_at_once),
            ("curl-chat", http::curl_chats),
            ("openssl-tls13", tls::openssl_speaks_tls13),
            ("openssl-evidence", tls::the_certificate_carries_evidence),
            (
                "openssl-malformed",
                http::malformed_requests_get_their_status,
            ),
            ("idle", trust_domain::idle_costs_nothing),
            ("wakes", trust_domain::a_request_wakes_it_at_once),
        ],
    },
    Scenario {
        name: "td-four-cpus-large-pages",
        mix: Mix::F16,
        adjust: |setup, _| {
            (setup.backend, setup.cpus) = ("emulator", 4);
            setup.memory_mib = Some(6144);
            setup.emulator = &["--strict", "--sept", "2m", "--gpaw", "52"];
        },
        checks: &[
            ("state", http::health_tells_the_state),
            ("greedy", answers::greedy),
            ("sampled", answers::sampled),
            ("eight-at-once", answers::eight_at_once),
        ],
    },
    Scenario {
        // KVM where it works, and then with the instruction sets of this machine.
        name: "accelerated",
        mix: Mix::Q4KM,
        adjust: |setup, _| setup.accelerator = "auto",
        checks: &[
            ("state", http::health_tells_the_state),
            ("greedy", answers::greedy),
            ("sampled", answers::sampled),
            ("eight-at-once", answers::eight_at_once),
        ],
    },
];

/// Runs the tests.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    let wanted = SCENARIOS.iter().any(|scenario| scenario.wanted(suite))
        | failures::wanted(suite)
        | hostile::wanted(suite)
        | ovmf::wanted(suite)
        | sealed::wanted(suite)
        | trust_domain::wanted(suite)
        | proxy::wanted(suite)
        | attacks::wanted(suite)
        | provision::wanted(suite);
    if !wanted {
        return;
    }
    let world = match World::new(workspace) {
        Ok(world) => world,
        Err(failure) => return suite.fail("e2e", &failure),
    };
    for scenario in SCENARIOS {
        scenario.run(suite, &world);
    }
    failures::run(suite, &world);
    hostile::run(suite, &world);
    ovmf::run(suite, &world);
    sealed::run(suite, &world);
    trust_domain::run(suite, &world);
    proxy::run(suite, &world);
    attacks::run(suite, &world);
    provision::run(suite, &world);
}

impl World {
    fn new(workspace: &Workspace) -> Result<Self> {
        Ok(Self {
            workspace: workspace.clone(),
            image: image_step::build(workspace)?,
            vitrine: tools::vitrine(workspace)?,
            vsock_device: tools::vsock_device(workspace)?,
            directory: TempDir::with_prefix("vitrine-test-").context("create a directory")?,
        })
    }

    /// A model in these formats, made when first asked for.
    fn model(&self, mix: Mix) -> Result<PathBuf> {
        let path = self.directory.path().join(format!("{mix}.gguf"));
        if !path.exists() {
            models::tiny(&path, mix)?;
        }
        Ok(path)
    }

    /// What would be published of the image.
    fn manifest(&self) -> Result<Manifest> {
        release::describe(
            &self.workspace,
            &self.image,
            &tcb::recorded(&self.workspace)?,
        )
    }

    /// The `vitrine` program.
    fn vitrine(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.vitrine);
        command.args(arguments);
        command
    }

    /// The tokens the engine generates on this host.
    fn generate(&self, model: &Path, isa: &str, arguments: &[&str]) -> Result<Vec<u32>> {
        #[derive(Deserialize)]
        struct Output {
            tokens: Vec<u32>,
        }
        let mut command = self.vitrine(&["generate", "--json", "--isa", isa, "--model"]);
        command.arg(model).args(arguments);
        let text = process::text(&mut command, ANSWER)?;
        let output: Output = serde_json::from_str(&text)?;
        ensure!(!output.tokens.is_empty(), "the host generated nothing");
        Ok(output.tokens)
    }
}

impl Scenario {
    fn check_name(&self, check: &str) -> String {
        format!("e2e/{}/{check}", self.name)
    }

    fn wanted(&self, suite: &Suite) -> bool {
        // All of them, so that --list prints every name.
        let wanted = self
            .checks
            .iter()
            .filter(|(name, _)| suite.wants(&self.check_name(name)));
        wanted.count() > 0
    }

    fn run(&self, suite: &mut Suite, world: &World) {
        if !self.wanted(suite) {
            return;
        }
        let started = world.model(self.mix).and_then(|model| {
            let mut setup = Setup::new(&world.vitrine, &world.image.path, Some(&model), 2);
            // The slowest machine is the one everybody has; its processor has AVX2 and no AVX-512.
            setup.accelerator = "tcg";
            (self.adjust)(&mut setup, world);
            let cpus = setup.cpus;
            let mut guest = Guest::start(&setup)?;
            let ready = guest.wait_ready(READY, || {})?;
            eprintln!(
                "      {}: {} ms from reset to serving, {} vCPUs, {}",
                self.name, ready.boot_ms, ready.vcpus, ready.accelerator
            );
            Ok((model, guest, ready, cpus))
        });
        let (model, mut guest, ready, cpus) = match started {
            Ok(started) => started,
            Err(failure) => return suite.fail(&self.check_name("boot"), &failure),
        };
        let mut usable = true;
        for (name, check) in self.checks {
            let oracle = ORACLES.iter().find(|oracle| name.starts_with(**oracle));
            let name = self.check_name(name);
            if !suite.wants(&name) {
                continue;
            }
            if let Some(oracle) = oracle.filter(|oracle| !exists(oracle)) {
                suite.skip(&name, &format!("{oracle} is not installed"));
                continue;
            }
            if !usable {
                suite.fail(
                    &name,
                    &Failure::new("not run: the guest does not answer any more"),
                );
                continue;
            }
            let mut context = Context {
                world,
                guest: &mut guest,
                ready: ready.clone(),
                cpus,
                model: &model,
            };
            let passed = suite.check(&name, || {
                check(&mut context)?;
                context.guest.check_alive()
            });
            // Every later check would wait its whole time.
            usable = passed || guest.answers();
        }
    }
}

/// Fails unless two token lists are the same; says where they part.
fn same_tokens(guest: &[u32], host: &[u32]) -> Result<()> {
    if guest == host {
        return Ok(());
    }
    let common = guest.iter().zip(host).take_while(|(a, b)| a == b).count();
    Err(Failure::new(format!(
        "the guest's tokens part from the host's at index {common}: {:?} and {:?}",
        &guest[common..],
        &host[common..]
    )))
}
