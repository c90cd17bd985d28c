//! MSI-X (PCI 3.0, 6.8.2): a table of messages in device registers, one per interrupt of the function.

use std::sync::{Arc, Mutex, PoisonError};

use crate::bus::Interrupts;

use super::header::Header;

/// Capability, table entry, and their bits (PCI Local Bus 3.0, appendix H and 6.8.2).
const IDENTIFIER: u8 = 0x11;
const ENTRY: u64 = 16;
const CONTROL_ENABLE: u16 = 1 << 15;
const CONTROL_MASK_ALL: u16 = 1 << 14;
const ENTRY_MASKED: u32 = 1;
/// Where the pending bits are in the register that holds table and bits.
const PENDING_AT: u32 = 0x800;

#[derive(Clone, Copy)]
struct Entry {
    address: u64,
    data: u32,
    control: u32,
    pending: bool,
}

struct State {
    entries: Vec<Entry>,
    control: u16,
}

/// The interrupts of one function.
pub struct MsiX {
    state: Mutex<State>,
    sink: Arc<dyn Interrupts>,
    /// Offset of the capability's control word, which software writes.
    control_at: u8,
}

impl MsiX {
    /// Bytes of the memory register that holds the table and the pending bits.
    pub const REGISTER: u32 = 0x1000;

    /// Adds `vectors` interrupts to a function, at most 128, with their table in memory register `bar`.
    pub fn add(header: &mut Header, bar: u8, vectors: u16, sink: Arc<dyn Interrupts>) -> Self {
        header.add_bar(bar, Self::REGISTER);
        let table = u32::from(bar).to_le_bytes();
        let pending = (PENDING_AT | u32::from(bar)).to_le_bytes();
        let size = (vectors - 1).to_le_bytes();
        let offset = header.add_capability(IDENTIFIER, &[&size[..], &table, &pending].concat());
        let control_at = offset + 2;
        header.allow(
            control_at,
            &(CONTROL_ENABLE | CONTROL_MASK_ALL).to_le_bytes(),
        );
        let entry = Entry {
            address: 0,
            data: 0,
            control: ENTRY_MASKED,
            pending: false,
        };
        let state = State {
            entries: vec![entry; vectors.into()],
            control: 0,
        };
        Self {
            state: Mutex::new(state),
            sink,
            control_at,
        }
    }

    /// Takes over what software wrote to the capability, if it did.
    pub fn follow(&self, header: &Header) {
        let mut state = self.lock();
        state.control = header.read(self.control_at, 2) as u16;
        for vector in 0..state.entries.len() {
            self.deliver(&mut state, vector);
        }
    }

    /// Raises an interrupt, or keeps it pending while it is masked. A vector that does not exist is nobody's.
    pub fn raise(&self, vector: u16) {
        let mut state = self.lock();
        let vector = usize::from(vector);
        if state.control & CONTROL_ENABLE == 0 {
            return;
        }
        if let Some(entry) = state.entries.get_mut(vector) {
            entry.pending = true;
            self.deliver(&mut state, vector);
        }
    }

    /// An access to the memory register, naturally aligned.
    pub fn access(&self, offset: u64, size: u8, write: Option<u64>) -> u64 {
        let mut state = self.lock();
        if offset >= u64::from(PENDING_AT) {
            let bits = state
                .entries
                .iter()
                .rev()
                .fold(0u128, |bits, entry| bits << 1 | u128::from(entry.pending));
            let shift = 8 * (offset - u64::from(PENDING_AT));
            return if shift < 128 {
                (bits >> shift) as u64
            } else {
                0
            };
        }
        let Some(entry) = state.entries.get_mut((offset / ENTRY) as usize) else {
            return 0;
        };
        let at = (offset % ENTRY) as usize;
        let mut bytes = [0; ENTRY as usize];
        bytes[..8].copy_from_slice(&entry.address.to_le_bytes());
        bytes[8..12].copy_from_slice(&entry.data.to_le_bytes());
        bytes[12..].copy_from_slice(&entry.control.to_le_bytes());
        let Some(place) = bytes.get_mut(at..at + usize::from(size)) else {
            return 0;
        };
        let mut value = [0; 8];
        value[..place.len()].copy_from_slice(place);
        if let Some(new) = write {
            place.copy_from_slice(&new.to_le_bytes()[..place.len()]);
            let word = |at: usize| {
                u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
            };
            entry.address = u64::from(word(4)) << 32 | u64::from(word(0));
            entry.data = word(8);
            entry.control = word(12) & ENTRY_MASKED;
            self.deliver(&mut state, (offset / ENTRY) as usize);
        }
        u64::from_le_bytes(value)
    }

    fn deliver(&self, state: &mut State, vector: usize) {
        let open = state.control & (CONTROL_ENABLE | CONTROL_MASK_ALL) == CONTROL_ENABLE;
        let entry = &mut state.entries[vector];
        if entry.pending && open && entry.control & ENTRY_MASKED == 0 {
            entry.pending = false;
            self.sink.msi(entry.address, entry.data);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::header::Identity;
    use super::*;

    #[derive(Default)]
    struct Sink(Mutex<Vec<(u64, u32)>>);

    impl Interrupts for Sink {
        fn msi(&self, address: u64, data: u32) {
            self.0.lock().unwrap().push((address, data));
        }
    }

    fn with_vectors(vectors: u16) -> (Header, MsiX, Arc<Sink>) {
        let mut header = Header::new(Identity {
            vendor: 1,
            device: 1,
            revision: 0,
            class: [0; 3],
            subsystem: [0; 2],
        });
        let sink = Arc::new(Sink::default());
        let msix = MsiX::add(&mut header, 1, vectors, sink.clone());
        (header, msix, sink)
    }

    fn set_up(msix: &MsiX, vector: u64) {
        msix.access(16 * vector, 4, Some(0xfee0_1000));
        msix.access(16 * vector + 8, 4, Some(0x40 + vector));
        msix.access(16 * vector + 12, 4, Some(0));
    }

    #[test]
    fn nothing_is_sent_until_software_asks() {
        let (mut header, msix, sink) = with_vectors(2);
        set_up(&msix, 1);
        msix.raise(1);
        assert!(sink.0.lock().unwrap().is_empty());
        header.write(0x42, 2, CONTROL_ENABLE.into());
        msix.follow(&header);
        msix.raise(1);
        msix.raise(7);
        assert_eq!(*sink.0.lock().unwrap(), [(0xfee0_1000, 0x41)]);
        assert_eq!(msix.access(16, 8, None), 0xfee0_1000);
        assert_eq!(msix.access(24, 4, None), 0x41);
    }

    #[test]
    fn a_masked_interrupt_is_delivered_when_it_is_unmasked() {
        let (mut header, msix, sink) = with_vectors(2);
        header.write(0x42, 2, CONTROL_ENABLE.into());
        msix.follow(&header);
        msix.raise(0);
        assert_eq!(msix.access(PENDING_AT.into(), 8, None), 1);
        set_up(&msix, 0);
        assert_eq!(sink.0.lock().unwrap().len(), 1);
        assert_eq!(msix.access(PENDING_AT.into(), 8, None), 0);
        header.write(0x42, 2, u32::from(CONTROL_ENABLE | CONTROL_MASK_ALL));
        msix.follow(&header);
        msix.raise(0);
        assert_eq!(sink.0.lock().unwrap().len(), 1);
        header.write(0x42, 2, CONTROL_ENABLE.into());
        msix.follow(&header);
        assert_eq!(sink.0.lock().unwrap().len(), 2);
    }

    #[test]
    fn accesses_beyond_the_table_are_harmless() {
        let (_header, msix, _sink) = with_vectors(2);
        for offset in [32, 0x7f8, 0xff8] {
            assert_eq!(msix.access(offset, 8, Some(u64::MAX)), 0);
        }
    }
}
