//! `vitrine synthesize`: a model with random weights, for everything but the quality of its words.

use std::path::PathBuf;

use synthesis::{Mix, Recipe, Shape};

use crate::failure::Failure;
use crate::progress::Progress;

/// Write a random-weight Qwen3 model (GGUF), the same bytes on every machine
#[derive(clap::Args, Debug)]
#[command(after_help = "\
Shapes: tiny (a few megabytes), qwen3-0.6b, qwen3-1.7b (exactly those models' dimensions). The dimension options change one of \
them. Formats of one seed round the same weights.

Examples:
  vitrine synthesize --out tiny.gguf
  vitrine synthesize --preset qwen3-1.7b --mix Q4_K_M --out large.gguf
  vitrine synthesize --layers 3 --hidden 512 --heads 8 --kv-heads 1 --untied --mix F16 --out other.gguf")]
pub struct Args {
    /// The file to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The shape to start from
    #[arg(long, value_name = "SHAPE", default_value = "tiny", value_parser = ["tiny", "qwen3-0.6b", "qwen3-1.7b"])]
    preset: String,
    /// Tensor formats: F16, Q8_0 or Q4_K_M
    #[arg(long, default_value = "Q4_K_M")]
    mix: Mix,
    /// Another seed gives other weights
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Layers
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    layers: Option<u32>,
    /// Width of the residual stream
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    hidden: Option<u32>,
    /// Width inside the feed-forward network
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    feed_forward: Option<u32>,
    /// Query heads
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    heads: Option<u32>,
    /// Key/value heads
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    kv_heads: Option<u32>,
    /// Width of a head
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    head_dim: Option<u32>,
    /// Tokens, filled up with unused ones
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    vocabulary: Option<u64>,
    /// Longest context in tokens
    #[arg(long, value_name = "N", help_heading = "Dimensions")]
    context: Option<u32>,
    /// Base of the rotary embedding
    #[arg(long, value_name = "THETA", help_heading = "Dimensions")]
    rope_theta: Option<f32>,
    /// Epsilon of the RMS norms
    #[arg(long, value_name = "EPSILON", help_heading = "Dimensions")]
    rms_epsilon: Option<f32>,
    /// An output projection of its own instead of the token embedding
    #[arg(long, help_heading = "Dimensions")]
    untied: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let base = Shape::named(&args.preset)
        .ok_or_else(|| Failure::usage(format!("no shape is called {}", args.preset)))?;
    let shape = Shape {
        layers: args.layers.unwrap_or(base.layers),
        hidden: args.hidden.unwrap_or(base.hidden),
        feed_forward: args.feed_forward.unwrap_or(base.feed_forward),
        heads: args.heads.unwrap_or(base.heads),
        kv_heads: args.kv_heads.unwrap_or(base.kv_heads),
        head_dim: args.head_dim.unwrap_or(base.head_dim),
        vocabulary: args.vocabulary.or(base.vocabulary),
        context: args.context.unwrap_or(base.context),
        rope_theta: args.rope_theta.unwrap_or(base.rope_theta),
        rms_epsilon: args.rms_epsilon.unwrap_or(base.rms_epsilon),
        tied: base.tied && !args.untied,
    };
    let name = format!("synthetic-{}", args.preset);
    let recipe = Recipe::new(&name, &shape, args.mix, args.seed).map_err(Failure::usage)?;

    let length = recipe.length();
    let mut progress = Progress::new(length);
    let outcome = recipe.write_file(&args.out, &mut |written| progress.reach(written));
    drop(progress);
    outcome
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", args.out.display())))?;
    eprintln!(
        "{}: {length} bytes ({}, seed {})",
        args.out.display(),
        args.mix,
        args.seed
    );
    Ok(())
}
