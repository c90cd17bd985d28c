//! Reading the canonical configuration that travels with the evidence: whoever serves wrote it, so nothing about it is believed before
//! its digest was found in RTMR[2]. The form is that of `guest/server/src/config/canonical.rs`.

use std::fmt;

/// The first line.
const HEADER: &str = "vitrine-configuration/1";
/// Longer texts are not read.
const MAX_BYTES: usize = 16 << 10;

/// The fields of a canonical configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalConfiguration<'a> {
    /// Sorted by key.
    fields: Vec<(&'a str, &'a str)>,
}

/// Why a text is not a canonical configuration. Lines count from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConfigurationError {
    /// Longer than any.
    TooLong,
    /// The first line names another form, or none.
    Header,
    /// The last line is not ended, so the text may be cut off.
    Unfinished,
    /// A line is not `section.key=value`.
    Line(usize),
    /// A line's key does not come after the one before it.
    Order(usize),
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLong => f.write_str("too long for a canonical configuration"),
            Self::Header => write!(f, "the first line is not {HEADER:?}"),
            Self::Unfinished => f.write_str("the last line is cut off"),
            Self::Line(line) => write!(f, "line {line} is not section.key=value"),
            Self::Order(line) => write!(f, "the key in line {line} is out of order"),
        }
    }
}

impl std::error::Error for ConfigurationError {}

impl<'a> CanonicalConfiguration<'a> {
    /// Reads a canonical configuration.
    ///
    /// # Errors
    /// [`ConfigurationError`] naming the first thing that is wrong.
    pub fn parse(text: &'a str) -> Result<Self, ConfigurationError> {
        if text.len() > MAX_BYTES {
            return Err(ConfigurationError::TooLong);
        }
        let body = text
            .strip_prefix(HEADER)
            .and_then(|rest| rest.strip_prefix('\n'))
            .ok_or(ConfigurationError::Header)?;
        let mut fields: Vec<(&str, &str)> = Vec::new();
        if body.is_empty() {
            return Ok(Self { fields });
        }
        let body = body
            .strip_suffix('\n')
            .ok_or(ConfigurationError::Unfinished)?;
        for (number, line) in (2..).zip(body.split('\n')) {
            let (key, value) = line
                .split_once('=')
                .filter(|(key, _)| is_key(key))
                .ok_or(ConfigurationError::Line(number))?;
            if fields.last().is_some_and(|(last, _)| *last >= key) {
                return Err(ConfigurationError::Order(number));
            }
            fields.push((key, value));
        }
        Ok(Self { fields })
    }

    /// The value of `section.key`; `None` for a key that is not measured, the empty text for one that the operator left out.
    pub fn get(&self, key: &str) -> Option<&'a str> {
        self.fields
            .iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| *value)
    }

    /// All fields, sorted by key.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        self.fields.iter().copied()
    }
}

/// `section.key`, each of lower-case letters, digits and underscores.
fn is_key(text: &str) -> bool {
    let word = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
    };
    text.split_once('.')
        .is_some_and(|(section, key)| word(section) && word(key))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "vitrine-configuration/1\nmodel.kv=f16\nmodel.name=a=b c\nz.z=\n";

    #[test]
    fn fields_are_found_by_name() {
        let configuration = CanonicalConfiguration::parse(TEXT).expect("a valid text");
        assert_eq!(configuration.get("model.kv"), Some("f16"));
        assert_eq!(configuration.get("model.name"), Some("a=b c"));
        assert_eq!(configuration.get("z.z"), Some(""));
        assert_eq!(configuration.get("model.threads"), None);
        assert_eq!(configuration.fields().count(), 3);
    }

    #[test]
    fn other_texts_are_refused() {
        let refuse = |text: &str| CanonicalConfiguration::parse(text).expect_err(text);
        let with = |lines: &str| refuse(&format!("{HEADER}\n{lines}"));
        assert_eq!(refuse(""), ConfigurationError::Header);
        assert_eq!(refuse(HEADER), ConfigurationError::Header);
        assert_eq!(
            refuse("vitrine-configuration/2\n"),
            ConfigurationError::Header
        );
        assert_eq!(with("a.a=1"), ConfigurationError::Unfinished);
        for line in ["", "a", "a=1", ".a=1", "a.=1", "A.a=1", "a.a.a=1", " a.a=1"] {
            assert_eq!(
                with(&format!("a.a=1\n{line}\n")),
                ConfigurationError::Line(3),
                "{line}"
            );
        }
        assert_eq!(with("b.b=1\na.a=1\n"), ConfigurationError::Order(3));
        assert_eq!(with("a.a=1\na.a=2\n"), ConfigurationError::Order(3));
        assert_eq!(refuse(&" ".repeat(1 << 20)), ConfigurationError::TooLong);
    }

    proptest! {
        #[test]
        fn no_text_panics(rest in "[a-z.=\n]{0,80}") {
            let text = format!("{HEADER}\n{rest}");
            if let Ok(configuration) = CanonicalConfiguration::parse(&text) {
                let written: String = configuration.fields().map(|(key, value)| format!("{key}={value}\n")).collect();
                prop_assert_eq!(written, rest);
            }
        }
    }
}
