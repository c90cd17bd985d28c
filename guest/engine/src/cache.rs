//! The memory of keys and values, in pages.
//!
//! A page holds the keys and values of [`PAGE`] consecutive positions of one sequence, for every layer. Within it, the
//! keys (and likewise the values) of one layer and head are contiguous rows, which the kernels take as a matrix. Pages are
//! zeroed when they are given back, so nothing of one conversation is left for the next. Where a page ends has no
//! influence on results.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;

use kernels::{Format, Kernels};

use crate::model::Config;

/// Positions in a page.
pub const PAGE: usize = 32;

/// How keys and values are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KvFormat {
    /// Half precision.
    #[default]
    F16,
    /// 8-bit integers with a scale for each 32: half the memory, a little less exact.
    Q8_0,
}

impl KvFormat {
    /// The kernels' name of it.
    pub fn format(self) -> Format {
        match self {
            Self::F16 => Format::F16,
            Self::Q8_0 => Format::Q8_0,
        }
    }
}

/// The pages of one sequence, in the order of their positions.
#[derive(Debug, Default)]
pub struct PageTable {
    pages: Vec<usize>,
}

/// Keys or values.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    Keys,
    Values,
}

/// All pages.
pub struct KvCache {
    format: KvFormat,
    kv_heads: usize,
    /// Bytes of one head's key at one position.
    row_bytes: usize,
    page_bytes: usize,
    bytes: Vec<u8>,
    free: Vec<usize>,
}

impl KvCache {
    /// Bytes a page takes, or `None` if a head is not a whole number of the format's blocks or the size overflows.
    pub fn page_bytes(config: &Config, format: KvFormat) -> Option<usize> {
        let row_bytes = format.format().row_bytes(config.head_dim)?;
        [config.kv_heads, PAGE, config.layers, 2]
            .iter()
            .try_fold(row_bytes, |bytes, &n| bytes.checked_mul(n))
    }

    /// Room for `pages` pages of `page_bytes(config, format)` bytes.
    ///
    /// # Errors
    /// There is not enough memory.
    pub fn new(
        config: &Config,
        format: KvFormat,
        page_bytes: usize,
        pages: usize,
    ) -> Result<Self, TryReserveError> {
        let total = page_bytes.saturating_mul(pages);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(total)?;
        bytes.resize(total, 0);
        let mut free = Vec::new();
        free.try_reserve_exact(pages)?;
        free.extend((0..pages).rev());
        let row_bytes = page_bytes / (config.kv_heads * PAGE * config.layers * 2);
        Ok(Self {
            format,
            kv_heads: config.kv_heads,
            row_bytes,
            page_bytes,
            bytes,
            free,
        })
    }

    /// How keys and values are stored.
    pub fn format(&self) -> KvFormat {
        self.format
    }

    /// Pages that no sequence has.
    pub fn free_pages(&self) -> usize {
        self.free.len()
    }

    /// Makes `table` reach `positions` positions. Returns whether there were enough pages; if not, it is unchanged.
    #[must_use]
    pub fn reserve(&mut self, table: &mut PageTable, positions: usize) -> bool {
        let missing = positions.div_ceil(PAGE).saturating_sub(table.pages.len());
        let Some(kept) = self.free.len().checked_sub(missing) else {
            return false;
        };
        table.pages.extend(self.free.drain(kept..).rev());
        true
    }

    /// Takes back and zeroes every page of `table`.
    pub fn release(&mut self, table: &mut PageTable) {
        for page in table.pages.drain(..).rev() {
            let start = page * self.page_bytes;
            if let Some(bytes) = self.bytes.get_mut(start..start + self.page_bytes) {
                bytes.fill(0);
            }
            self.free.push(page);
        }
    }

    /// Where the rows of one head begin within a page.
    fn offset(&self, layer: usize, part: Part, head: usize) -> usize {
        let head_bytes = PAGE * self.row_bytes;
        ((layer * 2 + part as usize) * self.kv_heads + head) * head_bytes
    }

    /// Stores the keys or values of all heads, one after the other in `x`, of one position that `table` reaches.
    pub fn store(
        &mut self,
        kernels: &Kernels,
        table: &PageTable,
        layer: usize,
        part: Part,
        position: usize,
        x: &[f32],
    ) {
        let Some(page) = table.pages.get(position / PAGE) else {
            return;
        };
        let base = page * self.page_bytes + position % PAGE * self.row_bytes;
        for (head, x) in x.chunks_exact(x.len() / self.kv_heads).enumerate() {
            let start = base + self.offset(layer, part, head);
            let Some(row) = self.bytes.get_mut(start..start + self.row_bytes) else {
                return;
            };
            match self.format {
                KvFormat::F16 => kernels.f32_to_f16(x, row),
                KvFormat::Q8_0 => kernels.quantize(kernels::Activation::Q8_0, x, row),
            }
        }
    }

    /// The rows of one head at positions `0..positions`, a page at a time.
    pub fn rows<'c>(
        &'c self,
        table: &'c PageTable,
        layer: usize,
        part: Part,
        head: usize,
        positions: usize,
    ) -> impl Iterator<Item = &'c [u8]> {
        let offset = self.offset(layer, part, head);
        table
            .pages
            .iter()
            .zip((0..positions).step_by(PAGE))
            .filter_map(move |(page, first)| {
                let start = page * self.page_bytes + offset;
                self.bytes
                    .get(start..start + PAGE.min(positions - first) * self.row_bytes)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config {
            layers: 2,
            hidden: 64,
            feed_forward: 64,
            heads: 2,
            kv_heads: 2,
            head_dim: 32,
            epsilon: 1e-6,
            context_length: 128,
        }
    }

    fn cache(format: KvFormat, pages: usize) -> KvCache {
        let page_bytes = KvCache::page_bytes(&config(), format).unwrap();
        KvCache::new(&config(), format, page_bytes, pages).unwrap()
    }

    #[test]
    fn rows_come_back_where_they_were_put() {
        let kernels = Kernels::for_isa(kernels::Isa::Scalar).unwrap();
        for format in [KvFormat::F16, KvFormat::Q8_0] {
            let mut cache = cache(format, 3);
            let (mut first, mut second) = (PageTable::default(), PageTable::default());
            assert!(cache.reserve(&mut first, PAGE + 1) && cache.reserve(&mut second, 1));
            assert!(!cache.reserve(&mut second, PAGE + 1));
            let x: Vec<f32> = (0..64).map(|i| i as f32).collect();
            cache.store(kernels, &first, 1, Part::Values, PAGE, &x);
            let pages: Vec<&[u8]> = cache.rows(&first, 1, Part::Values, 1, PAGE + 1).collect();
            assert_eq!(
                pages
                    .iter()
                    .map(|page| page.len() / cache.row_bytes)
                    .collect::<Vec<_>>(),
                [PAGE, 1]
            );
            let mut row = [0.0; 32];
            kernels.dequantize(format.format(), pages[1], &mut row);
            assert!(row.iter().zip(&x[32..]).all(|(a, b)| (a - b).abs() < 0.3));
            // Only there.
            assert_eq!(cache.bytes.iter().filter(|&&byte| byte != 0).count(), {
                let mut bytes = alloc::vec![0; cache.row_bytes * 2];
                for (x, row) in x.chunks(32).zip(bytes.chunks_mut(cache.row_bytes)) {
                    match format {
                        KvFormat::F16 => kernels.f32_to_f16(x, row),
                        KvFormat::Q8_0 => kernels.quantize(kernels::Activation::Q8_0, x, row),
                    }
                }
                bytes.iter().filter(|&&byte| byte != 0).count()
            });
        }
    }

    #[test]
    fn released_pages_are_zero_and_free() {
        let kernels = Kernels::for_isa(kernels::Isa::Scalar).unwrap();
        let mut cache = cache(KvFormat::F16, 2);
        let mut table = PageTable::default();
        assert!(cache.reserve(&mut table, 2 * PAGE));
        for position in 0..2 * PAGE {
            cache.store(kernels, &table, 0, Part::Keys, position, &[1.0; 64]);
        }
        assert!(cache.free_pages() == 0 && cache.bytes.iter().any(|&byte| byte != 0));
        cache.release(&mut table);
        assert!(cache.free_pages() == 2 && cache.bytes.iter().all(|&byte| byte == 0));
        assert!(table.pages.is_empty());
    }
}
