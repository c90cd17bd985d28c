//! `cargo xtask boot`: the image and a model in QEMU, its console here, until Ctrl-C.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::failure::{Result, ensure};
use crate::image_step;
use crate::models;
use crate::packages;
use crate::process::Process;
use crate::tools;
use crate::workspace::Workspace;

/// Until Ctrl-C.
const FOREVER: Duration = Duration::from_secs(u32::MAX as u64);

/// Build the image and run it in QEMU until Ctrl-C
#[derive(clap::Args, Debug)]
pub struct Arguments {
    /// A Qwen3 model of yours (GGUF) instead of one with random weights
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// More arguments for `vitrine run` [default: --tcp 8443]
    #[arg(last = true, value_name = "ARGUMENT")]
    more: Vec<String>,
}

/// Runs the command.
pub fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    packages::provide(packages::RUN)?;
    let image = image_step::build(workspace)?;
    let model = match &arguments.model {
        Some(path) => path.clone(),
        None => models::demonstration(workspace)?,
    };
    let mut command = Command::new(tools::vitrine(workspace)?);
    command.arg("run").arg("--image").arg(&image.path);
    command.arg("--model").arg(model).stdin(Stdio::null());
    match arguments.more.as_slice() {
        [] => command.args(["--tcp", "8443"]),
        more => command.args(more),
    };
    let status = Process::start(&mut command)?.wait(FOREVER)?;
    ensure!(status.success(), "`vitrine run` ended with {status}");
    Ok(())
}
