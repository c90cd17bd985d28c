//! Writing a model: tensor by tensor, in parts made in parallel and written in order, so memory stays small whatever the size.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::ops::Range;
use std::path::Path;
use std::thread;

use crate::header::ALIGNMENT;
use crate::random::Values;
use crate::recipe::Recipe;
use crate::tensors::Tensor;

/// Elements a thread makes at a time.
const PART: u64 = 1 << 20;

impl Recipe {
    /// Writes the file's bytes; `progress` is told how many are written so far.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        out.write_all(&self.head)?;
        let mut written = self.head.len() as u64;
        progress(written);
        for tensor in &self.tensors {
            let start = written;
            let values = Values::new(self.seed, &tensor.name, tensor.deviation);
            for parts in batches(tensor) {
                for bytes in make(tensor, values, &parts) {
                    out.write_all(&bytes)?;
                    written += bytes.len() as u64;
                    progress(written);
                }
            }
            let padding = (written - start).next_multiple_of(ALIGNMENT) - (written - start);
            out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
            written += padding;
        }
        out.flush()
    }

    /// Writes the file under a temporary name beside `path` and renames it when complete.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write_file(&self, path: &Path, progress: &mut dyn FnMut(u64)) -> io::Result<()> {
        let mut temporary = OsString::from(path);
        temporary.push(".partial");
        let outcome = File::create(&temporary)
            .and_then(|file| self.write(&mut BufWriter::new(file), progress))
            .and_then(|()| fs::rename(&temporary, path));
        if outcome.is_err() {
            // The first error is the one to report.
            let _ = fs::remove_file(&temporary);
        }
        outcome
    }
}

/// The rows of a tensor, cut into parts, as many together as there are processors.
fn batches(tensor: &Tensor) -> impl Iterator<Item = Vec<Range<u64>>> {
    let rows = tensor.rows();
    let step = (PART / tensor.columns().max(1)).max(1);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut starts = (0..rows).step_by(usize::try_from(step).unwrap_or(usize::MAX));
    core::iter::from_fn(move || {
        let parts: Vec<Range<u64>> = starts
            .by_ref()
            .take(threads)
            .map(|start| start..(start + step).min(rows))
            .collect();
        (!parts.is_empty()).then_some(parts)
    })
}

/// The bytes of some parts of a tensor, one thread each.
fn make(tensor: &Tensor, values: Values, parts: &[Range<u64>]) -> Vec<Vec<u8>> {
    let make_part = |rows: &Range<u64>| -> Vec<u8> {
        let columns = tensor.columns();
        let mut row = Vec::new();
        let mut bytes = Vec::new();
        for index in rows.clone() {
            row.clear();
            row.extend(
                (index * columns..(index + 1) * columns).map(|at| tensor.mean + values.at(at)),
            );
            tensor.format.encode(&row, &mut bytes);
        }
        bytes
    };
    if let [part] = parts {
        return vec![make_part(part)];
    }
    thread::scope(|scope| {
        let threads: Vec<_> = parts
            .iter()
            .map(|part| scope.spawn(|| make_part(part)))
            .collect();
        threads
            .into_iter()
            .map(|thread| match thread.join() {
                Ok(bytes) => bytes,
                Err(panic) => std::panic::resume_unwind(panic),
            })
            .collect()
    })
}
