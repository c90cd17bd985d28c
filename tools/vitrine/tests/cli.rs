//! The program as its users see it: output, exit codes, and what it says when something is wrong.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, OnceLock};
use std::thread;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection};
use serde_json::Value;

fn vitrine(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .output()
        .unwrap()
}

/// A SHA-256 that is nobody's, or an Ed25519 key.
const DIGEST: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// What a command that must succeed prints.
fn stdout(arguments: &[&str]) -> String {
    let output = vitrine(arguments);
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// The exit code and the words of a command that must fail.
fn failure(arguments: &[&str]) -> (i32, String) {
    let output = vitrine(arguments);
    let code = output.status.code().unwrap();
    (code, String::from_utf8(output.stderr).unwrap())
}

fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&stdout(arguments)).unwrap()
}

fn directory() -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("cli");
    fs::create_dir_all(&path).unwrap();
    path
}

/// A small model, made once.
fn model() -> &'static str {
    static MODEL: OnceLock<String> = OnceLock::new();
    MODEL.get_or_init(|| {
        let path = directory().join("tiny.gguf").display().to_string();
        stdout(&["synthesize", "--out", &path, "--layers", "2"]);
        path
    })
}

#[test]
fn an_answer_depends_on_nothing_but_model_prompt_and_parameters() {
    let base = [
        "generate",
        "--model",
        model(),
        "--chat",
        "Good morning.",
        "--max-tokens",
        "24",
        "--json",
    ];
    let tokens = |more: &[&str]| json(&[&base[..], more].concat())["tokens"].clone();
    let expected = tokens(&["--seed", "5"]);
    assert!(!expected.as_array().unwrap().is_empty());
    for variant in [
        &["--threads", "1"][..],
        &["--threads", "3", "--chunk", "1"],
        &["--chunk", "7", "--context", "100"],
    ] {
        assert_eq!(tokens(&[&["--seed", "5"], variant].concat()), expected);
    }
    assert_ne!(tokens(&["--seed", "6"]), expected);
}

#[test]
fn text_and_tokens_are_two_forms_of_one_prompt() {
    let text = "The sea was <|im_end|> quiet";
    let file = directory().join("prompt.txt");
    fs::write(&file, format!("{text}\n\nsecond line\n")).unwrap();
    let lines = stdout(&[
        "tokenize",
        "--model",
        model(),
        "--file",
        file.to_str().unwrap(),
        "--json",
    ]);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[1], Value::Array(Vec::new()));
    let ids = lines[0].to_string();
    let ids = ids.trim_matches(['[', ']']);
    let greedy = |input: &[&str]| {
        let options = [
            "generate",
            "--model",
            model(),
            "--temperature",
            "0",
            "--max-tokens",
            "8",
            "--json",
        ];
        json(&[&options[..], input].concat())
    };
    let (by_text, by_ids) = (greedy(&["--prompt", text]), greedy(&["--tokens", ids]));
    assert_eq!(by_text["tokens"], by_ids["tokens"]);
    assert_eq!(by_text["prompt_tokens"], lines[0].as_array().unwrap().len());
}

#[test]
fn logits_have_a_row_for_each_step() {
    let options = [
        "generate",
        "--model",
        model(),
        "--tokens",
        "5,6,7",
        "--logits",
        "--json",
    ];
    let free = json(&[&options[..], &["--max-tokens", "4"]].concat());
    let tokens: Vec<String> = free["tokens"]
        .as_array()
        .unwrap()
        .iter()
        .map(Value::to_string)
        .collect();
    assert_eq!(tokens.len(), 4);
    // Forcing what was chosen anyway changes nothing; the chunk does not either.
    let force = tokens[..3].join(",");
    let forced = json(&[&options[..], &["--force", &force, "--chunk", "2"]].concat());
    assert_eq!(forced, free);
    let row = |answer: &Value, index: usize| answer["logits"][index].as_array().unwrap().len();
    assert_eq!(row(&free, 0), row(&free, 3));
    assert_eq!(free["logits"].as_array().unwrap().len(), 4);
    let none = json(&[&options[..], &["--force", ""]].concat());
    assert_eq!(none["logits"].as_array().unwrap().len(), 1);
    assert_eq!(none["logits"][0], free["logits"][0]);
}

#[test]
fn evaluation_tells_formats_apart() {
    let path = |name: &str| directory().join(name).display().to_string();
    let (reference, questions, text) =
        (path("eval-f16.gguf"), path("quiz.jsonl"), path("eval.txt"));
    stdout(&[
        "synthesize",
        "--out",
        &reference,
        "--layers",
        "2",
        "--mix",
        "F16",
    ]);
    fs::write(
        &text,
        "The morning was clear and the harbour was quiet. ".repeat(12),
    )
    .unwrap();
    let quiz = r#"{"question":"Two and two is","choices":[" four"," five"],"answer":0}"#;
    fs::write(&questions, quiz).unwrap();
    let report = json(&[
        "eval",
        "--reference",
        &reference,
        "--model",
        &reference,
        "--model",
        model(),
        "--text",
        &text,
        "--window",
        "64",
        "--questions",
        &questions,
        "--json",
    ]);
    let candidates = report["candidates"].as_array().unwrap();
    let value = |index: usize, key: &str| candidates[index][key].as_f64().unwrap();
    assert_eq!(candidates.len(), 4);
    // The reference against itself, then with coarser keys and values, then the coarser model.
    assert_eq!(value(0, "kl_divergence"), 0.0);
    assert_eq!(value(0, "top1_agreement"), 1.0);
    assert_eq!(
        candidates[0]["perplexity"],
        report["reference"]["perplexity"]
    );
    assert!(value(1, "kl_divergence") > 0.0);
    assert!(value(2, "kl_divergence") > value(1, "kl_divergence"));
    assert!(value(2, "decode_speed_ratio") > 0.0);
    assert!([0.0, 1.0].contains(&value(3, "accuracy")));
}

#[test]
fn mistakes_are_usage_errors_that_say_what_is_wrong() {
    let nonsense = directory().join("nonsense.gguf");
    fs::write(&nonsense, b"GGUFnonsense").unwrap();
    let nonsense = nonsense.to_str().unwrap();
    for (arguments, word) in [
        (
            &["generate", "--model", "missing.gguf", "--prompt", "x"][..],
            "missing.gguf",
        ),
        (
            &["generate", "--model", nonsense, "--prompt", "x"],
            "nonsense.gguf",
        ),
        (&["generate", "--model", model()], "--prompt"),
        (&["generate", "--model", model(), "--prompt", ""], "empty"),
        (
            &["generate", "--model", model(), "--tokens", "99999999"],
            "99999999",
        ),
        (&["generate", "--model", model(), "--tokens", "1,,2"], "IDS"),
        (&["generate", "--model", model(), "--tokens", ""], "empty"),
        (
            &[
                "generate",
                "--model",
                model(),
                "--prompt",
                "x",
                "--top-p",
                "2",
            ],
            "top_p",
        ),
        (
            &[
                "generate",
                "--model",
                model(),
                "--prompt",
                "x",
                "--isa",
                "mmx",
            ],
            "mmx",
        ),
        (&["chat", "--to", "guest:8443"], "tcp://HOST:PORT"),
        (&["run", "--image", "missing.fd"], "missing.fd"),
        (&["synthesize", "--out", "x.gguf", "--hidden", "100"], "256"),
    ] {
        let (code, words) = failure(arguments);
        assert_eq!(code, 2, "{arguments:?}: {words}");
        assert!(words.contains(word), "{arguments:?}: {words}");
    }
}

/// Whoever waives evidence cannot demand any besides: nothing of it would be looked at.
#[test]
fn pins_beside_a_waiver_are_a_usage_error() {
    let to = ["--to", "tcp://127.0.0.1:1", "--insecure-no-tee"];
    let talking = [&["--owner-key", DIGEST][..]];
    let releasing = [&["--sign-with", "owner.pem"][..]];
    let model = ["--sealed", "model.age", "--identity", "model.key"];
    for (command, own, more) in [
        (&["chat", "--prompt", "x"][..], &talking, &[][..]),
        (&["health"], &talking, &[]),
        (&["proxy"], &talking, &[]),
        (&["provision"], &releasing, &model),
    ] {
        let judged: [&[&str]; 7] = [
            &["--policy", "policy.toml"],
            &["--manifest", "manifest.json"],
            &["--manifest", "manifest.json", "--manifest-key", "key.pub"],
            &["--model-digest", DIGEST],
            &["--config", "default"],
            &["--test-root", "root.pem"],
            &["--collateral", "collateral.json"],
        ];
        for pin in judged.iter().chain(own) {
            let arguments = [command, &to, more, pin].concat();
            let (code, words) = failure(&arguments);
            assert_eq!(code, 2, "{arguments:?}: {words}");
            for word in ["--insecure-no-tee", "cannot be used with", pin[0]] {
                assert!(words.contains(word), "{arguments:?}: {words}");
            }
        }
    }
}

#[test]
fn nobody_there_is_a_transport_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    drop(listener);
    let (code, words) = failure(&["health", "--to", &address, "--insecure-no-tee"]);
    assert_eq!(code, 30, "{words}");
    assert!(words.contains("warning: --insecure-no-tee"), "{words}");
}

#[test]
fn a_server_without_evidence_is_refused_unless_told_otherwise() {
    let certificate = rcgen::generate_simple_self_signed(["guest".to_owned()]).unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(
        certificate.signing_key.serialize_der(),
    ));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("tcp://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut connection = ServerConnection::new(Arc::clone(&config)).unwrap();
            // A client that refuses ends the handshake with an alert: an error here, and the point of the test.
            let _ = connection.complete_io(&mut stream.unwrap());
        }
    });
    let (code, words) = failure(&["chat", "--to", &address, "--prompt", "secret"]);
    assert_eq!(code, 23, "{words}");
    assert!(words.contains("--insecure-no-tee"), "{words}");
    // Then the handshake succeeds, and this server closes without an answer.
    let (code, words) = failure(&[
        "chat",
        "--to",
        &address,
        "--prompt",
        "x",
        "--insecure-no-tee",
    ]);
    assert_eq!(code, 30, "{words}");
}

#[test]
fn a_dry_run_prints_a_command_and_starts_nothing() {
    let image = directory().join("image.fd");
    fs::write(&image, b"").unwrap();
    let arguments = [
        "run",
        "--image",
        image.to_str().unwrap(),
        "--model",
        model(),
        "--tcp",
        "18443",
        "--accel",
        "tcg",
        "--dry-run",
    ];
    let output = Command::new(env!("CARGO_BIN_EXE_vitrine"))
        .args(arguments)
        .env("VITRINE_QEMU", "/nonexistent/qemu")
        .output()
        .unwrap();
    assert!(output.status.success());
    let line = String::from_utf8(output.stdout).unwrap();
    assert!(
        line.starts_with("/nonexistent/qemu -accel tcg -cpu max"),
        "{line}"
    );
    let length = fs::metadata(model()).unwrap().len();
    assert!(line.contains(&format!("serial=model:{length},")), "{line}");
    assert!(line.contains("hostfwd=tcp:127.0.0.1:18443-:8443"), "{line}");
}

#[test]
fn every_command_explains_itself() {
    let help = stdout(&["--help"]);
    for word in [
        "vsock://CID:PORT",
        "unix:PATH#PORT",
        "Exit codes",
        "23",
        "30",
    ] {
        assert!(help.contains(word), "{word}");
    }
    for command in [
        "run",
        "chat",
        "health",
        "generate",
        "tokenize",
        "synthesize",
    ] {
        assert!(help.contains(command));
        assert!(stdout(&[command, "--help"]).contains("--"), "{command}");
    }
}
