use super::*;
use alloc::{format, string::ToString, vec};

const MAC_LINE: &str = "--- AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8\n";

fn parse(stanzas: &str) -> Result<Header, HeaderError> {
    Header::parse(format!("age-encryption.org/v1\n{stanzas}{MAC_LINE}rest").as_bytes())
}

#[test]
fn a_header_is_taken_apart() {
    let full = "A".repeat(64);
    let header = parse(&format!(
        "-> X25519 one\nAQ\n-> other\n{full}\nAAAA\n-> full a bc !~\n{full}\n{full}\n\n-> empty\n\n"
    ))
    .unwrap();
    let stanza = |kind: &str, arguments: &[&str], body: &[u8]| Stanza {
        kind: kind.into(),
        arguments: arguments.iter().map(ToString::to_string).collect(),
        body: body.to_vec(),
    };
    assert_eq!(
        header.stanzas,
        [
            stanza("X25519", &["one"], &[1]),
            stanza("other", &[], &[0; 51]),
            stanza("full", &["a", "bc", "!~"], &[0; 96]),
            stanza("empty", &[], &[]),
        ]
    );
    assert_eq!(header.mac.to_vec(), (0..32).collect::<Vec<u8>>());
    assert_eq!(header.length - header.covered, MAC_LINE.len() - 3);
}

#[test]
fn what_the_format_forbids_is_refused() {
    let long = "A".repeat(68);
    for (stanzas, error) in [
        ("", HeaderError::NoStanza),
        ("-> \n\n", HeaderError::Arguments),
        ("-> a  b\n\n", HeaderError::Arguments),
        ("-> a \n\n", HeaderError::Arguments),
        ("-> a\tb\n\n", HeaderError::Arguments),
        ("-> a\u{e9}\n\n", HeaderError::Arguments),
        ("-> a\r\n\n", HeaderError::Arguments),
        ("->\n\n", HeaderError::Line),
        ("->a\n\n", HeaderError::Line),
        ("\n-> a\n\n", HeaderError::Line),
        // A full last line must be followed by a short one, and that one by nothing.
        ("-> a\nAAAA\nAAAA\n", HeaderError::Line),
        ("-> a\n", HeaderError::Body),
        (&format!("-> a\n{long}\n\n"), HeaderError::Body),
        // Padding, the other alphabet, white space, bits that carry nothing.
        ("-> a\nAA==\n", HeaderError::Body),
        ("-> a\nA_-A\n", HeaderError::Body),
        ("-> a\nAA A\n", HeaderError::Body),
        ("-> a\nAB\n", HeaderError::Body),
        ("-> a\nA\n", HeaderError::Body),
    ] {
        assert_eq!(parse(stanzas), Err(error), "{stanzas:?}");
    }
    for mac in ["--- \n", "--- AAAA\n", "---\n", "--- AA AA\n"] {
        let file = format!("age-encryption.org/v1\n-> a\n\n{mac}");
        let refused = Header::parse(file.as_bytes());
        assert!(
            matches!(refused, Err(HeaderError::Mac | HeaderError::Line)),
            "{mac:?}"
        );
    }
    for other in ["age-encryption.org/v2\n", "-----BEGIN AGE", "GGUF", "b"] {
        assert_eq!(Header::parse(other.as_bytes()), Err(HeaderError::NotAge));
    }
}

#[test]
fn a_header_may_arrive_slowly_but_must_end() {
    let file = format!("age-encryption.org/v1\n-> a b\nAA\n{MAC_LINE}");
    for end in 0..file.len() {
        let part = &file.as_bytes()[..end];
        assert_eq!(Header::parse(part), Err(HeaderError::Incomplete), "{end}");
    }
    assert_eq!(Header::parse(file.as_bytes()).unwrap().length, file.len());
    let mut endless = b"age-encryption.org/v1\n".to_vec();
    while endless.len() < HEADER_LIMIT {
        endless.extend(b"-> a\n\n");
    }
    assert_eq!(Header::parse(&endless), Err(HeaderError::TooLong));
    assert_eq!(
        Header::parse(&[&b"age-encryption.org/v1\n-> "[..], &vec![b'a'; 1 << 20]].concat()),
        Err(HeaderError::TooLong)
    );
}
