//! The canonical configuration: the keys that matter to clients, in the one form that is measured.
//!
//! Its digest is extended into RTMR[2] and the text travels with the evidence, so that a client can hash it again and judge the fields by
//! name. A key is in it if it decides which answer a prompt gets or who may see it. Where the server listens, how much it takes on at a
//! time and how many CPUs it uses are the operator's affair: those keys may change without a client's pin changing.
//!
//! The form: a first line that names it, then one line `section.key=value` for each key, sorted, defaults written out, each line ended by a
//! line feed. Numbers are decimal; text stands as it is, and is never empty and never holds a line feed; an empty value is an absent key.

use alloc::{format, string::String};

use super::{Config, KvPrecision, Limits, Listen, Model};

/// The first line. Another form, or another meaning of a key, takes a new number.
const HEADER: &str = "vitrine-configuration/1";

impl Config {
    /// The canonical configuration.
    pub fn canonical(&self) -> String {
        // Every key is named, so that a new one does not compile before somebody decided where it belongs.
        let Self {
            listen:
                Listen {
                    tcp: _,
                    vsock: _,
                    address: _,
                    gateway: _,
                },
            limits:
                Limits {
                    connections: _,
                    queue: _,
                    request_bytes: _,
                    header_bytes: _,
                    answer_tokens,
                    handshake_seconds: _,
                    header_seconds: _,
                    body_seconds: _,
                    idle_seconds: _,
                    write_seconds: _,
                },
            model:
                Model {
                    name,
                    context,
                    max_sequences: _,
                    threads: _,
                    kv,
                },
        } = self;
        let kv = match kv {
            KvPrecision::F16 => "f16",
            KvPrecision::Q8_0 => "q8_0",
        };
        let name = name.as_deref().unwrap_or_default();
        format!(
            "{HEADER}\nlimits.answer_tokens={answer_tokens}\nmodel.context={context}\nmodel.kv={kv}\nmodel.name={name}\n"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn canonical(file: &str) -> String {
        Config::parse(file.as_bytes()).unwrap().canonical()
    }

    #[test]
    fn the_default_is_written_out() {
        let expected = "vitrine-configuration/1\nlimits.answer_tokens=1024\nmodel.context=4096\nmodel.kv=f16\nmodel.name=\n";
        assert_eq!(canonical(""), expected);
        let same = "# a comment\n[model]\nkv   = 'f16'\n[limits]\nanswer_tokens = 1_024\n";
        assert_eq!(canonical(same), expected);
    }

    #[test]
    fn what_does_not_matter_to_clients_is_left_out() {
        let file = "[listen]\ntcp = 1\nvsock = 2\naddress = \"192.0.2.10/24\"\ngateway = \"192.0.2.1\"\n\
                    [limits]\nconnections = 3\nqueue = 4\nrequest_bytes = 5000\nheader_bytes = 6000\nhandshake_seconds = 7\n\
                    header_seconds = 8\nbody_seconds = 9\nidle_seconds = 10\nwrite_seconds = 11\n\
                    [model]\nmax_sequences = 12\nthreads = 13\n";
        assert_eq!(canonical(file), canonical(""));
    }

    #[test]
    fn what_matters_changes_it() {
        let files = [
            "",
            "[limits]\nanswer_tokens = 1025",
            "[model]\ncontext = 4097",
            "[model]\nkv = \"q8_0\"",
            "[model]\nname = \"model.kv=q8_0\"",
        ];
        for (index, one) in files.iter().enumerate() {
            for other in &files[index + 1..] {
                assert_ne!(canonical(one), canonical(other), "{one} and {other}");
            }
        }
    }

    #[test]
    fn keys_are_sorted_and_stand_once() {
        let text = canonical("[model]\nname = \"a=b\"");
        let keys: alloc::vec::Vec<_> = text
            .lines()
            .skip(1)
            .map(|line| line.split_once('=').unwrap().0)
            .collect();
        assert!(keys.is_sorted_by(|one, other| one < other), "{keys:?}");
    }
}
