//! Fresh evidence on an established connection.
//!
//! A certificate's quote says that some trust domain holds the key; it does not say when, nor that the peer of *this* connection is it.
//! So the client sends a nonce once the handshake is done, and the domain has a quote made that covers the nonce, the connection's
//! certificate and its TLS exporter: a replayed, relayed or reflected answer has another one of these.
//!
//! A quote takes long. Challenges that arrive meanwhile are the leaves of one Merkle tree, and one quote over its root answers all of them:
//! each answer carries the path from its leaf. A single challenge is a tree of one leaf with an empty path.

use alloc::vec::Vec;

use ring::digest::SHA384;

use crate::cbor::{DecodeError, Reader, Writer};
use crate::transcript::Transcript;
use crate::{MAX_QUOTE, Sha384};

/// The label for the TLS exporter (RFC 8446, 7.5); its context is the nonce. RFC 5705, section 4, reserves the prefix for private use.
pub const EXPORTER_LABEL: &str = "EXPERIMENTAL-vitrine-attestation-v1";

/// The longest path: 1024 challenges in one tree.
pub const MAX_PATH: usize = 10;

/// An encoded answer is never longer.
pub const MAX_ANSWER: usize = MAX_QUOTE + 1024;

/// What fresh evidence is for. Each has domain strings of its own: one's answer is never the other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// To send prompts.
    Session,
    /// To hand over a model's key.
    KeyRelease,
}

/// Who attests. An exporter is the same at both ends, so without this a client's own message could come back as an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The TLS server.
    Server = 1,
    /// The TLS client. No client of ours attests; the value keeps it from being anything else.
    Client = 2,
}

/// What one answer must cover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What for.
    pub purpose: Purpose,
    /// Who attests.
    pub role: Role,
    /// Random, chosen by the challenger, never used again.
    pub nonce: [u8; 32],
    /// SHA-384 of the DER of the attesting end's certificate on this connection.
    pub certificate: Sha384,
    /// This connection's exporter under [`EXPORTER_LABEL`] with the nonce as context.
    pub exporter: [u8; 32],
    /// The trust fingerprint in that certificate's claims.
    pub fingerprint: Sha384,
}

/// A challenge as a leaf of the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf(Sha384);

/// The top of a tree: what a quote covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Root(pub(crate) Sha384);

/// One step from a leaf to the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// Whether the sibling comes first in the hash.
    pub sibling_on_the_left: bool,
    /// The other child.
    pub sibling: Sha384,
}

impl Challenge {
    /// The challenge's place in a tree.
    pub fn leaf(&self) -> Leaf {
        let domain = match self.purpose {
            Purpose::Session => "vitrine session challenge v1",
            Purpose::KeyRelease => "vitrine key release challenge v1",
        };
        Leaf(
            Transcript::new(&SHA384, domain)
                .field(&[self.role as u8])
                .field(&self.nonce)
                .field(&self.certificate)
                .field(&self.exporter)
                .field(&self.fingerprint)
                .finish(),
        )
    }
}

/// The tree over one or more leaves: its root, and each leaf's path to it, in the leaves' order. `None` for no leaf, and for more leaves than
/// paths of [`MAX_PATH`] steps reach.
pub fn tree(leaves: &[Leaf]) -> Option<(Root, Vec<Vec<Step>>)> {
    if leaves.len() > 1 << MAX_PATH {
        return None;
    }
    let mut level: Vec<Sha384> = leaves.iter().map(|leaf| leaf.0).collect();
    let mut paths = alloc::vec![Vec::new(); leaves.len()];
    let mut height = 0;
    while level.len() > 1 {
        for (leaf, path) in paths.iter_mut().enumerate() {
            let place = leaf >> height;
            // The last node of an odd level has no sibling; it rises as it is.
            if let Some(&sibling) = level.get(place ^ 1) {
                path.push(Step {
                    sibling_on_the_left: place % 2 == 1,
                    sibling,
                });
            }
        }
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => parent(left, right),
                _ => pair[0],
            })
            .collect();
        height += 1;
    }
    Some((Root(*level.first()?), paths))
}

/// Where a path leads from a leaf. Whether that is the right root, the quote says.
pub fn root(leaf: &Leaf, path: &[Step]) -> Root {
    Root(
        path.iter()
            .fold(leaf.0, |node, step| match step.sibling_on_the_left {
                true => parent(&step.sibling, &node),
                false => parent(&node, &step.sibling),
            }),
    )
}

/// Domain strings keep an inner node from being taken for a leaf.
fn parent(left: &Sha384, right: &Sha384) -> Sha384 {
    Transcript::new(&SHA384, "vitrine challenge tree v1")
        .field(left)
        .field(right)
        .finish()
}

/// An answer: the quote, and the path from the challenge's leaf to the root that it covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The quote, 1 to [`MAX_QUOTE`] bytes.
    pub quote: Vec<u8>,
    /// At most [`MAX_PATH`] steps.
    pub path: Vec<Step>,
}

impl Answer {
    /// Encodes it: `answer` in `claims.cddl`.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        writer.array(2);
        writer.bytes(&self.quote);
        writer.array(self.path.len());
        for step in &self.path {
            writer.array(2);
            writer.unsigned(step.sibling_on_the_left.into());
            writer.bytes(&step.sibling);
        }
        writer.finish()
    }

    /// Decodes it.
    ///
    /// # Errors
    /// When the bytes are anything else than one answer in its only encoding.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        reader.tuple(2, "an answer")?;
        let quote = reader.bytes(MAX_QUOTE, "the quote")?;
        if quote.is_empty() {
            return Err(DecodeError::OutOfBounds("the quote"));
        }
        let mut path = Vec::new();
        for _ in 0..reader.array(MAX_PATH, "the path")? {
            reader.tuple(2, "a step")?;
            let sibling_on_the_left = match reader.unsigned("a side")? {
                0 => false,
                1 => true,
                _ => return Err(DecodeError::OutOfBounds("a side")),
            };
            path.push(Step {
                sibling_on_the_left,
                sibling: reader.fixed("a sibling")?,
            });
        }
        reader.finish()?;
        Ok(Self {
            quote: quote.to_vec(),
            path,
        })
    }
}

#[cfg(test)]
mod tests;
