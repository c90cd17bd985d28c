//! The state of one virtual CPU, as far as ring 0 sees it, and the state in which a TD starts.
//!
//! Vector and floating-point registers are not here: they stay in the tracee, where the guest's code runs.

/// Number of a general-purpose register in [`Registers::gpr`], as instructions encode it (SDM vol. 2D, B.1.4).
pub mod gpr {
    pub const RAX: usize = 0;
    pub const RCX: usize = 1;
    pub const RDX: usize = 2;
    pub const RBX: usize = 3;
    pub const RSP: usize = 4;
    pub const RBP: usize = 5;
    pub const RSI: usize = 6;
    pub const RDI: usize = 7;
    pub const R8: usize = 8;
    pub const R9: usize = 9;
    pub const R10: usize = 10;
    pub const R11: usize = 11;
    pub const R12: usize = 12;
    pub const R13: usize = 13;
    pub const R14: usize = 14;
    pub const R15: usize = 15;
}

/// Number of a segment register in [`Cpu::selectors`], as instructions encode it (SDM vol. 2D, B.1.4).
pub mod segment {
    pub const ES: usize = 0;
    pub const CS: usize = 1;
    pub const SS: usize = 2;
    pub const DS: usize = 3;
    pub const FS: usize = 4;
    pub const GS: usize = 5;
}

/// Bits of RFLAGS (SDM vol. 1, 3.4.3; vol. 3, 2.3).
pub mod flags {
    /// Always set.
    pub const FIXED: u64 = 1 << 1;
    pub const TRAP: u64 = 1 << 8;
    pub const INTERRUPT: u64 = 1 << 9;
    pub const DIRECTION: u64 = 1 << 10;
    pub const NESTED_TASK: u64 = 1 << 14;
    pub const RESUME: u64 = 1 << 16;
}

/// Bits of CR0 and CR4 (SDM vol. 3, 2.5) and of EFER (SDM vol. 3, 2.2.1).
pub mod control {
    pub const CR0_PE: u64 = 1 << 0;
    pub const CR0_MP: u64 = 1 << 1;
    pub const CR0_TS: u64 = 1 << 3;
    pub const CR0_ET: u64 = 1 << 4;
    pub const CR0_NE: u64 = 1 << 5;
    pub const CR0_WP: u64 = 1 << 16;
    pub const CR0_NW: u64 = 1 << 29;
    pub const CR0_CD: u64 = 1 << 30;
    pub const CR0_PG: u64 = 1 << 31;
    pub const CR4_PAE: u64 = 1 << 5;
    pub const CR4_MCE: u64 = 1 << 6;
    pub const CR4_PGE: u64 = 1 << 7;
    pub const CR4_LA57: u64 = 1 << 12;
    pub const CR4_VMXE: u64 = 1 << 13;
    pub const CR4_SMXE: u64 = 1 << 14;
    pub const CR4_PCIDE: u64 = 1 << 17;
    pub const CR4_OSXSAVE: u64 = 1 << 18;
    pub const CR4_KL: u64 = 1 << 19;
    pub const CR4_PKE: u64 = 1 << 22;
    pub const CR4_CET: u64 = 1 << 23;
    pub const CR4_PKS: u64 = 1 << 24;
    pub const EFER_SCE: u64 = 1 << 0;
    pub const EFER_LME: u64 = 1 << 8;
    pub const EFER_LMA: u64 = 1 << 10;
    pub const EFER_NXE: u64 = 1 << 11;
}

/// What the tracee holds while the guest runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub gpr: [u64; 16],
    pub rip: u64,
    /// RFLAGS; the interrupt flag is [`Cpu::interrupts`] instead.
    pub flags: u64,
    pub fs_base: u64,
    pub gs_base: u64,
}

/// GDTR or IDTR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DescriptorTable {
    pub base: u64,
    pub limit: u16,
}

/// What VP.VEINFO.GET tells about a virtualization exception.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VeInfo {
    /// VMX exit reason.
    pub reason: u32,
    pub qualification: u64,
    /// Guest-linear address.
    pub gla: u64,
    /// Guest-physical address.
    pub gpa: u64,
    /// Bytes of the instruction.
    pub length: u32,
}

/// One virtual CPU.
#[derive(Clone, Debug)]
pub struct Cpu {
    /// The vCPU index of VP.INFO, and the x2APIC identifier.
    pub index: u32,
    pub registers: Registers,
    /// ES, CS, SS, DS, FS, GS.
    pub selectors: [u16; 6],
    /// CS.L: 64-bit code, if EFER.LMA.
    pub code64: bool,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub efer: u64,
    pub xcr0: u64,
    pub gdtr: DescriptorTable,
    pub idtr: DescriptorTable,
    /// The task register's selector and the base of its segment.
    pub task: (u16, u64),
    pub kernel_gs_base: u64,
    /// RFLAGS.IF. The tracee runs with interrupts on whatever the guest thinks.
    pub interrupts: bool,
    /// The last instruction was an STI or a load of SS: no interrupt before the next one has completed.
    pub interrupt_shadow: bool,
    /// Debug registers 0 to 7; kept, without effect.
    pub debug: [u64; 8],
    /// MSRs that only keep their value.
    pub msrs: std::collections::BTreeMap<u32, u64>,
    /// CPUID raises a virtualization exception whatever its leaf (VP.CPUIDVE.SET).
    pub cpuid_ve: bool,
    /// Set while a virtualization exception waits to be read.
    pub ve: Option<VeInfo>,
}

/// The CPU's mode, which decides how instructions decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// 32-bit code, flat segments.
    Protected,
    /// 64-bit code.
    Long,
}

impl Mode {
    /// For the decoder.
    pub fn bits(self) -> u32 {
        match self {
            Self::Protected => 32,
            Self::Long => 64,
        }
    }
}

impl Cpu {
    /// A vCPU as the TDX module starts it (`td_vmcs_init.c`, `tdh_vp_init.c` of the module). `gpaw` is 48 or 52; `initial_rcx` is the VMM's word,
    /// with QEMU the address of the hand-off block; `signature` is CPUID(1).EAX.
    pub fn reset(index: u32, gpaw: u8, initial_rcx: u64, signature: u32) -> Self {
        let mut gpr = [0; 16];
        gpr[gpr::RBX] = u64::from(gpaw);
        gpr[gpr::RCX] = initial_rcx;
        gpr[gpr::R8] = initial_rcx;
        gpr[gpr::RDX] = u64::from(signature);
        gpr[gpr::RSI] = u64::from(index);
        // DR6 and DR7 as every processor starts with them (SDM vol. 3: processor state following reset), and as `tdx.md` 1.3 says.
        let mut debug = [0; 8];
        debug[6] = 0xffff_0ff0;
        debug[7] = 0x400;
        Self {
            index,
            registers: Registers {
                gpr,
                rip: 0xffff_fff0,
                flags: flags::FIXED,
                fs_base: 0,
                gs_base: 0,
            },
            selectors: [0; 6],
            code64: false,
            cr0: 0x21,
            cr2: 0,
            cr3: 0,
            cr4: 0x2040,
            efer: 0x901,
            xcr0: 1,
            gdtr: DescriptorTable {
                base: 0,
                limit: 0xffff,
            },
            idtr: DescriptorTable::default(),
            task: (0, 0),
            kernel_gs_base: 0,
            interrupts: false,
            interrupt_shadow: false,
            debug,
            msrs: std::collections::BTreeMap::new(),
            cpuid_ve: false,
            ve: None,
        }
    }

    /// The mode in which the next instruction decodes.
    pub fn mode(&self) -> Mode {
        if self.efer & control::EFER_LMA != 0 && self.code64 {
            Mode::Long
        } else {
            Mode::Protected
        }
    }

    /// Whether page tables are in use.
    pub fn paging(&self) -> bool {
        self.cr0 & control::CR0_PG != 0
    }

    /// RFLAGS with the guest's own interrupt flag.
    pub fn flags(&self) -> u64 {
        let flags = self.registers.flags & !(flags::INTERRUPT | flags::RESUME) | flags::FIXED;
        flags | if self.interrupts { flags::INTERRUPT } else { 0 }
    }

    /// Sets RFLAGS, as POPF and IRET in ring 0 do.
    pub fn set_flags(&mut self, value: u64) {
        /// CF, PF, AF, ZF, SF, DF, OF, NT, AC, ID (SDM vol. 1, 3.4.3): what a program can hold. TF is not supported.
        const KEPT: u64 = 0x24_4cd5;
        self.registers.flags = value & KEPT | flags::FIXED;
        self.interrupts = value & flags::INTERRUPT != 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every value of the reset state that a guest can see: name, expected, actual. From the TDX module's `td_vmcs_init.c`.
    #[test]
    fn a_vcpu_starts_as_the_module_starts_it() {
        let cpu = Cpu::reset(3, 48, 0x80_0000, 0x000c_06f2);
        let table = [
            ("RIP", 0xffff_fff0, cpu.registers.rip),
            ("RFLAGS", 2, cpu.flags()),
            ("RAX", 0, cpu.registers.gpr[gpr::RAX]),
            ("RBX (GPAW)", 48, cpu.registers.gpr[gpr::RBX]),
            ("RCX (host's word)", 0x80_0000, cpu.registers.gpr[gpr::RCX]),
            ("R8 (host's word)", 0x80_0000, cpu.registers.gpr[gpr::R8]),
            ("RDX (CPUID 1 EAX)", 0xc06f2, cpu.registers.gpr[gpr::RDX]),
            ("RSI (vCPU index)", 3, cpu.registers.gpr[gpr::RSI]),
            ("RDI", 0, cpu.registers.gpr[gpr::RDI]),
            ("RSP", 0, cpu.registers.gpr[gpr::RSP]),
            ("R15", 0, cpu.registers.gpr[gpr::R15]),
            ("CR0", 0x21, cpu.cr0),
            ("CR3", 0, cpu.cr3),
            ("CR4", 0x2040, cpu.cr4),
            ("EFER", 0x901, cpu.efer),
            ("XCR0", 1, cpu.xcr0),
            ("GDTR base", 0, cpu.gdtr.base),
            ("GDTR limit", 0xffff, u64::from(cpu.gdtr.limit)),
            ("IDTR limit", 0, u64::from(cpu.idtr.limit)),
            ("DR7", 0x400, cpu.debug[7]),
        ];
        for (name, expected, actual) in table {
            assert_eq!(actual, expected, "{name}");
        }
        assert_eq!(cpu.mode(), Mode::Protected);
        assert!(!cpu.paging() && !cpu.interrupts);
    }

    #[test]
    fn flags_carry_the_guests_interrupt_flag() {
        let mut cpu = Cpu::reset(0, 48, 0, 0);
        cpu.set_flags(0x246);
        assert!(cpu.interrupts);
        assert_eq!(cpu.flags(), 0x246);
        cpu.registers.flags |= flags::INTERRUPT;
        cpu.interrupts = false;
        assert_eq!(cpu.flags(), 0x46);
    }
}
