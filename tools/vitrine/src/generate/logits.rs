//! The engine's raw numbers, row by row, for comparison with another engine's.

use std::io::{BufWriter, Write, stdout};

use engine::Session;

use super::{Args, Task};
use crate::failure::Failure;

/// Computes and prints rows as they come, so that memory does not grow with them.
pub fn print(args: &Args, task: Task<'_>) -> Result<(), Failure> {
    if args
        .sampling
        .temperature
        .is_some_and(|temperature| temperature != 0.0)
    {
        return Err(Failure::usage(
            "--logits chooses the likeliest token: leave out --temperature",
        ));
    }
    let Task {
        model,
        prompt,
        kernels,
        workers,
        options,
    } = task;
    // Before anything is printed.
    let tokenizer = model.tokenizer();
    let force = args.force.0.as_slice();
    if let Some(token) = force.iter().find(|&&token| tokenizer.kind(token).is_none()) {
        return Err(Failure::usage(format!(
            "token {token} is not in the vocabulary"
        )));
    }
    let mut session = Session::new(model, kernels, workers, &options).map_err(Failure::usage)?;
    let mut out = BufWriter::new(stdout().lock());
    let mut tokens = Vec::new();
    let mut input = prompt;
    write(&mut out, b"{\"logits\":[")?;
    for row in 0..args.rows() {
        let logits = session.feed(&input).map_err(Failure::usage)?;
        if row > 0 {
            write(&mut out, b",")?;
        }
        serde_json::to_writer(&mut out, logits).map_err(Failure::new)?;
        let likeliest = kernels.argmax(logits) as u32;
        tokens.push(likeliest);
        let next = force.get(row).copied().unwrap_or(likeliest);
        if row >= force.len() && session.model().tokenizer().is_end(next) {
            break;
        }
        input = vec![next];
    }
    write(&mut out, b"],\"tokens\":")?;
    serde_json::to_writer(&mut out, &tokens).map_err(Failure::new)?;
    write(&mut out, b"}\n")?;
    out.flush().map_err(cannot_write)
}

fn write(out: &mut impl Write, bytes: &[u8]) -> Result<(), Failure> {
    out.write_all(bytes).map_err(cannot_write)
}

fn cannot_write(error: std::io::Error) -> Failure {
    Failure::new(format!("cannot write: {error}"))
}
