# From the reset vector to 64-bit Rust. Assembled into main.rs, which supplies the names in braces.
#
# On entry: outside a TD, 16-bit real mode at 0xFFFFFFF0 with the usual reset state of the PC. In a TD, 32-bit protected mode with
# paging off, flat segments but no descriptor table, EFER.LME and EFER.NXE set, the CPU's index in ESI and the width of addresses in EBX; every
# CPU starts here at once. Both registers come from the TDX module; RCX and R8 are the host's and are not looked at.

.set DESCRIPTOR_CODE32, 0x08
.set DESCRIPTOR_DATA, 0x10
.set DESCRIPTOR_CODE64, 0x18

.set CR0_PROTECTED, 1 << 0
.set CR0_MONITOR_FPU, 1 << 1
.set CR0_EMULATE_FPU, 1 << 2
.set CR0_NUMERIC_ERROR, 1 << 5
.set CR0_WRITE_PROTECT, 1 << 16
.set CR0_NOT_WRITE_THROUGH, 1 << 29
.set CR0_CACHE_DISABLE, 1 << 30
.set CR0_PAGING, 1 << 31
.set CR4_ADDRESS_EXTENSION, 1 << 5
.set CR4_SSE, 1 << 9 | 1 << 10
.set EFER, 0xc0000080
.set EFER_LONG_MODE, 1 << 8
.set EFER_NO_EXECUTE, 1 << 11

# Page-table entries; accessed and dirty are set in advance, so that nothing needs to write to a table.
.set PAGE, 4096
.set READ, 0x61 | 1 << 63
.set READ_WRITE, 0x63 | 1 << 63
.set READ_EXECUTE, 0x61
.set LARGE, 0x80
.set TABLE, 0x63

# The boot map: the first 1 GiB writable, the last 16 MiB readable, the loader's own pages as its segments say.
.section .data.boot_tables, "aw"
.balign 4096
boot_root:
    .quad boot_gigabytes + TABLE
    .fill 511, 8, 0
boot_gigabytes:
    .quad boot_low + TABLE
    .quad 0
    .quad 0
    .quad boot_high + TABLE
    .fill 508, 8, 0
boot_low:
    .set i, 0
    .rept 512
    .quad (i << 21) + (READ_WRITE | LARGE)
    .set i, i + 1
    .endr
boot_high:
    .fill 504, 8, 0
    .set i, 504
    .rept 7
    .quad (3 << 30) + (i << 21) + (READ | LARGE)
    .set i, i + 1
    .endr
boot_high_last:
    .quad boot_top + TABLE
boot_top:
    .set address, 0xffe00000
    .rept ({DATA} - 0xffe00000) / PAGE
    .quad address + READ
    .set address, address + PAGE
    .endr
boot_top_data:
    .rept {DATA_SIZE} / PAGE
    .quad address + READ_WRITE
    .set address, address + PAGE
    .endr
    .rept {RODATA_SIZE} / PAGE
    .quad address + READ
    .set address, address + PAGE
    .endr
    .rept {TEXT_SIZE} / PAGE
    .quad address + READ_EXECUTE
    .set address, address + PAGE
    .endr
    .quad address + READ

.section .bss.boot_stack, "aw", @nobits
.balign 16
    .skip 16384
boot_stack_end:

# The last 16 bytes of the image. They decode alike in 16-bit and in 32-bit mode, up to the two jumps.
.section .reset, "ax"
.globl reset_vector
reset_vector:
    .byte 0x0f, 0x20, 0xc0      # mov %cr0, %eax
    .byte 0xa8, 0x01            # test $CR0_PROTECTED, %al
    .byte 0x74, 0x05            # jz over the 32-bit jump
    .byte 0xe9                  # 32-bit jump
    .long trust_domain_entry - . - 4
    .byte 0xe9                  # 16-bit jump
    .word plain_entry - . - 2
    .balign 16, 0xf4

# Real mode: straight to 32-bit protected mode. CS is 0xF000 with base 0xFFFF0000, so offsets count from there.
.section .real_mode, "ax"
.code16
.globl plain_entry
plain_entry:
    cli
    cld
    lgdtl %cs:(descriptor_pointer - 0xffff0000)
    movl %cr0, %eax
    andl $~(CR0_CACHE_DISABLE | CR0_NOT_WRITE_THROUGH), %eax
    orl $CR0_PROTECTED, %eax
    movl %eax, %cr0
    ljmpl $DESCRIPTOR_CODE32, $plain_entry32

# Flat segments; "accessed" is set in advance, this may be ROM.
.balign 16
descriptors:
    .quad 0
    .quad 0x00cf9b000000ffff
    .quad 0x00cf93000000ffff
    .quad 0x00af9b000000ffff
descriptors_end:
descriptor_pointer:
    .word descriptors_end - descriptors - 1
    .long descriptors

.section .text.entry, "ax"
.code32
# A TD's every CPU. The image is RAM, and the boot map is right as it was linked. EFER has what long mode needs; writing it would be a fault. CR4
# keeps its machine check bit and CR0 its numeric error bit, which a TD may not clear. CPU 0 boots, the others wait at the gate: nothing but
# the program itself, in private memory, ever opens it.
.globl trust_domain_entry
trust_domain_entry:
    lgdtl descriptor_pointer
    movw $DESCRIPTOR_DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl $boot_root, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $CR4_ADDRESS_EXTENSION | CR4_SSE, %eax
    movl %eax, %cr4
    movl %cr0, %eax
    orl $CR0_PAGING | CR0_WRITE_PROTECT | CR0_NUMERIC_ERROR | CR0_MONITOR_FPU, %eax
    movl %eax, %cr0
    ljmpl $DESCRIPTOR_CODE64, $trust_domain_entry64

.code64
trust_domain_entry64:
    cld
    testl %esi, %esi
    jnz wait_at_gate
    leaq boot_stack_end(%rip), %rsp
    rdtsc
    shlq $32, %rdx
    leaq (%rax, %rdx), %rdi         # the time stamp counter at reset
    movl %ebx, %esi                 # the width of addresses
    xorl %ebp, %ebp
    call start_trust_domain
    ud2

.code32

# 32-bit protected mode, flat, paging off; the image is ROM. Copies the writable data and leads the boot map to the copy.
plain_entry32:
    movw $DESCRIPTOR_DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    rdtsc
    movl %eax, %ebp
    movl %edx, %ebx
    movl ${DATA}, %esi
    movl ${DATA_COPY}, %edi
    movl ${DATA_SIZE} / 4, %ecx
    rep movsl
    movl ${DATA} - {DATA_COPY}, %eax
    subl %eax, boot_root - {DATA} + {DATA_COPY}
    subl %eax, boot_gigabytes - {DATA} + {DATA_COPY}
    subl %eax, boot_gigabytes + 24 - {DATA} + {DATA_COPY}
    subl %eax, boot_high_last - {DATA} + {DATA_COPY}
    movl ${DATA_SIZE} / PAGE, %ecx
1:  subl %eax, boot_top_data - 8 - {DATA} + {DATA_COPY}(, %ecx, 8)
    loop 1b
    movl $boot_root - {DATA} + {DATA_COPY}, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $CR4_ADDRESS_EXTENSION | CR4_SSE, %eax
    movl %eax, %cr4
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LONG_MODE | EFER_NO_EXECUTE, %eax
    wrmsr
    movl %cr0, %eax
    andl $~CR0_EMULATE_FPU, %eax
    orl $CR0_PAGING | CR0_WRITE_PROTECT | CR0_NUMERIC_ERROR | CR0_MONITOR_FPU, %eax
    movl %eax, %cr0
    ljmpl $DESCRIPTOR_CODE64, $plain_entry64

.code64
plain_entry64:
    leaq boot_stack_end(%rip), %rsp
    shlq $32, %rbx
    leaq (%rbp, %rbx), %rdi         # the time stamp counter at reset
    xorl %ebp, %ebp
    call start_plain
    ud2

# void run_guest(handoff: rdi, page table: rsi, stack end: rdx, entry: rcx). This code is mapped alike in the old and in the new map.
.globl run_guest
run_guest:
    movq %rsi, %cr3
    leaq -8(%rdx), %rsp
    movq $0, (%rsp)                 # no return address
    xorl %ebp, %ebp
    xorl %esi, %esi                 # CPU index
    jmpq *%rcx

# Application processors outside a TD start here, in real mode at {TRAMPOLINE} where the loader copies this page. CS is {TRAMPOLINE} >> 4.
.section .rodata.trampoline, "a"
.code16
.globl trampoline, trampoline_end, trampoline_page_table
trampoline:
    cli
    cld
    xorw %ax, %ax
    movw %ax, %ds
    lgdtl {TRAMPOLINE} + trampoline_descriptors - trampoline
    movl %cr0, %eax
    andl $~(CR0_CACHE_DISABLE | CR0_NOT_WRITE_THROUGH), %eax
    orl $CR0_PROTECTED, %eax
    movl %eax, %cr0
    ljmpl $DESCRIPTOR_CODE32, ${TRAMPOLINE} + trampoline32 - trampoline
.code32
trampoline32:
    movw $DESCRIPTOR_DATA, %ax
    movw %ax, %ds
    movw %ax, %es
    movw %ax, %ss
    movl {TRAMPOLINE} + trampoline_page_table - trampoline, %eax
    movl %eax, %cr3
    movl %cr4, %eax
    orl $CR4_ADDRESS_EXTENSION | CR4_SSE, %eax
    movl %eax, %cr4
    movl $EFER, %ecx
    rdmsr
    orl $EFER_LONG_MODE | EFER_NO_EXECUTE, %eax
    wrmsr
    movl %cr0, %eax
    andl $~CR0_EMULATE_FPU, %eax
    orl $CR0_PAGING | CR0_WRITE_PROTECT | CR0_NUMERIC_ERROR | CR0_MONITOR_FPU, %eax
    movl %eax, %cr0
    ljmpl $DESCRIPTOR_CODE64, $wait_at_gate
.balign 4
trampoline_page_table:
    .long 0
trampoline_descriptors:
    .word descriptors_end - descriptors - 1
    .long descriptors
trampoline_end:

# Where application processors wait, in both modes, in measured code: see handoff.rs, Mailbox.
.section .text.gate, "ax"
.code64
wait_at_gate:
    leaq HANDOFF(%rip), %rdi
1:  pause
    movl {LIMIT}(%rdi), %eax
    testl %eax, %eax
    jz 1b
    movq {PAGE_TABLE}(%rdi), %rax
    movq %rax, %cr3
    movl $1, %esi
    lock xaddl %esi, {NEXT}(%rdi)
    cmpl {LIMIT}(%rdi), %esi
    jae 2f
    movq {STACKS}(%rdi), %rax
    movq (%rax, %rsi, 8), %rsp
    pushq $0                        # no return address
    xorl %ebp, %ebp
    jmpq *{ENTRY}(%rdi)
2:  cmpl ${TRUST_DOMAIN}, {MODE}(%rdi)
    je 3f
    cli
    hlt
    jmp 2b
3:  pause                           # a halt would be an exception here, which this CPU has no table for
    jmp 3b
