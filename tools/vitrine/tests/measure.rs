//! `vitrine measure` as its users see it: values, comparisons, and the register named where something is not as published.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use measurements::manifest::{ImageEntry, Manifest, Masked, SCHEMA, Source, TcbSummary, Toolchain};
use measurements::{ConfigurationEntry, Hex, ImageMeasurement, ModelEntry};
use serde_json::Value;

const SIZE: usize = 64 << 10;

/// A folder of this test's own.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("measure")
        .join(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Exit code, standard output and standard error.
fn vitrine(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn json(arguments: &[&str]) -> Value {
    let (code, out, err) = vitrine(&[arguments, &["--json"]].concat());
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

/// A TDVF image of 64 KiB: measured throughout, and a place for the host's description of the machine.
fn image() -> Vec<u8> {
    const DESCRIPTOR: usize = SIZE - 0x400;
    let section = |raw: u32, address: u64, size: u64, kind: u32, attributes: u32| {
        [
            &0u32.to_le_bytes()[..],
            &raw.to_le_bytes(),
            &address.to_le_bytes(),
            &size.to_le_bytes(),
            &kind.to_le_bytes(),
            &attributes.to_le_bytes(),
        ]
        .concat()
    };
    let size = SIZE as u64;
    let descriptor = [
        &b"TDVF"[..],
        &80u32.to_le_bytes(),
        &1u32.to_le_bytes(),
        &2u32.to_le_bytes(),
        &section(SIZE as u32, (1 << 32) - size, size, 0, 1),
        &section(0, 0x80_0000, 0x2000, 2, 0),
    ]
    .concat();
    let table = [
        &0x400u32.to_le_bytes()[..],
        &22u16.to_le_bytes(),
        &[
            0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf,
            0x8e, 0xc2,
        ],
        &40u16.to_le_bytes(),
        &[
            0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a,
            0x08, 0x2d,
        ],
    ]
    .concat();
    let mut image: Vec<u8> = (0..SIZE).map(|byte| (byte / 256 + byte) as u8).collect();
    image[DESCRIPTOR..DESCRIPTOR + descriptor.len()].copy_from_slice(&descriptor);
    image[SIZE - 32 - table.len()..SIZE - 32].copy_from_slice(&table);
    image
}

/// An image, a model, and the manifest that publishes both with the default configuration.
struct Release {
    folder: PathBuf,
    manifest: Manifest,
}

impl Release {
    fn new(name: &str) -> Self {
        let folder = folder(name);
        let path = |file: &str| folder.join(file).display().to_string();
        fs::write(path("image.fd"), image()).unwrap();
        let made = ["synthesize", "--layers", "1", "--out", &path("model.gguf")];
        assert_eq!(vitrine(&made).0, 0);
        let measured = json(&["measure", &path("image.fd"), "--model", &path("model.gguf")]);
        let entry = |key: &str| measured[key].clone();
        let configuration: ConfigurationEntry =
            serde_json::from_value(entry("configuration")).unwrap();
        let model: ModelEntry = serde_json::from_value(entry("model")).unwrap();
        let image = ImageMeasurement::of(&image()).unwrap();
        let manifest = Manifest {
            schema: SCHEMA.into(),
            version: "7".into(),
            image: ImageEntry {
                bytes: image.bytes,
                sha384: image.sha384,
                guest_sha384: Hex([0; 48]),
            },
            mrtd: image.mrtd,
            rtmr0: Hex([0; 48]),
            rtmr1: Hex([0; 48]),
            configurations: vec![configuration],
            models: vec![model],
            attributes: Masked::ATTRIBUTES,
            xfam: Masked::XFAM,
            source: Source {
                files: 0,
                sha384: Hex([0; 48]),
            },
            toolchain: Toolchain {
                rustc: String::new(),
                cargo: String::new(),
                gcc: String::new(),
                binutils: String::new(),
            },
            tcb: TcbSummary {
                crates: 0,
                lines: 0,
                unsafe_lines: 0,
            },
        };
        fs::write(path("manifest.json"), manifest.encode()).unwrap();
        Self { folder, manifest }
    }

    fn path(&self, file: &str) -> String {
        self.folder.join(file).display().to_string()
    }

    /// Measures the release's image and compares with its manifest.
    fn compare(&self, more: &[&str]) -> (i32, String) {
        let (image, manifest) = (self.path("image.fd"), self.path("manifest.json"));
        let base = ["measure", &image, "--manifest", &manifest];
        let (code, _, err) = vitrine(&[&base, more].concat());
        (code, err)
    }
}

#[test]
fn what_does_not_matter_to_clients_does_not_change_a_register() {
    let release = Release::new("pins");
    let config = release.path("ports.toml");
    fs::write(
        &config,
        "[listen]\ntcp = 1\n[model]\nthreads = 3\nmax_sequences = 2\n",
    )
    .unwrap();
    let measured = |more: &[&str]| {
        json(&[&["measure", &release.path("image.fd")], more].concat())["rtmr2"].clone()
    };
    assert_eq!(measured(&[]), measured(&["--config", &config]));
    assert_eq!(release.compare(&["--config", &config]).0, 0);
}

#[test]
fn a_doctored_image_configuration_model_or_manifest_is_refused_by_register() {
    let release = Release::new("doctored");
    let model = release.path("model.gguf");
    assert_eq!(release.compare(&["--model", &model]), (0, String::new()));
    let refused = |more: &[&str], register: &str| {
        let (code, err) = release.compare(more);
        assert_eq!(code, 21, "{err}");
        assert!(err.contains(register), "{err}");
    };

    let config = release.path("q8.toml");
    fs::write(&config, "[model]\nkv = \"q8_0\"\n").unwrap();
    refused(&["--config", &config], "RTMR[2]");

    let other = release.path("other.gguf");
    let mut bytes = fs::read(&model).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&other, bytes).unwrap();
    refused(&["--model", &other], "RTMR[3]");
    refused(&["--model", &model, "--sealed", &other], "RTMR[3]");

    let mut bytes = image();
    bytes[0x1234] ^= 1;
    let changed = release.path("changed.fd");
    fs::write(&changed, bytes).unwrap();
    let manifest = release.path("manifest.json");
    let (code, _, err) = vitrine(&["measure", &changed, "--manifest", &manifest]);
    assert_eq!(code, 21);
    assert!(err.contains("MRTD"), "{err}");

    let mut doctored = release.manifest.clone();
    doctored.models[0].rtmr3.0[0] ^= 1;
    fs::write(&manifest, doctored.encode()).unwrap();
    refused(&[], "RTMR[3]");
    fs::write(&manifest, release.manifest.encode().replace("  ", " ")).unwrap();
    refused(&[], "canonical");
}

#[test]
fn the_page_that_differs_is_named() {
    let folder = folder("diff");
    let [one, other] = ["one.fd", "other.fd"].map(|file| folder.join(file).display().to_string());
    fs::write(&one, image()).unwrap();
    for position in [0, 0x1fff, 0x7000, SIZE - 1] {
        let mut bytes = image();
        bytes[position] ^= 1;
        fs::write(&other, bytes).unwrap();
        let page = (1u64 << 32) - SIZE as u64 + position as u64 / 4096 * 4096;
        for order in ["page-by-page", "add-then-extend"] {
            let command = ["measure", "diff", &one, &other, "--order", order, "--json"];
            let (code, out, err) = vitrine(&command);
            assert_eq!(code, 21);
            assert!(err.contains(&format!("page {page:#x}")), "{err}");
            let described: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(described["register"], "MRTD");
            assert_eq!(described["page"], page);
        }
    }
    assert_eq!(vitrine(&["measure", "diff", &one, &one]).0, 0);
}

#[test]
fn manifests_are_compared_by_register() {
    let release = Release::new("manifests");
    let (one, other) = (release.path("manifest.json"), release.path("other.json"));
    let mut manifest = release.manifest.clone();
    manifest.version = "8".into();
    fs::write(&other, manifest.encode()).unwrap();
    let (code, out, _) = vitrine(&["measure", "diff", &one, &other]);
    assert_eq!((code, out.contains("registers are the same")), (0, true));
    manifest.models.clear();
    fs::write(&other, manifest.encode()).unwrap();
    let (code, _, err) = vitrine(&["measure", "diff", &one, &other]);
    assert_eq!((code, err.contains("RTMR[3]")), (21, true), "{err}");
}

#[test]
fn a_signature_is_checked_before_the_manifest_is_believed() {
    let release = Release::new("signed");
    let manifest = fs::read(release.path("manifest.json")).unwrap();
    let pair = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let signature = minisign::sign(None, &pair.sk, &manifest[..], None, None).unwrap();
    let key = release.path("key.pub");
    fs::write(&key, pair.pk.to_box().unwrap().to_string()).unwrap();
    let signed = |text: &str| {
        fs::write(release.path("manifest.json.minisig"), text).unwrap();
        release.compare(&["--public-key", &key])
    };
    assert_eq!(signed(&signature.to_string()), (0, String::new()));
    let other = minisign::KeyPair::generate_unencrypted_keypair().unwrap();
    let other = minisign::sign(None, &other.sk, &manifest[..], None, None).unwrap();
    let (code, err) = signed(&other.to_string());
    assert_eq!(code, 20);
    assert!(err.contains("another key"), "{err}");
    fs::remove_file(release.path("manifest.json.minisig")).unwrap();
    assert_eq!(release.compare(&["--public-key", &key]).0, 2);
}

#[test]
fn every_register_is_explained() {
    let (code, out, _) = vitrine(&["measure", "explain"]);
    assert_eq!(code, 0);
    for word in [
        "MRTD",
        "RTMR[0]",
        "RTMR[3]",
        "ATTRIBUTES",
        "XFAM",
        "chosen by",
    ] {
        assert!(out.contains(word), "{word}");
    }
    let explained: Value =
        serde_json::from_str(&vitrine(&["measure", "explain", "--json"]).1).unwrap();
    assert_eq!(explained.as_array().unwrap().len(), 11);
}

#[test]
fn what_is_no_image_is_refused() {
    let folder = folder("refused");
    let path = folder.join("zeros.fd").display().to_string();
    fs::write(&path, vec![0; SIZE]).unwrap();
    let (code, _, err) = vitrine(&["measure", &path]);
    assert_eq!(code, 2);
    assert!(err.contains("GUID table"), "{err}");
    let (code, _, err) = vitrine(&["measure", "no such file"]);
    assert_eq!((code, err.contains("cannot read")), (2, true), "{err}");
}
