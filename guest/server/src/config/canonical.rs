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
use crate::hex;

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
                    challenges: _,
                    request_bytes: _,
                    header_bytes: _,
                    answer_tokens,
                    handshake_seconds: _,
                    header_seconds: _,
                    body_seconds: _,
                    idle_seconds: _,
                    write_seconds: _,
                    certificate_seconds: _,
                },
            model:
                Model {
                    name,
                    context,
                    max_sequences: _,
                    threads: _,
                    kv,
                    version,
                },
            trust,
        } = self;
        let kv = match kv {
            KvPrecision::F16 => "f16",
            KvPrecision::Q8_0 => "q8_0",
        };
        let name = name.as_deref().unwrap_or_default();
        let provisioner = trust.provisioner();
        let provisioner = provisioner.map_or_else(String::new, |key| hex::encode(&key));
        let minimum = trust.minimum_tcb();
        format!(
            "{HEADER}\n\
             limits.answer_tokens={answer_tokens}\n\
             model.context={context}\n\
             model.kv={kv}\n\
             model.name={name}\n\
             model.version={version}\n\
             trust.minimum_cpu_svn={}\n\
             trust.minimum_tcb_evaluation={}\n\
             trust.minimum_tdx_svn={}\n\
             trust.provisioner={provisioner}\n\
             trust.refused_advisories={}\n",
            hex::encode(&minimum.cpu),
            minimum.evaluation,
            hex::encode(&minimum.tdx),
            minimum.refused_advisories.join(","),
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
        let zeros = "0".repeat(32);
        let expected = format!(
            "vitrine-configuration/1\nlimits.answer_tokens=1024\nmodel.context=4096\nmodel.kv=f16\nmodel.name=\n\
             model.version=0\ntrust.minimum_cpu_svn={zeros}\ntrust.minimum_tcb_evaluation=0\n\
             trust.minimum_tdx_svn={zeros}\ntrust.provisioner=\ntrust.refused_advisories=\n"
        );
        assert_eq!(canonical(""), expected);
        let same = "# a comment\n[model]\nkv   = 'f16'\n[limits]\nanswer_tokens = 1_024\n";
        assert_eq!(canonical(same), expected);
    }

    #[test]
    fn what_does_not_matter_to_clients_is_left_out() {
        let file = "[listen]\ntcp = 1\nvsock = 2\naddress = \"192.0.2.10/24\"\ngateway = \"192.0.2.1\"\n\
                    [limits]\nconnections = 3\nqueue = 4\nchallenges = 5\nrequest_bytes = 5000\nheader_bytes = 6000\nhandshake_seconds = 7\n\
                    header_seconds = 8\nbody_seconds = 9\nidle_seconds = 10\nwrite_seconds = 11\ncertificate_seconds = 60\n\
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
            "[model]\nversion = 1",
            &format!("[trust]\nprovisioner = \"{}\"", "0a".repeat(32)),
            "[trust]\nminimum_cpu_svn = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]",
            "[trust]\nminimum_tdx_svn = [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]",
            "[trust]\nminimum_tcb_evaluation = 17",
            "[trust]\nrefused_advisories = [\"INTEL-SA-00837\"]",
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
