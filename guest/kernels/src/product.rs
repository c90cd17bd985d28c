//! The shape of a matrix product and the order in which its pairs of row and token are visited.

/// A product whose lengths were checked by `Kernels::rows`: `out[t * out_stride + r]` is the dot product of row `r` and token
/// `t`.
pub(crate) struct Product<'a> {
    /// Whole rows of `row_bytes` each, at least one byte long.
    pub weights: &'a [u8],
    pub row_bytes: usize,
    /// Elements in a row.
    pub n: usize,
    /// Whole quantised tokens of `token_bytes` each.
    pub x: &'a [u8],
    pub token_bytes: usize,
    pub out: &'a mut [f32],
    pub out_stride: usize,
}

/// Rows and tokens visited together: sixteen rows of a few KiB stay in the second-level cache for sixteen tokens, and a group of
/// tokens in the first-level cache for sixteen rows.
const TILE: usize = 16;

/// The dot products of one row with several tokens, sharing the work on the row.
pub(crate) trait GroupDot {
    /// The most tokens worth taking at once: 1, 2, 4 or 8.
    const GROUP: usize;

    /// Each result is a function of `row` and its own token, whatever `G` is.
    ///
    /// # Safety
    /// Row and tokens hold equally many elements in the formats of the implementation, whose instructions this processor has.
    unsafe fn dots<const G: usize>(row: &[u8], tokens: [&[u8]; G]) -> [f32; G];
}

/// Up to sixteen rows and tokens, and their results: `results[token][row]`.
///
/// Results are gathered here first, since a stride between tokens that is a multiple of 4 KiB would have all of them compete for
/// the same few lines of the cache.
struct Tile<'a> {
    rows: &'a [u8],
    row_bytes: usize,
    tokens: &'a [u8],
    token_bytes: usize,
    results: &'a mut [[f32; TILE]; TILE],
}

impl Product<'_> {
    /// Sets every output to `dot(row, token)`.
    #[inline(always)]
    pub fn each_pair(self, dot: impl Fn(&[u8], &[u8]) -> f32) {
        self.each_tile(|tile| {
            let tokens = tile.tokens.chunks_exact(tile.token_bytes);
            for (token, results) in tokens.zip(tile.results) {
                let rows = tile.rows.chunks_exact(tile.row_bytes);
                for (row, result) in rows.zip(results) {
                    *result = dot(row, token);
                }
            }
        });
    }

    /// Sets every output by `D`, in groups as large as the tokens allow.
    ///
    /// # Safety
    /// The product's formats are those of `D`, whose instructions this processor has.
    #[inline(always)]
    pub unsafe fn each_group<D: GroupDot>(self) {
        self.each_tile(|mut tile| {
            let mut next = 0;
            // SAFETY: the caller's promise; the lengths are the product's.
            unsafe {
                if D::GROUP >= 8 {
                    next = tile.groups::<D, 8>(next);
                }
                if D::GROUP >= 4 {
                    next = tile.groups::<D, 4>(next);
                }
                if D::GROUP >= 2 {
                    next = tile.groups::<D, 2>(next);
                }
                tile.groups::<D, 1>(next);
            }
        });
    }

    #[inline(always)]
    fn each_tile(self, visit: impl Fn(Tile<'_>)) {
        let mut results = [[0.0; TILE]; TILE];
        let row_tiles = self.weights.chunks(self.row_bytes * TILE);
        for (row_tile, rows) in row_tiles.enumerate() {
            let columns = rows.len() / self.row_bytes;
            let token_tiles = self.x.chunks(self.token_bytes * TILE);
            for (tokens, out) in token_tiles.zip(self.out.chunks_mut(self.out_stride * TILE)) {
                visit(Tile {
                    rows,
                    row_bytes: self.row_bytes,
                    tokens,
                    token_bytes: self.token_bytes,
                    results: &mut results,
                });
                let outs = out.chunks_mut(self.out_stride);
                let count = tokens.len() / self.token_bytes;
                for (results, out) in results.iter().take(count).zip(outs) {
                    out[row_tile * TILE..][..columns].copy_from_slice(&results[..columns]);
                }
            }
        }
    }
}

impl Tile<'_> {
    /// Takes tokens from number `next` on while `G` are left; returns how far it came.
    ///
    /// # Safety
    /// As of [`GroupDot::dots`].
    #[inline(always)]
    unsafe fn groups<D: GroupDot, const G: usize>(&mut self, mut next: usize) -> usize {
        let size = self.token_bytes;
        while let Some(tokens) = self.tokens.get(next * size..(next + G) * size) {
            let group = core::array::from_fn(|i| &tokens[i * size..][..size]);
            let rows = self.rows.chunks_exact(self.row_bytes);
            for (column, row) in rows.enumerate() {
                // SAFETY: the caller's promise.
                let results = unsafe { D::dots::<G>(row, group) };
                for (to, result) in self.results[next..].iter_mut().zip(results) {
                    to[column] = result;
                }
            }
            next += G;
        }
        next
    }
}
