//! TDG.MEM.PAGE.ACCEPT (`tdg_mem_page_accept.c` of the module; `tdx.md` 1.5).

use super::{Operand, Status};
use crate::event::{Access, Death};
use crate::memory::{LARGE_PAGE, PAGE, PageState};
use crate::td::{Sept, Td};

/// Accepts the page that RCX names: address and level.
///
/// # Errors
/// The end of the TD where the VMM could not map the page.
pub fn accept(rcx: u64, td: &Td) -> Result<Status, Death> {
    let (gpa, level) = (rcx & !(PAGE - 1), (rcx & 7) as u8);
    let size = match level {
        0 => PAGE,
        1 => LARGE_PAGE,
        // 1 GiB is refused by modules 1.5.01 and later.
        _ => return Ok(Status::OperandInvalid(Operand::Rcx)),
    };
    let reserved = rcx & (PAGE - 1) & !7 != 0;
    if reserved || !gpa.is_multiple_of(size) || gpa >= td.shared_bit() {
        return Ok(Status::OperandInvalid(Operand::Rcx));
    }
    let access = Access::Write;
    match td.memory.state(gpa) {
        None => return Err(Death::NoPrivateMemory { gpa, access }),
        Some(PageState::Shared) => {
            return Err(Death::Forbidden(
                "PAGE.ACCEPT of a page that is shared: convert it with MapGPA first",
            ));
        }
        Some(PageState::Private | PageState::Pending) => {}
    }
    if level == 1 {
        let large =
            td.parameters.sept == Sept::Large && td.memory.all(gpa, size, PageState::Pending);
        if !large {
            let accepted =
                td.parameters.sept == Sept::Large && td.memory.all(gpa, size, PageState::Private);
            return Ok(if accepted {
                Status::AlreadyAccepted { level: 1 }
            } else {
                Status::PageSizeMismatch { level: 0 }
            });
        }
    } else if td.memory.state(gpa) == Some(PageState::Private) {
        return Ok(Status::AlreadyAccepted { level: 0 });
    }
    td.memory.set_state(gpa, size, PageState::Private);
    Ok(Status::Success)
}
