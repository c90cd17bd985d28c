//! Policies and manifests: rows P11 to P13 of the catalogue, and what each key of a policy file does.

mod common;

use std::io;

use common::domain::*;
use proptest::prelude::*;
use verifier::policy::{ConfigurationPolicy, PlatformPolicy, Signed, TcbPolicy};
use verifier::{Code, ManifestKey, ManifestSource, Policy, PolicyError, Verdict};

fn parse(text: &str) -> Result<Policy, PolicyError> {
    Policy::parse(text.as_bytes(), |name| match name {
        "vitrine.json" => Ok(manifest().encode().into_bytes()),
        "broken.json" => Ok(b"{}".to_vec()),
        "config.txt" => Ok(CONFIGURATION.to_vec()),
        _ => Err(io::ErrorKind::NotFound.into()),
    })
}

fn findings(policy: &Policy) -> Vec<Code> {
    let certificate = Domain::new().certificate();
    let (report, evidence) = verifier(policy.clone()).certificate(&certificate, Ok(collateral()));
    assert_eq!(evidence.is_some(), report.verdict == Verdict::Accepted);
    report.findings
}

#[test]
fn nothing_is_accepted_that_was_not_named() {
    assert_eq!(
        findings(&Policy::default()),
        [
            Code::ManifestMissing,
            Code::ConfigNotPinned,
            Code::ModelNotPinned
        ]
    );
    let only_program = Policy {
        model: Default::default(),
        ..pins()
    };
    assert_eq!(findings(&only_program), [Code::ModelNotPinned]);
    let only_model = Policy {
        manifests: Vec::new(),
        ..pins()
    };
    assert_eq!(
        findings(&only_model),
        [Code::ManifestMissing, Code::ConfigNotPinned]
    );
}

#[test]
fn p11_an_older_release_of_the_model() {
    let mut policy = pins();
    policy.model.minimum_version = 3;
    assert_eq!(findings(&policy), []);
    policy.model.minimum_version = 4;
    assert_eq!(findings(&policy), [Code::ModelRollback]);
}

#[test]
fn p11_an_older_manifest() {
    let mut policy = pins();
    let ManifestSource::Good(release) = &mut policy.manifests[0] else {
        panic!("the manifest is good");
    };
    release.signed = Some(Signed {
        key: "key".into(),
        expires: Some(NOW + 1),
    });
    let before = |version: &str| [("key".to_owned(), version.parse().unwrap())].into();
    for version in ["1.0.0", "0.9.10", "1.0.0-rc.1"] {
        policy.accepted_before = before(version);
        assert_eq!(findings(&policy), [], "{version}");
    }
    policy.accepted_before = before("1.0.1");
    assert_eq!(findings(&policy), [Code::ManifestRollback]);
    policy.accepted_before = [("another key".to_owned(), "9.0.0".parse().unwrap())].into();
    assert_eq!(findings(&policy), []);
}

/// Made with minisign 0.11 for the three bytes `abc`.
const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

#[test]
fn p12_manifests_that_do_not_count() {
    let with = |source| Policy {
        manifests: vec![source],
        ..pins()
    };
    let text = manifest().encode();
    let broken = ManifestSource::read(&text.as_bytes()[1..]);
    assert!(findings(&with(broken)).contains(&Code::ManifestInvalid));
    let key = ManifestKey::parse(KEY).unwrap();
    let missing =
        ManifestSource::read_signed(text.as_bytes(), &key, Err(io::ErrorKind::NotFound.into()));
    assert!(findings(&with(missing)).contains(&Code::ManifestSignature));
    let nonsense = ManifestSource::read_signed(text.as_bytes(), &key, Ok(b"signature".to_vec()));
    assert!(findings(&with(nonsense)).contains(&Code::ManifestSignature));
    // One that has expired, to the second.
    let expiring = |expires| {
        let mut policy = pins();
        let ManifestSource::Good(release) = &mut policy.manifests[0] else {
            panic!("the manifest is good");
        };
        release.signed = Some(Signed {
            key: KEY.into(),
            expires: Some(expires),
        });
        policy
    };
    assert_eq!(findings(&expiring(NOW + 1)), []);
    assert_eq!(findings(&expiring(NOW)), [Code::ManifestExpired]);
    // A good one beside a broken one does not heal it.
    let mut both = pins();
    both.manifests.push(ManifestSource::read(b""));
    assert_eq!(findings(&both), [Code::ManifestInvalid]);
    // Of two good ones, either may match.
    let mut two = pins();
    let mut other = manifest();
    other.version = "2.0.0".into();
    other.mrtd.page_by_page.0 = [1; 48];
    two.manifests
        .insert(0, ManifestSource::read(other.encode().as_bytes()));
    assert_eq!(findings(&two), []);
}

#[test]
fn p13_policies_that_say_nothing() {
    for empty in ["", "\n# nothing\n"] {
        assert_eq!(parse(empty), Err(PolicyError::Empty), "{empty:?}");
    }
    for (empty, key) in [
        ("[tcb]\n", "tcb"),
        ("[tcb]\n[model]\n", "model"),
        ("[tcb]\nminimum_evaluation = 18\n[model]\n", "model"),
        ("[tcb]\nstatuses = []", "tcb.statuses"),
        ("[platform]\nmrseam = []\nsmt = false", "platform.mrseam"),
        ("[platform]\nallowed = []", "platform.allowed"),
        ("[program]\nmanifests = []", "program.manifests"),
        ("[model]\ndigests = []", "model.digests"),
        ("[configuration.fields]", "configuration.fields"),
    ] {
        assert_eq!(
            parse(empty),
            Err(PolicyError::EmptyKey(key.into())),
            "{empty:?}"
        );
    }
    for unknown in [
        "tcb = 1",
        "status = ['UpToDate']",
        "[tcb]\nstatus = ['UpToDate']",
        "[tcb]\nstatuses = ['Revoked']",
        "[tcb]\nstatuses = ['uptodate']",
        "[tcb]\nminimum_cpu_svns = [1, 2]",
        "[tcb]\nminimum_issue_date = 'yesterday'",
        "[platform]\nmrseam = ['00']",
        "[platform]\nsmt = 'no'",
        "[platforms]\nsmt = false",
        "[model]\ndigests = ['zz']",
        "[program]\nmanifests = 'vitrine.json'",
        "[certificate]\nmaximum_life = -1",
        "[program]\nmanifest_key = 'key'",
        "[tcb]\nminimum_evaluation = 1\nminimum_evaluation = 2",
        "not toml",
    ] {
        assert!(
            matches!(parse(unknown), Err(PolicyError::Invalid(_))),
            "{unknown}: {:?}",
            parse(unknown)
        );
    }
    assert!(matches!(
        parse("[program]\nmanifests = ['absent.json']"),
        Err(PolicyError::File(..))
    ));
    assert_eq!(
        Policy::parse(&vec![b'#'; 1 << 20], |_| unreachable!()),
        Err(PolicyError::TooLong)
    );
    assert!(Policy::parse(&[0xff], |_| unreachable!()).is_err());
}

#[test]
fn a_file_can_set_everything() {
    let policy = parse(
        r#"
        [tcb]
        statuses = ["UpToDate", "SWHardeningNeeded"]
        minimum_date = "2024-03-13"
        minimum_evaluation = 18
        minimum_issue_date = "2026-02-01T12:00:00Z"
        refused_advisories = ["INTEL-SA-00828"]
        minimum_cpu_svns = [7, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        minimum_pce_svn = 11
        minimum_tdx_svns = [5, 1, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]

        [platform]
        mrseam = ["5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e"]
        allowed = ["00000000000000000000000000000001"]
        dynamic = true
        cached_keys = false
        smt = false

        [program]
        manifests = ["vitrine.json", "broken.json"]

        [configuration]
        names = ["default"]
        files = ["config.txt"]
        fields = { "model.context" = "4096" }

        [model]
        names = ["model"]
        digests = ["0808080808080808080808080808080808080808080808080808080808080808"]
        minimum_version = 2

        [certificate]
        maximum_life = 900
        "#,
    )
    .unwrap();
    let mut cpu = [0; 16];
    cpu[..2].fill(7);
    let mut tdx = [0; 16];
    tdx[..3].copy_from_slice(&[5, 1, 7]);
    assert_eq!(
        policy.tcb,
        TcbPolicy {
            statuses: vec!["UpToDate".into(), "SWHardeningNeeded".into()],
            minimum_date: 1_710_288_000,
            minimum_evaluation: 18,
            minimum_issue_date: 1_769_947_200,
            refused_advisories: vec!["INTEL-SA-00828".into()],
            minimum_cpu_svns: cpu,
            minimum_pce_svn: 11,
            minimum_tdx_svns: tdx,
        }
    );
    assert_eq!(
        policy.platform,
        PlatformPolicy {
            mrseam: vec![[0x5e; 48]],
            allowed: vec![{
                let mut id = [0; 16];
                id[15] = 1;
                id
            }],
            dynamic: true,
            cached_keys: false,
            smt: false,
        }
    );
    assert!(matches!(
        policy.manifests[..],
        [ManifestSource::Good(_), ManifestSource::Invalid(_)]
    ));
    assert_eq!(policy.configuration.names, ["default"]);
    assert_eq!(policy.configuration.canonical, [CONFIGURATION]);
    assert_eq!(
        policy.configuration.fields,
        [("model.context".into(), "4096".into())]
    );
    assert_eq!(policy.model.names, ["model"]);
    assert_eq!(policy.model.minimum_version, 2);
    assert_eq!(policy.certificate.maximum_life, 900);
    let found = findings(&policy);
    let expected = [
        Code::PlatformFlag,
        Code::PlatformNotAllowed,
        Code::ManifestInvalid,
    ];
    assert!(
        expected.iter().all(|code| found.contains(code)),
        "{found:?}"
    );
}

#[test]
fn configurations_are_pinned_by_name_text_or_field() {
    let with = |configuration| Policy {
        configuration,
        ..pins()
    };
    let names = |name: &str| ConfigurationPolicy {
        names: vec![name.into()],
        ..Default::default()
    };
    assert_eq!(findings(&with(names("default"))), []);
    assert_eq!(findings(&with(names("other"))), [Code::ConfigNotPinned]);
    let text = |text: &[u8]| ConfigurationPolicy {
        canonical: vec![text.to_vec()],
        ..Default::default()
    };
    assert_eq!(findings(&with(text(CONFIGURATION))), []);
    assert_eq!(findings(&with(text(b"other"))), [Code::ConfigMismatch]);
    let field = |name: &str, value: &str| ConfigurationPolicy {
        fields: vec![(name.into(), value.into())],
        ..Default::default()
    };
    assert_eq!(findings(&with(field("model.context", "4096"))), []);
    assert_eq!(
        findings(&with(field("model.context", "1"))),
        [Code::ConfigMismatch]
    );
    assert_eq!(
        findings(&with(field("model.kv", "f16"))),
        [Code::ConfigMismatch]
    );
}

#[test]
fn models_are_pinned_by_name_or_either_digest() {
    let mut policy = pins();
    policy.model.digests = vec![[7; 32]];
    assert_eq!(findings(&policy), []);
    policy.model.digests = vec![[9; 32]];
    assert_eq!(findings(&policy), [Code::ModelMismatch]);
    policy.model.digests.clear();
    policy.model.names = vec!["model".into()];
    assert_eq!(findings(&policy), []);
    policy.model.names = vec!["other".into()];
    assert_eq!(findings(&policy), [Code::ModelMismatch]);
}

proptest! {
    #[test]
    fn any_text_is_a_policy_or_an_error(text in "\\PC{0,200}") {
        let _ = parse(&text);
    }

    #[test]
    fn any_bytes_are_a_manifest_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(!matches!(ManifestSource::read(&bytes), ManifestSource::Good(_)));
    }
}
