//! Counting lines of code: lines with at least one token, so neither blank nor comment, and without unit tests.

use std::collections::BTreeSet;
use std::path::Path;

use gimli::{DebugLine, EndianSlice, LittleEndian, Reader};
use object::{Object, ObjectSection};
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::failure::{Context, Result};

/// Lines of code, and how many of them the compiler does not check for memory safety.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    pub lines: u64,
    pub unsafe_lines: u64,
}

impl core::ops::AddAssign for Count {
    fn add_assign(&mut self, other: Self) {
        self.lines += other.lines;
        self.unsafe_lines += other.unsafe_lines;
    }
}

/// Lines of a Rust file. Macros' definitions and uses count where they stand, not what they expand to. A file that is no module of its own
/// (included by a macro) is counted by its tokens.
pub fn rust(text: &str) -> Count {
    let mut lines = BTreeSet::new();
    let mut unsafe_lines = UnsafeLines::default();
    match syn::parse_file(text) {
        Ok(mut file) => {
            file.items.retain(|item| !is_test(item));
            file.attrs.clear();
            unsafe_lines.visit_file(&file);
            add_tokens(file.into_token_stream(), &mut lines);
        }
        Err(_) => {
            if let Ok(tokens) = text.parse::<TokenStream>() {
                add_tokens(tokens, &mut lines);
            }
        }
    }
    Count {
        lines: lines.len() as u64,
        unsafe_lines: unsafe_lines.0.len() as u64,
    }
}

/// Lines of a C or assembly file: neither blank nor comment. All of it is unsafe.
pub fn native(text: &str) -> Count {
    let mut lines = 0;
    let mut in_comment = false;
    for line in text.lines() {
        let mut code = false;
        let mut rest = line.trim();
        while !rest.is_empty() {
            if in_comment {
                match rest.split_once("*/") {
                    Some((_, after)) => (rest, in_comment) = (after.trim(), false),
                    None => break,
                }
            } else if let Some(after) = rest.strip_prefix("/*") {
                (rest, in_comment) = (after, true);
            } else if rest.starts_with("//") {
                break;
            } else {
                code = true;
                match rest.find("/*") {
                    Some(start) => rest = &rest[start..],
                    None => break,
                }
            }
        }
        lines += u64::from(code);
    }
    Count {
        lines,
        unsafe_lines: lines,
    }
}

/// Lines of a precompiled library for which it has machine code, by its line tables. Its sources are not part of the toolchain.
pub fn precompiled(library: &Path) -> Result<u64> {
    let cannot = || format!("read the line tables of {}", library.display());
    let bytes = std::fs::read(library).context(cannot())?;
    let archive = object::read::archive::ArchiveFile::parse(&*bytes).context(cannot())?;
    let mut lines = BTreeSet::new();
    for (number, member) in archive.members().enumerate() {
        let data = member
            .and_then(|member| member.data(&*bytes))
            .context(cannot())?;
        let Ok(file) = object::File::parse(data) else {
            continue; // rustc's metadata
        };
        let Some(section) = file.section_by_name(".debug_line") else {
            continue;
        };
        let section = section.uncompressed_data().context(cannot())?;
        let table = DebugLine::new(&section, LittleEndian);
        let mut offset = 0;
        // Files are told apart by their numbers: names would need relocations, which an archive has not applied.
        while let Ok(program) = table.program(gimli::DebugLineOffset(offset), 8, None, None) {
            let header = program.header();
            let length = header.unit_length() + 4;
            let mut rows = program.rows();
            while let Some((_, row)) = rows.next_row().context(cannot())? {
                if let Some(line) = row.line().filter(|_| !row.end_sequence()) {
                    lines.insert((number, offset, row.file_index(), line.get()));
                }
            }
            offset += length;
            if offset >= EndianSlice::new(&section, LittleEndian).len() {
                break;
            }
        }
    }
    Ok(lines.len() as u64)
}

fn add_lines(span: Span, lines: &mut BTreeSet<usize>) {
    lines.extend(span.start().line..=span.end().line);
}

/// The lines on which tokens stand; comments are not tokens, documentation is left out.
fn add_tokens(tokens: TokenStream, lines: &mut BTreeSet<usize>) {
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        match token {
            TokenTree::Punct(punct) if punct.as_char() == '#' => {
                let documentation = |token: &TokenTree| match token {
                    TokenTree::Group(group) => matches!(
                        group.stream().into_iter().next(),
                        Some(TokenTree::Ident(name)) if name == "doc"
                    ),
                    _ => false,
                };
                // The mark of an inner attribute.
                tokens.next_if(
                    |token| matches!(token, TokenTree::Punct(punct) if punct.as_char() == '!'),
                );
                if tokens.next_if(documentation).is_none() {
                    add_lines(punct.span(), lines);
                }
            }
            TokenTree::Group(group) => {
                add_lines(group.span_open(), lines);
                add_tokens(group.stream(), lines);
                add_lines(group.span_close(), lines);
            }
            other => add_lines(other.span(), lines),
        }
    }
}

fn is_test(item: &syn::Item) -> bool {
    let syn::Item::Mod(module) = item else {
        return false;
    };
    module.attrs.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, syn::Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// Lines of `unsafe` blocks, functions and implementations.
#[derive(Default)]
struct UnsafeLines(BTreeSet<usize>);

impl<'ast> Visit<'ast> for UnsafeLines {
    fn visit_expr_unsafe(&mut self, expression: &'ast syn::ExprUnsafe) {
        add_lines(expression.span(), &mut self.0);
        visit::visit_expr_unsafe(self, expression);
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if function.sig.unsafety.is_some() {
            add_lines(function.block.span(), &mut self.0);
        }
        visit::visit_item_fn(self, function);
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if function.sig.unsafety.is_some() {
            add_lines(function.block.span(), &mut self.0);
        }
        visit::visit_impl_item_fn(self, function);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if let Some(keyword) = &item.unsafety {
            add_lines(keyword.span(), &mut self.0);
        }
        visit::visit_item_impl(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rust_counts_tokens() {
        let text = "\
//! A module.
#![no_std]

/// A function.
#[inline]
fn f() { // one
    /* a
       comment */
    let text = \"a
b\";

    unsafe {
        g()
    }
}

unsafe fn g() {}

#[cfg(test)]
mod tests {
    fn not_counted() {}
}
";
        // #[inline], fn, let (two lines), unsafe (three), }, unsafe fn.
        assert_eq!(
            rust(text),
            Count {
                lines: 9,
                unsafe_lines: 4
            }
        );
        assert_eq!(rust("[1,\n2] // a piece\n").lines, 2);
    }

    #[test]
    fn native_counts_code() {
        let text = "/* a\n b */ int x;\n// c\n\nint y; /* d\n*/\n#define Z\n";
        assert_eq!(
            native(text),
            Count {
                lines: 3,
                unsafe_lines: 3
            }
        );
    }
}
