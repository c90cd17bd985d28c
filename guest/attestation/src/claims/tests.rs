use ciborium::Value;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::certificate::Evidence;
use crate::fingerprint::{Registers, fingerprint};
use crate::report_data::ReportData;

fn model() -> impl Strategy<Value = Model> {
    let loaded = (
        "\\PC{1,32}",
        any::<u64>(),
        any::<Option<[u8; 32]>>(),
        any::<[u8; 32]>(),
    );
    prop_oneof![
        Just(Model::None),
        loaded.prop_map(|(name, version, sealed, plaintext)| Model::Loaded {
            identity: ModelIdentity {
                name,
                sealed,
                plaintext,
            },
            version,
        }),
    ]
}

fn minimum_tcb() -> impl Strategy<Value = MinimumTcb> {
    let advisories = btree_set("INTEL-SA-[0-9]{5}", 0..5);
    (
        any::<[u8; 16]>(),
        any::<[u8; 16]>(),
        any::<u32>(),
        advisories,
    )
        .prop_map(|(cpu, tdx, evaluation, advisories)| MinimumTcb {
            cpu,
            tdx,
            evaluation,
            refused_advisories: advisories.into_iter().collect(),
        })
}

/// 48 bytes; proptest has no arrays of that length.
fn sha384_value() -> impl Strategy<Value = Sha384> {
    any::<u64>().prop_map(|seed| crate::sha384(&seed.to_be_bytes()))
}

fn claims() -> impl Strategy<Value = Claims> {
    (
        (
            sha384_value(),
            sha384_value(),
            sha384_value(),
            sha384_value(),
        ),
        vec(any::<u8>(), 0..300),
        model(),
        minimum_tcb(),
        any::<[u8; 16]>(),
        any::<(u64, u64)>(),
    )
        .prop_map(
            |(hashes, configuration, model, minimum_tcb, boot, validity)| Claims {
                public_key_hash: hashes.0,
                platform: hashes.1,
                compile: hashes.2,
                configuration,
                model,
                minimum_tcb,
                boot,
                validity: Validity {
                    not_before: validity.0,
                    not_after: validity.1,
                },
                fingerprint: hashes.3,
            },
        )
}

fn example() -> Claims {
    Claims {
        public_key_hash: [1; 48],
        platform: [2; 48],
        compile: [3; 48],
        configuration: b"configuration".to_vec(),
        model: Model::None,
        minimum_tcb: MinimumTcb::default(),
        boot: [4; 16],
        validity: Validity {
            not_before: 1_700_000_000,
            not_after: 1_700_000_600,
        },
        fingerprint: [5; 48],
    }
}

/// The entry under a text key, by a CBOR library we did not write.
fn entry<'a>(map: &'a Value, key: &Value) -> &'a Value {
    let entries = map.as_map().unwrap();
    &entries.iter().find(|(name, _)| name == key).unwrap().1
}

fn nested(value: &Value) -> Value {
    ciborium::from_reader(&value.as_bytes().unwrap()[..]).unwrap()
}

proptest! {
    #[test]
    fn decoding_returns_what_was_encoded(claims in claims()) {
        prop_assert_eq!(Claims::decode(&claims.encode()), Ok(claims));
    }

    #[test]
    fn another_library_reads_the_same(claims in claims()) {
        let buffer: Value = ciborium::from_reader(&claims.encode()[..]).unwrap();
        let hash = nested(entry(&buffer, &Value::from("pubkey-hash")));
        let expected = Value::Array(vec![7.into(), claims.public_key_hash.to_vec().into()]);
        prop_assert_eq!(hash, expected);
        let inner = nested(entry(&buffer, &Value::from("vitrine.v1")));
        prop_assert_eq!(entry(&inner, &2.into()), &Value::from(claims.compile.to_vec()));
        prop_assert_eq!(entry(&inner, &3.into()), &Value::from(claims.configuration));
        let expected = match claims.model {
            Model::None => Value::from("none"),
            Model::Loaded { identity, version } => Value::Array(vec![
                identity.name.into(),
                version.into(),
                identity.sealed.map_or("unsealed".into(), |digest| digest.to_vec().into()),
                identity.plaintext.to_vec().into(),
            ]),
        };
        prop_assert_eq!(entry(&inner, &4.into()), &expected);
    }

    /// Whatever is accepted is the only encoding of what it says.
    #[test]
    fn only_one_encoding_is_accepted(claims in claims(), place: prop::sample::Index, byte: u8) {
        let mut buffer = claims.encode();
        *place.get_mut(&mut buffer) = byte;
        if let Ok(decoded) = Claims::decode(&buffer) {
            prop_assert_eq!(decoded.encode(), buffer);
        }
    }

    #[test]
    fn arbitrary_bytes_are_refused_or_canonical(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(claims) = Claims::decode(&bytes) {
            prop_assert_eq!(claims.encode(), bytes.clone());
        }
        if let Ok(evidence) = Evidence::decode(&bytes) {
            prop_assert_eq!(evidence.encode(), bytes);
        }
    }

    #[test]
    fn every_cut_and_every_tail_is_refused(claims in claims(), cut: prop::sample::Index) {
        let buffer = claims.encode();
        prop_assert!(Claims::decode(&buffer[..cut.index(buffer.len())]).is_err());
        let longer = [&buffer[..], &[0]].concat();
        prop_assert_eq!(Claims::decode(&longer), Err(DecodeError::Trailing));
    }
}

#[test]
fn other_key_hashes_are_refused() {
    let buffer = example().encode();
    let hash = [&[0x82, 7, 0x58, 48][..], &[1; 48]].concat();
    let position = buffer
        .windows(hash.len())
        .position(|window| window == hash)
        .unwrap();
    for algorithm in [0, 1, 6, 8] {
        let mut other = buffer.clone();
        other[position + 1] = algorithm;
        assert_eq!(
            Claims::decode(&other),
            Err(DecodeError::Unexpected("the key hash's algorithm"))
        );
    }
    let mut shorter = buffer.clone();
    shorter[position + 3] = 32;
    assert!(Claims::decode(&shorter).is_err());
}

#[test]
fn lengths_near_the_end_of_the_range_are_refused() {
    for length in [[0xff; 8], [0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]] {
        for head in [0x5b, 0x7b, 0x9b, 0xbb, 0xdb] {
            let bomb = [&[head][..], &length].concat();
            assert!(Claims::decode(&bomb).is_err());
            assert!(Evidence::decode(&bomb).is_err());
        }
    }
    let nest = vec![0xda; 4096];
    assert!(Evidence::decode(&nest).is_err());
}

#[test]
fn advisories_are_sorted_and_unique() {
    let mut claims = example();
    for wrong in [["B", "A"], ["A", "A"], ["", "A"]] {
        claims.minimum_tcb.refused_advisories = wrong.map(String::from).to_vec();
        assert_eq!(
            Claims::decode(&claims.encode()),
            Err(DecodeError::NotDeterministic)
        );
    }
}

#[test]
fn evidence_is_a_bare_tag_and_nothing_more() {
    let evidence = Evidence {
        quote: &[4, 0],
        claims_buffer: &[0xa0],
    };
    let value = evidence.encode();
    assert_eq!(value, [0xd9, 0xea, 0x60, 0x82, 0x42, 4, 0, 0x41, 0xa0]);
    assert_eq!(Evidence::decode(&value), Ok(evidence));
    // Gramine's legacy form is the bare quote; 60001 and 60002 are other kinds of evidence; dstack nests an OCTET STRING.
    for other in [
        &[4, 0][..],
        &[0xd9, 0xea, 0x61, 0x82, 0x42, 4, 0, 0x41, 0xa0],
        &[0x04, 0x09, 0xd9, 0xea, 0x60, 0x82, 0x42, 4, 0, 0x41, 0xa0],
        &[0xd9, 0xea, 0x60, 0x82, 0x40, 0x41, 0xa0],
        &[0xd9, 0xea, 0x60, 0x82, 0x42, 4, 0, 0x41, 0xa0, 0],
    ] {
        assert!(Evidence::decode(other).is_err(), "{other:x?}");
    }
}

#[test]
fn report_data_of_a_certificate_is_what_ccc_prescribes() {
    // SHA-256 of the empty string.
    let expected = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let report_data = ReportData::certificate(b"");
    let hex: String = report_data.as_bytes()[..32]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(hex, expected);
    assert_eq!(report_data.as_bytes()[32..], [0; 32]);
}

#[test]
fn the_fingerprint_depends_on_every_part() {
    let registers = Registers {
        mrtd: [1; 48],
        rtmr: [[0; 48], [0; 48], [2; 48], [3; 48]],
    };
    let loaded = |sealed, plaintext, version| Model::Loaded {
        identity: ModelIdentity {
            name: "model".into(),
            sealed,
            plaintext,
        },
        version,
    };
    let mut other_program = registers;
    other_program.mrtd[0] ^= 1;
    let mut other_configuration = registers;
    other_configuration.rtmr[2][47] ^= 1;
    let fingerprints = [
        fingerprint(&registers, &Model::None, b"key"),
        fingerprint(&registers, &Model::None, b"yek"),
        fingerprint(&other_program, &Model::None, b"key"),
        fingerprint(&other_configuration, &Model::None, b"key"),
        fingerprint(&registers, &loaded(None, [0; 32], 0), b"key"),
        fingerprint(&registers, &loaded(None, [0; 32], 1), b"key"),
        fingerprint(&registers, &loaded(None, [1; 32], 0), b"key"),
        fingerprint(&registers, &loaded(Some([0; 32]), [0; 32], 0), b"key"),
        fingerprint(&registers, &loaded(Some([1; 32]), [0; 32], 0), b"key"),
    ];
    for (index, one) in fingerprints.iter().enumerate() {
        assert!(!fingerprints[..index].contains(one), "{index}");
    }
}
