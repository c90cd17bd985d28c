//! What a hostile file is put through.

use engine::model::Model;
use engine::{EngineOptions, Session, SingleThread};
use kernels::{Isa, Kernels};

/// Loads a file and, if it is a model, uses it a little.
pub fn try_out(file: &[u8]) {
    let Ok(model) = Model::load(file) else { return };
    let kernels = Kernels::for_isa(Isa::Scalar).unwrap();
    let options = EngineOptions {
        context: 8,
        max_sequences: 1,
        chunk: 8,
        ..EngineOptions::default()
    };
    if model
        .memory_required(&options, 1)
        .is_ok_and(|bytes| bytes < 1 << 20)
    {
        let tokens = model.tokenizer().encode("he\u{1}<think>", true);
        let mut session = Session::new(model, kernels, SingleThread, &options).unwrap();
        if session.feed(&tokens).is_ok() {
            session.clear();
        }
    }
}
