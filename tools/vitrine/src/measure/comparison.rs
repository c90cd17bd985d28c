//! `vitrine measure diff`: the first thing in which two images, or two manifests, measure differently.

use std::path::{Path, PathBuf};

use measurements::{Divergence, Manifest, PageOrder, diff};
use serde_json::json;

use super::{files, print};
use crate::failure::{Code, Failure};

/// Say where two images, or two manifests, first measure differently
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Of images: the first record of the launch that differs, with its section, its page and the byte of the files. Of manifests (*.json): the \
first register. Exit code 0 if both measure the same, 21 if not.

Examples:
  vitrine measure diff vitrine.fd other.fd
  vitrine measure diff measurements/published/0.1.0.json measurements/published/0.2.0.json")]
pub struct Args {
    /// An image or a manifest
    one: PathBuf,
    /// Another of the same kind
    other: PathBuf,
    /// In which order the host adds and measures pages
    #[arg(long, value_enum, default_value_t = Order::PageByPage)]
    order: Order,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(clap::ValueEnum, Clone, Copy, Debug)]
enum Order {
    /// Mainline KVM, 6.16 and later
    PageByPage,
    /// Out-of-tree hosts of QEMU 8
    AddThenExtend,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let is_manifest = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "json")
    };
    match (is_manifest(&args.one), is_manifest(&args.other)) {
        (false, false) => images(args),
        (true, true) => manifests(args),
        _ => Err(Failure::usage(
            "an image cannot be compared with a manifest; `vitrine measure IMAGE --manifest FILE` says whether it is the published one",
        )),
    }
}

fn images(args: &Args) -> Result<(), Failure> {
    let (one, other) = (files::image(&args.one)?, files::image(&args.other)?);
    let order = match args.order {
        Order::PageByPage => PageOrder::PageByPage,
        Order::AddThenExtend => PageOrder::AddThenExtend,
    };
    let found = diff(
        [(&one.bytes, &one.metadata), (&other.bytes, &other.metadata)],
        order,
    );
    if args.json {
        let object = match &found {
            Some(divergence) => describe(divergence),
            None => json!({ "same": true, "files_equal": one.bytes == other.bytes }),
        };
        print(&format!("{object:#}\n"))?;
    }
    match found {
        Some(divergence) => Err(Failure::with_code(Code::EvidenceMismatch, divergence)),
        None if args.json => Ok(()),
        None if one.bytes == other.bytes => print("the files are the same\n"),
        None => print("MRTD is the same; the files differ in bytes that are not measured\n"),
    }
}

fn describe(divergence: &Divergence) -> serde_json::Value {
    json!({
        "same": false,
        "register": divergence.register().name(),
        "record": divergence.record,
        "sections": divergence.sections,
        "type": divergence.kind.map(|kind| kind.to_string()),
        "page": divergence.page(),
        "description": divergence.to_string(),
    })
}

fn manifests(args: &Args) -> Result<(), Failure> {
    let read = |path| files::manifest(path, None);
    let (one, other): (Manifest, Manifest) = (read(&args.one)?, read(&args.other)?);
    let difference = one.first_difference(&other);
    if args.json {
        let object = json!({
            "same": difference.is_none(),
            "register": difference.as_ref().map(|(register, _)| register.name()),
            "entry": difference.as_ref().map(|(_, entry)| entry),
            "files_equal": one == other,
        });
        print(&format!("{object:#}\n"))?;
    }
    match difference {
        Some((register, entry)) => {
            let entry = match &*entry {
                "" => String::new(),
                entry => format!(" of {entry:?}"),
            };
            let message = format!("{register}{entry} differs");
            Err(Failure::with_code(Code::EvidenceMismatch, message))
        }
        None if args.json => Ok(()),
        None if one == other => print("the manifests are the same\n"),
        None => print("all registers are the same; other entries differ\n"),
    }
}
