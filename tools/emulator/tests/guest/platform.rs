//! Small guests, assembled here, that do one thing each: what the platform answers, or how it ends them. Expected values are those of
//! the TDX module and of mainline KVM and QEMU (`tdx.md`), not of this crate's constants.

use crate::calls::{PENDING, SHARED, SHARED_BIT, host_call, leaf};
use crate::common::{self, Machine, Part};
use emulator::event::Death;
use emulator::td::{End, HostStack, Sept};
use iced_x86::code_asm::*;

/// Runs `body` in 64-bit mode on the boot processor; what it leaves in R12.
fn code(body: impl Fn(&mut CodeAssembler) -> Part) -> u64 {
    Machine::default().result(body)
}

fn death(body: impl Fn(&mut CodeAssembler) -> Part) -> Death {
    match Machine::default().run(body) {
        End::Killed { death, .. } => death,
        end => panic!("{end:?}"),
    }
}

#[test]
fn leaves_answer_with_the_modules_status_words() {
    let misaligned = PENDING + 0x1000 + 1;
    let table = [
        ("VP.INFO", leaf(1, 0, 0), 0),
        ("PAGE.ACCEPT, 4 KiB", leaf(6, PENDING, 0), 0),
        (
            "PAGE.ACCEPT, 2 MiB",
            leaf(6, PENDING | 1, 0),
            0xc000_0b0b_0000_0000,
        ),
        ("PAGE.ACCEPT, 1 GiB", leaf(6, 2, 0), 0xc000_0100_0000_0001),
        (
            "PAGE.ACCEPT, misaligned",
            leaf(6, misaligned, 0),
            0xc000_0100_0000_0001,
        ),
        (
            "PAGE.ACCEPT, shared",
            leaf(6, SHARED_BIT, 0),
            0xc000_0100_0000_0001,
        ),
        (
            "PAGE.ACCEPT, the hand-off block",
            leaf(6, 0x80_0000, 0),
            0x0000_0b0a_0000_0000,
        ),
        ("VEINFO.GET", leaf(3, 0, 0), 0xc000_0704_0000_0000),
        (
            "RTMR.EXTEND, index 4",
            leaf(2, 0x80_0000, 4),
            0xc000_0100_0000_0002,
        ),
        (
            "RTMR.EXTEND, misaligned",
            leaf(2, 0x80_0020, 2),
            0xc000_0100_0000_0001,
        ),
        ("RTMR.EXTEND", leaf(2, 0x80_0000, 3), 0),
        (
            "MR.REPORT, misaligned",
            leaf(4, 0x80_0200, 0x80_0000),
            0xc000_0100_0000_0001,
        ),
        (
            "MR.REPORT, misaligned data",
            leaf(4, 0x80_0000, 0x80_0401),
            0xc000_0100_0000_0002,
        ),
        ("MR.REPORT", leaf(4, 0x80_0000, 0x80_0400), 0),
        ("VM.RD, no field", leaf(7, 0, 1), 0xc000_0c00_0000_0000),
        (
            "VM.RD, of another TD",
            leaf(7, 1, 0x1110_0003_0000_0017),
            0xc000_0100_0000_0001,
        ),
        ("VP.RD", leaf(9, 0, 1), 0xc000_0c00_0000_0000),
        (
            "SYS.RD, TDX_FEATURES0",
            leaf(11, 0, 0x0a00_0003_0000_0008),
            0,
        ),
        ("SYS.RD, no field", leaf(11, 0, 1), 0xc000_0c00_0000_0000),
        (
            "MR.VERIFYREPORT, misaligned",
            leaf(22, 0x80_0080, 0),
            0xc000_0100_0000_0001,
        ),
        (
            "MR.VERIFYREPORT, of nobody",
            leaf(22, 0x80_0100, 0),
            0xc000_1001_0000_0000,
        ),
        (
            "a leaf of a later version",
            leaf(1 << 16 | 1, 0, 0),
            0xc000_0100_0000_0000,
        ),
        ("VM.RD, TD_CTLS", leaf(7, 0, 0x1110_0003_0000_0017), 0),
        ("no leaf", leaf(99, 0, 0), 0xc000_0100_0000_0000),
    ];
    for (name, body, expected) in table {
        assert_eq!(code(body), expected, "{name}");
    }
}

#[test]
fn large_pages_can_be_accepted_where_the_host_maps_them() {
    let machine = Machine {
        sept: Sept::Large,
        ..Machine::default()
    };
    assert_eq!(machine.result(leaf(6, PENDING | 1, 0)), 0);
    let mixed = |asm: &mut CodeAssembler| {
        leaf(6, PENDING, 0)(asm)?;
        leaf(6, PENDING | 1, 0)(asm)
    };
    assert_eq!(machine.result(mixed), 0xc000_0b0b_0000_0000);
}

#[test]
fn the_host_answers_as_kvm_and_qemu_do() {
    let io = |size, direction, port| [size, direction, port, 0];
    let table = [
        ("IO", host_call(30, io(1, 0, 0x3fd)), 0),
        ("IO, 8 bytes", host_call(30, io(8, 0, 0x3fd)), 1 << 63),
        ("IO, no direction", host_call(30, io(1, 2, 0x3fd)), 1 << 63),
        (
            "MMIO without the shared bit",
            host_call(48, io(4, 0, 0xe000_0000)),
            1 << 63,
        ),
        ("MMIO", host_call(48, io(4, 0, SHARED_BIT | 0xe000_0000)), 0),
        ("RDMSR, unknown", host_call(31, [0xdead, 0, 0, 0]), 1 << 63),
        ("RDMSR, APIC_BASE", host_call(31, [0x1b, 0, 0, 0]), 0),
        ("GetTdVmCallInfo", host_call(0x1_0000, [0; 4]), 0),
        (
            "MapGPA, misaligned",
            host_call(0x1_0001, [SHARED_BIT | 1, 4096, 0, 0]),
            1 << 63 | 2,
        ),
        (
            "MapGPA, nothing",
            host_call(0x1_0001, [SHARED_BIT, 0, 0, 0]),
            1 << 63,
        ),
        (
            "MapGPA",
            host_call(0x1_0001, [SHARED_BIT | PENDING, 4096, 0, 0]),
            0,
        ),
        (
            "GetQuote, private",
            host_call(0x1_0002, [0x80_0000, 4096, 0, 0]),
            1 << 63,
        ),
        (
            "GetQuote, not converted",
            host_call(0x1_0002, [SHARED_BIT, 4096, 0, 0]),
            1 << 63,
        ),
        (
            "SetupEventNotifyInterrupt, 31",
            host_call(0x1_0004, [31, 0, 0, 0]),
            1 << 63,
        ),
        (
            "SetupEventNotifyInterrupt, 32",
            host_call(0x1_0004, [32, 0, 0, 0]),
            0,
        ),
        ("no call", host_call(0x77, [0; 4]), 1 << 63 | 3),
    ];
    for (name, body, expected) in table {
        assert_eq!(code(body), expected, "{name}");
    }
}

#[test]
fn mainline_hosts_never_see_rbp() {
    let body = |asm: &mut CodeAssembler| {
        asm.xor(eax, eax)?;
        asm.mov(rcx, 0xfc20_u64)?;
        asm.xor(r10d, r10d)?;
        asm.mov(r11, 0x1_0000_u64)?;
        asm.xor(r12d, r12d)?;
        asm.tdcall()?;
        asm.mov(r12, rax)
    };
    assert_eq!(code(body), 0xc000_0100_0000_0001);
    let old = Machine {
        host: HostStack::OutOfTree,
        ..Machine::default()
    };
    assert_eq!(old.result(body), 0);
}

#[test]
fn what_ends_a_td_ends_it_with_the_rule() {
    let touch = |address: u64| {
        move |asm: &mut CodeAssembler| {
            asm.mov(rax, address)?;
            asm.mov(rbx, qword_ptr(rax))
        }
    };
    let fetch = |address: u64| {
        move |asm: &mut CodeAssembler| {
            host_call(0x1_0001, [SHARED_BIT | PENDING, 4096, 0, 0])(asm)?;
            asm.mov(rax, address)?;
            asm.jmp(rax)
        }
    };
    assert_eq!(death(touch(PENDING)).name(), "unaccepted-memory");
    assert_eq!(death(touch(0x3000_0000)).name(), "no-private-memory");
    assert_eq!(death(touch(SHARED)).name(), "not-shared");
    assert_eq!(death(fetch(SHARED)).name(), "shared-execution");
    let accept_shared = |asm: &mut CodeAssembler| {
        host_call(0x1_0001, [SHARED_BIT | PENDING, 4096, 0, 0])(asm)?;
        leaf(6, PENDING, 0)(asm)
    };
    assert_eq!(death(accept_shared).name(), "forbidden");
    let shared_tables = |asm: &mut CodeAssembler| {
        asm.mov(rax, SHARED_BIT | 0x1000)?;
        asm.mov(cr3, rax)
    };
    assert_eq!(death(shared_tables).name(), "shared-page-tables");
    let rule = death(touch(PENDING)).to_string();
    assert!(rule.contains("SEPT_VE_DISABLE"), "{rule}");
    // Not mapped, and no handler for it.
    assert_eq!(death(touch(0x1_0000_0000)).name(), "triple-fault");
    // A virtualization exception, and no handler for it.
    assert_eq!(death(|asm| asm.hlt()).name(), "triple-fault");
    let out = |asm: &mut CodeAssembler| {
        asm.mov(dx, 0x3f8)?;
        asm.out(dx, al)
    };
    assert_eq!(death(out).name(), "triple-fault");
}

#[test]
fn shared_and_private_memory_are_different_bytes() {
    let body = |asm: &mut CodeAssembler| {
        leaf(6, PENDING, 0)(asm)?;
        asm.mov(rbx, PENDING)?;
        asm.mov(dword_ptr(rbx), 0x1111)?;
        host_call(0x1_0001, [SHARED_BIT | PENDING, 4096, 0, 0])(asm)?;
        asm.mov(rbx, SHARED)?;
        // Nothing of the private page is there; what is written stays.
        asm.mov(r12d, dword_ptr(rbx))?;
        asm.mov(dword_ptr(rbx), 0x2222)?;
        asm.add(r12d, dword_ptr(rbx))
    };
    assert_eq!(code(body), 0x2222);
    // Back to private: to be accepted again, and zero.
    let back = |asm: &mut CodeAssembler| {
        body(asm)?;
        host_call(0x1_0001, [PENDING, 4096, 0, 0])(asm)?;
        leaf(6, PENDING, 0)(asm)?;
        asm.mov(rbx, PENDING)?;
        asm.mov(r12d, dword_ptr(rbx))
    };
    assert_eq!(code(back), 0);
}

#[test]
fn sensitive_instructions_see_ring_0() {
    let flags = |asm: &mut CodeAssembler| {
        asm.mov(rsp, 0x80_1000_u64)?;
        asm.cli()?;
        asm.pushfq()?;
        asm.pop(r12)?;
        asm.and(r12d, 0x200)
    };
    assert_eq!(code(flags), 0);
    let enabled = |asm: &mut CodeAssembler| {
        asm.mov(rsp, 0x80_1000_u64)?;
        asm.sti()?;
        asm.pushfq()?;
        asm.pop(r12)?;
        asm.cli()?;
        asm.and(r12d, 0x200)
    };
    assert_eq!(code(enabled), 0x200);
    let segment = |asm: &mut CodeAssembler| asm.mov(r12d, cs);
    assert_eq!(code(segment), 8);
    let descriptors = |asm: &mut CodeAssembler| {
        asm.mov(rbx, 0x80_0000_u64)?;
        asm.sgdt(fword_ptr(rbx))?;
        asm.movzx(r12d, word_ptr(rbx))
    };
    assert_eq!(code(descriptors), 15);
    let name = |asm: &mut CodeAssembler| {
        asm.mov(eax, 0x21)?;
        asm.xor(ecx, ecx)?;
        asm.cpuid()?;
        asm.mov(r12d, ebx)
    };
    assert_eq!(code(name), u64::from(u32::from_le_bytes(*b"Inte")));
}

#[test]
fn every_processor_starts_at_the_reset_vector() {
    for cpus in [1, 2, 4] {
        let machine = Machine {
            cpus,
            ..Machine::default()
        };
        let result = machine.result(|asm| {
            let mut wait = asm.create_label();
            asm.mov(rbx, common::COUNTER)?;
            asm.set_label(&mut wait)?;
            asm.pause()?;
            asm.mov(r12d, dword_ptr(rbx))?;
            asm.cmp(r12d, cpus as i32)?;
            asm.jb(wait)
        });
        assert_eq!(result, u64::from(cpus));
    }
}

#[test]
fn strict_machines_end_at_the_first_virtualization_exception() {
    let machine = Machine {
        strict: true,
        ..Machine::default()
    };
    let out = |asm: &mut CodeAssembler| {
        asm.mov(dx, 0x3f8)?;
        asm.out(dx, al)
    };
    let (name, reason) = match machine.run(out) {
        End::Killed { death, .. } => (death.name(), death.to_string()),
        end => panic!("{end:?}"),
    };
    assert_eq!(name, "virtualization-exception");
    assert!(reason.contains("exit reason 30"), "{reason}");
    // What the TDX module answers by itself raises none.
    assert_eq!(machine.result(leaf(1, 0, 0)), 0);
}

#[test]
fn every_exit_has_a_line_in_the_trace() {
    const TIMES: u64 = 10;
    type Body = fn(&mut CodeAssembler) -> Part;
    let table: [(&str, &str, Body); 6] = [
        ("a leaf", "TDCALL VP.INFO", |asm| leaf(1, 0, 0)(asm)),
        ("a host call", "TDVMCALL IO", |asm| {
            host_call(30, [1, 0, 0x3fd, 0])(asm)
        }),
        ("an MSR", "rdmsr", |asm| {
            asm.mov(ecx, 0xc000_0080_u32)?;
            asm.rdmsr()
        }),
        ("a patched instruction", "pushfq", |asm| {
            asm.mov(rsp, 0x80_1000_u64)?;
            asm.pushfq()
        }),
        ("a control register", "mov rax,cr0", |asm| asm.mov(rax, cr0)),
        ("a translation", "map ", |asm| {
            asm.mov(rbx, 0x80_0000_u64)?;
            asm.invlpg(byte_ptr(rbx))?;
            asm.mov(rax, qword_ptr(rbx))
        }),
    ];
    for (name, words, body) in table {
        let seen = |times: u64| {
            let seen = Machine::default().watch(|asm| (0..times).try_for_each(|_| body(asm)));
            assert!(
                matches!(seen.end, End::FatalError { .. }),
                "{name}: {:?}",
                seen.end
            );
            let told = seen.trace.iter().filter(|line| line.contains(words));
            (seen.exits, told.count() as u64, seen.trace.len() as u64)
        };
        let ((few, told_few, lines_few), (many, told_many, lines_many)) = (seen(0), seen(TIMES));
        let (exits, lines) = (many - few, lines_many - lines_few);
        assert!(
            exits >= TIMES && lines >= exits,
            "{name}: {lines} lines, {exits} exits"
        );
        assert!(told_many - told_few >= TIMES, "{name}: {words}");
    }
}

#[test]
fn a_fault_is_told_with_registers_and_instruction() {
    let seen = Machine::default().watch(|asm| {
        asm.mov(r15, 0x1234_5678_9abc_def0_u64)?;
        asm.ud2()
    });
    for part in [
        "#UD for the TD's own handler",
        ": ud2",
        "r15 123456789abcdef0",
        "cr0 ",
        "the TD ends (triple-fault)",
        "the processor shuts down",
    ] {
        assert!(seen.notes.contains(part), "{part:?} in {}", seen.notes);
    }
}
