//! Calls that the TDX module answers (TDG.*). What they say is as trustworthy as the processor.
//!
//! Operands that are addresses are given as references: private memory is mapped where it is, so a virtual address is the guest-physical one
//! (the promise behind `Hardware::new`).

use core::fmt;

use crate::address::{LARGE_PAGE, PAGE};
use crate::call::{LeafRegisters, Tdcall};
use crate::report::{Attributes, ReportData, TdReport};
use crate::status::{Error, Status, Success};

/// TDG.VP.INFO.
pub const VP_INFO: u64 = 1;
/// TDG.MR.RTMR.EXTEND.
pub const RTMR_EXTEND: u64 = 2;
/// TDG.VP.VEINFO.GET.
pub const VE_INFO_GET: u64 = 3;
/// TDG.MR.REPORT.
pub const REPORT: u64 = 4;
/// TDG.MEM.PAGE.ACCEPT.
pub const PAGE_ACCEPT: u64 = 6;

/// How often a call that the module calls recoverable is made before it is given up: another CPU or the host holds a lock for microseconds.
const TRIES: u32 = 100_000;

/// What the module says about this virtual CPU and its TD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VpInfo {
    /// Width of guest-physical addresses in bits; see [`AddressWidth`](crate::address::AddressWidth).
    pub address_bits: u64,
    /// The TD's attributes.
    pub attributes: Attributes,
    /// Virtual CPUs that were initialised. The host need not run them.
    pub vcpus: u32,
    /// Virtual CPUs there can be.
    pub max_vcpus: u32,
    /// The index of this one, from 0.
    pub index: u32,
}

/// TDG.VP.INFO: this virtual CPU and its TD.
///
/// # Errors
/// [`Error`], which the module has no reason to give.
pub fn vp_info(tdcall: &impl Tdcall) -> Result<VpInfo, Error> {
    // SAFETY: the leaf reads and writes no memory.
    let registers = unsafe { call(tdcall, VP_INFO, LeafRegisters::default()) }?;
    Ok(VpInfo {
        address_bits: registers.rcx & 0x3f,
        attributes: Attributes(registers.rdx),
        vcpus: registers.r8 as u32,
        max_vcpus: (registers.r8 >> 32) as u32,
        index: registers.r9 as u32,
    })
}

/// One of the four runtime-extendable measurement registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Rtmr {
    /// RTMR\[0\].
    Rtmr0 = 0,
    /// RTMR\[1\].
    Rtmr1 = 1,
    /// RTMR\[2\].
    Rtmr2 = 2,
    /// RTMR\[3\].
    Rtmr3 = 3,
}

/// A SHA-384 digest, aligned as the module wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Digest(pub [u8; 48]);

/// TDG.MR.RTMR.EXTEND: the register becomes SHA-384(register ‖ digest).
///
/// # Errors
/// [`Error`]; the register is unchanged then.
pub fn extend_rtmr(tdcall: &impl Tdcall, register: Rtmr, digest: &Digest) -> Result<(), Error> {
    let operands = LeafRegisters {
        rcx: address_of(digest),
        rdx: register as u64,
        ..LeafRegisters::default()
    };
    // SAFETY: the leaf reads the digest, which is aligned.
    unsafe { call(tdcall, RTMR_EXTEND, operands) }.map(drop)
}

/// Why a virtualization exception was raised. From the module, so the addresses are not the host's invention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VeInfo {
    /// The exit reason of the instruction or access (VMX numbering).
    pub reason: u32,
    /// Its qualification.
    pub qualification: u64,
    /// The linear address of an access.
    pub linear_address: u64,
    /// The guest-physical address of an access.
    pub physical_address: u64,
}

/// TDG.VP.VEINFO.GET: takes the information on the last virtualization exception. Another exception before that is a double fault.
///
/// # Errors
/// [`Error::NoValidVeInfo`] if there is none.
pub fn ve_info(tdcall: &impl Tdcall) -> Result<VeInfo, Error> {
    // SAFETY: the leaf reads and writes no memory.
    let registers = unsafe { call(tdcall, VE_INFO_GET, LeafRegisters::default()) }?;
    Ok(VeInfo {
        reason: registers.rcx as u32,
        qualification: registers.rdx,
        linear_address: registers.r8,
        physical_address: registers.r9,
    })
}

/// TDG.MR.REPORT: a report on this TD as it is now that carries `data`.
///
/// # Errors
/// [`Error`], which the module has no reason to give.
pub fn report(tdcall: &impl Tdcall, data: &ReportData) -> Result<TdReport, Error> {
    let mut report = TdReport::zeroed();
    let operands = LeafRegisters {
        rcx: (&raw mut report).expose_provenance() as u64,
        rdx: address_of(data),
        ..LeafRegisters::default()
    };
    // SAFETY: the leaf reads the data and writes the report, both aligned; any bytes are a report.
    unsafe { call(tdcall, REPORT, operands) }?;
    Ok(report)
}

/// The size of a page to accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum PageSize {
    /// 4 KiB.
    Small = 0,
    /// 2 MiB.
    Large = 1,
}

impl PageSize {
    /// In bytes.
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Small => PAGE,
            Self::Large => LARGE_PAGE,
        }
    }
}

/// A page was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptError {
    /// The host mapped smaller or larger pages there: try the other size.
    SizeMismatch,
    /// It had been accepted before. Its contents were not cleared: somebody else counts on them, or this program lost count.
    AlreadyAccepted,
    /// The module refused.
    Module(Error),
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SizeMismatch => Error::PageSizeMismatch.fmt(f),
            Self::AlreadyAccepted => f.write_str("the page had been accepted before"),
            Self::Module(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for AcceptError {}

/// TDG.MEM.PAGE.ACCEPT: makes the page at `address`, aligned to its size, private memory of this TD. It comes zeroed.
///
/// # Errors
/// [`AcceptError`]; then the page must not be touched.
///
/// # Safety
/// Nothing may rely on what is in the page.
pub unsafe fn accept_page(
    tdcall: &impl Tdcall,
    address: u64,
    size: PageSize,
) -> Result<(), AcceptError> {
    let operands = LeafRegisters {
        rcx: address | size as u64,
        ..LeafRegisters::default()
    };
    // SAFETY: the leaf zeroes the page, on which nothing relies by the caller's promise.
    match unsafe { complete(tdcall, PAGE_ACCEPT, operands) }.1 {
        Ok(Success::Done) => Ok(()),
        Ok(Success::AlreadyAccepted { .. }) => Err(AcceptError::AlreadyAccepted),
        Ok(Success::Information(code)) => Err(AcceptError::Module(Error::Other(code))),
        Err(Error::PageSizeMismatch) => Err(AcceptError::SizeMismatch),
        Err(error) => Err(AcceptError::Module(error)),
    }
}

/// A call that has nothing to add to its success.
///
/// # Safety
/// As for [`Tdcall::module`].
unsafe fn call(
    tdcall: &impl Tdcall,
    leaf: u64,
    operands: LeafRegisters,
) -> Result<LeafRegisters, Error> {
    // SAFETY: passed on from the caller.
    let (registers, outcome) = unsafe { complete(tdcall, leaf, operands) };
    outcome.map(|_| registers)
}

/// Calls until the module is done with it, at most [`TRIES`] times.
///
/// # Safety
/// As for [`Tdcall::module`].
unsafe fn complete(
    tdcall: &impl Tdcall,
    leaf: u64,
    operands: LeafRegisters,
) -> (LeafRegisters, Result<Success, Error>) {
    let operands = LeafRegisters {
        rax: leaf,
        ..operands
    };
    let once = || {
        // SAFETY: passed on from the caller.
        let registers = unsafe { tdcall.module(operands) };
        (registers, Status(registers.rax).decode())
    };
    let mut last = once();
    for _ in 1..TRIES {
        if !matches!(last.1, Err(Error::OperandBusy | Error::Recoverable(_))) {
            break;
        }
        core::hint::spin_loop();
        last = once();
    }
    last
}

fn address_of<T>(operand: &T) -> u64 {
    core::ptr::from_ref(operand).expose_provenance() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Call, Fake};
    use std::vec::Vec;

    const BUSY: u64 = 0x8000_0200_0000_0000;

    fn operands(fake: &Fake) -> Vec<LeafRegisters> {
        fake.calls()
            .iter()
            .map(|call| match call {
                Call::Module(registers) => *registers,
                Call::Host(_) => panic!("a call to the host"),
            })
            .collect()
    }

    #[test]
    fn information_on_a_cpu_is_taken_apart() {
        let fake = Fake::module(LeafRegisters {
            rcx: 0xffff_ffff_ffff_ffc0 | 52,
            rdx: 1 << 28 | 1 << 63,
            r8: 16 << 32 | 4,
            r9: 0xffff_ffff_0000_0003,
            r10: 1,
            ..LeafRegisters::default()
        });
        let info = vp_info(&fake).expect("a success");
        assert_eq!(
            info,
            VpInfo {
                address_bits: 52,
                attributes: Attributes(1 << 28 | 1 << 63),
                vcpus: 4,
                max_vcpus: 16,
                index: 3
            }
        );
        let call = LeafRegisters {
            rax: 1,
            ..LeafRegisters::default()
        };
        assert_eq!(operands(&fake), [call]);
    }

    #[test]
    fn registers_are_extended_with_an_aligned_digest() {
        let digest = Digest([7; 48]);
        for (register, index) in [
            (Rtmr::Rtmr0, 0),
            (Rtmr::Rtmr1, 1),
            (Rtmr::Rtmr2, 2),
            (Rtmr::Rtmr3, 3),
        ] {
            let fake = Fake::module(LeafRegisters::default());
            extend_rtmr(&fake, register, &digest).expect("a success");
            let [call] = operands(&fake)[..] else {
                panic!("one call")
            };
            let expected = LeafRegisters {
                rax: 2,
                rcx: address_of(&digest),
                rdx: index,
                ..LeafRegisters::default()
            };
            assert_eq!(call, expected);
            assert_eq!(call.rcx % 64, 0);
        }
        let invalid = LeafRegisters {
            rax: 0xc000_0100_0000_0002,
            ..LeafRegisters::default()
        };
        assert_eq!(
            extend_rtmr(&Fake::module(invalid), Rtmr::Rtmr0, &digest),
            Err(Error::OperandInvalid { operand: 2 })
        );
    }

    #[test]
    fn reports_are_written_to_aligned_memory() {
        let fake = Fake::new(|call| {
            let Call::Module(registers) = call else {
                panic!("a call to the host")
            };
            assert_eq!((registers.rax, registers.r8), (4, 0));
            assert_eq!((registers.rcx % 1024, registers.rdx % 64), (0, 0));
            let report: *mut [u8; 1024] =
                core::ptr::with_exposed_provenance_mut(registers.rcx as usize);
            let data: *const [u8; 64] = core::ptr::with_exposed_provenance(registers.rdx as usize);
            // SAFETY: `report` and `data` are what `report` below passes.
            unsafe { report.byte_add(128).cast::<[u8; 64]>().write(*data) }
            registers.rax = 0;
            Status(0)
        });
        let report = report(&fake, &ReportData([9; 64])).expect("a success");
        assert_eq!(report.mac.report_data, [9; 64]);
    }

    #[test]
    fn exceptions_are_explained() {
        let fake = Fake::module(LeafRegisters {
            rcx: 30,
            rdx: 0x3f8_0008,
            r8: 1,
            r9: 2,
            r10: 3,
            ..LeafRegisters::default()
        });
        let info = ve_info(&fake).expect("a success");
        assert_eq!((info.reason, info.qualification), (30, 0x3f8_0008));
        assert_eq!((info.linear_address, info.physical_address), (1, 2));
        let none = Fake::module(LeafRegisters {
            rax: 0xc000_0704_0000_0000,
            ..LeafRegisters::default()
        });
        assert_eq!(ve_info(&none), Err(Error::NoValidVeInfo));
        let calls: Vec<u64> = operands(&none).iter().map(|call| call.rax).collect();
        assert_eq!(calls, [3]);
    }

    #[test]
    fn acceptance_has_one_good_outcome() {
        for (status, outcome) in [
            (0, Ok(())),
            (0x0000_0b0a_0000_0000, Err(AcceptError::AlreadyAccepted)),
            (0x0000_0b0a_0000_0001, Err(AcceptError::AlreadyAccepted)),
            (0xc000_0b0b_0000_0000, Err(AcceptError::SizeMismatch)),
            (
                0x0000_0a03_0000_0000,
                Err(AcceptError::Module(Error::Other(0xa03))),
            ),
            (BUSY, Err(AcceptError::Module(Error::OperandBusy))),
            (
                0xc000_0100_0000_0001,
                Err(AcceptError::Module(Error::OperandInvalid { operand: 1 })),
            ),
            (
                0x8000_0003_0000_0000,
                Err(AcceptError::Module(Error::Recoverable(0x8000_0003))),
            ),
            (
                0x6000_0002_0000_0000,
                Err(AcceptError::Module(Error::Other(0x6000_0002))),
            ),
        ] {
            let fake = Fake::module(LeafRegisters {
                rax: status,
                ..LeafRegisters::default()
            });
            // SAFETY: no memory is touched.
            let accepted = unsafe { accept_page(&fake, 0x20_0000, PageSize::Large) };
            assert_eq!(accepted, outcome);
            let call = operands(&fake)[0];
            assert_eq!((call.rax, call.rcx), (6, 0x20_0001));
            // SAFETY: no memory is touched.
            let accepted = unsafe { accept_page(&fake, 0x20_1000, PageSize::Small) };
            assert_eq!(accepted, outcome);
            let call = operands(&fake).pop().expect("a call");
            assert_eq!((call.rax, call.rcx), (6, 0x20_1000));
        }
    }

    #[test]
    fn a_busy_module_is_asked_again_but_not_for_ever() {
        let mut answers = [BUSY, 0x8000_0204_0000_0000, 0].into_iter();
        let fake = Fake::new(move |call| {
            if let Call::Module(registers) = call {
                registers.rax = answers.next().expect("no further call");
            }
            Status(0)
        });
        // SAFETY: no memory is touched.
        let accepted = unsafe { accept_page(&fake, 0x1000, PageSize::Small) };
        assert_eq!(accepted, Ok(()));
        assert_eq!(fake.calls().len(), 3);
        assert!(fake.calls().iter().all(|call| *call == fake.calls()[0]));

        let stuck = Fake::module(LeafRegisters {
            rax: BUSY,
            ..LeafRegisters::default()
        });
        assert_eq!(vp_info(&stuck), Err(Error::OperandBusy));
        assert_eq!(stuck.calls().len(), TRIES as usize);
    }
}
