//! Two builds that should be one: where they first differ, by program, section and symbol.

use crate::failure::{Failure, Result};
use crate::image_step::assembly::Assembly;
use crate::symbols::Program;

/// Fails where two builds differ.
pub fn same(one: &Assembly, other: &Assembly) -> Result<()> {
    if one.image == other.image {
        return Ok(());
    }
    for (name, first, second) in [
        ("guest", &one.guest, &other.guest),
        ("loader", &one.loader, &other.loader),
    ] {
        if let Some(place) = first_difference(first, second)? {
            return Err(Failure::new(format!("the builds differ: {name}, {place}")));
        }
    }
    let offset = position(&one.image, &other.image);
    Err(Failure::new(format!(
        "the builds differ: the programs are the same, the image is not from byte {offset:#x} on"
    )))
}

/// Where two executables first differ in what is loaded; `None` if only symbols or nothing differs.
fn first_difference(one: &[u8], other: &[u8]) -> Result<Option<String>> {
    let (first, second) = (Program::parse(one)?, Program::parse(other)?);
    let pairs = first.sections().into_iter().zip(second.sections());
    for ((name, address, size), (_, elsewhere, length)) in pairs {
        if (address, size) != (elsewhere, length) {
            let place = format!(
                "section {name}: {size} bytes at {address:#x} in one, {length} bytes at {elsewhere:#x} in the other"
            );
            // The first symbol that moved or grew says more.
            let moved = first
                .symbols()
                .iter()
                .zip(second.symbols())
                .find(|(one, other)| one != other);
            return Ok(Some(match moved {
                Some((one, other)) => format!(
                    "{place}; the first symbol that differs is {} in one, {} in the other",
                    one.name, other.name
                ),
                None => place,
            }));
        }
    }
    let mut offset = position(one, other) as u64;
    // Headers and symbols are not loaded: look on.
    while offset < one.len().min(other.len()) as u64 {
        if let Some((section, address)) = first.section_at(offset) {
            let symbol = first.at(address).map_or("no symbol", |symbol| &symbol.name);
            return Ok(Some(format!(
                "section {section}, {address:#x}, in {symbol}"
            )));
        }
        let rest = offset as usize + 1;
        match (one.get(rest..), other.get(rest..)) {
            (Some(one), Some(other)) => offset = (rest + position(one, other)) as u64,
            _ => break,
        }
    }
    Ok(None)
}

/// The first byte that differs, or where the shorter one ends.
fn position(one: &[u8], other: &[u8]) -> usize {
    let shorter = one.len().min(other.len());
    one.iter()
        .zip(other)
        .position(|(one, other)| one != other)
        .unwrap_or(shorter)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This very program: a real executable with sections and symbols.
    fn program() -> Vec<u8> {
        std::fs::read(std::env::current_exe().unwrap()).unwrap()
    }

    /// A program of two functions, the second with some more instructions.
    fn assembled(more: &str) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let (source, program) = (folder.path().join("a.s"), folder.path().join("a"));
        let function = |name: &str, body: &str| {
            format!(
                ".globl {name}\n.type {name}, @function\n{name}:\n{body}ret\n.size {name}, . - {name}\n"
            )
        };
        let text = function("_start", "nop\n") + &function("grows", more);
        std::fs::write(&source, text).unwrap();
        let mut gcc = std::process::Command::new("gcc");
        gcc.args(["-nostdlib", "-static", "-Wl,--build-id=none", "-o"]);
        assert!(gcc.arg(&program).arg(&source).status().unwrap().success());
        std::fs::read(program).unwrap()
    }

    #[test]
    fn a_function_that_grew_is_named() {
        let place = first_difference(&assembled("nop\n"), &assembled("nop\nnop\n"));
        let place = place.unwrap().unwrap();
        assert!(place.starts_with("section .text: "), "{place}");
        assert!(
            place.ends_with("the first symbol that differs is grows in one, grows in the other"),
            "{place}"
        );
        let place = first_difference(&assembled("nop\n"), &assembled("clc\n"));
        let place = place.unwrap().unwrap();
        assert!(place.starts_with("section .text, 0x"), "{place}");
        assert!(place.ends_with(", in grows"), "{place}");
    }

    #[test]
    fn a_changed_byte_is_found_by_section_and_symbol() {
        let one = program();
        assert_eq!(first_difference(&one, &one).unwrap(), None);
        let offset = {
            let parsed = Program::parse(&one).unwrap();
            let inside = |offset: &u64| {
                parsed
                    .section_at(*offset)
                    .is_some_and(|(section, address)| {
                        section == ".text"
                            && parsed
                                .at(address)
                                .is_some_and(|s| s.name.contains("first_difference"))
                    })
            };
            (0..one.len() as u64).step_by(16).find(inside).unwrap()
        };
        let mut other = one.clone();
        other[offset as usize] ^= 1;
        // The ELF header's last bytes are not loaded as a section.
        other[0x30] ^= 1;
        let place = first_difference(&one, &other).unwrap().unwrap();
        assert!(place.starts_with("section .text, 0x"), "{place}");
        assert!(place.contains("first_difference"), "{place}");
    }
}
