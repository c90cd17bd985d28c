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

/// Rows and tokens visited together: a row stays in the first-level cache for sixteen tokens, sixteen tokens of a few KiB in
/// the second-level cache for sixteen rows.
const TILE: usize = 16;

impl Product<'_> {
    /// Sets every output to `dot(row, token)`.
    #[inline(always)]
    pub fn each_pair(self, dot: impl Fn(&[u8], &[u8]) -> f32) {
        self.each_group::<1>(|row, [token]| [dot(row, token)]);
    }

    /// Sets the outputs by calling `dot` for a row and up to `GROUP` tokens at once; fewer tokens at the edge are filled up with
    /// the last one.
    ///
    /// `dot` must compute each of its results from that token alone.
    #[inline(always)]
    pub fn each_group<const GROUP: usize>(
        self,
        dot: impl Fn(&[u8], [&[u8]; GROUP]) -> [f32; GROUP],
    ) {
        let rows = self.weights.chunks_exact(self.row_bytes);
        let row_tiles = self.weights.chunks(self.row_bytes * TILE);
        debug_assert_eq!(rows.remainder().len(), 0);
        for (tile, weights) in row_tiles.enumerate() {
            let first_row = tile * TILE;
            let token_tiles = self.x.chunks(self.token_bytes * TILE);
            for (x, out) in token_tiles.zip(self.out.chunks_mut(self.out_stride * TILE)) {
                for (r, row) in weights.chunks_exact(self.row_bytes).enumerate() {
                    let groups = x.chunks(self.token_bytes * GROUP);
                    for (tokens, out) in groups.zip(out.chunks_mut(self.out_stride * GROUP)) {
                        let mut last: &[u8] = &[];
                        let mut each = tokens.chunks_exact(self.token_bytes);
                        let group = core::array::from_fn(|_| {
                            last = each.next().unwrap_or(last);
                            last
                        });
                        let results = dot(row, group);
                        let column = out.iter_mut().skip(first_row + r).step_by(self.out_stride);
                        for (out, result) in column.zip(results) {
                            *out = result;
                        }
                    }
                }
            }
        }
    }
}
