//! The tables the CPU reads: segment descriptors, the task state segment with the interrupt stacks, and the gates.

use alloc::alloc::{alloc_zeroed, handle_alloc_error};
use core::alloc::Layout;
use core::arch::asm;
use core::sync::atomic::AtomicBool;

use super::interrupt_stubs;
use crate::msr::{self, GS_BASE};

const CODE: u16 = 0x08;
const DATA: u16 = 0x10;
const TASK: u16 = 0x18;

const STACKS: usize = 7;
const STACK_SIZE: usize = 16 << 10;

/// What belongs to one CPU, in a place that never moves.
#[repr(C, align(64))]
pub struct PerCpu {
    gates: [Gate; 256],
    descriptors: [u64; 5],
    task: TaskState,
    /// Which CPU this is; 0 is the boot processor.
    pub index: u32,
    /// Set when the CPU begins to report a fault.
    pub faulted: AtomicBool,
    stacks: [[u8; STACK_SIZE]; STACKS],
}

/// The 64-bit task state segment; only the interrupt stacks are used.
#[repr(C, packed)]
struct TaskState {
    reserved_0: u32,
    privilege_stacks: [u64; 3],
    reserved_1: u64,
    interrupt_stacks: [u64; STACKS],
    reserved_2: u64,
    reserved_3: u16,
    io_map: u16,
}

/// One interrupt gate.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    offset_low: u16,
    selector: u16,
    stack: u8,
    kind: u8,
    offset_middle: u16,
    offset_high: u32,
    reserved: u32,
}

/// What LGDT and LIDT read.
#[repr(C, packed)]
struct TablePointer {
    limit: u16,
    base: u64,
}

impl TablePointer {
    fn to<T>(table: &T) -> Self {
        Self {
            limit: (size_of::<T>() - 1) as u16,
            base: core::ptr::from_ref(table).expose_provenance() as u64,
        }
    }
}

impl Gate {
    /// An interrupt gate: present, ring 0, interrupts off while it is handled.
    fn new(handler: u64, stack: u8) -> Self {
        const INTERRUPT_GATE: u8 = 0x8e;
        Self {
            offset_low: handler as u16,
            selector: CODE,
            stack,
            kind: INTERRUPT_GATE,
            offset_middle: (handler >> 16) as u16,
            offset_high: (handler >> 32) as u32,
            reserved: 0,
        }
    }
}

/// Which of the seven stacks a vector gets: the table in the module above.
fn stack_of(vector: usize) -> u8 {
    match vector {
        32.. => 1,
        2 => 2,
        8 => 3,
        18 => 4,
        20 => 5,
        14 => 6,
        _ => 7,
    }
}

/// The two descriptors of a task state segment at `base`.
fn task_descriptor(base: u64) -> [u64; 2] {
    const AVAILABLE_TASK: u64 = 0x89 << 40;
    let limit = size_of::<TaskState>() as u64 - 1;
    [
        limit | (base & 0xff_ffff) << 16 | AVAILABLE_TASK | (base >> 24 & 0xff) << 56,
        base >> 32,
    ]
}

/// Builds the tables of CPU `index` and loads them.
pub fn install(index: u32) {
    let layout = Layout::new::<PerCpu>();
    // SAFETY: the layout is not empty.
    let cpu = unsafe { alloc_zeroed(layout) }.cast::<PerCpu>();
    if cpu.is_null() {
        handle_alloc_error(layout);
    }
    // SAFETY: the block is large enough, aligned, never freed, and zeroes are a valid `PerCpu`; this is the only reference to it.
    let cpu = unsafe { &mut *cpu };
    let stubs = (&raw const interrupt_stubs).expose_provenance() as u64;
    for (vector, gate) in cpu.gates.iter_mut().enumerate() {
        *gate = Gate::new(stubs + 16 * vector as u64, stack_of(vector));
    }
    let mut ends = [0; STACKS];
    for (end, stack) in ends.iter_mut().zip(&cpu.stacks) {
        *end = stack.as_ptr_range().end.expose_provenance() as u64;
    }
    cpu.task.interrupt_stacks = ends;
    cpu.task.io_map = size_of::<TaskState>() as u16;
    let [task_low, task_high] = task_descriptor((&raw const cpu.task).expose_provenance() as u64);
    cpu.descriptors = [
        0,
        0x00af_9b00_0000_ffff,
        0x00cf_9300_0000_ffff,
        task_low,
        task_high,
    ];
    cpu.index = index;
    // SAFETY: tables and stacks are complete and live for ever; the selectors name descriptors of the table just built.
    unsafe { load(cpu) }
}

/// # Safety
/// The tables must be valid and never move or die.
unsafe fn load(cpu: &'static PerCpu) {
    let descriptors = TablePointer::to(&cpu.descriptors);
    let gates = TablePointer::to(&cpu.gates);
    // SAFETY: the caller vouches for the tables; the far return reloads CS with the same flat 64-bit code segment.
    unsafe {
        asm!(
            "lgdt [{descriptors}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:x}",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov fs, {null:x}",
            "mov gs, {null:x}",
            "lidt [{gates}]",
            "ltr {task:x}",
            descriptors = in(reg) &descriptors,
            gates = in(reg) &gates,
            code = in(reg) u64::from(CODE),
            data = in(reg) u64::from(DATA),
            task = in(reg) u64::from(TASK),
            null = in(reg) 0u64,
            scratch = out(reg) _,
        );
        msr::write(GS_BASE, core::ptr::from_ref(cpu).expose_provenance() as u64);
    }
}

/// The structure of the CPU that runs this. Only after [`install`].
pub fn this_cpu() -> &'static PerCpu {
    // SAFETY: `install` set the register on this CPU to a structure that lives for ever and is only read from then on, but for atomics.
    unsafe { &*core::ptr::with_exposed_provenance(msr::read(GS_BASE) as usize) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_the_processor_reads() {
        assert_eq!(size_of::<Gate>(), 16);
        assert_eq!(size_of::<TaskState>(), 104);
        assert_eq!(size_of::<TablePointer>(), 10);
        assert_eq!(core::mem::offset_of!(TaskState, interrupt_stacks), 36);
    }

    #[test]
    fn gates_and_descriptors_split_addresses() {
        let gate = Gate::new(0x1122_3344_5566_7788, 3);
        assert_eq!(
            (gate.offset_low, gate.offset_middle, gate.offset_high),
            (0x7788, 0x5566, 0x1122_3344)
        );
        assert_eq!((gate.selector, gate.stack, gate.kind), (8, 3, 0x8e));
        assert_eq!(
            task_descriptor(0x1122_3344_5566_7788),
            [0x5500_8966_7788_0067, 0x1122_3344]
        );
    }

    #[test]
    fn vectors_that_nest_have_stacks_of_their_own() {
        let special = [2, 8, 18, 20, 14];
        for vector in special {
            assert_eq!(
                (0..256)
                    .filter(|other| stack_of(*other) == stack_of(vector))
                    .count(),
                1
            );
        }
        assert!((0..256).all(|vector| (1..=7).contains(&stack_of(vector))));
        assert!((0..32).all(|vector| stack_of(vector) != stack_of(32)));
    }
}
