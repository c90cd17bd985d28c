//! The network card driver: Ethernet frames in and out, no offloads.
//!
//! One receive buffer per slot is always with the device; a frame is copied out once and the buffer goes back. Frames
//! of impossible size are dropped; rings that break the rules end the device.

use super::device::{Clock, Device, DeviceError, Transport};
use super::queue::{Segment, VirtQueue};
use super::shared::{SharedArena, SharedBuffer};
use alloc::boxed::Box;
use core::time::Duration;

/// The largest Ethernet frame without its checksum: what receive and transmit buffers must hold.
pub const FRAME: usize = 1514;
const SMALLEST_FRAME: usize = 14;
/// The header before each frame, all zero as no offload is agreed on.
const HEADER: usize = 12;
const BUFFER: usize = 2048;
const SLOTS: u16 = 64;
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const HAS_MAC: u64 = 1 << 5;

/// A network card.
pub struct NetDevice {
    device: Device,
    receive: VirtQueue,
    transmit: VirtQueue,
    received: SharedBuffer,
    sending: SharedBuffer,
    mac: [u8; 6],
}

impl NetDevice {
    /// Sets up a card and gives it all receive buffers.
    pub fn new(
        transport: Box<dyn Transport>,
        arena: &mut SharedArena,
        clock: Clock,
    ) -> Result<Self, DeviceError> {
        let mut device = Device::negotiate(transport, clock, HAS_MAC, 0)?;
        let mut receive = device.queue(arena, RECEIVE, SLOTS, 1)?;
        let transmit = device.queue(arena, TRANSMIT, SLOTS, 1)?;
        let received = arena.allocate(BUFFER * usize::from(receive.slots()), BUFFER)?;
        let sending = arena.allocate(BUFFER * usize::from(transmit.slots()), BUFFER)?;
        let mac: [u8; 6] = device.config(0)?;
        // A group address or none cannot be the address of a card, and the IP stack insists.
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(device.fail(DeviceError::Configuration));
        }
        for slot in 0..receive.slots() {
            receive.submit(slot, &[receive_segment(&received, slot)]);
        }
        device.start();
        device.notify(RECEIVE, &receive);
        Ok(Self {
            device,
            receive,
            transmit,
            received,
            sending,
            mac,
        })
    }

    /// The card's Ethernet address, a unicast one.
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Copies the next received frame into `into` and returns its length. Looks at no more than one round of buffers,
    /// so a device that delivers nonsense endlessly cannot hold the caller.
    pub fn receive(&mut self, into: &mut [u8; FRAME]) -> Result<Option<usize>, DeviceError> {
        for _ in 0..self.receive.slots() {
            let Some(done) = self.receive.completion()? else {
                return Ok(None);
            };
            let length = (done.written as usize).saturating_sub(HEADER);
            let sound = (SMALLEST_FRAME..=FRAME).contains(&length);
            if sound {
                let at = BUFFER * usize::from(done.slot) + HEADER;
                self.received.copy_out(at, &mut into[..length]);
            }
            self.receive
                .submit(done.slot, &[receive_segment(&self.received, done.slot)]);
            self.device.notify(RECEIVE, &self.receive);
            if sound {
                return Ok(Some(length));
            }
        }
        Ok(None)
    }

    /// Whether [`Self::transmit`] has a buffer to use.
    pub fn can_transmit(&mut self) -> Result<bool, DeviceError> {
        while self.transmit.completion()?.is_some() {}
        Ok(self.transmit.idle_slot().is_some())
    }

    /// Sends a frame of at most [`FRAME`] bytes. False if it was dropped because the device holds every buffer.
    pub fn transmit(&mut self, frame: &[u8]) -> Result<bool, DeviceError> {
        if !self.can_transmit()? || frame.len() > FRAME {
            return Ok(false);
        }
        let Some(slot) = self.transmit.idle_slot() else {
            return Ok(false);
        };
        let at = BUFFER * usize::from(slot);
        self.sending.copy_in(at, &[0; HEADER]);
        self.sending.copy_in(at + HEADER, frame);
        let segment = Segment {
            address: self.sending.address(at),
            length: (HEADER + frame.len()) as u32,
            device_writes: false,
        };
        self.transmit.submit(slot, &[segment]);
        self.device.notify(TRANSMIT, &self.transmit);
        Ok(true)
    }

    /// Notices a device that was reset or gave up.
    pub fn check_health(&mut self, now: Duration) -> Result<(), DeviceError> {
        self.device.check_health(now)
    }

    /// Shuts the card down.
    pub fn fail(&mut self, error: DeviceError) -> DeviceError {
        self.device.fail(error)
    }
}

fn receive_segment(buffer: &SharedBuffer, slot: u16) -> Segment {
    Segment {
        address: buffer.address(BUFFER * usize::from(slot)),
        length: BUFFER as u32,
        device_writes: true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeDevice, FakeTransport};
    use super::super::test_arena;
    use super::*;
    use alloc::rc::Rc;
    use alloc::vec;
    use alloc::vec::Vec;
    use core::cell::RefCell;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];

    fn clock() -> Duration {
        Duration::ZERO
    }

    fn card(config: &[u8]) -> (Rc<RefCell<FakeDevice>>, Result<NetDevice, DeviceError>) {
        let fake = FakeDevice::new(HAS_MAC, config);
        let card = NetDevice::new(
            FakeTransport::silent(&fake),
            &mut test_arena(1 << 20),
            clock,
        );
        (fake, card)
    }

    fn deliver(fake: &Rc<RefCell<FakeDevice>>, frame: &[u8]) {
        let mut fake = fake.borrow_mut();
        let chain = fake.ring(RECEIVE).take().unwrap();
        let packet: Vec<u8> = [&[0; HEADER], frame].concat();
        let written = chain.write(&packet);
        fake.ring(RECEIVE).finish(chain.head, written);
    }

    #[test]
    fn frames_travel_both_ways_and_buffers_are_reused() {
        let (fake, card) = card(&MAC);
        let mut card = card.unwrap();
        assert_eq!(card.mac(), MAC);
        let mut into = [0; FRAME];
        for round in 0..300u32 {
            let frame = vec![round as u8; 14 + round as usize];
            deliver(&fake, &frame);
            assert_eq!(card.receive(&mut into), Ok(Some(frame.len())));
            assert_eq!(into[..frame.len()], frame);
            assert_eq!(card.transmit(&frame), Ok(true));
            let mut fake = fake.borrow_mut();
            let sent = fake.ring(TRANSMIT).take().unwrap();
            assert_eq!(sent.readable()[HEADER..], frame);
            fake.ring(TRANSMIT).finish(sent.head, 0);
        }
        assert_eq!(card.receive(&mut into), Ok(None));
    }

    #[test]
    fn frames_of_impossible_size_are_dropped() {
        let (fake, card) = card(&MAC);
        let mut card = card.unwrap();
        deliver(&fake, &[1; 13]);
        deliver(&fake, &[2; FRAME + 1]);
        deliver(&fake, &[3; 60]);
        let mut into = [0; FRAME];
        assert_eq!(card.receive(&mut into), Ok(Some(60)));
        assert_eq!(into[0], 3);
    }

    #[test]
    fn a_card_that_sends_nothing_fills_up_without_an_error() {
        let (_fake, card) = card(&MAC);
        let mut card = card.unwrap();
        for _ in 0..SLOTS {
            assert_eq!(card.transmit(&[0; 60]), Ok(true));
        }
        assert_eq!(card.can_transmit(), Ok(false));
        assert_eq!(card.transmit(&[0; 60]), Ok(false));
    }

    #[test]
    fn rings_that_lie_are_errors() {
        let (fake, card) = card(&MAC);
        let mut card = card.unwrap();
        fake.borrow_mut().ring(RECEIVE).finish_raw(3, 4096);
        assert_eq!(card.receive(&mut [0; FRAME]), Err(DeviceError::UsedLength));
        fake.borrow_mut().ring(TRANSMIT).finish_raw(0, 0);
        assert_eq!(card.can_transmit(), Err(DeviceError::UsedIndex));
    }

    #[test]
    fn a_card_without_a_unicast_address_is_refused() {
        for mac in [[0; 6], [1, 0, 0x5e, 0, 0, 1], [0xff; 6]] {
            let (fake, card) = card(&mac);
            assert_eq!(card.err(), Some(DeviceError::Configuration));
            assert!(fake.borrow().failed());
        }
    }
}
