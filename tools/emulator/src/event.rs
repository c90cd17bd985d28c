//! What an instruction can cause besides its effect: an exception, a virtualization exception, or the end of the TD.

use std::fmt;

use crate::cpu::VeInfo;

/// An exception that the guest's own handlers take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    pub vector: u8,
    pub error: Option<u32>,
    /// The new CR2, for a page fault.
    pub address: Option<u64>,
}

/// Vectors by their names (Intel SDM vol. 3, table 7-1).
pub mod vector {
    pub const DIVIDE: u8 = 0;
    pub const DEBUG: u8 = 1;
    pub const NMI: u8 = 2;
    pub const BREAKPOINT: u8 = 3;
    pub const OVERFLOW: u8 = 4;
    pub const INVALID_OPCODE: u8 = 6;
    pub const DOUBLE_FAULT: u8 = 8;
    pub const STACK: u8 = 12;
    pub const GENERAL_PROTECTION: u8 = 13;
    pub const PAGE_FAULT: u8 = 14;
    pub const ALIGNMENT: u8 = 17;
    pub const SIMD: u8 = 19;
    pub const VIRTUALIZATION: u8 = 20;
}

impl Exception {
    /// An exception without an error code.
    pub const fn new(vector: u8) -> Self {
        Self {
            vector,
            error: None,
            address: None,
        }
    }

    /// #GP with an error code: 0 or a selector.
    pub const fn general_protection(error: u32) -> Self {
        Self {
            vector: vector::GENERAL_PROTECTION,
            error: Some(error),
            address: None,
        }
    }

    /// #PF at a linear address.
    pub const fn page_fault(error: u32, address: u64) -> Self {
        Self {
            vector: vector::PAGE_FAULT,
            error: Some(error),
            address: Some(address),
        }
    }
}

impl Exception {
    /// Whether it is a sign of a mistake: everything that the processor raises but breakpoints, single steps and #VE.
    pub fn is_fault(&self) -> bool {
        self.vector < 32
            && !matches!(
                self.vector,
                vector::DEBUG | vector::NMI | vector::BREAKPOINT | vector::VIRTUALIZATION
            )
    }
}

impl fmt::Display for Exception {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [&str; 21] = [
            "#DE", "#DB", "NMI", "#BP", "#OF", "#BR", "#UD", "#NM", "#DF", "#9", "#TS", "#NP",
            "#SS", "#GP", "#PF", "#15", "#MF", "#AC", "#MC", "#XM", "#VE",
        ];
        match NAMES.get(usize::from(self.vector)) {
            Some(name) => f.write_str(name)?,
            None => write!(f, "vector {:#x}", self.vector)?,
        }
        if let Some(error) = self.error {
            write!(f, "({error:#x})")?;
        }
        if let Some(address) = self.address {
            write!(f, " at {address:#x}")?;
        }
        Ok(())
    }
}

/// What happens instead of an instruction's effect.
#[derive(Debug)]
pub enum Event {
    Exception(Exception),
    /// A virtualization exception, with what VEINFO.GET will say.
    Virtualization(VeInfo),
    Death(Death),
}

impl From<Exception> for Event {
    fn from(exception: Exception) -> Self {
        Self::Exception(exception)
    }
}

impl From<Death> for Event {
    fn from(death: Death) -> Self {
        Self::Death(death)
    }
}

/// How memory is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    Execute,
}

/// Why a TD ends other than by its own wish, each with the rule of the platform behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// A private page was touched that the TD has not accepted.
    UnacceptedMemory { gpa: u64, access: Access },
    /// A private address without memory was touched.
    NoPrivateMemory { gpa: u64, access: Access },
    /// The shared alias of a page was touched that the TD never converted.
    NotShared { gpa: u64, access: Access },
    /// Code was fetched from a shared page.
    SharedExecution { gpa: u64 },
    /// Page tables lie in shared memory.
    SharedPageTables { gpa: u64 },
    /// An exception could not be delivered.
    TripleFault { first: String },
    /// An operand that no TD may pass: the TDX module or the VMM ends the TD.
    Forbidden(&'static str),
    /// An instruction raised #VE, and the user of the emulator wants none.
    Virtualization { reason: u32 },
    /// Hardware would do it, this emulator cannot.
    Unsupported(String),
    /// The host's kernel refuses something the emulator needs.
    Host(String),
}

impl Death {
    /// A short stable name, for `--json` and tests.
    pub fn name(&self) -> &'static str {
        match self {
            Self::UnacceptedMemory { .. } => "unaccepted-memory",
            Self::NoPrivateMemory { .. } => "no-private-memory",
            Self::NotShared { .. } => "not-shared",
            Self::SharedExecution { .. } => "shared-execution",
            Self::SharedPageTables { .. } => "shared-page-tables",
            Self::TripleFault { .. } => "triple-fault",
            Self::Forbidden(_) => "forbidden",
            Self::Virtualization { .. } => "virtualization-exception",
            Self::Unsupported(_) => "unsupported",
            Self::Host(_) => "host",
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnacceptedMemory { gpa, access } => write!(
                f,
                "{access:?} of private page {gpa:#x}, which was not accepted: with SEPT_VE_DISABLE this is an EPT violation and KVM ends the TD"
            ),
            Self::NoPrivateMemory { gpa, access } => write!(
                f,
                "{access:?} of private address {gpa:#x}, where there is no memory: an EPT violation that the VMM cannot resolve"
            ),
            Self::NotShared { gpa, access } => write!(
                f,
                "{access:?} of the shared alias of page {gpa:#x}, which is private: it was never converted with MapGPA"
            ),
            Self::SharedExecution { gpa } => write!(
                f,
                "code fetched from shared page {gpa:#x}: shared memory is never executable in a TD"
            ),
            Self::SharedPageTables { gpa } => write!(
                f,
                "page tables at shared address {gpa:#x}: the processor walks private memory only"
            ),
            Self::TripleFault { first } => write!(
                f,
                "triple fault: {first}; no handler could take it, and the processor shuts down"
            ),
            Self::Forbidden(rule) => f.write_str(rule),
            Self::Virtualization { reason } => write!(
                f,
                "an instruction raised #VE with exit reason {reason}: --strict lets none be delivered"
            ),
            Self::Unsupported(what) => write!(f, "the emulator does not support this: {what}"),
            Self::Host(what) => f.write_str(what),
        }
    }
}
