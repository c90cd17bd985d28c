//! MRTD as the emulated TDX module keeps it while the VMM builds the TD (`tdh_mem_page_add.c`, `tdh_mr_extend.c`, `tdh_mr_finalize.c` of the
//! module). Written apart from `measurements::mrtd`, which computes the same from a file, so that each checks the other.

use sha2::{Digest, Sha384};

/// Contents are extended in pieces of this size.
pub const PIECE: usize = 256;

/// The running hash of a TD that is being built.
pub struct BuildMeasurement(Sha384);

impl BuildMeasurement {
    /// Of a TD without pages.
    pub fn new() -> Self {
        Self(Sha384::new())
    }

    /// TDH.MEM.PAGE.ADD: only the address counts.
    pub fn add_page(&mut self, address: u64) {
        self.step("MEM.PAGE.ADD", address);
    }

    /// TDH.MR.EXTEND of one piece.
    pub fn extend(&mut self, address: u64, piece: &[u8; PIECE]) {
        self.step("MR.EXTEND", address);
        self.0.update(piece);
    }

    /// TDH.MR.FINALIZE.
    pub fn finish(self) -> [u8; 48] {
        self.0.finalize().into()
    }

    /// 128 bytes: the name in the first 16, the address in the next 8, zeros.
    fn step(&mut self, name: &str, address: u64) {
        self.0.update(name);
        self.0.update(&[0; 16][name.len()..]);
        self.0.update(address.to_le_bytes());
        self.0.update([0; 104]);
    }
}
