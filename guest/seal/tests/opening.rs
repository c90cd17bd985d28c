//! Files that another implementation sealed, whole and damaged.

mod common;

use common::{Failure, alone, envelope, open, open_elsewhere, seal, together};
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use seal::{
    CHUNK, Envelope, EnvelopeError, FileKey, HeaderError, LayoutError, OpenError, Opening, TAG,
};

/// Bytes that are not all the same, nor the same in two chunks.
fn text(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|index| (index.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest(&SHA256, bytes).as_ref().to_vec()
}

#[test]
fn every_length_opens_in_any_pieces() {
    for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, 5 * CHUNK + 77] {
        let plaintext = text(length);
        let sealed = seal(&plaintext, 2);
        for piece in [1 << 20, CHUNK + TAG, 40_000, 4097] {
            let opened = open(&sealed.file, &sealed.key, piece, &together).unwrap();
            assert!(opened.memory == plaintext, "{length} in pieces of {piece}");
            assert_eq!(opened.plaintext.to_vec(), sha256(&plaintext));
            assert_eq!(opened.sealed.to_vec(), sha256(&sealed.file));
        }
    }
    let plaintext = text(1000);
    let sealed = seal(&plaintext, 0);
    let opened = open(&sealed.file, &sealed.key, 1, &alone).unwrap();
    assert_eq!(opened.memory, plaintext);
}

#[test]
fn an_envelope_is_read_from_as_little_as_it_takes() {
    let sealed = seal(&text(10), 1);
    let length = sealed.file.len() as u64;
    let whole = envelope(&sealed.file).unwrap();
    for count in 0..=sealed.file.len() {
        let read = Envelope::read(&sealed.file[..count], length).unwrap();
        assert_eq!(read.is_some(), count >= whole.length());
    }
}

#[test]
fn only_the_files_own_key_opens_it() {
    let (one, other) = (seal(b"one", 0), seal(b"other", 0));
    let refused = open(&one.file, &other.key, 100, &alone).unwrap_err();
    assert_eq!(refused, Failure::Open(OpenError::WrongKey));
    let zero = FileKey::from([0; 16]);
    let refused = open(&one.file, &zero, 100, &alone).unwrap_err();
    assert_eq!(refused, Failure::Open(OpenError::WrongKey));
    assert!(envelope(&one.file).unwrap().check(&one.key).is_ok());
}

#[test]
fn chunks_cannot_be_moved_dropped_or_added() {
    let sealed = seal(&text(4 * CHUNK), 0);
    let start = envelope(&sealed.file).unwrap().length();
    let (head, payload) = sealed.file.split_at(start);
    let chunks: Vec<_> = payload.chunks(CHUNK + TAG).collect();
    assert_eq!(chunks.len(), 4);
    let other = seal(&text(4 * CHUNK), 0);
    let foreign = &other.file[other.file.len() - (CHUNK + TAG)..];
    for (order, culprit) in [
        (vec![chunks[1], chunks[0], chunks[2], chunks[3]], 0),
        (vec![chunks[0], chunks[1], chunks[3], chunks[2]], 2),
        (vec![chunks[0], chunks[1], chunks[2]], 2),
        (vec![chunks[0]], 0),
        (vec![chunks[0], chunks[1], chunks[1], chunks[3]], 2),
        (
            vec![chunks[0], chunks[1], chunks[2], chunks[3], chunks[3]],
            3,
        ),
        (vec![chunks[0], chunks[1], chunks[2], foreign], 3),
    ] {
        let file = [head.to_vec(), order.concat()].concat();
        for piece in [1 << 20, 70_000] {
            let refused = open(&file, &sealed.key, piece, &together).unwrap_err();
            assert_eq!(refused, Failure::Open(OpenError::Chunk(culprit)));
        }
        assert_eq!(open_elsewhere(&file, &sealed.identity), None);
    }
}

#[test]
fn a_file_that_ends_early_is_refused_wherever_it_ends() {
    let sealed = seal(&text(2 * CHUNK + 5), 0);
    let start = envelope(&sealed.file).unwrap().length();
    let mut ends: Vec<_> = (0..start + 20).collect();
    ends.extend([start + CHUNK, start + CHUNK + TAG, start + CHUNK + TAG + 16]);
    ends.extend(sealed.file.len() - 30..sealed.file.len());
    for end in ends {
        let refused = open(&sealed.file[..end], &sealed.key, 1 << 20, &alone);
        assert!(refused.is_err(), "cut after {end} bytes");
    }
    assert!(matches!(
        open(&sealed.file[..start - 17], &sealed.key, 1, &alone),
        Err(Failure::Envelope(EnvelopeError::Header(
            HeaderError::Incomplete
        )))
    ));
    assert!(matches!(
        open(&sealed.file[..start], &sealed.key, 1, &alone),
        Err(Failure::Envelope(EnvelopeError::Layout(LayoutError::Cut)))
    ));
}

#[test]
fn a_stream_of_another_length_than_announced_is_refused() {
    let sealed = seal(&text(100), 0);
    let begin = || {
        let envelope = envelope(&sealed.file).unwrap();
        let payload = sealed.file[envelope.length()..].to_vec();
        let opening = Opening::new(envelope, &sealed.key, vec![0; 100]).unwrap();
        (opening, payload)
    };
    let (mut opening, payload) = begin();
    opening.push(&payload[..90], &alone).unwrap();
    assert_eq!(opening.remaining(), 26);
    assert_eq!(
        opening.finish(&alone).unwrap_err(),
        OpenError::Truncated(26)
    );

    let (mut opening, payload) = begin();
    opening.push(&payload, &alone).unwrap();
    assert_eq!(opening.push(&[0], &alone), Err(OpenError::Overlong));
    assert_eq!(opening.finish(&alone).unwrap_err(), OpenError::Overlong);

    let envelope = envelope(&sealed.file).unwrap();
    let refused = Opening::new(envelope, &sealed.key, vec![0; 99]);
    assert_eq!(refused.err(), Some(OpenError::Memory(100)));
}

#[test]
fn a_failed_opening_leaves_no_plaintext() {
    let plaintext = text(6 * CHUNK);
    let mut sealed = seal(&plaintext, 0);
    let last = sealed.file.len() - 1;
    sealed.file[last] ^= 1;
    let envelope = envelope(&sealed.file).unwrap();
    let payload = sealed.file[envelope.length()..].to_vec();
    let mut memory = vec![0; plaintext.len()];
    let mut opening = Opening::new(envelope, &sealed.key, &mut memory[..]).unwrap();
    opening.push(&payload, &alone).unwrap();
    assert_eq!(opening.finish(&alone).unwrap_err(), OpenError::Chunk(5));
    assert!(memory.iter().all(|&byte| byte == 0));
}

/// A change to a file.
#[derive(Clone, Debug)]
enum Change {
    Flip(prop::sample::Index, u8),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Cut(prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let at = || any::<prop::sample::Index>();
    prop_oneof![
        (at(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), prop_oneof![any::<u8>(), Just(b'\n'), Just(b' ')])
            .prop_map(|(at, byte)| Change::Insert(at, byte)),
        at().prop_map(Change::Remove),
        at().prop_map(Change::Cut),
    ]
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(file.len());
                file[at] ^= 1 << bit;
            }
            Self::Insert(at, byte) => file.insert(at.index(file.len()), *byte),
            Self::Remove(at) => drop(file.remove(at.index(file.len()))),
            Self::Cut(at) => file.truncate(at.index(file.len()).max(1)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is changed: the file is refused, by both implementations.
    #[test]
    fn no_change_goes_unnoticed(
        length in 0_usize..300, others in 0_usize..3, changes in prop::collection::vec(change(), 1..4),
    ) {
        let sealed = seal(&text(length), others);
        let mut file = sealed.file.clone();
        changes.iter().for_each(|change| change.apply(&mut file));
        prop_assume!(file != sealed.file);
        prop_assert!(open(&file, &sealed.key, 64, &alone).is_err());
        prop_assert_eq!(open_elsewhere(&file, &sealed.identity), None);
    }

    #[test]
    fn arbitrary_bytes_never_panic(start in any::<bool>(), bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let version: &[u8] = if start { b"age-encryption.org/v1\n-> " } else { b"" };
        let file = [version, &bytes].concat();
        let _ = Envelope::read(&file, file.len() as u64);
    }
}
