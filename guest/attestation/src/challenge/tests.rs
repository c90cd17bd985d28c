use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::report_data::ReportData;

fn challenge(number: u16) -> Challenge {
    let mut nonce = [0; 32];
    nonce[..2].copy_from_slice(&number.to_be_bytes());
    Challenge {
        purpose: Purpose::Session,
        role: Role::Server,
        nonce,
        certificate: [1; 48],
        exporter: [2; 32],
        fingerprint: [3; 48],
    }
}

#[test]
fn one_quote_answers_every_challenge_and_no_other() {
    for count in (1..40).chain([1000, 1024]) {
        let leaves: Vec<Leaf> = (0..count).map(|number| challenge(number).leaf()).collect();
        let (top, paths) = tree(&leaves).unwrap();
        for (leaf, path) in leaves.iter().zip(&paths) {
            assert_eq!(root(leaf, path), top);
            assert!(path.len() <= MAX_PATH);
            assert_ne!(root(&challenge(count).leaf(), path), top);
        }
    }
    assert_eq!(tree(&[]), None);
    assert_eq!(tree(&vec![challenge(0).leaf(); 1025]), None);
}

#[test]
fn every_part_of_a_challenge_counts() {
    let original = challenge(7);
    let mut others = [original; 6];
    others[0].purpose = Purpose::KeyRelease;
    others[1].role = Role::Client;
    others[2].nonce[31] ^= 1;
    others[3].certificate[0] ^= 1;
    others[4].exporter[0] ^= 1;
    others[5].fingerprint[47] ^= 1;
    for other in others {
        assert_ne!(other.leaf(), original.leaf(), "{other:?}");
    }
}

#[test]
fn purposes_never_share_report_data() {
    let top = root(&challenge(1).leaf(), &[]);
    let session = ReportData::challenges(Purpose::Session, &top);
    let release = ReportData::challenges(Purpose::KeyRelease, &top);
    assert_ne!(session, release);
    // A certificate's REPORTDATA ends in zeros.
    assert_ne!(session.as_bytes()[32..], [0; 32]);
    assert_ne!(release.as_bytes()[32..], [0; 32]);
}

fn answer() -> impl Strategy<Value = Answer> {
    let step = (any::<bool>(), any::<u64>()).prop_map(|(sibling_on_the_left, seed)| Step {
        sibling_on_the_left,
        sibling: crate::sha384(&seed.to_be_bytes()),
    });
    (vec(any::<u8>(), 1..300), vec(step, 0..=MAX_PATH))
        .prop_map(|(quote, path)| Answer { quote, path })
}

proptest! {
    #[test]
    fn answers_have_one_encoding(answer in answer(), place: prop::sample::Index, byte: u8) {
        let mut bytes = answer.encode();
        prop_assert_eq!(Answer::decode(&bytes), Ok(answer));
        prop_assert!(Answer::decode(&bytes[..place.index(bytes.len())]).is_err());
        *place.get_mut(&mut bytes) = byte;
        if let Ok(decoded) = Answer::decode(&bytes) {
            prop_assert_eq!(decoded.encode(), bytes);
        }
    }
}

#[test]
fn the_longest_answer_keeps_its_bound() {
    let step = Step {
        sibling_on_the_left: true,
        sibling: [0; 48],
    };
    let longest = Answer {
        quote: vec![0; MAX_QUOTE],
        path: vec![step; MAX_PATH],
    };
    let bytes = longest.encode();
    assert!(bytes.len() <= MAX_ANSWER);
    assert_eq!(Answer::decode(&bytes), Ok(longest));
}
