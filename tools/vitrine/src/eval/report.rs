//! The measures as a table for people and as JSON for programs. The first row is the reference.

use engine::KvFormat;
use serde::Serialize;

use super::measures::Measures;

#[derive(Serialize)]
struct Row<'a> {
    model: &'a str,
    kv: &'static str,
    positions: u64,
    perplexity: f64,
    kl_divergence: f64,
    top1_agreement: f64,
    accuracy: Option<f64>,
    prompt_tokens_per_second: f64,
    decode_tokens_per_second: f64,
    prompt_speed_ratio: f64,
    decode_speed_ratio: f64,
}

#[derive(Serialize)]
struct Report<'a> {
    reference: Option<&'a Row<'a>>,
    candidates: &'a [Row<'a>],
}

/// Prints one JSON object.
pub fn print_json(measures: &[Measures]) {
    let rows = rows(measures);
    let report = Report {
        reference: rows.first(),
        candidates: rows.get(1..).unwrap_or_default(),
    };
    println!("{}", serde_json::json!(report));
}

/// Prints a table.
pub fn print_table(measures: &[Measures]) {
    let rows = rows(measures);
    let width = rows
        .iter()
        .map(|row| row.model.chars().count())
        .max()
        .unwrap_or(0)
        .max(5);
    println!(
        "{:width$}  {:5}  {:>10}  {:>9}  {:>7}  {:>8}  {:>15}  {:>15}",
        "model",
        "kv",
        "perplexity",
        "KL (nats)",
        "top-1",
        "accuracy",
        "prompt tokens/s",
        "decode tokens/s"
    );
    for row in &rows {
        let accuracy = row
            .accuracy
            .map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", share * 100.0));
        println!(
            "{:width$}  {:5}  {:>10.3}  {:>9.5}  {:>5.1} %  {accuracy:>8}  {:>8.1} {:>5.2}x  {:>8.1} {:>5.2}x",
            row.model,
            row.kv,
            row.perplexity,
            row.kl_divergence,
            row.top1_agreement * 100.0,
            row.prompt_tokens_per_second,
            row.prompt_speed_ratio,
            row.decode_tokens_per_second,
            row.decode_speed_ratio,
        );
    }
}

fn rows(measures: &[Measures]) -> Vec<Row<'_>> {
    let Some(reference) = measures.first() else {
        return Vec::new();
    };
    measures
        .iter()
        .map(|measures| Row {
            model: &measures.name,
            kv: match measures.kv {
                KvFormat::F16 => "f16",
                KvFormat::Q8_0 => "q8_0",
            },
            positions: measures.quality.positions(),
            perplexity: measures.quality.perplexity(),
            kl_divergence: measures.quality.divergence(),
            top1_agreement: measures.quality.agreement(),
            accuracy: measures.accuracy,
            prompt_tokens_per_second: measures.speed.prompt,
            decode_tokens_per_second: measures.speed.decode,
            prompt_speed_ratio: measures.speed.prompt / reference.speed.prompt,
            decode_speed_ratio: measures.speed.decode / reference.speed.decode,
        })
        .collect()
}
