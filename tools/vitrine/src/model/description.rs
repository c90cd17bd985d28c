//! What a GGUF file says of itself, and whether the engine here can serve it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use engine::Model;
use engine::gguf::{Gguf, GgufError, Value};
use serde::Serialize;

use crate::terminal::printable;

/// A model.
#[derive(Serialize)]
pub struct Description {
    architecture: Option<String>,
    name: Option<String>,
    /// The format that most of the parameters have.
    quantization: Option<&'static str>,
    parameters: u64,
    tensors: usize,
    /// Every format that occurs, the one with the most parameters first.
    formats: Vec<Share>,
    layers: Option<u64>,
    hidden: Option<u64>,
    feed_forward: Option<u64>,
    heads: Option<u64>,
    kv_heads: Option<u64>,
    context_length: Option<u64>,
    vocabulary: Option<u64>,
    /// Why this engine cannot serve it; `None` if it can.
    unsupported: Option<String>,
}

/// How much of a model has one format.
#[derive(Default, Serialize)]
struct Share {
    format: &'static str,
    tensors: usize,
    parameters: u64,
    bytes: u64,
}

impl Description {
    /// Reads a file, which lies at a multiple of [`engine::gguf::ALIGNMENT`].
    pub fn read(file: &[u8]) -> Result<Self, GgufError> {
        let gguf = Gguf::parse(file)?;
        let text = |key: &str| match gguf.get(key) {
            Some(Value::String(text)) => Some(text.to_owned()),
            _ => None,
        };
        let architecture = text("general.architecture");
        let number = |key: &str| {
            let key = format!("{}.{key}", architecture.as_deref()?);
            match gguf.get(&key)? {
                Value::Unsigned(number) => Some(number),
                Value::Signed(number) => u64::try_from(number).ok(),
                _ => None,
            }
        };
        let formats = shares(&gguf);
        Ok(Self {
            name: text("general.name"),
            quantization: formats.first().map(|share| share.format),
            parameters: formats.iter().map(|share| share.parameters).sum(),
            tensors: gguf.tensors().len(),
            layers: number("block_count"),
            hidden: number("embedding_length"),
            feed_forward: number("feed_forward_length"),
            heads: number("attention.head_count"),
            kv_heads: number("attention.head_count_kv"),
            context_length: number("context_length"),
            vocabulary: match gguf.get("tokenizer.ggml.tokens") {
                Some(Value::Array(tokens)) => Some(tokens.len() as u64),
                _ => None,
            },
            unsupported: Model::load(file).err().map(|error| error.to_string()),
            architecture,
            formats,
        })
    }

    /// For a person, one fact a line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail; what a file says must not drive the terminal.
        let mut line = |name: &str, value: &str| {
            let value = printable(value).replace(['\n', '\t'], " ");
            let _ = writeln!(text, "{name:<14}{value}");
        };
        let said = |value: &Option<String>| value.clone().unwrap_or("not said".to_owned());
        line("architecture", &said(&self.architecture));
        line("name", &said(&self.name));
        line("parameters", &self.parameters.to_string());
        for share in &self.formats {
            let Share {
                format,
                tensors,
                parameters,
                bytes,
            } = share;
            let value =
                format!("{format}: {tensors} tensors, {parameters} parameters, {bytes} bytes");
            line("format", &value);
        }
        for (name, number) in [
            ("layers", self.layers),
            ("hidden", self.hidden),
            ("feed forward", self.feed_forward),
            ("heads", self.heads),
            ("KV heads", self.kv_heads),
            ("context", self.context_length),
            ("vocabulary", self.vocabulary),
        ] {
            if let Some(number) = number {
                line(name, &number.to_string());
            }
        }
        match &self.unsupported {
            None => line("engine", "serves it"),
            Some(why) => line("engine", &format!("cannot serve it: {why}")),
        }
        text
    }
}

/// The formats of all tensors.
fn shares(gguf: &Gguf<'_>) -> Vec<Share> {
    let mut shares: BTreeMap<&'static str, Share> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let format = tensor.format.name();
        let share = shares.entry(format).or_default();
        share.format = format;
        share.tensors += 1;
        // Their bytes are in the file, so their number is far below the type's bound.
        share.parameters += tensor.dimensions.iter().product::<u64>();
        share.bytes += tensor.data.len() as u64;
    }
    let mut shares: Vec<Share> = shares.into_values().collect();
    shares.sort_by_key(|share| core::cmp::Reverse(share.parameters));
    shares
}
