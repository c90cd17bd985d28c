//! Evidence changed at random and with intent: nothing panics, nothing takes long or much memory, and no refusal becomes an acceptance.

mod common;

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use common::domain::*;
use proptest::prelude::*;
use proptest::sample::Index;
use testpki::catalogue;
use verifier::{Collateral, Report, Verdict};

const MEMORY: usize = 64 << 20;
const TIME: Duration = Duration::from_secs(1);

/// The most memory that this program has had, its own test data included.
fn most_memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib: usize = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib << 10
}

/// Runs a judgement within its bounds. Tests run beside each other: the bound on memory holds for all of them together. A machine may be
/// busy with something else, so the best of three tries counts.
fn bounded<T>(judge: impl Fn() -> T) -> T {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        let before = Instant::now();
        let result = judge();
        best = best.min(before.elapsed());
        let most = most_memory();
        assert!(most < MEMORY, "{most} bytes");
        if best < TIME {
            return result;
        }
    }
    panic!("{best:?}");
}

/// A sound quote and its collateral as JSON, made once.
fn sound() -> &'static (Vec<u8>, Vec<u8>) {
    static SOUND: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    SOUND.get_or_init(|| {
        let evidence = pki().scenario(NOW).unwrap().build().unwrap();
        (evidence.quote, evidence.collateral.to_json().into_bytes())
    })
}

/// A sound certificate, made once.
fn certificate() -> &'static [u8] {
    static CERTIFICATE: OnceLock<Vec<u8>> = OnceLock::new();
    CERTIFICATE.get_or_init(|| Domain::new().certificate())
}

/// The end of what signatures cover or bind in the sound quote: its certificates' PEM follows, which has many spellings.
fn chain_starts(quote: &[u8]) -> usize {
    let pem = b"-----BEGIN";
    quote
        .windows(pem.len())
        .position(|window| window == pem)
        .unwrap()
}

fn judge_quote(quote: &[u8], collateral: &[u8]) -> Report {
    bounded(|| {
        let mut verifier = verifier(pins());
        verifier.scope = verifier::Scope::PlatformOnly;
        verifier.quote(quote, Collateral::parse(collateral))
    })
}

fn judge_certificate(der: &[u8]) -> Report {
    bounded(|| judge(der).0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_flipped_bit_of_a_quote_is_refused(place: Index, bit in 0..8) {
        let (quote, collateral) = sound();
        let mut quote = quote.clone();
        let signed = chain_starts(&quote);
        quote[place.index(signed)] ^= 1_u8 << bit;
        prop_assert_eq!(judge_quote(&quote, collateral).verdict, Verdict::PlatformUntrusted);
    }

    #[test]
    fn any_changed_byte_of_a_quote_stays_within_bounds(place: Index, byte: u8) {
        let (quote, collateral) = sound();
        let mut quote = quote.clone();
        *place.get_mut(&mut quote) = byte;
        judge_quote(&quote, collateral);
    }

    #[test]
    fn a_cut_quote_is_refused(place: Index) {
        let (quote, collateral) = sound();
        let report = judge_quote(&quote[..place.index(quote.len())], collateral);
        prop_assert_eq!(report.verdict, Verdict::PlatformUntrusted);
    }

    #[test]
    fn a_length_or_field_replaced_is_refused(place: Index, value in prop_oneof![
        Just([0; 4]), Just([0xff; 4]), Just([0, 0, 0, 0x80]), any::<[u8; 4]>()
    ]) {
        let (quote, collateral) = sound();
        let mut other = quote.clone();
        let at = place.index(chain_starts(quote) - 4);
        other[at..at + 4].copy_from_slice(&value);
        prop_assume!(other != *quote);
        prop_assert_eq!(judge_quote(&other, collateral).verdict, Verdict::PlatformUntrusted);
    }

    #[test]
    fn two_quotes_spliced_are_refused(place: Index) {
        let (quote, collateral) = sound();
        let other = Domain::new().quote([3; 64]);
        // Within header, report and signature. What follows vouches for the same key in both, and may come from either.
        let at = 1 + place.index(48 + 584 + 4 + 64 - 1);
        let spliced = [&quote[..at], &other[at..]].concat();
        // Up to their first difference it is the other one.
        prop_assume!(spliced[..700] != quote[..700] && spliced[..700] != other[..700]);
        prop_assert_eq!(judge_quote(&spliced, collateral).verdict, Verdict::PlatformUntrusted);
    }

    #[test]
    fn changed_collateral_never_helps(place: Index, byte: u8) {
        let (quote, collateral) = sound();
        let mut collateral = collateral.clone();
        *place.get_mut(&mut collateral) = byte;
        judge_quote(quote, &collateral);
        // Nor does it for a quote that is refused: here, of a debug domain.
        let mut scenario = pki().scenario(NOW).unwrap();
        scenario.report.td.attributes.0 |= 1;
        let debug = scenario.build().unwrap();
        prop_assert_ne!(judge_quote(&debug.quote, &collateral).verdict, Verdict::PlatformGenuine);
    }

    #[test]
    fn a_changed_byte_of_a_certificate_is_refused(place: Index, byte: u8) {
        let mut der = certificate().to_vec();
        *place.get_mut(&mut der) = byte;
        prop_assume!(der != certificate());
        prop_assert_ne!(judge_certificate(&der).verdict, Verdict::Accepted);
    }

    #[test]
    fn a_certificate_cut_grown_or_spliced_is_refused(place: Index, other in proptest::collection::vec(any::<u8>(), 1..64)) {
        let at = place.index(certificate().len());
        prop_assert_ne!(judge_certificate(&certificate()[..at]).verdict, Verdict::Accepted);
        let grown = [certificate(), &other].concat();
        prop_assert_ne!(judge_certificate(&grown).verdict, Verdict::Accepted);
        let mut spliced = certificate().to_vec();
        spliced.splice(at..at, other);
        prop_assert_ne!(judge_certificate(&spliced).verdict, Verdict::Accepted);
    }

    #[test]
    fn arbitrary_bytes_are_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let (quote, collateral) = sound();
        prop_assert_ne!(judge_quote(&bytes, collateral).verdict, Verdict::PlatformGenuine);
        prop_assert_ne!(judge_quote(quote, &bytes).verdict, Verdict::PlatformGenuine);
        prop_assert_ne!(judge_certificate(&bytes).verdict, Verdict::Accepted);
    }
}

/// A change to bytes.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Set(Index, u8),
    Cut(Index),
    Grow(Vec<u8>),
    Remove(Index, usize),
    /// A piece of another one of the same kind at the same place.
    Splice(Index, usize),
    /// The same document in another spelling.
    Reencode(usize),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        (place(), 0_u8..8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (place(), any::<u8>()).prop_map(|(at, byte)| Change::Set(at, byte)),
        place().prop_map(Change::Cut),
        proptest::collection::vec(any::<u8>(), 1..64).prop_map(Change::Grow),
        (place(), 1_usize..300).prop_map(|(at, count)| Change::Remove(at, count)),
        (place(), 1_usize..2000).prop_map(|(at, count)| Change::Splice(at, count)),
        (0_usize..4).prop_map(Change::Reencode),
    ]
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>, other: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bit) => *at.get_mut(bytes) ^= 1 << bit,
            Self::Set(at, byte) => *at.get_mut(bytes) = *byte,
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Self::Grow(more) => bytes.extend(more),
            Self::Remove(at, count) => {
                let at = at.index(bytes.len());
                bytes.drain(at..bytes.len().min(at + count));
            }
            Self::Splice(at, count) => {
                let at = at.index(bytes.len());
                let end = bytes.len().min(other.len()).min(at + count).max(at);
                if let Some(piece) = other.get(at..end) {
                    bytes[at..end].copy_from_slice(piece);
                }
            }
            Self::Reencode(spelling) => reencode(bytes, *spelling),
        }
    }
}

/// Writes JSON again with other white space, or with its strings escaped or its numbers in another form.
fn reencode(bytes: &mut Vec<u8>, spelling: usize) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(bytes) else {
        return;
    };
    *bytes = match spelling {
        0 => serde_json::to_vec(&value).unwrap(),
        1 => serde_json::to_vec_pretty(&value).unwrap(),
        2 => value.to_string().replace('/', "\\u002f").into_bytes(),
        _ => value.to_string().replace("\\\"", "\\u0022").into_bytes(),
    };
}

/// Domains that are refused for what their quotes say. Pieces of such quotes never make one that says something else, and is signed.
fn refused() -> &'static [(Vec<u8>, Vec<u8>)] {
    static REFUSED: OnceLock<Vec<(Vec<u8>, Vec<u8>)>> = OnceLock::new();
    REFUSED.get_or_init(|| {
        catalogue::cases()
            .filter(|case| matches!(case.row, "P1" | "P2" | "P3" | "P4"))
            .map(|case| case.evidence(pki(), NOW).unwrap())
            .map(|evidence| (evidence.quote, evidence.collateral.to_json().into_bytes()))
            .collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_refusal_becomes_an_acceptance(
        case: Index,
        other: Index,
        of_quote in proptest::collection::vec(change(), 0..3),
        of_collateral in proptest::collection::vec(change(), 0..3),
    ) {
        let (mut quote, mut collateral) = case.get(refused()).clone();
        prop_assert_eq!(judge_quote(&quote, &collateral).verdict, Verdict::PolicyUnsatisfied);
        let (other_quote, other_collateral) = other.get(refused());
        of_quote.iter().for_each(|change| change.apply(&mut quote, other_quote));
        of_collateral.iter().for_each(|change| change.apply(&mut collateral, other_collateral));
        prop_assert_ne!(judge_quote(&quote, &collateral).verdict, Verdict::PlatformGenuine);
    }

    /// Another spelling of the collateral's own JSON means the same; one of the documents in it, which Intel signed, does not.
    #[test]
    fn documents_count_in_their_signed_spelling_alone(spelling in 0_usize..4, document in 0_usize..2) {
        let (quote, collateral) = sound();
        let mut outside = collateral.clone();
        reencode(&mut outside, spelling);
        prop_assert_eq!(judge_quote(quote, &outside).verdict, Verdict::PlatformGenuine);
        let mut inside: serde_json::Value = serde_json::from_slice(collateral).unwrap();
        let name = ["tcb_info", "qe_identity"][document];
        let signed = inside[name].as_str().unwrap().to_owned();
        let mut other = signed.clone().into_bytes();
        reencode(&mut other, 1);
        prop_assert_ne!(signed.as_bytes(), &other[..]);
        inside[name] = String::from_utf8(other).unwrap().into();
        let report = judge_quote(quote, inside.to_string().as_bytes());
        prop_assert_eq!(report.verdict, Verdict::PlatformUntrusted);
    }
}

/// A DER element of any length.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = (content.len() as u32).to_be_bytes();
    [&[tag, 0x84][..], &length, content].concat()
}

#[test]
fn bombs_are_refused_in_time_and_memory() {
    let (quote, collateral) = sound();
    let mut nested = Vec::new();
    while nested.len() < 60_000 {
        nested = der(0x30, &nested);
    }
    let cbor_nest = [&[0xd9, 0xea, 0x60][..], &[0x81; 20_000]].concat();
    let cbor_tags = vec![0xc6; 20_000];
    for bomb in [
        nested,
        vec![0x30; 60_000],
        [&[0x30, 0x80][..], &[0; 1000]].concat(),
        [&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff][..], &[0; 1000]].concat(),
        der(0x30, &der(0x06, &[0xff; 50_000])),
    ] {
        assert_ne!(judge_certificate(&bomb).verdict, Verdict::Accepted);
        assert_ne!(
            judge_quote(&bomb, collateral).verdict,
            Verdict::PlatformGenuine
        );
    }
    // The same where claims should be, quoted honestly, and as the extension.
    let mut giant = vec![0x5b];
    giant.extend([0x7f; 8]);
    for bomb in [
        cbor_nest,
        cbor_tags,
        giant,
        vec![0xbf; 4000],
        vec![0x9f; 4000],
        vec![0xa2; 4000],
    ] {
        let bomb = &bomb[..bomb.len().min(8000)];
        let certificate = Domain::new().certificate_over(bomb.to_vec());
        assert_eq!(
            judge_certificate(&certificate).verdict,
            Verdict::EvidenceMismatch
        );
    }
    for bomb in [
        "[".repeat(200_000),
        "{\"a\":".repeat(40_000),
        format!("{{\"tcb_info\":\"{}\"}}", "a".repeat(10_000_000)),
        "{\"tcb_info\":1e400}".to_owned(),
        "{\"tcb_info\":\"\",\"tcb_info\":\"\"}".to_owned(),
        "NaN".to_owned(),
    ] {
        let report = judge_quote(quote, bomb.as_bytes());
        assert_eq!(report.verdict, Verdict::PlatformUntrusted);
    }
}

/// Genuine evidence too: each bit of the signed part, some of them.
#[test]
fn genuine_quotes_are_refused_after_a_flip() {
    for case in common::genuine_cases()
        .into_iter()
        .filter(|case| case.verdict == "accept")
    {
        let signed = chain_starts(&case.quote);
        for place in (0..signed).step_by(97) {
            let mut quote = case.quote.clone();
            quote[place] ^= 0x10;
            let report = bounded(|| {
                let mut verifier = verifier(verifier::Policy::default());
                verifier.anchor = verifier::TrustAnchor::intel();
                verifier.scope = verifier::Scope::PlatformOnly;
                verifier.now = case.time;
                verifier.quote(&quote, Collateral::parse(&case.collateral))
            });
            assert_eq!(
                report.verdict,
                Verdict::PlatformUntrusted,
                "{} {place}",
                case.name
            );
        }
    }
}
