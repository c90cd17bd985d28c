//! The program that a tracee starts as: one page, one system call instruction.
//!
//! It is a complete ELF file in a memfd, so a tracee begins with nothing of this process in it: no C library, no heap, no restartable
//! sequences. The page is mapped once more at [`ADDRESS`], and everything else is unmapped before the guest runs.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// Where the stub stays: the last page that a process can map. The guest's linear addresses end here.
pub const ADDRESS: u64 = 0x7fff_ffff_e000;
/// Where the kernel loads it first.
pub const FIRST_ADDRESS: u64 = 0x1_0000;
/// Offset of the instructions in the page.
pub const CODE: u64 = 0x78;

/// `syscall`, then a breakpoint to come back.
const INSTRUCTIONS: [u8; 3] = [0x0f, 0x05, 0xcc];

/// A new file with the stub.
///
/// # Errors
/// The kernel's, if memfds or executable ones are not to be had.
pub fn file() -> std::io::Result<File> {
    let mut file: File = memfd_create("td-tracee", MFdFlags::MFD_CLOEXEC)?.into();
    file.write_all(&elf())?;
    file.set_permissions(std::fs::Permissions::from_mode(0o500))?;
    Ok(file)
}

/// A 64-bit executable with one loadable segment: itself.
fn elf() -> Vec<u8> {
    let length = CODE + INSTRUCTIONS.len() as u64;
    let entry = FIRST_ADDRESS + CODE;
    let mut elf = Vec::from(*b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    // Type (executable), machine (x86-64), version; entry, program headers, no section headers; flags; sizes and counts.
    elf.extend([2u16, 62].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(1u32.to_le_bytes());
    elf.extend([entry, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(0u32.to_le_bytes());
    elf.extend(
        [64u16, 56, 1, 0, 0, 0]
            .iter()
            .flat_map(|word| word.to_le_bytes()),
    );
    // Loadable, readable and executable; offset, addresses, sizes, alignment.
    elf.extend([1u32, 5].iter().flat_map(|word| word.to_le_bytes()));
    elf.extend(
        [0, FIRST_ADDRESS, FIRST_ADDRESS, length, length, 4096]
            .iter()
            .flat_map(|word: &u64| word.to_le_bytes()),
    );
    elf.extend(INSTRUCTIONS);
    elf
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instructions_are_where_the_constants_say() {
        let elf = elf();
        assert_eq!(elf[CODE as usize..], INSTRUCTIONS);
        assert_eq!(elf[24..32], (FIRST_ADDRESS + CODE).to_le_bytes());
    }
}
