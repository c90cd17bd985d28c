//! The program `age`, in both directions: it was written by others in another language, and shares no code with what is tested here.

mod common;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use age::secrecy::ExposeSecret;
use age::x25519;
use common::{Failure, envelope, file_key, open, seal, together};
use seal::{CHUNK, OpenError, TAG};

/// Where `age` is. Says so if it is not here; fails if it must be.
fn program() -> Option<&'static str> {
    let here = Command::new("age").arg("--version").output();
    if here.is_ok_and(|output| output.status.success()) {
        return Some("age");
    }
    let required = env::var_os("VITRINE_REQUIRE_ORACLES").is_some_and(|value| value == "1");
    assert!(!required, "the program age is not here");
    eprintln!("SKIPPED: the program age is not here");
    None
}

/// A folder with an identity in it, for one test.
struct Place {
    directory: PathBuf,
    identity: x25519::Identity,
}

impl Place {
    fn new(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        Self::with(directory, x25519::Identity::generate())
    }

    fn with(directory: PathBuf, identity: x25519::Identity) -> Self {
        let secret = identity.to_string();
        fs::write(directory.join("identity"), secret.expose_secret()).unwrap();
        Self {
            directory,
            identity,
        }
    }

    /// What `age` makes of a plaintext, for the identity and others.
    fn sealed(&self, program: &str, plaintext: &[u8], others: usize) -> Vec<u8> {
        let [input, output] = ["plain", "sealed"].map(|name| self.directory.join(name));
        fs::write(&input, plaintext).unwrap();
        let mut command = Command::new(program);
        for _ in 0..others {
            let other = x25519::Identity::generate().to_public();
            command.args(["-r", &other.to_string()]);
        }
        command.args(["-r", &self.identity.to_public().to_string(), "-o"]);
        assert!(command.args([&output, &input]).status().unwrap().success());
        fs::read(output).unwrap()
    }

    /// What `age` makes of a sealed file; `None` if it refuses it.
    fn opened(&self, program: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let input = self.directory.join("sealed");
        fs::write(&input, sealed).unwrap();
        let mut command = Command::new(program);
        command.arg("-d").arg("-i");
        command.args([self.directory.join("identity"), input]);
        let output = command.output().unwrap();
        output.status.success().then_some(output.stdout)
    }
}

fn text(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

#[test]
fn what_age_seals_opens_here() {
    let Some(program) = program() else {
        return;
    };
    let place = Place::new("age-seals");
    for (length, others) in [
        (0, 0),
        (1, 1),
        (CHUNK, 0),
        (CHUNK + 1, 3),
        (300 * CHUNK + 77, 1),
    ] {
        let plaintext = text(length);
        let sealed = place.sealed(program, &plaintext, others);
        let envelope = envelope(&sealed).unwrap();
        assert_eq!(envelope.header().stanzas.len(), others + 1);
        let key = file_key(&sealed, &place.identity);
        let opened = open(&sealed, &key, 1 << 20, &together).unwrap();
        assert!(opened.memory == plaintext, "{length} bytes");
    }
}

#[test]
fn what_is_damaged_is_refused_by_both() {
    let Some(program) = program() else {
        return;
    };
    let place = Place::new("age-damaged");
    let sealed = place.sealed(program, &text(3 * CHUNK + 5), 1);
    let key = file_key(&sealed, &place.identity);
    let start = envelope(&sealed).unwrap().length();
    let chunk = |index: usize| {
        let begin = start + index * (CHUNK + TAG);
        begin..sealed.len().min(begin + CHUNK + TAG)
    };
    let with = |order: &[usize]| {
        let chunks = order.iter().flat_map(|&index| &sealed[chunk(index)]);
        sealed[..start].iter().chain(chunks).copied().collect()
    };
    let flipped = |at: usize| {
        let mut file = sealed.clone();
        file[at] ^= 1;
        file
    };
    let mac = sealed
        .windows(4)
        .position(|window| window == b"--- ")
        .unwrap()
        + 4;
    let whole: Vec<u8> = with(&[0, 1, 2, 3]);
    assert_eq!(whole, sealed);
    for (damage, file) in [
        ("a chunk moved", with(&[1, 0, 2, 3])),
        ("a chunk twice", with(&[0, 1, 1, 2, 3])),
        ("a chunk left out", with(&[0, 2, 3])),
        ("the last chunk left out", with(&[0, 1, 2])),
        ("the last chunk first", with(&[3, 0, 1, 2])),
        ("cut in a chunk", sealed[..start + CHUNK + 100].to_vec()),
        ("cut in the header", sealed[..start - 20].to_vec()),
        ("no chunk at all", sealed[..start].to_vec()),
        ("one byte more", [&sealed[..], &[0]].concat()),
        (
            "a whole chunk more",
            [&sealed[..], &sealed[chunk(3)]].concat(),
        ),
        ("the MAC flipped", flipped(mac)),
        ("the nonce flipped", flipped(start - 1)),
        ("the last tag flipped", flipped(sealed.len() - 1)),
        ("the first byte flipped", flipped(start)),
    ] {
        assert!(open(&file, &key, 1 << 20, &together).is_err(), "{damage}");
        assert_eq!(place.opened(program, &file), None, "{damage}");
    }
    let wrong = open(&flipped(mac), &key, 1 << 20, &together).unwrap_err();
    // A flipped bit of base64 may also make it another spelling of nothing.
    assert!(matches!(
        wrong,
        Failure::Open(OpenError::WrongKey) | Failure::Envelope(_)
    ));
}

#[test]
fn what_is_sealed_here_opens_with_age() {
    let Some(program) = program() else {
        return;
    };
    for (length, others) in [(0, 0), (CHUNK, 2), (40 * CHUNK + 1, 1)] {
        let plaintext = text(length);
        let sealed = seal(&plaintext, others);
        let directory = Place::new("age-opens").directory;
        let place = Place::with(directory, sealed.identity);
        assert!(
            place.opened(program, &sealed.file) == Some(plaintext),
            "{length} bytes"
        );
    }
}
