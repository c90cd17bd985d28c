//! `cargo xtask instructions`: every sensitive instruction in the image, and why each is safe in a trust domain
//! (`image/instructions.toml`).
//!
//! Sensitive is what a hypervisor, a TDX module or the TD emulator may answer differently from a processor: privileged instructions, those
//! that read or store system state without being privileged, and those that raise #VE or #GP in a TD. Both programs are decoded from one
//! symbol to the next, so that a label in assembly starts afresh. A site that is not listed fails, and so does a listed one that is gone. One rule
//! is checked beyond the list: interrupts are enabled right before a halt and nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use iced_x86::{Code as Opcode, Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use serde::Deserialize;

use crate::failure::{Context, Failure, Result, ensure};
use crate::image_step::Image;
use crate::symbols::Program;
use crate::workspace::Workspace;

/// `image/instructions.toml`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    /// Symbols, as "PROGRAM SYMBOL", whose code is not 64 bits wide; 0 for data among code.
    widths: BTreeMap<String, u32>,
    safe: Vec<Safe>,
}

/// Sites with one reason.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Safe {
    why: String,
    /// Each as "PROGRAM SYMBOL: INSTRUCTION".
    sites: Vec<String>,
}

/// Fails with every site that is not listed, every listed one that is not there, and every STI that is not right before a halt.
pub fn check(workspace: &Workspace, image: &Image) -> Result<()> {
    let list = read(workspace)?;
    let found = sites(image, &list)?;
    let mut listed = BTreeSet::new();
    for Safe { why, sites } in &list.safe {
        ensure!(
            !why.trim().is_empty(),
            "image/instructions.toml gives no reason for {sites:?}"
        );
        for site in sites {
            ensure!(
                listed.insert(site.clone()),
                "image/instructions.toml lists {site:?} twice"
            );
        }
    }
    let show = |sites: Vec<&String>| {
        sites
            .iter()
            .map(|site| format!("\n    {site:?},"))
            .collect::<String>()
    };
    let unlisted: Vec<_> = found.difference(&listed).collect();
    ensure!(
        unlisted.is_empty(),
        "image/instructions.toml does not say why these are safe in a trust domain:{}",
        show(unlisted)
    );
    let gone: Vec<_> = listed.difference(&found).collect();
    ensure!(
        gone.is_empty(),
        "image/instructions.toml lists what is no longer in the image:{}",
        show(gone)
    );
    Ok(())
}

/// Prints every site with its reason.
pub fn print(workspace: &Workspace, image: &Image) -> Result<()> {
    let list = read(workspace)?;
    for site in sites(image, &list)? {
        let safe = list.safe.iter().find(|safe| safe.sites.contains(&site));
        println!(
            "{site}\n    {}",
            safe.map_or("NOT LISTED", |safe| &safe.why)
        );
    }
    check(workspace, image)
}

fn read(workspace: &Workspace) -> Result<List> {
    let path = workspace.root.join("image/instructions.toml");
    let text = fs::read_to_string(&path).context(format!("read {}", path.display()))?;
    toml::from_str(&text).context(format!("understand {}", path.display()))
}

/// Every sensitive site of both programs.
fn sites(image: &Image, list: &List) -> Result<BTreeSet<String>> {
    let mut sites = BTreeSet::new();
    for (name, elf) in [
        ("loader", &image.assembly.loader),
        ("guest", &image.assembly.guest),
    ] {
        let program = Program::parse(elf)?;
        for code in program.code()? {
            let end = code.address + code.bytes.len() as u64;
            for (symbol, from, to) in ranges(&program, code.address, end) {
                let key = format!("{name} {symbol}");
                let width = list.widths.get(&key).copied().unwrap_or(64);
                if width == 0 {
                    continue;
                }
                ensure!(
                    [16, 32, 64].contains(&width),
                    "image/instructions.toml: code of {width} bits in {key:?}"
                );
                let bytes =
                    &code.bytes[(from - code.address) as usize..(to - code.address) as usize];
                for instruction in sensitive(bytes, from, width) {
                    sites.insert(format!("{key}: {instruction}"));
                }
                if let Some(address) = stray_interrupt_window(bytes, from, width) {
                    return Err(Failure::new(format!(
                        "{key} enables interrupts at {address:#x} before something that is no halt: one that comes there is lost"
                    )));
                }
            }
        }
    }
    Ok(sites)
}

/// The code between `start` and `end`, cut where a symbol begins: name, first address, address after the last.
fn ranges(program: &Program<'_>, start: u64, end: u64) -> Vec<(String, u64, u64)> {
    let inside = program
        .symbols()
        .iter()
        .filter(|symbol| (start..end).contains(&symbol.address));
    let mut cuts: Vec<(String, u64)> = inside
        .map(|symbol| (symbol.name.clone(), symbol.address))
        .collect();
    if cuts.first().is_none_or(|(_, address)| *address != start) {
        let name = program.at(start).map_or("start", |symbol| &symbol.name);
        cuts.insert(0, (name.to_owned(), start));
    }
    let ends: Vec<u64> = cuts
        .iter()
        .skip(1)
        .map(|(_, address)| *address)
        .chain([end])
        .collect();
    cuts.into_iter()
        .zip(ends)
        .map(|((name, from), to)| (name, from, to))
        .collect()
}

/// The sensitive instructions of a piece of code, each kind once, with its number if that is not one.
fn sensitive(bytes: &[u8], address: u64, width: u32) -> Vec<String> {
    let mut found = BTreeMap::<String, usize>::new();
    let decoder = Decoder::with_ip(width, bytes, address, DecoderOptions::NONE);
    for name in decoder
        .into_iter()
        .filter_map(|instruction| name(&instruction))
    {
        *found.entry(name).or_default() += 1;
    }
    let found = found.into_iter();
    found
        .map(|(name, count)| match count {
            1 => name,
            count => format!("{name} x{count}"),
        })
        .collect()
}

/// The first STI whose next instruction is neither HLT nor TDCALL. Behind STI the processor takes no interrupt for one instruction, so in front
/// of a halt it opens no window in which a wake-up could be taken and lost.
fn stray_interrupt_window(bytes: &[u8], address: u64, width: u32) -> Option<u64> {
    let decoder = Decoder::with_ip(width, bytes, address, DecoderOptions::NONE);
    let mut instructions = decoder.into_iter().peekable();
    while let Some(instruction) = instructions.next() {
        let halts =
            |next: &Instruction| matches!(next.mnemonic(), Mnemonic::Hlt | Mnemonic::Tdcall);
        if instruction.mnemonic() == Mnemonic::Sti && !instructions.peek().is_some_and(halts) {
            return Some(instruction.ip());
        }
    }
    None
}

/// What a sensitive instruction is called in the list; `None` for one that is the same everywhere.
fn name(instruction: &Instruction) -> Option<String> {
    use Mnemonic::*;
    let mnemonic = instruction.mnemonic();
    let plain = format!("{mnemonic:?}").to_uppercase();
    let registers = [0, 1].map(|operand| {
        let present = operand < instruction.op_count();
        let register = present && instruction.op_kind(operand) == OpKind::Register;
        match register {
            true => instruction.op_register(operand),
            false => Register::None,
        }
    });
    if matches!(mnemonic, Mov | Push | Pop) {
        let special = |register: Register| {
            register.is_segment_register() || register.is_cr() || register.is_dr()
        };
        return match registers {
            [to, _] if special(to) => Some(format!("{plain} {to:?}").to_uppercase()),
            [_, from] if special(from) => Some(format!("{plain} r,{from:?}").to_uppercase()),
            _ => None,
        };
    }
    let far = instruction.is_call_far()
        || instruction.is_call_far_indirect()
        || instruction.is_jmp_far()
        || instruction.is_jmp_far_indirect();
    let listed = matches!(
        mnemonic,
        INVALID
            | Cpuid
            | Xgetbv
            | Xsetbv
            | Rdrand
            | Rdseed
            | Rdtsc
            | Rdtscp
            | Rdpmc
            | Rdpid
            | Pushf
            | Pushfd
            | Pushfq
            | Popf
            | Popfd
            | Popfq
            | Sgdt
            | Sidt
            | Sldt
            | Str
            | Smsw
            | Lar
            | Lsl
            | Verr
            | Verw
            | Lds
            | Les
            | Lfs
            | Lgs
            | Lss
            | In
            | Out
            | Insb
            | Insw
            | Insd
            | Outsb
            | Outsw
            | Outsd
            | Cli
            | Sti
            | Int
            | Int1
            | Into
            | Iret
            | Iretd
            | Iretq
            | Retf
            | Syscall
            | Sysenter
            | Monitor
            | Mwait
            | Monitorx
            | Mwaitx
            | Umonitor
            | Umwait
            | Tpause
            | Rdfsbase
            | Rdgsbase
            | Wrfsbase
            | Wrgsbase
            | Vmcall
            | Vmmcall
            | Tdcall
            | Xbegin
            | Enclu
    );
    // The assembler's padding between functions.
    let padding = instruction.code() == Opcode::Int3;
    (!padding && (far || listed || instruction.is_privileged())).then_some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_enabled_right_before_a_halt_only() {
        let stray = |bytes: &[u8]| stray_interrupt_window(bytes, 0x1000, 64);
        assert_eq!(stray(&[0x90, 0xfb, 0xf4, 0xfa]), None);
        assert_eq!(stray(&[0xfb, 0x66, 0x0f, 0x01, 0xcc, 0xfa]), None);
        // With a NOP between; at the end of a symbol; one of two.
        assert_eq!(stray(&[0x90, 0xfb, 0x90, 0xf4]), Some(0x1001));
        assert_eq!(stray(&[0xfb]), Some(0x1000));
        assert_eq!(stray(&[0xfb, 0xf4, 0xfb, 0xfa]), Some(0x1002));
    }

    #[test]
    fn sensitive_instructions_are_found() {
        for (bytes, expected) in [
            (&[0x0f, 0xa2][..], "CPUID"),
            (&[0x0f, 0x01, 0xd0], "XGETBV"),
            (&[0x48, 0x0f, 0xc7, 0xf0], "RDRAND"),
            (&[0x9c], "PUSHFQ"),
            (&[0x9d], "POPFQ"),
            (&[0x0f, 0x01, 0x00], "SGDT"),
            (&[0x8c, 0xc8], "MOV R,CS"),
            (&[0x8e, 0xd8], "MOV DS"),
            (&[0x0f, 0x22, 0xd8], "MOV CR3"),
            (&[0x0f, 0x20, 0xc0], "MOV R,CR0"),
            (&[0xec], "IN"),
            (&[0xee], "OUT"),
            (&[0x0f, 0x32], "RDMSR"),
            (&[0x0f, 0x30], "WRMSR"),
            (&[0xf4], "HLT"),
            (&[0x66, 0x0f, 0x01, 0xcc], "TDCALL"),
            (&[0x48, 0xcf], "IRETQ"),
            (&[0x48, 0xcb], "RETF"),
            (&[0x0f, 0x01, 0x38], "INVLPG"),
            (&[0xcd, 0x80], "INT"),
            (&[0x06], "INVALID"),
            (&[0x0f, 0xa2, 0x90, 0x0f, 0xa2], "CPUID x2"),
        ] {
            assert_eq!(sensitive(bytes, 0x1000, 64), [expected], "{bytes:x?}");
        }
        assert_eq!(
            sensitive(&[0x66, 0xea, 0, 0, 0, 0, 8, 0], 0x1000, 16),
            ["JMP"]
        );
        // xor eax, eax; mov eax, ecx; call; ret; int3; ud2; mfence
        let plain = [
            0x31, 0xc0, 0x89, 0xc8, 0xe8, 0, 0, 0, 0, 0xc3, 0xcc, 0x0f, 0x0b, 0x0f, 0xae, 0xf0,
        ];
        assert!(sensitive(&plain, 0x1000, 64).is_empty());
    }
}
