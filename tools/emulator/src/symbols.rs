//! Names for addresses, from ELF files: those given, and those in the image.

use std::fmt;

use object::{Object, ObjectSymbol, SymbolKind};

/// Functions by address.
#[derive(Debug, Default)]
pub struct Symbols(Vec<Symbol>);

#[derive(Debug)]
struct Symbol {
    address: u64,
    size: u64,
    name: String,
}

/// How far behind a function's start an address still counts as its, where the size is not known.
const MAX_DISTANCE: u64 = 0x1_0000;

impl Symbols {
    /// Adds the functions of an ELF file; whether it has any.
    pub fn add(&mut self, elf: &[u8]) -> bool {
        let Ok(file) = object::File::parse(elf) else {
            return false;
        };
        let before = self.0.len();
        for symbol in file.symbols().chain(file.dynamic_symbols()) {
            let kept = matches!(symbol.kind(), SymbolKind::Text | SymbolKind::Label);
            if let Ok(name) = symbol.name()
                && kept
                && !name.is_empty()
                && symbol.is_definition()
            {
                self.0.push(Symbol {
                    address: symbol.address(),
                    size: symbol.size(),
                    name: format!("{:#}", rustc_demangle::demangle(name)),
                });
            }
        }
        self.0.sort_by_key(|symbol| symbol.address);
        self.0.len() > before
    }

    /// Adds the functions of every ELF file that lies in an image.
    pub fn add_from_image(&mut self, image: &[u8]) {
        const MAGIC: &[u8] = b"\x7fELF\x02\x01\x01";
        const ALIGNMENT: usize = 16;
        for start in (0..image.len()).step_by(ALIGNMENT) {
            if image[start..].starts_with(MAGIC) {
                self.add(&image[start..]);
            }
        }
    }

    /// The function around an address, and the distance from its start.
    pub fn find(&self, address: u64) -> Option<Place<'_>> {
        let behind = self.0.partition_point(|symbol| symbol.address <= address);
        let symbol = self.0[..behind].last()?;
        let distance = address - symbol.address;
        let limit = match symbol.size {
            0 => MAX_DISTANCE,
            size => size,
        };
        (distance < limit).then_some(Place {
            name: &symbol.name,
            distance,
        })
    }
}

/// A place in a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    pub name: &'a str,
    pub distance: u64,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:#x}", self.name, self.distance)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_found_by_any_of_their_addresses() {
        let symbol = |address, size, name: &str| Symbol {
            address,
            size,
            name: name.to_owned(),
        };
        let symbols = Symbols(vec![symbol(0x1000, 0x10, "one"), symbol(0x2000, 0, "two")]);
        let find = |address| symbols.find(address).map(|place| place.to_string());
        assert_eq!(find(0xfff), None);
        assert_eq!(find(0x1000).as_deref(), Some("one+0x0"));
        assert_eq!(find(0x100f).as_deref(), Some("one+0xf"));
        assert_eq!(find(0x1010), None);
        assert_eq!(find(0x2abc).as_deref(), Some("two+0xabc"));
        assert_eq!(find(0x2000 + MAX_DISTANCE), None);
    }

    #[test]
    fn this_program_has_functions() {
        let program = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let mut symbols = Symbols::default();
        assert!(symbols.add(&program));
        assert!(!Symbols::default().add(b"not an ELF file"));
        let mut image = vec![0; 64];
        image.extend(&program);
        let mut from_image = Symbols::default();
        from_image.add_from_image(&image);
        assert!(from_image.0.len() >= symbols.0.len());
    }
}
