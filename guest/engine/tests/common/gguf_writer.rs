//! Writes small GGUF files in memory, well-formed or not.

use std::vec::Vec;

/// A GGUF file being put together.
#[derive(Clone, Default)]
pub struct GgufWriter {
    metadata: Vec<Vec<u8>>,
    descriptions: Vec<(Vec<u8>, u64)>,
    data: Vec<u8>,
}

impl GgufWriter {
    pub fn new() -> Self {
        Self::default()
    }

    fn entry(&mut self, key: &str, kind: u32, value: &[u8]) -> &mut Self {
        let mut entry = string(key);
        entry.extend(kind.to_le_bytes());
        entry.extend(value);
        self.metadata.push(entry);
        self
    }

    pub fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.entry(key, 4, &value.to_le_bytes())
    }

    pub fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.entry(key, 6, &value.to_le_bytes())
    }

    pub fn string(&mut self, key: &str, value: &str) -> &mut Self {
        self.entry(key, 8, &string(value))
    }

    pub fn strings<'a>(
        &mut self,
        key: &str,
        values: impl IntoIterator<Item = &'a str>,
    ) -> &mut Self {
        let values: Vec<Vec<u8>> = values.into_iter().map(string).collect();
        self.array(key, 8, values.len(), &values.concat())
    }

    pub fn i32s(&mut self, key: &str, values: impl IntoIterator<Item = i32>) -> &mut Self {
        let values: Vec<[u8; 4]> = values.into_iter().map(i32::to_le_bytes).collect();
        self.array(key, 5, values.len(), &values.concat())
    }

    fn array(&mut self, key: &str, kind: u32, count: usize, elements: &[u8]) -> &mut Self {
        let mut value = kind.to_le_bytes().to_vec();
        value.extend((count as u64).to_le_bytes());
        value.extend(elements);
        self.entry(key, 9, &value)
    }

    /// Adds a tensor of ggml type `kind`; its data goes to the next multiple of 32.
    pub fn tensor(&mut self, name: &str, dimensions: &[u64], kind: u32, data: &[u8]) -> &mut Self {
        let offset = self.data.len() as u64;
        self.tensor_at(name, dimensions, kind, offset);
        self.data.extend(data);
        self.data.resize(self.data.len().next_multiple_of(32), 0);
        self
    }

    /// Describes a tensor without adding data.
    pub fn tensor_at(
        &mut self,
        name: &str,
        dimensions: &[u64],
        kind: u32,
        offset: u64,
    ) -> &mut Self {
        let mut description = string(name);
        description.extend((dimensions.len() as u32).to_le_bytes());
        for length in dimensions {
            description.extend(length.to_le_bytes());
        }
        description.extend(kind.to_le_bytes());
        self.descriptions.push((description, offset));
        self
    }

    /// Leaves out the metadata entry or tensor of this name.
    pub fn remove(&mut self, name: &str) -> &mut Self {
        let name = string(name);
        self.metadata.retain(|entry| !entry.starts_with(&name));
        self.descriptions
            .retain(|(description, _)| !description.starts_with(&name));
        self
    }

    /// The bytes of everything before the tensor data, and of the whole file.
    pub fn finish(&self) -> (usize, Vec<u8>) {
        let mut file = b"GGUF".to_vec();
        file.extend(3u32.to_le_bytes());
        file.extend((self.descriptions.len() as u64).to_le_bytes());
        file.extend((self.metadata.len() as u64).to_le_bytes());
        file.extend(self.metadata.concat());
        for (description, offset) in &self.descriptions {
            file.extend(description);
            file.extend(offset.to_le_bytes());
        }
        let header = file.len();
        file.resize(header.next_multiple_of(32), 0);
        file.extend(&self.data);
        (header, file)
    }
}

fn string(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    bytes
}

/// Bytes at a multiple of 32, as a loader would place a file.
pub struct Aligned {
    buffer: Vec<u8>,
    start: usize,
}

impl Aligned {
    pub fn new(bytes: &[u8]) -> Self {
        let mut buffer: Vec<u8> = Vec::with_capacity(bytes.len() + 32);
        let start = buffer.as_ptr().align_offset(32);
        buffer.resize(start, 0);
        buffer.extend(bytes);
        Self { buffer, start }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.buffer[self.start..]
    }
}
