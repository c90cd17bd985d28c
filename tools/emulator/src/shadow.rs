//! What of the guest's address space is mapped in the tracee: a cache of translations, like a TLB.
//!
//! Data is mapped as large as it is contiguous. Code is searched for instructions that must be patched ([`crate::patch`]); a page with patches is
//! a private copy that can be executed only, so that whoever reads it as data gets the guest's own bytes ([`Shadow::read_code`]). If it is read
//! often, the processor's breakpoint registers take the place of the patches. Memory that the guest may both write and execute is one of the two at
//! a time: data until it is executed, code until it is written, and searched anew each time it becomes code. An instruction that writes to
//! its own page is let through alone.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use crate::cpu::Mode;
use crate::event::Access;
use crate::memory::{LARGE_PAGE, Memory, PAGE};
use crate::paging::Run;
use crate::patch;
use crate::ptrace::{Rights, Tracee, WATCHED};
use crate::trace::Trace;

/// The largest page (SDM vol. 3, 5.5.4).
const GIGABYTE: u64 = 1 << 30;
/// The breakpoint instruction of one byte (SDM vol. 2A, INT n/INTO/INT3/INT1).
const INT3: u8 = 0xcc;
/// Bytes of the longest instruction.
const MAX_LENGTH: u64 = 15;

/// See the module.
pub struct Shadow<'a> {
    pub tracee: Tracee,
    memory: &'a Memory,
    trace: &'a Trace,
    vcpu: u32,
    huge_pages: bool,
    /// Pages of code that need attention, by linear address.
    code: BTreeMap<u64, CodePage>,
    /// The largest translation that was mapped.
    largest: u64,
    /// In which mode code was searched.
    mode: Mode,
}

/// A page that is read as data this often is worth breakpoint registers.
const MANY_READS: u32 = 64;

/// A page of code with patches, or one that the guest may write.
#[derive(Default)]
struct CodePage {
    /// Where patches are, and what was there.
    sites: Vec<(u64, u8)>,
    /// How often it was read as data.
    reads: u32,
    /// Breakpoint registers stand for the patches; the page holds the guest's own bytes.
    watched: bool,
}

impl<'a> Shadow<'a> {
    /// Nothing is mapped.
    pub fn new(
        tracee: Tracee,
        memory: &'a Memory,
        trace: &'a Trace,
        vcpu: u32,
        huge_pages: bool,
    ) -> Self {
        Self {
            tracee,
            memory,
            trace,
            vcpu,
            huge_pages,
            code: BTreeMap::new(),
            largest: PAGE,
            mode: Mode::Protected,
        }
    }

    /// Code runs in this mode from now on: what was found of it in another one is void, because its instructions are others.
    ///
    /// # Errors
    /// The kernel's, as for all that follow.
    pub fn set_mode(&mut self, mode: Mode) -> io::Result<()> {
        if mode == self.mode {
            return Ok(());
        }
        self.mode = mode;
        self.flush()
    }

    /// Whether a breakpoint at this address is ours.
    pub fn is_patched(&self, address: u64) -> bool {
        self.code
            .get(&(address & !(PAGE - 1)))
            .is_some_and(|page| page.sites.iter().any(|(site, _)| *site == address))
    }

    /// Whether this address lies in a page of code that can only be executed here.
    pub fn is_execute_only(&self, address: u64) -> bool {
        self.code
            .get(&(address & !(PAGE - 1)))
            .is_some_and(|page| !page.sites.is_empty() && !page.watched)
    }

    /// Drops everything.
    pub fn flush(&mut self) -> io::Result<()> {
        self.forget(0..u64::MAX)?;
        self.largest = PAGE;
        self.tracee.clear()
    }

    /// Drops the translation of one address, of whatever size.
    pub fn flush_page(&mut self, address: u64) -> io::Result<()> {
        let size = if self.largest > LARGE_PAGE {
            GIGABYTE
        } else {
            LARGE_PAGE
        };
        let start = address & !(size - 1);
        self.forget(start..start + size)?;
        self.tracee.unmap(start, size)
    }

    /// Maps a run around `address` for an access by the instruction at `rip`, or the part of it that has one set of rights here. `true` if the
    /// page must be closed again with [`Shadow::close`] after that instruction.
    pub fn map(&mut self, run: Run, address: u64, access: Access, rip: u64) -> io::Result<bool> {
        self.largest = self.largest.max(run.leaf);
        let page = address & !(PAGE - 1);
        let one = clip(run, PAGE, address);
        if !run.executable {
            self.map_data(run)?;
        } else if !run.writable {
            self.map_code(clip(run, LARGE_PAGE, address))?;
        } else if access == Access::Execute {
            self.map_code(one)?;
        } else if !self.code.contains_key(&page) {
            self.map_data(self.without_code(run, page))?;
        } else if (rip..rip + MAX_LENGTH).any(|place| place & !(PAGE - 1) == page) {
            // Read, write and execute, without patches: for an instruction that runs natively, and was about to.
            self.map_part(one, Rights::new(true, true, true), false)?;
            return Ok(true);
        } else {
            self.map_data(one)?;
        }
        Ok(false)
    }

    fn map_data(&mut self, run: Run) -> io::Result<()> {
        let large = run.leaf >= LARGE_PAGE && run.writable && !run.shared;
        if self.huge_pages && large {
            self.memory.use_huge_pages(run.gpa, run.length);
        }
        self.map_part(run, Rights::new(true, run.writable, false), false)
    }

    /// Maps code, and pages with patches as copies over it.
    fn map_code(&mut self, run: Run) -> io::Result<()> {
        let mut pages: BTreeMap<u64, Vec<u64>> = BTreeMap::new();
        for site in self.sites(&run) {
            pages.entry(site & !(PAGE - 1)).or_default().push(site);
        }
        if pages.len() as u64 * PAGE < run.length {
            self.map_part(run, Rights::new(true, false, true), false)?;
        }
        if run.writable {
            self.code.insert(run.start, CodePage::default());
        }
        for (page, sites) in pages {
            let one = clip(run, PAGE, page);
            self.map_part(one, Rights::new(false, false, true), true)?;
            self.trace.line(self.vcpu, format_args!("patch {sites:x?}"));
            let sites = sites
                .into_iter()
                .map(|site| Ok((site, self.tracee.patch(site, INT3)?)))
                .collect::<io::Result<_>>()?;
            let patched = CodePage {
                sites,
                ..CodePage::default()
            };
            self.code.insert(page, patched);
        }
        Ok(())
    }

    /// Lets the next instruction read `range` of a page that can only be executed: patches within are taken out, because what is read is data.
    /// `true` if the page must be closed again with [`Shadow::close`] after that instruction.
    pub fn read_code(&mut self, address: u64, range: Range<u64>) -> io::Result<bool> {
        let page = address & !(PAGE - 1);
        let Some(code) = self.code.get_mut(&page) else {
            return Ok(false);
        };
        code.reads += 1;
        let (data, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut code.sites)
            .into_iter()
            .partition(|(site, _)| range.contains(site));
        let often = code.reads >= MANY_READS && kept.len() <= WATCHED;
        let close = !kept.is_empty() && !often;
        code.sites = kept;
        for (site, byte) in data {
            self.trace
                .line(self.vcpu, format_args!("{site:#x} is data: no patch"));
            self.tracee.patch(site, byte)?;
        }
        if often {
            self.watch(page)?;
        }
        self.tracee.protect(page, Rights::new(true, false, true))?;
        Ok(close)
    }

    /// Gives a page the breakpoint registers, and the page that had them its patches back.
    fn watch(&mut self, page: u64) -> io::Result<()> {
        for (start, code) in &mut self.code {
            if !std::mem::take(&mut code.watched) {
                continue;
            }
            for (site, _) in &code.sites {
                self.tracee.patch(*site, INT3)?;
            }
            code.reads = 0;
            self.tracee
                .protect(*start, Rights::new(false, false, true))?;
        }
        let Some(code) = self.code.get_mut(&page) else {
            return Ok(());
        };
        code.watched = true;
        for (site, byte) in &code.sites {
            self.tracee.patch(*site, *byte)?;
        }
        let sites: Vec<u64> = code.sites.iter().map(|(site, _)| *site).collect();
        self.trace.line(self.vcpu, format_args!("watch {sites:x?}"));
        self.tracee.watch(&sites)
    }

    /// Makes a page execute-only again, or if it was written, forgets it.
    pub fn close(&mut self, address: u64) -> io::Result<()> {
        let page = address & !(PAGE - 1);
        if !self.code.contains_key(&page) {
            return self.tracee.unmap(page, PAGE);
        }
        self.tracee.protect(page, Rights::new(false, false, true))
    }

    fn map_part(&mut self, run: Run, rights: Rights, copy: bool) -> io::Result<()> {
        self.trace.line(
            self.vcpu,
            format_args!(
                "map {:#x} +{:#x} -> {} {:#x} {rights}",
                run.start,
                run.length,
                if run.shared { "shared" } else { "private" },
                run.gpa,
            ),
        );
        self.forget(run.start..run.start + run.length)?;
        let offset = self
            .memory
            .layout()
            .offset(run.gpa)
            .expect("a run is memory");
        self.tracee.map(&run, offset, rights, copy)
    }

    /// Forgets what is known of a range that is about to be mapped anew or not at all.
    fn forget(&mut self, range: Range<u64>) -> io::Result<()> {
        let pages: Vec<u64> = self.code.range(range).map(|(page, _)| *page).collect();
        for page in pages {
            if self.code.remove(&page).is_some_and(|code| code.watched) {
                self.tracee.watch(&[])?;
            }
        }
        Ok(())
    }

    fn sites(&self, run: &Run) -> Vec<u64> {
        let lead = patch::LEAD.min((run.gpa % LARGE_PAGE) as usize);
        let mut code = vec![0; lead + run.length as usize];
        let start = run.gpa - lead as u64;
        if self.memory.read_any(start, run.shared, &mut code).is_err() {
            return Vec::new();
        }
        let cpuid = !self.tracee.cpuid_faults();
        patch::sites(self.mode, run.start - lead as u64, &code, lead, cpuid)
    }

    /// The part of a run around `page` in which no page is mapped as code.
    fn without_code(&self, run: Run, page: u64) -> Run {
        let below = self.code.range(..page).next_back();
        let above = self.code.range(page + 1..).next();
        let start = below.map_or(run.start, |(code, _)| run.start.max(code + PAGE));
        let end = run.start + run.length;
        let end = above.map_or(end, |(code, _)| end.min(*code));
        part(run, start, end)
    }
}

/// The part of a run within the aligned block of `size` bytes around `address`.
fn clip(run: Run, size: u64, address: u64) -> Run {
    let block = address & !(size - 1);
    let end = (run.start + run.length).min(block + size);
    part(run, run.start.max(block), end)
}

fn part(run: Run, start: u64, end: u64) -> Run {
    Run {
        start,
        length: end - start,
        gpa: run.gpa + (start - run.start),
        ..run
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_clipped_to_blocks() {
        let run = Run {
            start: 0x1000,
            length: 0x40_0000,
            gpa: 0x10_1000,
            shared: false,
            writable: true,
            executable: true,
            leaf: PAGE,
        };
        let table = [
            (PAGE, 0x3456, 0x3000, 0x1000),
            (LARGE_PAGE, 0x3456, 0x1000, 0x1f_f000),
            (LARGE_PAGE, 0x40_0123, 0x40_0000, 0x1000),
            (GIGABYTE, 0x3456, 0x1000, 0x40_0000),
        ];
        for (size, address, start, length) in table {
            let part = clip(run, size, address);
            assert_eq!((part.start, part.length), (start, length));
            assert_eq!(part.gpa - part.start, run.gpa - run.start);
        }
    }
}
