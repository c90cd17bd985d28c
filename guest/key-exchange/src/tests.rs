use proptest::prelude::*;

use super::*;

/// Two implementations of the group.
fn oracle() -> &'static dyn SupportedKxGroup {
    rustls_graviola::kx::X25519MLKEM768
}

fn exchange(client: &dyn SupportedKxGroup, server: &dyn SupportedKxGroup) {
    let started = client.start().unwrap();
    let completed = server.start_and_complete(started.pub_key()).unwrap();
    assert_eq!(
        (started.group(), completed.group),
        (NamedGroup::X25519MLKEM768, NamedGroup::X25519MLKEM768)
    );
    let secret = started.complete(&completed.pub_key).unwrap();
    assert_eq!(secret.secret_bytes(), completed.secret.secret_bytes());
    assert_eq!(secret.secret_bytes().len(), 64);
}

#[test]
fn both_ends_get_the_secret_that_another_implementation_gets() {
    for _ in 0..20 {
        exchange(X25519MLKEM768, X25519MLKEM768);
        exchange(X25519MLKEM768, oracle());
        exchange(oracle(), X25519MLKEM768);
    }
}

#[test]
fn a_server_that_knows_only_x25519_is_answered() {
    let started = X25519MLKEM768.start().unwrap();
    let (group, share) = started.hybrid_component().unwrap();
    assert_eq!(group, NamedGroup::X25519);
    let completed = X25519.start_and_complete(share).unwrap();
    let secret = started
        .complete_hybrid_component(&completed.pub_key)
        .unwrap();
    assert_eq!(secret.secret_bytes(), completed.secret.secret_bytes());
}

#[test]
fn shares_that_are_none_are_refused() {
    let share = X25519MLKEM768.start().unwrap().pub_key().to_vec();
    let refuses = |share: &[u8]| {
        let outcome = X25519MLKEM768.start_and_complete(share);
        assert_eq!(outcome.err(), Some(INVALID), "{} bytes", share.len());
    };
    for length in [0, 1, 32, 1183, 1184, 1215] {
        refuses(&share[..length]);
    }
    refuses(&[&share[..], &[0]].concat());
    // Coefficients beyond the modulus.
    let mut large = share.clone();
    large[..3].fill(0xff);
    refuses(&large);
    // A point of small order.
    let mut small = share.clone();
    small[ENCAPSULATION_KEY..].fill(0);
    refuses(&small);

    let answer = X25519MLKEM768.start_and_complete(&share).unwrap().pub_key;
    for length in [0, 1087, 1088, 1119] {
        let started = X25519MLKEM768.start().unwrap();
        assert_eq!(started.complete(&answer[..length]).err(), Some(INVALID));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_share_or_an_error(share in proptest::collection::vec(any::<u8>(), 0..1300)) {
        let _ = X25519MLKEM768.start_and_complete(&share);
        let _ = X25519MLKEM768.start().unwrap().complete(&share);
    }

    /// A changed ciphertext is no error (FIPS 203, 6.3): it leads to another secret, and the handshake fails for that.
    #[test]
    fn a_changed_answer_leads_to_another_secret(place in 0..CIPHERTEXT, bit in 0..8_u8) {
        let started = X25519MLKEM768.start().unwrap();
        let mut completed = X25519MLKEM768.start_and_complete(started.pub_key()).unwrap();
        completed.pub_key[place] ^= 1 << bit;
        let secret = started.complete(&completed.pub_key).unwrap();
        prop_assert_ne!(secret.secret_bytes(), completed.secret.secret_bytes());
    }
}
