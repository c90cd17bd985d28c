//! An executable's sections and functions by name, for whoever has to say where in the image something is.

use object::{Object, ObjectSection, ObjectSymbol, SectionKind, SymbolKind};

use crate::failure::{Context, Result};

/// A program with its symbols.
pub struct Program<'a> {
    file: object::File<'a>,
    /// Named addresses, sorted; where several names are at one address, one of them.
    symbols: Vec<Symbol>,
}

/// A named address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Symbol {
    pub address: u64,
    /// Bytes; zero for a label in assembly.
    pub size: u64,
    /// Demangled, without the hash.
    pub name: String,
}

/// A section with code.
pub struct Code<'a> {
    pub address: u64,
    pub bytes: &'a [u8],
}

impl<'a> Program<'a> {
    /// Reads an executable.
    pub fn parse(elf: &'a [u8]) -> Result<Self> {
        let file = object::File::parse(elf).context("read an executable")?;
        let mut symbols: Vec<Symbol> = file
            .symbols()
            .filter(|symbol| {
                let kinds = [SymbolKind::Text, SymbolKind::Data, SymbolKind::Label];
                let unknown = symbol.kind() == SymbolKind::Unknown;
                (kinds.contains(&symbol.kind()) || unknown) && symbol.section_index().is_some()
            })
            .filter_map(|symbol| {
                let name = symbol.name().ok().filter(|name| !name.is_empty())?;
                Some(Symbol {
                    address: symbol.address(),
                    size: symbol.size(),
                    name: format!("{:#}", rustc_demangle::demangle(name)),
                })
            })
            .collect();
        // Of several names the one with a size comes first.
        symbols.sort_by(|one, other| {
            (one.address, core::cmp::Reverse(one.size), &one.name).cmp(&(
                other.address,
                core::cmp::Reverse(other.size),
                &other.name,
            ))
        });
        symbols.dedup_by_key(|symbol| symbol.address);
        Ok(Self { file, symbols })
    }

    /// All named addresses, sorted.
    pub fn symbols(&self) -> &[Symbol] {
        &self.symbols
    }

    /// The last name at or before an address.
    pub fn at(&self, address: u64) -> Option<&Symbol> {
        let after = self
            .symbols
            .partition_point(|symbol| symbol.address <= address);
        self.symbols[..after].last()
    }

    /// Name, address and size in the file of every section that is loaded.
    pub fn sections(&self) -> Vec<(String, u64, u64)> {
        self.file
            .sections()
            .filter(|section| section.address() != 0)
            .map(|section| {
                let size = section.file_range().map_or(0, |(_, size)| size);
                let name = section.name().unwrap_or_default().to_owned();
                (name, section.address(), size)
            })
            .collect()
    }

    /// The section that holds a byte of the file, and the byte's address.
    pub fn section_at(&self, offset: u64) -> Option<(String, u64)> {
        self.file.sections().find_map(|section| {
            let (start, size) = section.file_range()?;
            let inside = (start..start + size).contains(&offset) && section.address() != 0;
            inside.then(|| {
                let name = section.name().unwrap_or_default().to_owned();
                (name, section.address() + (offset - start))
            })
        })
    }

    /// The sections with code.
    pub fn code(&self) -> Result<Vec<Code<'a>>> {
        self.file
            .sections()
            .filter(|section| section.kind() == SectionKind::Text)
            .map(|section| {
                Ok(Code {
                    address: section.address(),
                    bytes: section.data().context("read the code")?,
                })
            })
            .collect()
    }
}
