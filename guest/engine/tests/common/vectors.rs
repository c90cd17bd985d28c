//! The engine's oracle vectors: models, prompts and what must come out.

use super::{Aligned, oracle_bytes};

/// A model's file, its prompts, and the reference's answers to them.
pub struct Case {
    pub name: &'static str,
    pub file: Aligned,
    pub prompts: Vec<Prompt>,
    /// Largest accepted relative root mean square error of a prompt's logits.
    pub tolerance: f64,
    /// A greedy token must agree where the reference's margin is larger.
    pub margin: f64,
}

/// A prompt and the reference's answer.
pub struct Prompt {
    pub id: String,
    pub tokens: Vec<u32>,
    pub logits: Vec<f32>,
    pub greedy: Vec<u32>,
    pub margins: Vec<f64>,
}

/// The models, with the limits of the README's table.
const MODELS: [(&str, &str, f64, f64); 4] = [
    ("s1-F16", "s1", 0.005, 0.25),
    ("s1-Q8_0", "s1", 0.06, 1.2),
    ("s1-Q4_K_M", "s1", 0.08, 1.6),
    ("s2-Q4_K_M", "s2", 0.08, 1.6),
];

/// Every model of the vectors; none if they are not here.
pub fn cases() -> Vec<Case> {
    MODELS
        .iter()
        .filter_map(|&(name, net, tolerance, margin)| case(name, net, tolerance, margin))
        .collect()
}

fn case(name: &'static str, net: &str, tolerance: f64, margin: f64) -> Option<Case> {
    let file = oracle_bytes(&format!("engine/{name}.gguf"))?;
    let (prompts, greedy) = (
        json(&format!("engine/{net}.prompts.json")),
        json(&format!("engine/{name}.ref.greedy.json")),
    );
    let (shape, logits) = npy(&format!("engine/{name}.ref.logits.npy"));
    let prompts = prompts
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(index, prompt)| Prompt {
            id: prompt["id"].as_str().unwrap().into(),
            tokens: serde_json::from_value(prompt["tokens"].clone()).unwrap(),
            logits: logits[index * shape[1]..(index + 1) * shape[1]].to_vec(),
            greedy: serde_json::from_value(greedy["greedy"][index].clone()).unwrap(),
            margins: serde_json::from_value(greedy["margin"][index].clone()).unwrap(),
        })
        .collect();
    Some(Case {
        name,
        file,
        prompts,
        tolerance,
        margin,
    })
}

fn json(name: &str) -> serde_json::Value {
    serde_json::from_slice(oracle_bytes(name).unwrap().bytes()).unwrap()
}

/// A NumPy file of float32 in C order: its shape and its numbers.
fn npy(name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = oracle_bytes(name).unwrap();
    let bytes = file.bytes();
    let header_end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..header_end]).unwrap();
    assert!(
        header.contains("'<f4'") && header.contains("'fortran_order': False"),
        "{header}"
    );
    let shape = header.split(['(', ')']).nth(1).unwrap();
    let shape = shape
        .split(',')
        .filter_map(|length| length.trim().parse().ok())
        .collect();
    let numbers = bytes[header_end..]
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()));
    (shape, numbers.collect())
}

/// Root mean square of the difference, relative to the reference's.
pub fn relative_rms(got: &[f32], reference: &[f32]) -> f64 {
    assert_eq!(got.len(), reference.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = got.iter().zip(reference).map(|(a, b)| square(a - b)).sum();
    (difference / reference.iter().map(|&b| square(b)).sum::<f64>()).sqrt()
}

/// The index of the largest.
pub fn argmax(x: &[f32]) -> u32 {
    (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b])).unwrap() as u32
}
