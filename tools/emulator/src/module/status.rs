//! Status words of the TDX module (`tdx_error_codes_defs.h` of the module, branch tdx_1.5). The low half names the operand, or a level.

/// Number of an operand in a status word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Operand {
    Rax = 0,
    Rcx = 1,
    Rdx = 2,
    R8 = 8,
}

/// How a leaf ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Success,
    /// PAGE.ACCEPT: accepted before, at this level.
    AlreadyAccepted {
        level: u8,
    },
    OperandInvalid(Operand),
    NoValidVeInfo,
    /// VM.RD and others like it: no such field.
    FieldUnknown,
    /// VM.WR: none of the bits can be written.
    FieldNotWritable,
    /// VM.WR: the field cannot have this value.
    FieldValueInvalid,
    /// MR.VERIFYREPORT: not this platform's.
    ReportMacInvalid,
    /// PAGE.ACCEPT: the VMM mapped another size, at this level.
    PageSizeMismatch {
        level: u8,
    },
}

impl Status {
    /// As RAX shows it.
    pub fn word(self) -> u64 {
        let (code, details): (u64, u64) = match self {
            Self::Success => (0, 0),
            Self::AlreadyAccepted { level } => (0x0000_0b0a, u64::from(level)),
            Self::OperandInvalid(operand) => (0xc000_0100, operand as u64),
            Self::NoValidVeInfo => (0xc000_0704, 0),
            Self::FieldUnknown => (0xc000_0c00, 0),
            Self::FieldNotWritable => (0xc000_0c01, 0),
            Self::FieldValueInvalid => (0xc000_0c03, 0),
            Self::ReportMacInvalid => (0xc000_1001, 0),
            Self::PageSizeMismatch { level } => (0xc000_0b0b, u64::from(level)),
        };
        code << 32 | details
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_modules() {
        let table = [
            (Status::Success, 0),
            (Status::AlreadyAccepted { level: 1 }, 0x0000_0b0a_0000_0001),
            (Status::OperandInvalid(Operand::Rcx), 0xc000_0100_0000_0001),
            (Status::OperandInvalid(Operand::Rax), 0xc000_0100_0000_0000),
            (Status::NoValidVeInfo, 0xc000_0704_0000_0000),
            (Status::FieldUnknown, 0xc000_0c00_0000_0000),
            (Status::FieldNotWritable, 0xc000_0c01_0000_0000),
            (Status::FieldValueInvalid, 0xc000_0c03_0000_0000),
            (Status::ReportMacInvalid, 0xc000_1001_0000_0000),
            (Status::PageSizeMismatch { level: 0 }, 0xc000_0b0b_0000_0000),
        ];
        for (status, word) in table {
            assert_eq!(status.word(), word, "{status:?}");
        }
    }
}
