//! Every instruction set against the kernel vectors: exact unpacking, products with given activations to float rounding,
//! products with our own activations to their quantisation.

mod support;

use std::path::{Path, PathBuf};

use kernels::{Activation, Format, Kernels};
use support::{numpy_f32, numpy_f64, numpy_i8, relative_rms};

/// One matrix of the vectors.
struct Matrix {
    path: PathBuf,
    format: Format,
    n: usize,
    weights: Vec<u8>,
}

impl Matrix {
    /// `NAME.w.bin` where NAME is `FORMAT_ROWSxN`.
    fn open(path: &Path) -> Option<Matrix> {
        let stem = path.to_str()?.strip_suffix(".w.bin")?;
        let name = stem.rsplit('/').next()?;
        let (format, shape) = name.rsplit_once('_')?;
        let format = Format::ALL
            .into_iter()
            .find(|known| known.name() == format)?;
        Some(Matrix {
            path: PathBuf::from(stem),
            format,
            n: shape.split_once('x')?.1.parse().ok()?,
            weights: std::fs::read(path).ok()?,
        })
    }

    fn file(&self, suffix: &str) -> PathBuf {
        PathBuf::from(format!("{}.{suffix}.npy", self.path.display()))
    }

    fn product(&self, kernels: &Kernels, x: &[u8]) -> Vec<f32> {
        support::product(kernels, self.format, &self.weights, self.n, x, 1)
    }
}

fn matrices() -> Vec<Matrix> {
    let Some(folder) = support::vectors() else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for quantisation in std::fs::read_dir(folder).expect("readable vectors") {
        let files = std::fs::read_dir(quantisation.expect("an entry").path()).expect("a folder");
        found.extend(files.filter_map(|file| Matrix::open(&file.expect("an entry").path())));
    }
    assert!(found.len() >= 8, "only {} matrices", found.len());
    found
}

#[test]
fn unpacking_is_exact() {
    for matrix in matrices() {
        let truth = numpy_f32(&matrix.file("dequant"));
        for kernels in support::supported() {
            let mut values = vec![0.0; truth.len()];
            kernels.dequantize(matrix.format, &matrix.weights, &mut values);
            assert_eq!(values, truth, "{} {}", matrix.path.display(), kernels.isa());
        }
    }
}

#[test]
fn products_are_within_quantisation_of_the_truth() {
    for matrix in matrices() {
        let x = numpy_f32(&matrix.file("x"));
        let truth = numpy_f64(&matrix.file("y"));
        let allowed = match matrix.format.activation() {
            Activation::F32 => 1e-6,
            _ => 1.3e-2,
        };
        for kernels in support::supported() {
            let x = support::quantised(kernels, matrix.format, &x);
            let error = relative_rms(&matrix.product(kernels, &x), &truth);
            assert!(error < allowed, "{} {error}", matrix.path.display());
        }
    }
}

#[test]
fn products_with_given_activations_are_exact_to_rounding() {
    for matrix in matrices() {
        let activation = matrix.format.activation();
        let (name, truth) = match activation {
            Activation::Q8K => ("q8K", "y_q8K"),
            Activation::Q8_0 => ("q80", "y_q80"),
            Activation::F32 | Activation::Q8_1 => continue,
        };
        let scales = numpy_f32(&matrix.file(&format!("{name}_d")));
        let bytes = numpy_i8(&matrix.file(&format!("{name}_q")));
        let truth = numpy_f64(&matrix.file(truth));
        let x = pack(activation, &scales, &bytes);
        for kernels in support::supported() {
            let values = matrix.product(kernels, &x);
            let error = relative_rms(&values, &truth);
            assert!(error < 1e-5, "{} {error}", matrix.path.display());
        }
    }
}

#[test]
fn activations_are_quantised_like_the_vectors() {
    for matrix in matrices() {
        let activation = matrix.format.activation();
        let name = match activation {
            Activation::Q8K => "q8K",
            Activation::Q8_0 => "q80",
            Activation::F32 | Activation::Q8_1 => continue,
        };
        let scales = numpy_f32(&matrix.file(&format!("{name}_d")));
        let bytes = numpy_i8(&matrix.file(&format!("{name}_q")));
        // Scale and bytes may both have the other sign.
        let theirs = bytes.iter().zip(0..).map(|(byte, i)| {
            let scale = scales[i / activation.block_len()];
            f64::from(*byte) * f64::from(scale)
        });
        let theirs: Vec<f64> = theirs.collect();
        let x = numpy_f32(&matrix.file("x"));
        let packed = support::quantised(support::scalar(), matrix.format, &x);
        let ours = unpack(activation, &packed);
        assert!(
            relative_rms(&ours, &theirs) < 1e-4,
            "{}",
            matrix.path.display()
        );
    }
}

fn pack(activation: Activation, scales: &[f32], bytes: &[i8]) -> Vec<u8> {
    let mut packed = Vec::new();
    for (scale, bytes) in scales.iter().zip(bytes.chunks(activation.block_len())) {
        match activation {
            Activation::Q8_0 => {
                let mut half = [0; 2];
                support::scalar().f32_to_f16(&[*scale], &mut half);
                packed.extend(half);
            }
            _ => packed.extend(scale.to_le_bytes()),
        }
        packed.extend(bytes.iter().map(|byte| *byte as u8));
        if activation == Activation::Q8K {
            for group in bytes.chunks(16) {
                let sum: i16 = group.iter().map(|byte| i16::from(*byte)).sum();
                packed.extend(sum.to_le_bytes());
            }
        }
    }
    packed
}

fn unpack(activation: Activation, packed: &[u8]) -> Vec<f32> {
    let mut values = Vec::new();
    for block in packed.chunks(activation.block_bytes()) {
        let (scale, at) = match activation {
            Activation::Q8_0 => {
                let mut scale = [0.0];
                support::scalar().dequantize(Format::F16, &block[..2], &mut scale);
                (scale[0], 2)
            }
            _ => (
                f32::from_le_bytes([block[0], block[1], block[2], block[3]]),
                4,
            ),
        };
        let bytes = &block[at..at + activation.block_len()];
        values.extend(bytes.iter().map(|byte| scale * f32::from(*byte as i8)));
    }
    values
}
