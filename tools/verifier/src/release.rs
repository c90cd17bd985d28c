//! Releases as their makers publish them: a manifest, and beside it a minisign signature.
//!
//! The signature's trusted comment, which the signature covers, may say until when the manifest counts, as one of its words:
//! `expires:2027-01-01` (`minisign -S -t 'expires:2027-01-01' -m MANIFEST`). The manifest itself follows from the sources and has no dates.

use std::collections::BTreeMap;

use measurements::Manifest;
use minisign_verify::{PublicKey, Signature};
use semver::Version;

use crate::code::Code;
use crate::date;
use crate::report::Table;

/// The word of a trusted comment that a date follows.
const EXPIRES: &str = "expires:";

/// The newest release that was accepted of each key: its line of base64, and the version.
pub type NewestReleases = BTreeMap<String, Version>;

/// A key that manifests are signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestKey {
    key: PublicKey,
    /// Its line of base64, which names it.
    line: String,
}

impl ManifestKey {
    /// Reads a minisign public key: its line of base64, or the file that holds it.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        let line = match text.lines().count() > 1 {
            true => text.lines().nth(1).unwrap_or_default(),
            false => text,
        };
        let line = line.trim().to_owned();
        match PublicKey::from_base64(&line) {
            Ok(key) => Ok(Self { key, line }),
            Err(error) => Err(format!("the manifest key: {error}")),
        }
    }
}

/// A manifest, or why there is none: a broken manifest is a refusal, not an absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ManifestSource {
    /// A manifest whose signature holds, if one was asked for.
    Good(Box<Release>),
    /// It cannot be read; the words say why.
    Invalid(String),
    /// Its signature is missing or does not hold; the words say which.
    Unsigned(String),
}

/// A manifest with what its signature adds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// What the release measures as.
    pub manifest: Manifest,
    /// Who signed it; `None` if nobody was asked to.
    pub signed: Option<Signed>,
}

/// What a signature that holds says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// The line of base64 of the key it was made with.
    pub key: String,
    /// From when the manifest does not count any more, seconds since 1970; `None` if there is no such time.
    pub expires: Option<u64>,
}

impl ManifestSource {
    /// Reads a manifest that needs no signature.
    pub fn read(manifest: &[u8]) -> Self {
        Self::parse(manifest, None)
    }

    /// Reads a manifest that must be signed; a signature that cannot be read is one that does not hold.
    pub fn read_signed(
        manifest: &[u8],
        key: &ManifestKey,
        signature: std::io::Result<Vec<u8>>,
    ) -> Self {
        let signature = match signature.map(String::from_utf8) {
            Ok(Ok(signature)) => signature,
            Ok(Err(_)) => return Self::Unsigned("the signature is not text".into()),
            Err(error) => return Self::Unsigned(format!("no signature beside it: {error}")),
        };
        let verified = Signature::decode(&signature).and_then(|signature| {
            key.key.verify(manifest, &signature, false)?;
            Ok(signature)
        });
        let comment = match &verified {
            Ok(signature) => signature.trusted_comment(),
            Err(error) => return Self::Unsigned(error.to_string()),
        };
        match expiry(comment) {
            Ok(expires) => Self::parse(
                manifest,
                Some(Signed {
                    key: key.line.clone(),
                    expires,
                }),
            ),
            Err(word) => Self::Invalid(format!("its signature's comment says `{word}`, no date")),
        }
    }

    fn parse(manifest: &[u8], signed: Option<Signed>) -> Self {
        match Manifest::parse(manifest) {
            Ok(manifest) => Self::Good(Box::new(Release { manifest, signed })),
            Err(error) => Self::Invalid(error.to_string()),
        }
    }
}

/// When a trusted comment says that the manifest expires.
///
/// # Errors
/// The word that should say so and does not.
fn expiry(comment: &str) -> Result<Option<u64>, &str> {
    let mut words = comment.split_whitespace();
    let Some(word) = words.find(|word| word.starts_with(EXPIRES)) else {
        return Ok(None);
    };
    let date = word.strip_prefix(EXPIRES).and_then(date::parse);
    date.map(Some).ok_or(word)
}

/// The newest version of each key among releases. A version that has no order counts as none.
pub fn newest<'a>(releases: impl Iterator<Item = &'a Release>) -> NewestReleases {
    let mut newest = NewestReleases::new();
    for release in releases {
        let Some(signed) = &release.signed else {
            continue;
        };
        let Ok(version) = Version::parse(&release.manifest.version) else {
            continue;
        };
        newest
            .entry(signed.key.clone())
            .and_modify(|newest| *newest = version.clone().max(newest.clone()))
            .or_insert(version);
    }
    newest
}

/// Judges the manifests themselves, whatever they are compared with later: each must be readable, signed if that was asked for and not
/// expired; and of each key, the newest one must not be older than what was accepted before.
pub(crate) fn judge(
    table: &mut Table,
    sources: &[ManifestSource],
    accepted: &NewestReleases,
    now: u64,
) {
    for source in sources {
        match source {
            ManifestSource::Good(release) => {
                if let Some(expires) = release.signed.as_ref().and_then(|signed| signed.expires) {
                    table.check(
                        now < expires,
                        Code::ManifestExpired,
                        "manifest expiry",
                        format!("after {}", date::format(now)),
                        date::format(expires),
                    );
                }
            }
            ManifestSource::Invalid(why) => {
                table.fail(Code::ManifestInvalid, "manifest", "a manifest", why);
            }
            ManifestSource::Unsigned(why) => {
                table.fail(
                    Code::ManifestSignature,
                    "manifest signature",
                    "by the key given",
                    why,
                );
            }
        }
    }
    let releases = || {
        sources.iter().filter_map(|source| match source {
            ManifestSource::Good(release) => Some(&**release),
            _ => None,
        })
    };
    let newest = newest(releases());
    for (key, least) in accepted {
        let named = |release: &Release| {
            release
                .signed
                .as_ref()
                .is_some_and(|signed| signed.key == *key)
        };
        if !releases().any(named) {
            continue;
        }
        let found = newest.get(key);
        table.check(
            found.is_some_and(|found| found >= least),
            Code::ManifestRollback,
            "manifest version",
            format!("{least} or later, as accepted before"),
            found.map_or_else(|| "no version".to_owned(), Version::to_string),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_say_when_a_manifest_expires() {
        assert_eq!(expiry("timestamp:1764000000\tfile:vitrine.json"), Ok(None));
        assert_eq!(expiry(""), Ok(None));
        let day = Ok(Some(1_798_761_600));
        assert_eq!(expiry("expires:2027-01-01"), day);
        assert_eq!(expiry("vitrine 1.0.0\texpires:2027-01-01 hashed"), day);
        assert_eq!(expiry("expires:2027-01-01T00:00:00Z"), day);
        for word in ["expires:", "expires:soon", "expires:2027-13-01"] {
            assert_eq!(expiry(&format!("x {word}")), Err(word));
        }
    }
}
