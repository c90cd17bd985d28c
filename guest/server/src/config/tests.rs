use alloc::string::ToString;

use proptest::prelude::*;

use super::*;

fn error(file: &str) -> String {
    Config::parse(file.as_bytes()).unwrap_err().to_string()
}

#[test]
fn nothing_is_a_valid_configuration() {
    assert_eq!(Config::parse(b"").unwrap(), Config::default());
    assert!(Config::default().check().is_ok());
}

#[test]
fn the_documented_example_is_the_default_apart_from_what_has_none() {
    let example: String = include_str!("../config.rs")
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .skip_while(|line| *line != "```toml")
        .skip(1)
        .take_while(|line| *line != "```")
        .flat_map(|line| [line, "\n"])
        .collect();
    let with_static = example.replace("\"dhcp\"", "\"192.0.2.10/24\"");
    let config = Config::parse(with_static.as_bytes()).unwrap();
    let expected = Config {
        listen: Listen {
            address: Address::Static {
                address: Ipv4Addr::new(192, 0, 2, 10),
                prefix: 24,
            },
            gateway: Some(Ipv4Addr::new(192, 0, 2, 1)),
            ..Listen::default()
        },
        model: Model {
            name: Some("qwen3".into()),
            ..Model::default()
        },
        trust: config.trust.clone(),
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert!(config.trust.provisioner().is_some());
    let trust = Trust::default();
    assert_eq!(config.trust.minimum_tcb(), trust.minimum_tcb());
}

#[test]
fn errors_name_key_and_line() {
    for (file, line, words) in [
        ("[model]\ntreads = 2\n", 2, "treads"),
        ("[modle]\n", 1, "modle"),
        ("[listen]\n\ntcp = \"a\"\n", 3, "tcp"),
        ("[listen]\ntcp = 70000\n", 2, "tcp"),
        (
            "[limits]\nqueue = 0\n",
            2,
            "`queue` must be from 1 to 1024, not 0",
        ),
        ("[limits]\nqueue = -1\n", 2, "queue"),
        ("[limits]\nidle_seconds = 0\n", 2, "idle_seconds"),
        ("[listen]\naddress = \"10.0.0.1\"\n", 2, "address"),
        ("[listen]\naddress = \"10.0.0.1/33\"\n", 2, "address"),
        ("[listen]\ngateway = \"10.0.0.1\"\n", 2, "gateway"),
        (
            "[listen]\naddress = \"10.0.0.2/24\"\ngateway = \"10.0.1.1\"\n",
            3,
            "gateway",
        ),
        ("[model]\nkv = \"f64\"\n", 2, "kv"),
        ("[model]\nname = \"a\\nb\"\n", 2, "name"),
        ("[model\n", 1, ""),
        ("[model]\ncontext = 1\ncontext = 2\n", 3, "context"),
    ] {
        let message = error(file);
        assert!(
            message.starts_with(&format!("configuration, line {line}: ")),
            "{message}"
        );
        assert!(
            message.contains(words) && !message.contains('\n'),
            "{message}"
        );
    }
    assert!(error("[listen]\ntcp = 0\nvsock = 0\n").contains("nothing listens"));
}

#[test]
fn text_must_be_utf8() {
    let message = Config::parse(b"[model]\nname = \"\xff\"\n")
        .unwrap_err()
        .to_string();
    assert_eq!(message, "configuration, line 2: the file is not UTF-8 text");
}

proptest! {
    #[test]
    fn no_file_panics(file in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Err(error) = Config::parse(&file) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn no_line_of_toml_panics(key in "[a-z_]{1,12}", value in "[-0-9a-z\"\\[\\]{}=., ]{0,20}") {
        let file = format!("[limits]\n{key} = {value}\n");
        if let Err(error) = Config::parse(file.as_bytes()) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
