//! The manifest as a CoRIM (Concise Reference Integrity Manifest, draft-ietf-rats-corim), the form in which general-purpose verifiers take
//! reference values. Unsigned; whoever distributes it signs it as a whole.
//!
//! One CoMID whose environment is the TD, with one reference value for each measured register. The map keys are the draft's.

use ciborium::value::Value;

use crate::hex::Sha384Hex;
use crate::manifest::{Manifest, Masked};

/// Of an unsigned CoRIM, and of a CoMID inside it.
const TAG_CORIM: u64 = 501;
const TAG_COMID: u64 = 506;
/// A masked raw value: the value, then its mask.
const TAG_MASKED_RAW_VALUE: u64 = 563;
/// SHA-384 in the registry of named information hashes.
const SHA_384: u64 = 7;

/// Keys of the maps.
mod key {
    pub const CORIM_ID: u64 = 0;
    pub const CORIM_TAGS: u64 = 1;
    pub const COMID_IDENTITY: u64 = 1;
    pub const COMID_TRIPLES: u64 = 4;
    pub const IDENTITY_ID: u64 = 0;
    pub const REFERENCE_TRIPLES: u64 = 0;
    pub const ENVIRONMENT_CLASS: u64 = 0;
    pub const CLASS_VENDOR: u64 = 1;
    pub const CLASS_MODEL: u64 = 2;
    pub const MEASUREMENT_KEY: u64 = 0;
    pub const MEASUREMENT_VALUES: u64 = 1;
    pub const VALUES_DIGESTS: u64 = 2;
    pub const VALUES_RAW: u64 = 4;
}

/// The manifest as an unsigned CoRIM.
pub fn encode(manifest: &Manifest) -> Vec<u8> {
    let class = map([
        (key::CLASS_VENDOR, text("vitrine")),
        (
            key::CLASS_MODEL,
            text(&format!("vitrine {}", manifest.version)),
        ),
    ]);
    let environment = map([(key::ENVIRONMENT_CLASS, class)]);
    let triple = Value::Array(vec![environment, Value::Array(measurements(manifest))]);
    let identity = map([(
        key::IDENTITY_ID,
        text(&format!("vitrine/{}", manifest.version)),
    )]);
    let comid = map([
        (key::COMID_IDENTITY, identity),
        (
            key::COMID_TRIPLES,
            map([(key::REFERENCE_TRIPLES, Value::Array(vec![triple]))]),
        ),
    ]);
    let tag = Value::Tag(TAG_COMID, Box::new(Value::Bytes(bytes(&comid))));
    let corim = map([
        (
            key::CORIM_ID,
            text(&format!("vitrine/{}", manifest.version)),
        ),
        (key::CORIM_TAGS, Value::Array(vec![tag])),
    ]);
    bytes(&Value::Tag(TAG_CORIM, Box::new(corim)))
}

/// One measurement for each register; where several values are good, one for each of them.
fn measurements(manifest: &Manifest) -> Vec<Value> {
    let digest = |register: &str, digest: Sha384Hex| {
        let digest = Value::Array(vec![SHA_384.into(), Value::Bytes(digest.0.to_vec())]);
        measurement(register, key::VALUES_DIGESTS, Value::Array(vec![digest]))
    };
    let masked = |register: &str, condition: Masked| {
        // TDINFO holds the registers with their least significant byte first.
        let bytes = |bits: u64| Value::Bytes(bits.to_le_bytes().to_vec());
        let pair = Value::Array(vec![
            bytes(condition.value.bits()),
            bytes(condition.mask.bits()),
        ]);
        let value = Value::Tag(TAG_MASKED_RAW_VALUE, Box::new(pair));
        measurement(register, key::VALUES_RAW, value)
    };
    let mut list = vec![
        digest("mrtd", manifest.mrtd.page_by_page),
        digest("mrtd", manifest.mrtd.add_then_extend),
        digest("rtmr0", manifest.rtmr0),
        digest("rtmr1", manifest.rtmr1),
    ];
    list.extend(
        manifest
            .configurations
            .iter()
            .map(|entry| digest("rtmr2", entry.rtmr2)),
    );
    list.extend(
        manifest
            .models
            .iter()
            .map(|entry| digest("rtmr3", entry.rtmr3)),
    );
    list.push(masked("attributes", manifest.attributes));
    list.push(masked("xfam", manifest.xfam));
    list
}

fn measurement(register: &str, kind: u64, value: Value) -> Value {
    map([
        (key::MEASUREMENT_KEY, text(register)),
        (key::MEASUREMENT_VALUES, map([(kind, value)])),
    ])
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn map<const N: usize>(entries: [(u64, Value); N]) -> Value {
    Value::Map(
        entries
            .into_iter()
            .map(|(key, value)| (key.into(), value))
            .collect(),
    )
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("writing to memory");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::tests::example;

    fn get(map: &Value, key: u64) -> &Value {
        let entries = map.as_map().expect("a map");
        let found = entries.iter().find(|(name, _)| *name == key.into());
        &found.expect("the key").1
    }

    /// Names and values of all registers, in order.
    fn registers(corim: &[u8]) -> Vec<(String, Value)> {
        let corim: Value = ciborium::from_reader(corim).expect("CBOR");
        let (501, corim) = corim.as_tag().expect("a tag") else {
            panic!("not a CoRIM");
        };
        let (506, comid) = get(corim, 1).as_array().expect("tags")[0]
            .as_tag()
            .expect("a tag")
        else {
            panic!("not a CoMID");
        };
        let comid: Value =
            ciborium::from_reader(&comid.as_bytes().expect("bytes")[..]).expect("CBOR");
        let triple = &get(get(&comid, 4), 0).as_array().expect("triples")[0];
        let measurements = triple.as_array().expect("a triple")[1]
            .as_array()
            .expect("measurements")
            .clone();
        measurements
            .iter()
            .map(|measurement| {
                let name = get(measurement, 0).as_text().expect("a name").to_owned();
                (name, get(measurement, 1).clone())
            })
            .collect()
    }

    /// The draft's words: `tagged-unsigned-corim-map = #6.501(unsigned-corim-map)`, `tagged-concise-mid-tag = #6.506(bytes .cbor
    /// concise-mid-tag)`. On the wire a tag is 0xd9 and two bytes.
    #[test]
    fn tags_are_the_drafts() {
        let encoded = encode(&example());
        assert_eq!(encoded[..3], [0xd9, 0x01, 0xf5]);
        let comid = [0xd9, 0x01, 0xfa, 0x59];
        assert!(encoded.windows(4).any(|window| window == comid));
        let corim: Value = ciborium::from_reader(&encoded[..]).expect("CBOR");
        let (_, corim) = corim.as_tag().expect("a tag");
        assert_eq!(*get(corim, 0), Value::Text("vitrine/1.2.3".into()));
    }

    #[test]
    fn every_register_is_in_it() {
        let manifest = example();
        let found = registers(&encode(&manifest));
        let names: Vec<&str> = found.iter().map(|(name, _)| &**name).collect();
        assert_eq!(
            names,
            [
                "mrtd",
                "mrtd",
                "rtmr0",
                "rtmr1",
                "rtmr2",
                "rtmr3",
                "rtmr3",
                "attributes",
                "xfam"
            ]
        );
        let digest = get(&found[4].1, 2).as_array().expect("digests")[0].clone();
        assert_eq!(
            digest,
            Value::Array(vec![
                7.into(),
                Value::Bytes(manifest.configurations[0].rtmr2.0.to_vec())
            ])
        );
        let (tag, pair) = get(&found[7].1, 4).as_tag().expect("a masked value");
        let bytes = |bits: u64| Value::Bytes(bits.to_le_bytes().to_vec());
        assert_eq!(tag, 563);
        assert_eq!(*pair, Value::Array(vec![bytes(1 << 28), bytes(!(1 << 30))]));
    }
}
