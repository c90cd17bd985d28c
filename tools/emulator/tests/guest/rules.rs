//! Rules that a TD meets when it does what it may not, each with the exception or the end that it gets (`tdx.md` 1.3 to 1.7), and what the
//! leaves of the TDX module and the calls to the host give.

use emulator::td::End;
use iced_x86::code_asm::*;

use crate::calls::{PENDING, SHARED_BIT, TABLE, handle, host_call, leaf};
use crate::common::{Machine, Part};

type Body = fn(&mut CodeAssembler) -> Part;

/// Writes to a control register after changing some of its bits.
macro_rules! change {
    ($register:ident, $set:expr, $clear:expr) => {
        |asm| {
            asm.mov(rcx, $register)?;
            asm.mov(rax, $set as u64)?;
            asm.or(rcx, rax)?;
            asm.mov(rax, !($clear as u64))?;
            asm.and(rcx, rax)?;
            asm.mov($register, rcx)
        }
    };
}

#[test]
fn what_a_td_may_not_do_raises_an_exception() {
    const GP: &str = "deliver #GP(0x0)";
    const UD: &str = "deliver #UD";
    let table: [(&str, Body, &str); 30] = [
        // Qualification: the register's number, and RCX as the source.
        (
            "CR0.NE clear",
            change!(cr0, 0, 1 << 5),
            "#VE reason 28 qualification 0x100 ",
        ),
        (
            "CR0.CD set",
            change!(cr0, 1 << 30, 0),
            "#VE reason 28 qualification 0x100 ",
        ),
        (
            "CR0.NW and CD set",
            change!(cr0, 3 << 29, 0),
            "#VE reason 28 qualification 0x100 ",
        ),
        ("CR0.NW set alone", change!(cr0, 1 << 29, 0), GP),
        ("CR0.PE clear with paging on", change!(cr0, 0, 1), GP),
        (
            "CR4.MCE clear",
            change!(cr4, 0, 1 << 6),
            "#VE reason 28 qualification 0x104 ",
        ),
        ("CR4.PAE clear in long mode", change!(cr4, 0, 1 << 5), GP),
        ("CR4.LA57", change!(cr4, 1 << 12, 0), GP),
        ("CR4.SMXE", change!(cr4, 1 << 14, 0), GP),
        ("CR4, a reserved bit", change!(cr4, 1 << 15, 0), GP),
        ("CR4.PCIDE", change!(cr4, 1 << 17, 0), GP),
        ("CR4.KL", change!(cr4, 1 << 19, 0), GP),
        ("CR4.PKE", change!(cr4, 1 << 22, 0), GP),
        ("CR4.CET", change!(cr4, 1 << 23, 0), GP),
        ("CR4.PKS", change!(cr4, 1 << 24, 0), GP),
        ("XSETBV without CR4.OSXSAVE", |asm| set_xcr0(asm, 3), UD),
        (
            "XSETBV outside XFAM",
            |asm| {
                asm.mov(rax, cr4)?;
                asm.or(rax, 1 << 18)?;
                asm.mov(cr4, rax)?;
                // Protection keys.
                set_xcr0(asm, 0x203)
            },
            GP,
        ),
        ("HLT", |asm| asm.hlt(), "#VE reason 12 "),
        ("INVD", |asm| asm.invd(), "#VE reason 13 "),
        ("WBINVD", |asm| asm.wbinvd(), "#VE reason 54 "),
        ("VMCALL", |asm| asm.vmcall(), "#VE reason 18 "),
        ("PCONFIG", |asm| asm.pconfig(), "#VE reason 65 "),
        ("MONITOR", |asm| asm.monitor(), "#VE reason 39 "),
        ("MWAIT", |asm| asm.mwait(), "#VE reason 36 "),
        // Qualification: one byte, to port 0x80 by an immediate.
        (
            "OUT",
            |asm| asm.out(0x80, al),
            "#VE reason 30 qualification 0x800040 ",
        ),
        (
            "CPUID of the host's",
            |asm| {
                asm.mov(eax, 2)?;
                asm.cpuid()
            },
            "#VE reason 10 ",
        ),
        (
            "RDMSR of the host's",
            |asm| {
                asm.mov(ecx, 0x1a0)?;
                asm.rdmsr()
            },
            "#VE reason 31 ",
        ),
        (
            "WRMSR of the host's",
            |asm| {
                asm.mov(ecx, 0x1a0)?;
                asm.wrmsr()
            },
            "#VE reason 32 ",
        ),
        ("VMMCALL", |asm| asm.vmmcall(), UD),
        (
            "#VE before the last one was read",
            |asm| {
                handle(asm, 20, |asm| asm.hlt())?;
                asm.hlt()
            },
            "deliver #DF(0x0)",
        ),
    ];
    for (name, body, words) in table {
        expect(name, &Machine::default().watch(body).trace, words);
    }
}

#[test]
fn what_a_td_may_not_do_in_32_bit_mode_raises_an_exception() {
    let table: [(&str, Body, &str); 2] = [
        ("TDCALL", |asm| asm.tdcall(), "deliver #GP(0x0)"),
        (
            "CR0.PE clear",
            |asm| {
                asm.mov(edx, cr0)?;
                asm.and(edx, !1)?;
                asm.mov(cr0, edx)
            },
            "#VE reason 28 qualification 0x200 ",
        ),
    ];
    for (name, body, words) in table {
        expect(name, &Machine::default().watch_32(body).trace, words);
    }
}

fn expect(name: &str, trace: &[String], words: &str) {
    assert!(
        trace.iter().any(|line| line.contains(words)),
        "{name}: no {words:?} in {:#?}",
        &trace[trace.len().saturating_sub(8)..]
    );
}

fn set_xcr0(asm: &mut CodeAssembler, value: u32) -> Part {
    asm.xor(ecx, ecx)?;
    asm.mov(eax, value)?;
    asm.xor(edx, edx)?;
    asm.xsetbv()
}

/// Changes the entry of the page tables for the 2 MiB at [`TABLE`], and has the processor check rights in ring 0 too.
fn map_with(asm: &mut CodeAssembler, entry: u64) -> Part {
    asm.mov(rax, cr0)?;
    asm.or(rax, 1 << 16)?;
    asm.mov(cr0, rax)?;
    asm.mov(rbx, cr3)?;
    asm.mov(rax, entry)?;
    // The tables of the first GiB are two pages behind the root.
    asm.mov(qword_ptr(rbx + 0x2000 + 8 * (TABLE >> 21) as i32), rax)?;
    asm.mov(rbx, TABLE)?;
    asm.invlpg(byte_ptr(rbx))
}

#[test]
fn pages_have_the_rights_that_the_guests_tables_give_them() {
    let table: [(&str, Body, &str); 3] = [
        (
            "a write to a read-only page",
            |asm| {
                map_with(asm, TABLE | 0x81)?;
                asm.mov(eax, dword_ptr(rbx))?;
                asm.mov(dword_ptr(rbx), eax)
            },
            "deliver #PF(0x3) at 0x800000",
        ),
        (
            "a fetch from a page without execution",
            |asm| {
                map_with(asm, 1 << 63 | TABLE | 0x83)?;
                asm.mov(dword_ptr(rbx), 0xc3)?;
                asm.jmp(rbx)
            },
            "deliver #PF(0x11) at 0x800000",
        ),
        (
            "a write to a page that is not there",
            |asm| {
                map_with(asm, 0)?;
                asm.mov(dword_ptr(rbx), eax)
            },
            "deliver #PF(0x2) at 0x800000",
        ),
    ];
    for (name, body, words) in table {
        expect(name, &Machine::default().watch(body).trace, words);
    }
}

/// PUSHF shows ring 3's interrupt flag where it is not patched.
#[test]
fn code_that_is_written_anew_is_searched_anew() {
    let times = 3;
    let body = |asm: &mut CodeAssembler| {
        asm.mov(rsp, 0x80_2000_u64)?;
        asm.cli()?;
        asm.mov(rbx, TABLE)?;
        asm.xor(r12d, r12d)?;
        for _ in 0..times {
            // mov eax, 1; ret
            asm.mov(rax, 0xc300_0000_01b8_u64)?;
            asm.mov(qword_ptr(rbx), rax)?;
            asm.call(rbx)?;
            asm.add(r12, rax)?;
            // pushfq; pop rax; ret
            asm.mov(rax, 0xc3_58_9c_u64)?;
            asm.mov(qword_ptr(rbx), rax)?;
            asm.call(rbx)?;
            asm.and(eax, 0x200)?;
            asm.add(r12, rax)?;
        }
        Ok(())
    };
    assert_eq!(Machine::default().result(body), times);
}

#[test]
fn code_can_write_to_its_own_page() {
    let body = |asm: &mut CodeAssembler| {
        asm.mov(rsp, 0x80_1800_u64)?;
        asm.mov(rbx, TABLE)?;
        // mov [rip + 0x79], eax; pushfq; pop rcx; ret. It writes 0x7f bytes behind its start.
        asm.mov(rax, 0x599c_0000_0079_0589_u64)?;
        asm.mov(qword_ptr(rbx), rax)?;
        asm.mov(dword_ptr(rbx + 8), 0xc3)?;
        asm.cli()?;
        asm.mov(eax, 0x77)?;
        asm.call(rbx)?;
        asm.and(ecx, 0x200)?;
        asm.mov(r12d, dword_ptr(rbx + 0x7f))?;
        asm.add(r12, rcx)
    };
    assert_eq!(Machine::default().result(body), 0x77);
}

#[test]
fn memory_that_is_not_measured_is_the_hosts() {
    let body = |asm: &mut CodeAssembler| {
        asm.mov(rbx, 0x80_1ff8_u64)?;
        asm.mov(r12, qword_ptr(rbx))
    };
    assert_eq!(Machine::default().result(body), 0xa5a5_a5a5_a5a5_a5a5);
}

#[test]
fn a_fatal_error_has_a_code_that_qemu_takes() {
    let code = |code| host_call(0x1_0003, [code, 0, 0, 0]);
    match Machine::default().run(code(0x11)) {
        End::Killed { death, .. } => assert_eq!(death.name(), "forbidden"),
        end => panic!("{end:?}"),
    }
    let end = Machine::default().run(code(0x11_0000));
    assert!(
        matches!(
            end,
            End::FatalError {
                code: 0x11_0000,
                ..
            }
        ),
        "{end:?}"
    );
}

/// What a leaf leaves in a register.
fn output(
    number: u64,
    rdx_value: u64,
    register: AsmRegister64,
) -> impl Fn(&mut CodeAssembler) -> Part {
    move |asm| {
        leaf(number, 0, rdx_value)(asm)?;
        asm.mov(r12, register)
    }
}

#[test]
fn leaves_put_their_answers_into_registers() {
    const TD_CTLS: u64 = 0x1110_0003_0000_0017;
    let table = [
        ("VP.INFO, GPAW", result(output(1, 0, rcx)), 48),
        ("VP.INFO, ATTRIBUTES", result(output(1, 0, rdx)), 1 << 28),
        ("VP.INFO, vCPUs", result(output(1, 0, r8)), 1 << 32 | 1),
        ("VP.INFO, index", result(output(1, 0, r9)), 0),
        ("VP.INFO, R11", result(output(1, 0, r11)), 0),
        ("VP.INFO, SYS.RD", result(output(1, 0, r10)), 1),
        ("VM.RD, TD_CTLS", result(output(7, TD_CTLS, r8)), 1),
        ("VM.WR, as it is", result(write_controls(1, 1)), 0),
        // FLEXIBLE_PENDING_VE is clear.
        (
            "VM.WR, PENDING_VE_DISABLE",
            result(write_controls(0, 1)),
            0xc000_0c03_0000_0000,
        ),
        (
            "VM.WR, ENUM_TOPOLOGY",
            result(write_controls(2, 2)),
            0xc000_0c03_0000_0000,
        ),
        ("VM.WR, LOCK", result(write_controls(1 << 63, 1 << 63)), 0),
        (
            "VM.WR, a bit that is not there",
            result(write_controls(4, 4)),
            0xc000_0c01_0000_0000,
        ),
        (
            "VM.WR, that bit and another",
            result(write_controls(5, 5)),
            0xc000_0c03_0000_0000,
        ),
    ];
    for (name, result, expected) in table {
        assert_eq!(result, expected, "{name}");
    }
}

fn result(body: impl Fn(&mut CodeAssembler) -> Part) -> u64 {
    Machine::default().result(body)
}

/// VM.WR of TD_CTLS.
fn write_controls(value: u64, mask: u64) -> impl Fn(&mut CodeAssembler) -> Part {
    const TD_CTLS: u64 = 0x1110_0003_0000_0017;
    move |asm| {
        asm.mov(rax, 8_u64)?;
        asm.xor(ecx, ecx)?;
        asm.mov(rdx, TD_CTLS)?;
        asm.mov(r8, value)?;
        asm.mov(r9, mask)?;
        asm.tdcall()?;
        asm.mov(r12, rax)
    }
}

#[test]
fn a_virtualization_exception_is_told_and_then_forgotten() {
    // IN from port 0x71, in the handler: reason, qualification, length, and the status of a second question.
    let ask = |register: AsmRegister64| {
        result(move |asm| {
            let mut end = asm.create_label();
            handle(asm, 20, |asm| {
                leaf(3, 0, 0)(asm)?;
                asm.mov(r12, register)?;
                asm.jmp(end)
            })?;
            asm.in_(al, 0x71)?;
            asm.set_label(&mut end)?;
            asm.nop()
        })
    };
    assert_eq!(ask(rcx), 30);
    assert_eq!(ask(rdx), 0x71 << 16 | 1 << 6 | 1 << 3);
    assert_eq!(ask(r8), 0);
    assert_eq!(ask(r9), 0);
    assert_eq!(ask(r10), 2);
    let twice = result(|asm| {
        let mut end = asm.create_label();
        handle(asm, 20, |asm| {
            leaf(3, 0, 0)(asm)?;
            leaf(3, 0, 0)(asm)?;
            asm.jmp(end)
        })?;
        asm.in_(al, 0x71)?;
        asm.set_label(&mut end)?;
        asm.nop()
    });
    assert_eq!(twice, 0xc000_0704_0000_0000);
}

#[test]
fn cpuid_raises_ve_where_the_td_asked_for_it() {
    let seen = Machine::default().watch(|asm| {
        leaf(5, 1, 0)(asm)?;
        asm.xor(eax, eax)?;
        asm.cpuid()
    });
    expect("CPUID 0", &seen.trace, "#VE reason 10 ");
}

/// SHA-384 of 48 zero bytes and 48 bytes 0xa5, from Python's hashlib.
#[test]
fn an_extended_register_has_the_value_of_the_specification() {
    let seen = Machine::default().watch(leaf(2, 0x80_1fc0, 3));
    assert_eq!(seen.result, Some(0));
    let hex = seen.rtmr[3].map(|byte| format!("{byte:02x}")).concat();
    assert_eq!(
        hex,
        "e5360717353c7a7249635daf802ddf92bf2a9241ed075763b9066deff7ff093afddfadb1014640a37a62bd822ab45acb"
    );
    assert_eq!(seen.rtmr[2], [0; 48]);
}

#[test]
fn a_report_of_this_platform_is_verified() {
    let body = |change: bool| {
        move |asm: &mut CodeAssembler| {
            leaf(4, TABLE, TABLE + 0x400)(asm)?;
            if change {
                // A byte of REPORTDATA.
                asm.mov(rbx, TABLE + 128)?;
                asm.inc(byte_ptr(rbx))?;
            }
            leaf(22, TABLE, 0)(asm)
        }
    };
    assert_eq!(result(body(false)), 0);
    assert_eq!(result(body(true)), 0xc000_1001_0000_0000);
}

#[test]
fn the_host_does_what_it_is_asked() {
    // A register behind a call.
    let after = |leaf, arguments, register: AsmRegister64| {
        result(move |asm| {
            host_call(leaf, arguments)(asm)?;
            asm.mov(r12, register)
        })
    };
    let kvm = u64::from(u32::from_le_bytes(*b"KVMK"));
    assert_eq!(after(10, [0x4000_0000, 0, 0, 0], r13), kvm);
    assert_eq!(after(31, [0x1b, 0, 0, 0], r11), 0xfee0_0d00);
    assert_eq!(result(host_call(32, [0x6e0, 0, 0, 0])), 0);
    assert_eq!(result(host_call(32, [0xdead, 0, 0, 0])), 1 << 63);
    let vendor = |asm: &mut CodeAssembler| {
        asm.xor(eax, eax)?;
        asm.mov(rcx, 0xfc00_u64)?;
        asm.mov(r10d, 7)?;
        asm.mov(r11, 12_u64)?;
        asm.tdcall()?;
        asm.mov(r12, r10)
    };
    assert_eq!(result(vendor), 1 << 63 | 3);
}

#[test]
fn a_quote_is_asked_for_in_shared_memory() {
    let buffer = SHARED_BIT | PENDING;
    let body = |asm: &mut CodeAssembler| {
        host_call(0x1_0001, [buffer, 0x2_0000, 0, 0])(asm)?;
        // Version 1, 1024 bytes of a report that is none: the call is taken, and the service refuses.
        asm.mov(rbx, 0x4000_0000 + PENDING)?;
        asm.mov(dword_ptr(rbx), 1)?;
        asm.mov(dword_ptr(rbx + 16), 1024)?;
        host_call(0x1_0002, [buffer, 0x2_0000, 0, 0])(asm)?;
        asm.mov(r9, r12)?;
        let mut wait = asm.create_label();
        asm.set_label(&mut wait)?;
        asm.pause()?;
        asm.mov(r12, qword_ptr(rbx + 8))?;
        asm.cmp(r12, -1)?;
        asm.je(wait)?;
        asm.or(r12, r9)
    };
    assert_eq!(result(body), 0x8000_0000_0000_0000);
}
