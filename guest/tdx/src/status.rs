//! The status word of the TDX module, in RAX after every TDCALL.
//!
//! Bits 63:32 are the code, and only they decide; the low half carries details, such as the operand that was wrong. Bit 63 means error, bit
//! 62 that trying again is useless (Intel TDX Module ABI specification, "Function Completion Status Codes").

use core::fmt;

/// A status word as it came.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Status(pub u64);

/// A call that did its work, or had nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Success {
    /// Nothing more to say.
    Done,
    /// PAGE.ACCEPT: the page had been accepted before, and was not zeroed.
    AlreadyAccepted {
        /// The level at which it is mapped: 0 for 4 KiB, 1 for 2 MiB.
        level: u8,
    },
    /// Another code without the error bit.
    Information(u32),
}

/// A call that did not do its work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// An operand is not valid: a mistake of the caller.
    OperandInvalid {
        /// Which: 0 RAX, 1 RCX, 2 RDX, 3 RBX, 5 RBP, 6 RSI, 7 RDI, 8 and up R8 and up.
        operand: u32,
    },
    /// Something the call needs is in use; trying again may help.
    OperandBusy,
    /// VEINFO.GET: no virtualization exception is waiting to be read.
    NoValidVeInfo,
    /// PAGE.ACCEPT: the host mapped the page in another size.
    PageSizeMismatch,
    /// Another error code that a second try may cure.
    Recoverable(u32),
    /// Another error code.
    Other(u32),
}

const ALREADY_ACCEPTED: u32 = 0x0000_0b0a;
const OPERAND_INVALID: u32 = 0xc000_0100;
const OPERAND_BUSY: u32 = 0x8000_0200;
const NO_VALID_VE_INFO: u32 = 0xc000_0704;
const PAGE_SIZE_MISMATCH: u32 = 0xc000_0b0b;

const ERROR: u32 = 1 << 31;
const NON_RECOVERABLE: u32 = 1 << 30;

impl Status {
    /// Bits 63:32.
    pub const fn code(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Bits 31:0.
    pub const fn details(self) -> u32 {
        self.0 as u32
    }

    /// What the word means.
    ///
    /// # Errors
    /// [`Error`] if the call did not do its work: every code with the error bit, and every one with the non-recoverable bit.
    pub const fn decode(self) -> Result<Success, Error> {
        match self.code() {
            0 => Ok(Success::Done),
            ALREADY_ACCEPTED => Ok(Success::AlreadyAccepted {
                level: self.0 as u8,
            }),
            OPERAND_INVALID => Err(Error::OperandInvalid {
                operand: self.details(),
            }),
            OPERAND_BUSY => Err(Error::OperandBusy),
            NO_VALID_VE_INFO => Err(Error::NoValidVeInfo),
            PAGE_SIZE_MISMATCH => Err(Error::PageSizeMismatch),
            code if code & NON_RECOVERABLE != 0 => Err(Error::Other(code)),
            code if code & ERROR != 0 => Err(Error::Recoverable(code)),
            code => Ok(Success::Information(code)),
        }
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Status({:#018x})", self.0)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OperandInvalid { operand } => {
                write!(f, "the TDX module calls operand {operand} invalid")
            }
            Self::OperandBusy => f.write_str("the TDX module is busy"),
            Self::NoValidVeInfo => f.write_str("there is no virtualization exception to read"),
            Self::PageSizeMismatch => f.write_str("the page is mapped in another size"),
            Self::Recoverable(code) | Self::Other(code) => {
                write!(f, "the TDX module says {code:#010x}")
            }
        }
    }
}

impl core::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// From the module's own table (intel/tdx-module, tdx_1.5, `tdx_error_codes_defs.h`).
    const TABLE: &[(u64, Result<Success, Error>)] = &[
        (0, Ok(Success::Done)),
        (
            0x0000_0b0a_0000_0001,
            Ok(Success::AlreadyAccepted { level: 1 }),
        ),
        (0x0000_0a03_0000_0000, Ok(Success::Information(0x0000_0a03))),
        (
            0xc000_0100_0000_0002,
            Err(Error::OperandInvalid { operand: 2 }),
        ),
        (0x8000_0200_0000_0090, Err(Error::OperandBusy)),
        (0xc000_0704_0000_0000, Err(Error::NoValidVeInfo)),
        (0xc000_0b0b_0000_0000, Err(Error::PageSizeMismatch)),
        (0x8000_0003_0000_0000, Err(Error::Recoverable(0x8000_0003))),
        (0x8000_0204_0000_0000, Err(Error::Recoverable(0x8000_0204))),
        (0x6000_0002_0000_0000, Err(Error::Other(0x6000_0002))),
        (0xc000_0101_0000_0001, Err(Error::Other(0xc000_0101))),
        (0xe000_0604_0000_0000, Err(Error::Other(0xe000_0604))),
        (u64::MAX, Err(Error::Other(u32::MAX))),
    ];

    #[test]
    fn words_mean_what_the_table_says() {
        for (word, meaning) in TABLE {
            assert_eq!(Status(*word).decode(), *meaning, "{word:#x}");
        }
    }

    proptest! {
        #[test]
        fn only_the_high_half_decides(word: u64, details: u32) {
            let other = Status(word & !0xffff_ffff | u64::from(details));
            prop_assert_eq!(Status(word).decode().is_ok(), other.decode().is_ok());
            prop_assert_eq!(Status(word).decode().is_err(), word >> 62 != 0);
        }
    }
}
