//! `vitrine measure diff`: the first thing in which two images, or two manifests, measure differently.

use std::fmt;
use std::path::{Path, PathBuf};

use measurements::{
    Cause, Divergence, Manifest, Metadata, MetadataError, PageOrder, Register, diff,
    first_difference,
};
use serde_json::{Value, json};

use super::{files, print};
use crate::failure::{Code, Failure};

/// Say where two images, or two manifests, first measure differently
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Of images: the first record of the launch that differs, with its section, its page and the byte of the files. Where no host starts one of \
them, because its table of sections is damaged: the page in which the files first differ. Of manifests (*.json): the first register. Exit code 0 \
if both measure the same, 21 if not.

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
    let (one, other) = (files::firmware(&args.one)?, files::firmware(&args.other)?);
    let order = match args.order {
        Order::PageByPage => PageOrder::PageByPage,
        Order::AddThenExtend => PageOrder::AddThenExtend,
    };
    let difference = match (Metadata::parse(&one), Metadata::parse(&other)) {
        (Ok(metadata), Ok(others)) => {
            diff([(&one, &metadata), (&other, &others)], order).map(|divergence| {
                Difference::new(&one, &other, &metadata, Reason::Records(divergence))
            })
        }
        (Ok(metadata), Err(error)) => {
            let reason = Reason::NoLaunch(args.other.clone(), error);
            Some(Difference::new(&one, &other, &metadata, reason))
        }
        (Err(error), Ok(metadata)) => {
            let reason = Reason::NoLaunch(args.one.clone(), error);
            Some(Difference::new(&one, &other, &metadata, reason))
        }
        (Err(error), Err(_)) => {
            let message = format!("{}: {error}", args.one.display());
            return Err(Failure::usage(message));
        }
    };
    if args.json {
        let object = match &difference {
            Some(difference) => difference.json(),
            None => json!({ "same": true, "files_equal": one == other }),
        };
        print(&format!("{object:#}\n"))?;
    }
    match difference {
        Some(difference) => Err(Failure::with_code(Code::EvidenceMismatch, difference)),
        None if args.json => Ok(()),
        None if one == other => print("the files are the same\n"),
        None => print("MRTD is the same; the files differ in bytes that are not measured\n"),
    }
}

/// Why two images do not measure the same.
struct Difference {
    reason: Reason,
    /// The first byte in which the files differ.
    offset: usize,
    /// The page that byte is loaded into, if it is loaded.
    page: Option<u64>,
}

enum Reason {
    Records(Divergence),
    /// No host starts this one.
    NoLaunch(PathBuf, MetadataError),
}

impl Difference {
    /// `metadata` is that of one of the two, by which the other is judged.
    fn new(one: &[u8], other: &[u8], metadata: &Metadata, reason: Reason) -> Self {
        // Two launches that differ are of files that differ.
        let offset = first_difference(one, other).unwrap_or_default();
        let place = metadata.place(offset);
        Self {
            reason,
            offset,
            page: place.map(|(_, address)| address & !0xfff),
        }
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "same": false,
            "register": Register::Mrtd.name(),
            "page": self.page,
            "file": { "offset": self.offset, "page": self.page },
            "description": self.to_string(),
        });
        if let Reason::Records(divergence) = &self.reason {
            object["record"] = json!(divergence.record);
            object["sections"] = json!(divergence.sections);
            object["type"] = json!(divergence.kind.map(|kind| kind.to_string()));
            object["page"] = json!(divergence.page());
        }
        object
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Records(divergence) => {
                divergence.fmt(f)?;
                // The record names the byte itself.
                if matches!(divergence.cause, Cause::Contents { .. }) {
                    return Ok(());
                }
            }
            Reason::NoLaunch(path, error) => write!(
                f,
                "{}: no host starts {}: {error}",
                Register::Mrtd,
                path.display()
            )?,
        }
        write!(f, "; the files differ from byte {:#x} on", self.offset)?;
        match self.page {
            Some(page) => write!(f, ", in page {page:#x}"),
            None => Ok(()),
        }
    }
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
