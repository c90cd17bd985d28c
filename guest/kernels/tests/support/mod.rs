//! What the integration tests share: the kernels of this machine, random data, and NumPy arrays.
#![allow(dead_code)] // Each test program uses its own part.

use std::fs;
use std::path::{Path, PathBuf};

use kernels::{Format, Isa, Kernels};

/// The kernels this processor can run; says which it cannot.
pub fn supported() -> Vec<&'static Kernels> {
    let mut found = Vec::new();
    for isa in Isa::ALL {
        match Kernels::for_isa(isa) {
            Some(kernels) => found.push(kernels),
            None => eprintln!("SKIPPED: this processor has no {isa}"),
        }
    }
    found
}

pub fn scalar() -> &'static Kernels {
    Kernels::for_isa(Isa::Scalar).expect("every processor runs the scalar kernels")
}

/// A linear congruential generator.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    /// Uniform in [-1, 1).
    pub fn unit(&mut self) -> f32 {
        self.next() as f32 / (1u32 << 30) as f32 - 1.0
    }

    pub fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }

    pub fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.next() as u8).collect()
    }

    /// Blocks of random bytes whose half-float scales are ordinary numbers.
    pub fn weights(&mut self, format: Format, elements: usize) -> Vec<u8> {
        let blocks = elements / format.block_len();
        let mut weights = Vec::new();
        for _ in 0..blocks {
            let mut block = self.bytes(format.block_bytes());
            let sign = if self.next() & 1 == 0 { 0 } else { 0x80 };
            for &at in scales(format) {
                // Between 2^-7 and 2^-6.
                block[at + 1] = 0x20 | (block[at + 1] & 3) | sign;
            }
            match format {
                Format::F32 => block = self.unit().to_le_bytes().to_vec(),
                Format::Bf16 => block = self.unit().to_le_bytes()[2..].to_vec(),
                _ => {}
            }
            weights.extend(block);
        }
        weights
    }
}

/// Where in a block its half floats are.
fn scales(format: Format) -> &'static [usize] {
    match format {
        Format::F32 | Format::Bf16 => &[],
        Format::F16 | Format::Q8_0 | Format::Q4_0 | Format::Q5_0 => &[0],
        Format::Iq4Nl | Format::Iq4Xs => &[0],
        Format::Q4_1 | Format::Q5_1 | Format::Q4K | Format::Q5K => &[0, 2],
        Format::Q2K => &[80, 82],
        Format::Q3K => &[108],
        Format::Q6K => &[208],
    }
}

/// `x` quantised for `format`.
pub fn quantised(kernels: &Kernels, format: Format, x: &[f32]) -> Vec<u8> {
    let activation = format.activation();
    let mut out = vec![0; activation.row_bytes(x.len()).expect("whole blocks")];
    kernels.quantize(activation, x, &mut out);
    out
}

/// The product of rows and quantised tokens, tightly packed.
pub fn product(
    kernels: &Kernels,
    format: Format,
    weights: &[u8],
    n: usize,
    x: &[u8],
    tokens: usize,
) -> Vec<f32> {
    let rows = weights.len() / format.row_bytes(n).expect("whole blocks");
    let mut out = vec![f32::NAN; rows * tokens];
    kernels.rows(format, weights, n, x, tokens, &mut out, rows);
    out
}

pub fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Root mean square of the difference over that of the reference.
pub fn relative_rms(values: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(values.len(), reference.len());
    let square = |sum: f64, value: f64| sum + value * value;
    let error = values
        .iter()
        .zip(reference)
        .map(|(a, b)| f64::from(*a) - b)
        .fold(0.0, square);
    let norm = reference.iter().copied().fold(0.0, square);
    (error / norm.max(f64::MIN_POSITIVE)).sqrt()
}

/// The folder of kernel vectors, or `None` (an error where oracles are required).
pub fn vectors() -> Option<PathBuf> {
    let root = std::env::var_os("VITRINE_VECTORS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"),
        PathBuf::from,
    );
    let folder = root.join("engine/kernels");
    if folder.is_dir() {
        return Some(folder);
    }
    let required = std::env::var("VITRINE_REQUIRE_ORACLES").is_ok_and(|value| value == "1");
    assert!(!required, "no kernel vectors at {}", folder.display());
    eprintln!("SKIPPED: no kernel vectors at {}", folder.display());
    None
}

/// The elements of a NumPy 1.0 array, each of `N` bytes.
fn numpy<const N: usize>(path: &Path, kind: &str) -> Vec<[u8; N]> {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{}", path.display());
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = String::from_utf8_lossy(&bytes[10..header_end]);
    assert!(
        header.contains(&format!("'descr': '{kind}'")) && header.contains("'fortran_order': False"),
        "{}: {header}",
        path.display()
    );
    bytes[header_end..].as_chunks().0.to_vec()
}

pub fn numpy_f32(path: &Path) -> Vec<f32> {
    numpy(path, "<f4")
        .into_iter()
        .map(f32::from_le_bytes)
        .collect()
}

pub fn numpy_f64(path: &Path) -> Vec<f64> {
    numpy(path, "<f8")
        .into_iter()
        .map(f64::from_le_bytes)
        .collect()
}

pub fn numpy_i8(path: &Path) -> Vec<i8> {
    numpy(path, "|i1")
        .into_iter()
        .map(i8::from_le_bytes)
        .collect()
}
