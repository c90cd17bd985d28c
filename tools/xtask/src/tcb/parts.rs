//! The image's bytes by what they belong to.

use std::collections::BTreeMap;

use crate::failure::Result;
use crate::image_step::assembly::Assembly;
use crate::symbols::Program;

/// The part that means nothing.
pub const PADDING: &str = "headers, metadata and padding";

/// Bytes by part. Functions count for the crate they are defined in, whoever asked for them; generic ones too, wherever they were
/// compiled. The rest of a section (constants, gaps between functions) counts for the section.
pub fn bytes(assembly: &Assembly) -> Result<BTreeMap<String, u64>> {
    let mut parts = BTreeMap::new();
    let mut add = |part: String, bytes: u64| *parts.entry(part).or_insert(0) += bytes;
    let guest = Program::parse(&assembly.guest)?;
    let loader = Program::parse(&assembly.loader)?;
    let mut placed = 0;
    for (name, address, size) in guest.sections() {
        placed += size;
        let mut named = 0;
        if name == ".text" {
            for symbol in guest.symbols() {
                if (address..address + size).contains(&symbol.address) {
                    named += symbol.size;
                    add(format!("guest .text {}", owner(&symbol.name)), symbol.size);
                }
            }
        }
        add(format!("guest {name}"), size.saturating_sub(named));
    }
    for (name, _, size) in loader.sections() {
        placed += size;
        add(format!("loader {name}"), size);
    }
    let rest = (assembly.image.len() as u64).saturating_sub(placed);
    add(PADDING.into(), rest);
    parts.retain(|_, bytes| *bytes > 0);
    Ok(parts)
}

/// The crate that defines a function; C and assembly have prefixes of their own.
fn owner(symbol: &str) -> String {
    if symbol.starts_with("ring_core_") {
        return "ring (C and assembly)".into();
    }
    if symbol.starts_with("avx2_ggml_") || symbol.starts_with("avx512_ggml_") {
        return "ggml".into();
    }
    // `<T as Trait>::f` and `<T>::f` belong to the type's crate, as far as a name can tell.
    let path = symbol.trim_start_matches(['<', '&', '*', '(', '[', ' ']);
    let path = ["mut ", "const ", "dyn "]
        .iter()
        .fold(path, |path, word| path.strip_prefix(word).unwrap_or(path));
    let name: String = path
        .chars()
        .take_while(|c| c.is_ascii_alphanumeric() || *c == '_')
        .collect();
    match path[name.len()..].starts_with("::") {
        true => name,
        false => "without a crate's name".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_have_owners() {
        for (symbol, expected) in [
            ("core::fmt::write", "core"),
            ("<engine::Model as core::fmt::Debug>::fmt", "engine"),
            ("<&mut server::tls::Stream>::read", "server"),
            ("ring_core_0_17_14__aes_hw_encrypt", "ring (C and assembly)"),
            ("avx512_ggml_vec_dot_q4_K_q8_K", "ggml"),
            ("memcpy", "without a crate's name"),
            ("<[T]>::sort", "without a crate's name"),
        ] {
            assert_eq!(owner(symbol), expected, "{symbol}");
        }
    }
}
