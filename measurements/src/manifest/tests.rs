use proptest::prelude::*;

use super::*;
use crate::hex::Hex;

pub(crate) fn example() -> Manifest {
    let digest = |byte: u8| Hex([byte; 48]);
    Manifest {
        schema: SCHEMA.into(),
        version: "1.2.3".into(),
        image: ImageEntry {
            bytes: 65536,
            sha384: digest(1),
            guest_sha384: digest(2),
        },
        mrtd: MrtdEntry {
            page_by_page: digest(3),
            add_then_extend: digest(4),
        },
        rtmr0: digest(0),
        rtmr1: digest(0),
        configurations: vec![ConfigurationEntry::new(
            "default",
            "vitrine-configuration/1\na.a=1\n",
        )],
        models: ["one", "two"]
            .map(|name| {
                ModelEntry::new(&ModelIdentity {
                    name: name.into(),
                    sealed: (name == "two").then_some([9; 32]),
                    plaintext: [8; 32],
                })
            })
            .into(),
        attributes: Masked::ATTRIBUTES,
        xfam: Masked::XFAM,
        source: Source {
            files: 1,
            sha384: digest(7),
        },
        toolchain: Toolchain {
            rustc: "rustc".into(),
            cargo: "cargo".into(),
            gcc: "gcc".into(),
            binutils: "as".into(),
        },
        tcb: TcbSummary {
            crates: 1,
            lines: 2,
            unsafe_lines: 3,
        },
    }
}

fn refusal(change: impl FnOnce(&mut Manifest)) -> ManifestError {
    let mut manifest = example();
    change(&mut manifest);
    Manifest::parse(manifest.encode().as_bytes()).expect_err("a doctored manifest")
}

#[test]
fn what_is_written_can_be_read() {
    let text = example().encode();
    assert_eq!(Manifest::parse(text.as_bytes()), Ok(example()));
    assert!(text.starts_with("{\n  \"schema\": \"vitrine-manifest/1\",\n"));
    assert!(text.ends_with("}\n"));
}

#[test]
fn there_is_one_spelling() {
    let text = example().encode();
    for other in [
        text.trim_end().to_owned(),
        text.replace("  ", "\t"),
        text.clone() + "\n",
        text.replace("1.2.3", "\\u0031.2.3"),
    ] {
        assert_eq!(
            Manifest::parse(other.as_bytes()),
            Err(ManifestError::NotCanonical)
        );
    }
    for broken in [
        text.replace("\"files\"", "\"flies\""),
        text.replace("0101", "01AB"),
        text.replacen("\"version\"", "\"version\": \"1\", \"version\"", 1),
        text.replace("\"sealed_sha256\": null,", ""),
        String::new(),
    ] {
        // A field that is absent reads as null, which is then not the one spelling.
        assert!(matches!(
            Manifest::parse(broken.as_bytes()),
            Err(ManifestError::Json(_) | ManifestError::NotCanonical)
        ));
    }
    let newer = text.replace(SCHEMA, "vitrine-manifest/2");
    assert_eq!(
        Manifest::parse(newer.as_bytes()),
        Err(ManifestError::Schema("vitrine-manifest/2".into()))
    );
    assert_eq!(
        Manifest::parse(&vec![b' '; MAX_BYTES + 1]),
        Err(ManifestError::TooLong)
    );
}

#[test]
fn a_doctored_register_is_named() {
    let named = |register, entry: &str| ManifestError::Inconsistent {
        register,
        entry: entry.into(),
    };
    assert_eq!(
        refusal(|manifest| manifest.rtmr0.0[0] = 1),
        named(Register::Rtmr0, "")
    );
    assert_eq!(
        refusal(|manifest| manifest.rtmr1.0[47] = 1),
        named(Register::Rtmr1, "")
    );
    assert_eq!(
        refusal(|manifest| manifest.configurations[0].rtmr2.0[3] ^= 1),
        named(Register::Rtmr2, "default")
    );
    assert_eq!(
        refusal(|manifest| manifest.configurations[0].canonical += "b.b=1\n"),
        named(Register::Rtmr2, "default")
    );
    assert_eq!(
        refusal(|manifest| manifest.models[1].digest.0[3] ^= 1),
        named(Register::Rtmr3, "two")
    );
    assert_eq!(
        refusal(|manifest| manifest.models[0].sha256.0[3] ^= 1),
        named(Register::Rtmr3, "one")
    );
    assert_eq!(
        refusal(|manifest| manifest.models[1].sealed_sha256 = None),
        named(Register::Rtmr3, "two")
    );
    assert!(matches!(
        refusal(|manifest| manifest.configurations[0].canonical.clear()),
        ManifestError::Configuration { .. }
    ));
    assert_eq!(
        refusal(|manifest| manifest.attributes.value = BitsHex::of(1 << 30)),
        named(Register::Attributes, "")
    );
    assert_eq!(
        refusal(|manifest| manifest.xfam.mask = BitsHex::of(1)),
        named(Register::Xfam, "")
    );
    assert_eq!(
        refusal(|manifest| manifest.models.reverse()),
        ManifestError::Order
    );
    assert_eq!(
        refusal(|manifest| manifest.models[1] = manifest.models[0].clone()),
        ManifestError::Order
    );
    assert_eq!(
        refusal(|manifest| manifest.configurations[0].name = "other".into()),
        ManifestError::NoDefault
    );
}

/// Values of genuine quotes.
#[test]
fn masks_take_production_trust_domains() {
    for attributes in [0x1000_0000, 0x5000_0000] {
        assert!(Masked::ATTRIBUTES.allows(attributes));
    }
    // No fault for missing pages; debug; migratable; performance monitoring; a bit nobody has defined.
    for attributes in [
        0,
        0x4000_0000,
        0x1000_0001,
        0x3000_0000,
        0x8000_0000_1000_0000,
        0x1000_0400,
    ] {
        assert!(!Masked::ATTRIBUTES.allows(attributes), "{attributes:#x}");
    }
    for xfam in [0x602e7, 0x618e7, 0x600e7, 0x61ae7, 0x207] {
        assert!(Masked::XFAM.allows(xfam), "{xfam:#x}");
    }
    // No AVX; processor trace; last-branch records.
    for xfam in [0x3, 0x107, 0x80e7] {
        assert!(!Masked::XFAM.allows(xfam), "{xfam:#x}");
    }
}

proptest! {
    #[test]
    fn no_file_panics_and_what_is_read_is_canonical(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut file = example().encode().into_bytes();
        for (index, value) in changes {
            let position = index.index(file.len());
            file[position] = value;
        }
        if let Ok(manifest) = Manifest::parse(&file) {
            let encoded = manifest.encode();
            prop_assert_eq!(encoded.as_bytes(), &file[..]);
        }
    }
}
