//! Quantised blocks and the arithmetic over them: everything in the engine that is worth a vector instruction.
//!
//! A [`Kernels`] value is one table of routines for one instruction set ([`Isa`]), chosen once at start. Its safe methods check
//! lengths and run the routine; they know no threads, allocate nothing and have no state.
//!
//! What callers may rely on:
//! - A result of [`Kernels::rows`] is a function of its weight row and its own token only: never of how many rows or
//!   tokens were passed in the same call. A matrix-vector and a matrix-matrix product agree bit for bit.
//! - Everything but `rows` and `weighted_sum` has the same bits for every [`Isa`]; those two differ between `Scalar` and
//!   the rest by rounding only.
//! - Weight bytes may be anything. NaN and infinite scales give NaN and infinite results, not a panic.
//! - Floats round to nearest and subnormals count: MXCSR is as after reset.
//! - Lengths that do not fit together are a mistake of the caller and panic, as each method documents.
//!
//! Block formats are those of GGUF, defined in [`Format`] and [`Activation`].
#![no_std]

mod dispatch;
mod formats;
mod half;
mod isa;
pub mod math;
mod product;
mod quantize;
mod scalar;
mod simd;
mod vector;

pub use dispatch::Kernels;
pub use formats::{Activation, Format};
pub use isa::{Isa, ParseIsaError};
