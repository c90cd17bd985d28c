//! Opening the chunks while they arrive: hashed as they are, decrypted where they lie, hashed again.
//!
//! Three things are done to every chunk, one after the other, and each at the same time as the other two are done to its
//! neighbours: the digest of the sealed file takes it in, it is decrypted in place, the digest of the plaintext takes it in. The
//! digests are sequential by nature, so they are what bounds the speed; decryption is spread over all threads.

use alloc::vec::Vec;
use core::{
    fmt,
    hint::black_box,
    ops::DerefMut,
    ops::Range,
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
};

use ring::{
    aead::{Aad, LessSafeKey, NONCE_LEN, Nonce},
    digest::{Context, SHA256},
};
use spin::Mutex;

use crate::{CHUNK, Envelope, FileKey, Layout, TAG, WrongKey};

/// Calls a function on every thread there is, and returns when all calls have returned.
pub type Parallel<'a> = &'a dyn Fn(&(dyn Fn() + Sync));

/// A sealed file being opened.
///
/// `M` is the memory in which the plaintext ends up, as long as [`Layout::plaintext_length`] says. While the file arrives it
/// holds bytes nobody has vouched for, so it comes back only from [`Opening::finish`]; dropped before that, it is overwritten.
pub struct Opening<M: DerefMut<Target = [u8]>> {
    key: LessSafeKey,
    layout: Layout,
    /// None once handed back.
    memory: Option<M>,
    /// The tags of the chunks that have begun to arrive; the last one may be incomplete.
    tags: Vec<[u8; TAG]>,
    /// Bytes of the payload that have arrived.
    arrived: u64,
    /// Chunks taken in by the digest of the sealed file, decrypted, and taken in by the digest of the plaintext.
    progress: Progress,
    sealed: Context,
    plaintext: Context,
    failed: Option<OpenError>,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    taken: usize,
    opened: usize,
    done: usize,
}

/// A file that was opened: every byte of it authentic, and the last one there.
#[derive(Debug)]
pub struct Opened<M> {
    /// The plaintext.
    pub memory: M,
    /// SHA-256 of the sealed file.
    pub sealed: [u8; 32],
    /// SHA-256 of the plaintext.
    pub plaintext: [u8; 32],
}

/// Why a file was not opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The key is another file's, or the header was changed.
    WrongKey,
    /// The memory for the plaintext is not as long as the plaintext, which is this many bytes.
    Memory(u64),
    /// A chunk, counted from zero, is not what was sealed at this place.
    Chunk(u64),
    /// The file ended early: this many bytes of the payload are missing.
    Truncated(u64),
    /// More bytes came than the file was said to have.
    Overlong,
}

/// One thing to do to some chunks.
enum Job<'a> {
    TakeSealed {
        digest: &'a mut Context,
        chunks: &'a [u8],
        tags: &'a [[u8; TAG]],
    },
    Open {
        index: usize,
        chunk: &'a mut [u8],
        tag: [u8; TAG],
    },
    TakePlaintext {
        digest: &'a mut Context,
        chunks: &'a [u8],
    },
}

impl<M: DerefMut<Target = [u8]>> Opening<M> {
    /// Begins to open the file with this envelope.
    ///
    /// # Errors
    /// [`OpenError::WrongKey`] or [`OpenError::Memory`].
    pub fn new(envelope: Envelope, key: &FileKey, memory: M) -> Result<Self, OpenError> {
        let unlocked = envelope
            .unlock(key)
            .map_err(|WrongKey| OpenError::WrongKey)?;
        let layout = unlocked.layout;
        if memory.len() as u64 != layout.plaintext_length() {
            return Err(OpenError::Memory(layout.plaintext_length()));
        }
        let mut sealed = Context::new(&SHA256);
        sealed.update(&unlocked.bytes);
        Ok(Self {
            key: unlocked.key,
            layout,
            memory: Some(memory),
            tags: Vec::new(),
            arrived: 0,
            progress: Progress::default(),
            sealed,
            plaintext: Context::new(&SHA256),
            failed: None,
        })
    }

    /// Takes in the next bytes of the payload and goes on with the chunks that are there: those of this call, and those of
    /// the two calls before. So the work of a call is bounded by the bytes given.
    ///
    /// # Errors
    /// [`OpenError::Chunk`] or [`OpenError::Overlong`]; every further call says so too.
    pub fn push(&mut self, bytes: &[u8], parallel: Parallel<'_>) -> Result<(), OpenError> {
        self.proceed(|this| {
            this.store(bytes)?;
            this.advance(parallel)
        })
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`OpenError::Truncated`], and all that [`Opening::push`] may find. The plaintext is gone then.
    pub fn finish(mut self, parallel: Parallel<'_>) -> Result<Opened<M>, OpenError> {
        let missing = self.layout.payload_length() - self.arrived;
        self.proceed(|this| {
            if missing > 0 {
                return Err(OpenError::Truncated(missing));
            }
            while (this.progress.done as u64) < this.layout.chunks() {
                this.advance(parallel)?;
            }
            Ok(())
        })?;
        let memory = self.memory.take().ok_or(OpenError::Truncated(missing))?;
        Ok(Opened {
            memory,
            sealed: finish(&self.sealed),
            plaintext: finish(&self.plaintext),
        })
    }

    /// Bytes of the payload that have not arrived yet.
    pub fn remaining(&self) -> u64 {
        self.layout.payload_length() - self.arrived
    }

    /// Does a step unless an earlier one failed, and remembers if this one does.
    fn proceed(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<(), OpenError>,
    ) -> Result<(), OpenError> {
        let outcome = match self.failed {
            Some(error) => Err(error),
            None => step(self),
        };
        self.failed = outcome.err();
        outcome
    }

    /// Puts bytes where they belong: ciphertext where its plaintext will be, tags aside.
    fn store(&mut self, mut bytes: &[u8]) -> Result<(), OpenError> {
        if bytes.len() as u64 > self.remaining() {
            return Err(OpenError::Overlong);
        }
        while !bytes.is_empty() {
            let index = (self.arrived / (CHUNK + TAG) as u64) as usize;
            let within = (self.arrived % (CHUNK + TAG) as u64) as usize;
            let place = self.place(index);
            let length = place.len();
            if self.tags.len() <= index {
                self.tags.push([0; TAG]);
            }
            let space = match within.checked_sub(length) {
                None => self
                    .memory
                    .as_mut()
                    .and_then(|memory| memory.get_mut(place.start + within..place.end)),
                Some(within) => self.tags[index].get_mut(within..),
            };
            let space = space.unwrap_or_default();
            let (now, later) = bytes.split_at(space.len().min(bytes.len()));
            space[..now.len()].copy_from_slice(now);
            self.arrived += now.len() as u64;
            bytes = later;
        }
        Ok(())
    }

    /// Where the plaintext of a chunk goes.
    fn place(&self, index: usize) -> Range<usize> {
        let end = self.layout.plaintext_length() as usize;
        (index * CHUNK).min(end)..((index + 1) * CHUNK).min(end)
    }

    /// How many chunks have arrived completely.
    fn complete(&self) -> usize {
        match self.remaining() {
            0 => self.layout.chunks() as usize,
            _ => (self.arrived / (CHUNK + TAG) as u64) as usize,
        }
    }

    /// Moves every chunk that is there one step further.
    fn advance(&mut self, parallel: Parallel<'_>) -> Result<(), OpenError> {
        let before = self.progress;
        let after = Progress {
            taken: self.complete(),
            opened: before.taken,
            done: before.opened,
        };
        let (taken, opened) = (
            self.place(before.taken).start,
            self.place(before.opened).start,
        );
        let (done, arrived) = (self.place(before.done).start, self.place(after.taken).start);
        let Some(memory) = &mut self.memory else {
            return Ok(());
        };
        let (decrypted, encrypted) = memory.split_at_mut(opened);
        let (to_open, rest) = encrypted.split_at_mut(taken - opened);
        let mut jobs = Vec::new();
        jobs.push(Job::TakeSealed {
            digest: &mut self.sealed,
            chunks: &rest[..arrived - taken],
            tags: &self.tags[before.taken..after.taken],
        });
        jobs.push(Job::TakePlaintext {
            digest: &mut self.plaintext,
            chunks: &decrypted[done..],
        });
        let tags = &self.tags[before.opened..after.opened];
        // An empty payload is one chunk without a byte.
        let chunks = to_open
            .chunks_mut(CHUNK)
            .chain((opened == taken).then_some(Default::default()));
        for (offset, (chunk, &tag)) in chunks.zip(tags).enumerate() {
            jobs.push(Job::Open {
                index: before.opened + offset,
                chunk,
                tag,
            });
        }
        let (key, last) = (&self.key, self.layout.chunks() - 1);
        let failed = AtomicU64::new(u64::MAX);
        for_each(jobs, parallel, |job| {
            if let Err(index) = job.run(key, last) {
                failed.fetch_min(index, Ordering::Relaxed);
            }
        });
        self.progress = after;
        match failed.into_inner() {
            u64::MAX => Ok(()),
            index => Err(OpenError::Chunk(index)),
        }
    }
}

impl<M: DerefMut<Target = [u8]>> Drop for Opening<M> {
    fn drop(&mut self) {
        if let Some(memory) = &mut self.memory {
            memory.fill(0);
            // The compiler must not conclude that nobody reads the zeroes.
            black_box(&mut **memory);
        }
    }
}

impl Job<'_> {
    /// Does it; the error is the number of the chunk that is not authentic.
    fn run(self, key: &LessSafeKey, last: u64) -> Result<(), u64> {
        match self {
            Self::TakeSealed {
                digest,
                chunks,
                tags,
            } => {
                let chunks = chunks
                    .chunks(CHUNK)
                    .chain(chunks.is_empty().then_some(Default::default()));
                for (chunk, tag) in chunks.zip(tags) {
                    digest.update(chunk);
                    digest.update(tag);
                }
                Ok(())
            }
            Self::Open { index, chunk, tag } => {
                let index = index as u64;
                let nonce = nonce(index, index == last);
                key.open_in_place_separate_tag(nonce, Aad::empty(), tag.into(), chunk, 0..)
                    .map(|_| ())
                    .map_err(|_| index)
            }
            Self::TakePlaintext { digest, chunks } => {
                digest.update(chunks);
                Ok(())
            }
        }
    }
}

/// A chunk's nonce: its number in 11 bytes, big-endian, and whether it is the last.
fn nonce(index: u64, last: bool) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[3..11].copy_from_slice(&index.to_be_bytes());
    nonce[11] = last.into();
    Nonce::assume_unique_for_key(nonce)
}

/// The digest of everything a context has taken in.
pub(crate) fn finish(digest: &Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.clone().finish().as_ref());
    bytes
}

/// Calls `task` once with every job, on whichever thread is free.
fn for_each<T: Send>(jobs: Vec<T>, parallel: Parallel<'_>, task: impl Fn(T) + Sync) {
    // Each lock is taken once and held for a move: it hands the job over and is never waited for.
    let jobs: Vec<_> = jobs.into_iter().map(|job| Mutex::new(Some(job))).collect();
    let next = AtomicUsize::new(0);
    parallel(&|| {
        while let Some(slot) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let job = slot.lock().take();
            if let Some(job) = job {
                task(job);
            }
        }
    });
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongKey => WrongKey.fmt(f),
            Self::Memory(length) => write!(f, "the plaintext takes {length} bytes"),
            Self::Chunk(index) => write!(f, "chunk {index} of the sealed file is not authentic"),
            Self::Truncated(missing) => {
                write!(f, "the last {missing} bytes of the sealed file are missing")
            }
            Self::Overlong => f.write_str("the sealed file is longer than it was said to be"),
        }
    }
}

impl core::error::Error for OpenError {}
