//! The head of a GGUF file, version 3: counts, metadata, tensor descriptions. All numbers are little-endian.

/// Tensor data, and each tensor in it, starts at a multiple of this.
pub(crate) const ALIGNMENT: u64 = 32;

/// Writes metadata, counting the keys.
#[derive(Default)]
pub(crate) struct Metadata {
    bytes: Vec<u8>,
    keys: u64,
}

impl Metadata {
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, 7);
        self.bytes.push(value.into());
    }

    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        put_string(&mut self.bytes, value);
    }

    pub fn strings(&mut self, key: &str, values: &[String]) {
        self.array(key, 8, values.len());
        for value in values {
            put_string(&mut self.bytes, value);
        }
    }

    pub fn i32s(&mut self, key: &str, values: &[i32]) {
        self.array(key, 5, values.len());
        self.bytes
            .extend(values.iter().flat_map(|value| value.to_le_bytes()));
    }

    fn array(&mut self, key: &str, element_type: u32, length: usize) {
        self.key(key, 9);
        self.bytes.extend(element_type.to_le_bytes());
        self.bytes.extend((length as u64).to_le_bytes());
    }

    fn key(&mut self, key: &str, value_type: u32) {
        put_string(&mut self.bytes, key);
        self.bytes.extend(value_type.to_le_bytes());
        self.keys += 1;
    }
}

/// A tensor as the head describes it.
pub(crate) struct Description<'a> {
    pub name: &'a str,
    /// Row length first.
    pub dimensions: &'a [u64],
    pub ggml_type: u32,
    /// From the start of the tensor data.
    pub offset: u64,
}

/// The whole head, padded to where tensor data starts.
pub(crate) fn head(metadata: &Metadata, tensors: &[Description<'_>]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3_u32.to_le_bytes());
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend(metadata.keys.to_le_bytes());
    out.extend(&metadata.bytes);
    for tensor in tensors {
        put_string(&mut out, tensor.name);
        out.extend((tensor.dimensions.len() as u32).to_le_bytes());
        out.extend(tensor.dimensions.iter().flat_map(|n| n.to_le_bytes()));
        out.extend(tensor.ggml_type.to_le_bytes());
        out.extend(tensor.offset.to_le_bytes());
    }
    out.resize(out.len().next_multiple_of(ALIGNMENT as usize), 0);
    out
}

fn put_string(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}
