//! The image step: it succeeds, and what it makes depends on the sources only, is what was recorded, and has no instruction nobody
//! looked at.

use std::fs;
use std::process::Command;
use std::time::Duration;

use emulator::memory::Layout;
use emulator::tdvf::Launch;
use measurements::{Hex, Metadata, PageOrder, Record, diff};
use serde_json::Value;

use super::Suite;
use crate::failure::{Context, Failure, Result, ensure};
use crate::image_step::{self, Image, assembly::Assembly};
use crate::instructions;
use crate::process;
use crate::release;
use crate::reproduce;
use crate::symbols::Program;
use crate::tcb;
use crate::workspace::Workspace;

/// For hashing in Python.
const LIMIT: Duration = Duration::from_secs(120);

/// Runs the tests.
pub fn run(suite: &mut Suite, workspace: &Workspace) {
    suite.check("image/repeats", || repeats(workspace));
    let image = || image_step::build(workspace);
    suite.check("image/instructions", || {
        instructions::check(workspace, &image()?)
    });
    suite.check("image/difference-is-named", || {
        difference_is_named(&image()?.assembly)
    });
    suite.check("image/measured-by-python", || measured_by_python(workspace));
    suite.check("image/measured-by-emulator", || {
        measured_by_emulator(&image()?)
    });
    suite.check("image/measured-whole", || {
        measured_whole(&image()?.assembly.image)
    });
    suite.check("image/crates-and-size", || tcb::check(workspace, &image()?));
    suite.check("image/published", || release::check(workspace, &image()?));
    if suite.full() {
        suite.check("image/reproduce", || reproduce::twice(workspace));
    }
}

/// A build that differs from this one in one byte of a function is found, with section and symbol.
fn difference_is_named(assembly: &Assembly) -> Result<()> {
    let program = Program::parse(&assembly.guest)?;
    let function = program
        .symbols()
        .iter()
        .find(|symbol| symbol.name == "machine::fatal::stop" && symbol.size > 0)
        .ok_or_else(|| Failure::new("the guest has no machine::fatal::stop"))?;
    let inside = function.address + function.size / 2;
    let offset = (0..assembly.guest.len() as u64)
        .find(
            |offset| matches!(program.section_at(*offset), Some((_, address)) if address == inside),
        )
        .ok_or_else(|| Failure::new("machine::fatal::stop is not in the file"))?;
    let mut other = assembly.clone();
    other.guest[offset as usize] ^= 1;
    other.image = image::build(&other.loader, &other.guest).context("build the image")?;
    let failure = match reproduce::same(assembly, &other) {
        Ok(()) => return Err(Failure::new("the difference was not found")),
        Err(failure) => failure.to_string(),
    };
    let expected = format!("guest, section .text, {inside:#x}, in machine::fatal::stop");
    ensure!(
        failure.ends_with(&expected),
        "{failure:?}, not {expected:?}"
    );
    Ok(())
}

/// Every byte of the file is in the contents of exactly one record of the launch, in both orders: none can change and MRTD not.
fn measured_whole(image: &[u8]) -> Result<()> {
    let metadata = Metadata::parse(image).context("read the image's metadata")?;
    for order in [PageOrder::PageByPage, PageOrder::AddThenExtend] {
        let mut extended = Vec::new();
        for record in measurements::records(image, &metadata, order) {
            if let Record::Extend { contents, .. } = record {
                extended.extend_from_slice(contents);
            }
        }
        ensure!(
            extended == image,
            "{order:?}: the records hold {} bytes that are not the image's {}",
            extended.len(),
            image.len()
        );
    }
    // Here and there, what `vitrine measure diff` makes of it.
    for offset in (0..image.len()).step_by(image.len() / 61) {
        let mut changed = image.to_vec();
        changed[offset] ^= 0x40;
        let page = (1 << 32) - image.len() as u64 + offset as u64 / 4096 * 4096;
        let found = diff(
            [(image, &metadata), (&changed, &metadata)],
            PageOrder::PageByPage,
        );
        ensure!(
            found.is_some_and(|found| found.page() == Some(page)),
            "byte {offset:#x} is in page {page:#x}; found {found:?}"
        );
    }
    Ok(())
}

/// The program in Python measures the image as the library does.
fn measured_by_python(workspace: &Workspace) -> Result<()> {
    let image = image_step::build(workspace)?;
    let mut python = Command::new("python3");
    python
        .arg(workspace.root.join("measurements/python/mrtd.py"))
        .arg(&image.path);
    let said: Value = serde_json::from_str(&process::text(&mut python, LIMIT)?)?;
    let measured = serde_json::json!({
        "sha384": image.measurement.sha384,
        "mrtd": image.measurement.mrtd,
    });
    ensure!(
        said == measured,
        "Python says {said}, the library {measured}"
    );
    Ok(())
}

/// The emulator, building a TD of the image page by page, measures it as the library does, for both kinds of host.
fn measured_by_emulator(image: &Image) -> Result<()> {
    let bytes = &image.assembly.image;
    let layout = Layout::new(1 << 30, bytes.len() as u64);
    let launch = Launch::plan(bytes, &layout).context("plan a TD")?;
    for order in [PageOrder::PageByPage, PageOrder::AddThenExtend] {
        let (emulated, computed) = (
            Hex(launch.mrtd(bytes, order)),
            image.measurement.mrtd.get(order),
        );
        ensure!(
            emulated == computed,
            "{order:?}: the emulator says {emulated}, the library {computed}"
        );
    }
    Ok(())
}

/// A second run of the step gives the same file.
fn repeats(workspace: &Workspace) -> Result<()> {
    let first = image_step::build(workspace)?;
    let second = image_step::build(workspace)?;
    reproduce::same(&first.assembly, &second.assembly)?;
    let written = fs::read(&second.path).context("read the image")?;
    ensure!(
        written == second.assembly.image,
        "the file is not the image"
    );
    Ok(())
}
