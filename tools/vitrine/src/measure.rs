//! `vitrine measure`: what a TDX host will measure of an image, a configuration and a model; where two images part; what it all means.

mod comparison;
mod files;
mod report;

use std::io::{self, Write, stdout};
use std::path::PathBuf;

use measurements::{ConfigurationEntry, ImageMeasurement, Manifest, Register};

use crate::failure::{Code, Failure};
use report::Report;

/// Compute what a TDX host will measure, from files alone
#[derive(clap::Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Nothing has to run: MRTD follows from the image, RTMR[2] from the configuration, RTMR[3] from the model. With --manifest the result is \
compared with what was published, and the first register that differs is named. The image may be of another project: any TDVF image that \
mainline QEMU takes.

Exit codes:
  0   measured, and as published if --manifest was given
  2   wrong usage or an unreadable file
  20  the manifest's signature is not good
  21  not as published, or the two images measure differently

Examples:
  vitrine measure vitrine.fd
  vitrine measure vitrine.fd --config vitrine.toml --model Qwen3-0.6B-Q8_0.gguf --json
  vitrine measure vitrine.fd --manifest measurements/published/0.1.0.json
  vitrine measure diff vitrine.fd other.fd
  vitrine measure explain"
)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Subcommand>,
    /// The image
    #[arg(required = true)]
    image: Option<PathBuf>,
    /// The configuration file [default: none, all keys at their defaults]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The model (GGUF, not sealed)
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The same model sealed, if it is served sealed
    #[arg(long, value_name = "FILE", requires = "model")]
    sealed: Option<PathBuf>,
    /// A published manifest to compare with
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,
    /// The minisign public key (file) the manifest must be signed with; the signature is MANIFEST.minisig
    #[arg(long, value_name = "FILE", requires = "manifest")]
    public_key: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::Subcommand, Debug)]
enum Subcommand {
    Diff(comparison::Args),
    Explain(ExplainArgs),
}

/// Say what is in which register, who chooses it, and what a change means
#[derive(clap::Args, Debug)]
struct ExplainArgs {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Some(Subcommand::Diff(args)) => comparison::run(args),
        Some(Subcommand::Explain(args)) => explain(args),
        None => measure(args),
    }
}

fn measure(args: &Args) -> Result<(), Failure> {
    let path = args
        .image
        .as_ref()
        .ok_or_else(|| Failure::usage("an image is needed"))?;
    let image = files::image(path, args.manifest.is_some())?;
    let measured = ImageMeasurement::of(&image.bytes).map_err(|error| image.unusable(error))?;
    let config = files::config(args.config.as_deref())?;
    let name = match &args.config {
        Some(path) => path.display().to_string(),
        None => "default".to_owned(),
    };
    let configuration = ConfigurationEntry::new(&name, &config.canonical());
    let model = match &args.model {
        Some(path) => Some(files::model(path, args.sealed.as_deref(), &config)?),
        None => None,
    };
    let manifest = match &args.manifest {
        Some(path) => Some(files::manifest(path, args.public_key.as_deref())?),
        None => None,
    };
    let verdict = manifest
        .as_ref()
        .map(|manifest| manifest.admits(&measured, &configuration, model.as_ref()));
    let report = Report {
        image: measured,
        sections: &image.metadata.sections,
        configuration: &configuration,
        model: model.as_ref(),
        published: manifest
            .as_ref()
            .filter(|_| matches!(verdict, Some(Ok(()))))
            .map(|manifest: &Manifest| &*manifest.version),
    };
    print(&match args.json {
        true => report.json(),
        false => report.text(),
    })?;
    match verdict {
        Some(Err(mismatch)) => Err(Failure::with_code(Code::EvidenceMismatch, mismatch)),
        _ => Ok(()),
    }
}

fn explain(args: &ExplainArgs) -> Result<(), Failure> {
    if args.json {
        let registers: Vec<_> = Register::ALL
            .iter()
            .map(|register| {
                serde_json::json!({
                    "register": register.name(),
                    "holds": register.holds(),
                    "chosen_by": register.chosen_by(),
                    "change_means": register.change_means(),
                })
            })
            .collect();
        return print(&format!("{:#}\n", serde_json::Value::Array(registers)));
    }
    let mut text = String::new();
    for register in Register::ALL {
        text += &format!(
            "{register}\n  holds      {}\n  chosen by  {}\n  a change   {}\n\n",
            register.holds(),
            register.chosen_by(),
            register.change_means()
        );
    }
    text += "\
MRTD has two values for one image: mainline KVM (6.16 and later) adds and measures one page after the other, the out-of-tree hosts of QEMU 8 \
add all pages of a section first. A client takes either. What neither MRTD nor an RTMR covers: the memory size, the number of CPUs, devices and \
their contents. The image treats all of that as hostile input.
";
    print(&text)
}

fn print(text: &str) -> Result<(), Failure> {
    match stdout().lock().write_all(text.as_bytes()) {
        // Whoever read it has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome.map_err(|error| Failure::new(format!("cannot write: {error}"))),
    }
}
