//! What to run next, in another terminal.

use std::ffi::OsStr;
use std::path::Path;

use testpki::TestPki;

use super::{Args, Backend};
use crate::shell;

/// The command that brings the key to a guest whose model is sealed.
pub fn provision(args: &Args, model: &Path, address: &str) -> String {
    let sealed = shell::join([model]);
    let to = shell::join([address]);
    let trust = trust(args.backend, &args.emulator, false);
    format!("vitrine provision --to {to} --sealed {sealed} --identity FILE{trust}")
}

/// The command that talks to a guest that serves.
pub fn chat(args: &Args, address: &str) -> String {
    let to = shell::join([address]);
    let trust = trust(args.backend, &args.emulator, true);
    format!("vitrine chat --to {to}{trust}")
}

/// The options by which a guest of this backend is judged, those for its model among them where it has one; capitals stand for what only the
/// reader knows. `emulator` are the emulator's own arguments.
fn trust(backend: Backend, emulator: &[impl AsRef<OsStr>], model: bool) -> String {
    let model = if model { " --model-digest SHA256" } else { "" };
    match backend {
        // Outside a trust domain there is nothing to verify.
        Backend::Qemu => " --insecure-no-tee".to_owned(),
        Backend::Tdx => format!(" --manifest FILE{model}"),
        Backend::Emulator => match pki(emulator) {
            Some(directory) => {
                let directory = Path::new(directory);
                let root = shell::join([TestPki::root_path(directory)]);
                let collateral = shell::join([TestPki::collateral_path(directory)]);
                format!(
                    " --test-root {root} --collateral {collateral} --manifest FILE{model}"
                )
            }
            // Nobody has the root that its evidence ends at.
            None => " --insecure-no-tee    # `-- --pki DIR` keeps the root of its evidence, for --test-root".to_owned(),
        },
    }
}

/// The directory of the emulator's test root, if it is to be kept.
fn pki(emulator: &[impl AsRef<OsStr>]) -> Option<&OsStr> {
    let mut words = emulator.iter().map(AsRef::as_ref);
    while let Some(word) = words.next() {
        match word.to_str().and_then(|word| word.strip_prefix("--pki")) {
            Some("") => return words.next(),
            Some(value) if value.starts_with('=') => return value.get(1..).map(OsStr::new),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: [&str; 0] = [];

    #[test]
    fn only_what_has_no_evidence_is_to_be_trusted_blindly() {
        assert_eq!(trust(Backend::Qemu, &NOTHING, true), " --insecure-no-tee");
        assert_eq!(trust(Backend::Tdx, &NOTHING, false), " --manifest FILE");
        assert_eq!(
            trust(Backend::Tdx, &NOTHING, true),
            " --manifest FILE --model-digest SHA256"
        );
        for kept in [&["--sept", "2m", "--pki", "my pki"][..], &["--pki=my pki"]] {
            assert_eq!(
                trust(Backend::Emulator, kept, true),
                " --test-root 'my pki/root.pem' --collateral 'my pki/collateral.json' --manifest FILE --model-digest SHA256"
            );
        }
        for forgotten in [&NOTHING[..], &["--pki"], &["--pkix=1"]] {
            let options = trust(Backend::Emulator, forgotten, true);
            assert!(options.starts_with(" --insecure-no-tee "), "{options}");
            assert!(options.contains("--pki DIR"), "{options}");
        }
    }
}
