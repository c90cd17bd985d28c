//! `vitrine verify` as its users see it: verdicts, exit codes, JSON, where collateral comes from, and what is remembered.

#[path = "../../../verifier/tests/common/mod.rs"]
mod common;

mod collateral;
mod memory;
mod servers;
mod support;
mod verdicts;
