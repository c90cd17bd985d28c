//! `vitrine measure` as its users see it: values, comparisons, and the register named where something is not as published.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use measurements::manifest::{ImageEntry, Manifest, Masked, SCHEMA, Source, TcbSummary, Toolchain};
use measurements::{BitsHex, ConfigurationEntry, Hex, ImageMeasurement, ModelEntry};
use serde_json::Value;

#[allow(dead_code)] // other tests need more of it
#[path = "../../../measurements/src/handmade.rs"]
mod handmade;

use handmade::{BASE, DESCRIPTOR, SIZE, bfv, hob};

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
    handmade::image(&[bfv(), hob()])
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

    let changed = release.path("changed.fd");
    let manifest = release.path("manifest.json");
    // Anywhere, in the table of sections, and in what leads to it.
    for position in [0x1234, DESCRIPTOR + 20, SIZE - 40] {
        let mut bytes = image();
        bytes[position] ^= 1;
        fs::write(&changed, bytes).unwrap();
        let (code, _, err) = vitrine(&["measure", &changed, "--manifest", &manifest]);
        assert_eq!(code, 21);
        assert!(err.contains("MRTD"), "{err}");
    }

    type Change = fn(&mut Manifest);
    let changes: [(Change, &str); 16] = [
        (|manifest| manifest.mrtd.page_by_page.0[0] ^= 1, "MRTD"),
        (|manifest| manifest.mrtd.add_then_extend.0[47] ^= 1, "MRTD"),
        (|manifest| manifest.image.sha384.0[0] ^= 1, "MRTD"),
        (|manifest| manifest.image.bytes += 1, "MRTD"),
        (|manifest| manifest.rtmr0.0[5] ^= 1, "RTMR[0]"),
        (|manifest| manifest.rtmr1.0[5] ^= 1, "RTMR[1]"),
        (
            |manifest| manifest.configurations[0].rtmr2.0[0] ^= 1,
            "RTMR[2]",
        ),
        (
            |manifest| manifest.configurations[0].digest.0[0] ^= 1,
            "RTMR[2]",
        ),
        (
            |manifest| manifest.configurations[0].canonical += "z.z=1\n",
            "RTMR[2]",
        ),
        (|manifest| manifest.models[0].rtmr3.0[0] ^= 1, "RTMR[3]"),
        (|manifest| manifest.models[0].digest.0[0] ^= 1, "RTMR[3]"),
        (|manifest| manifest.models[0].sha256.0[0] ^= 1, "RTMR[3]"),
        (|manifest| manifest.models[0].name += "!", "RTMR[3]"),
        // Debugging would be allowed; so would processor trace.
        (
            |manifest| manifest.attributes.mask = BitsHex::of(1 << 28),
            "ATTRIBUTES",
        ),
        (
            |manifest| manifest.attributes.value = BitsHex::of(1 << 28 | 1),
            "ATTRIBUTES",
        ),
        (|manifest| manifest.xfam.mask = BitsHex::of(7), "XFAM"),
    ];
    for (change, register) in changes {
        let mut doctored = release.manifest.clone();
        change(&mut doctored);
        fs::write(&manifest, doctored.encode()).unwrap();
        refused(&["--model", &model], register);
    }
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
        let page = BASE + position as u64 / 4096 * 4096;
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

/// The table of sections is measured with everything else. Changed, it describes another launch, or none.
#[test]
fn a_damaged_table_of_sections_is_found_in_its_page() {
    let folder = folder("table");
    let [one, other] = ["one.fd", "other.fd"].map(|file| folder.join(file).display().to_string());
    fs::write(&one, image()).unwrap();
    let page = BASE + (SIZE as u64 - 4096);
    for position in (DESCRIPTOR..DESCRIPTOR + 80)
        .chain(SIZE - 96..SIZE)
        .step_by(3)
    {
        let mut bytes = image();
        bytes[position] ^= 1;
        fs::write(&other, bytes).unwrap();
        let diff = |one: &str, other: &str| {
            let (code, out, err) = vitrine(&["measure", "diff", one, other, "--json"]);
            assert_eq!(code, 21, "{position:#x}: {err}");
            assert!(err.contains("MRTD"), "{err}");
            let described: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(described["file"]["offset"], position);
            (described, err)
        };
        let (described, err) = diff(&one, &other);
        assert!(err.contains(&format!("page {page:#x}")), "{err}");
        assert_eq!(described["file"]["page"], page);
        // Seen from the other side the page may be one of another layout.
        diff(&other, &one);
    }
    fs::write(&one, vec![0; SIZE]).unwrap();
    fs::write(&other, vec![1; SIZE]).unwrap();
    assert_eq!(vitrine(&["measure", "diff", &one, &other]).0, 2);
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
