//! A model's file in memory, read once, at the alignment its tensors need.

use core::ops::{Deref, DerefMut};
use std::fs::File;
use std::io::Read;
use std::path::Path;

use engine::gguf::ALIGNMENT;

use crate::failure::Failure;

/// The bytes of a file.
pub struct ModelFile {
    /// Padding, then the file. Never grows, so the file stays where it is.
    bytes: Vec<u8>,
    start: usize,
}

impl ModelFile {
    /// Reads a file whole.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        let cannot = |error| Failure::usage(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).map_err(cannot)?;
        let metadata = file.metadata().map_err(cannot)?;
        if !metadata.is_file() {
            return Err(Failure::usage(format!("{} is not a file", path.display())));
        }
        let Self { mut bytes, start } = Self::with_room(metadata.len(), path)?;
        // Bounded: a file that grows meanwhile must not move the buffer.
        file.take(metadata.len())
            .read_to_end(&mut bytes)
            .map_err(cannot)?;
        Ok(Self { bytes, start })
    }

    /// Memory for `length` bytes that are to come from `path`.
    pub fn zeroed(length: u64, path: &Path) -> Result<Self, Failure> {
        let Self { mut bytes, start } = Self::with_room(length, path)?;
        bytes.resize(start + length as usize, 0);
        Ok(Self { bytes, start })
    }

    /// Room that need not grow for `length` bytes.
    fn with_room(length: u64, path: &Path) -> Result<Self, Failure> {
        let too_large = || Failure::new(format!("{} does not fit in memory", path.display()));
        let length = usize::try_from(length).map_err(|_| too_large())?;
        let mut bytes: Vec<u8> = Vec::new();
        length
            .checked_add(ALIGNMENT)
            .and_then(|room| bytes.try_reserve_exact(room).ok())
            .ok_or_else(too_large)?;
        let start = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        bytes.resize(start, 0);
        Ok(Self { bytes, start })
    }

    /// The file, at a multiple of [`ALIGNMENT`].
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(self.start..).unwrap_or_default()
    }
}

impl Deref for ModelFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes()
    }
}

impl DerefMut for ModelFile {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_aligned_and_whole() {
        let path = std::env::temp_dir().join(format!("vitrine-model-file-{}", std::process::id()));
        for length in [0, 1, 31, 100_000] {
            let content: Vec<u8> = (0..length).map(|i| i as u8).collect();
            std::fs::write(&path, &content).unwrap();
            let file = ModelFile::read(&path).unwrap();
            assert_eq!(file.bytes(), content);
            assert!(file.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
            let mut copy = ModelFile::zeroed(length, &path).unwrap();
            copy.copy_from_slice(&file);
            assert_eq!(copy.bytes(), content);
            assert!(copy.bytes().as_ptr().addr().is_multiple_of(ALIGNMENT));
        }
        std::fs::remove_file(&path).unwrap();
        assert!(ModelFile::read(&path).is_err());
        assert!(ModelFile::read(&std::env::temp_dir()).is_err());
    }
}
