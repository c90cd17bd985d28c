//! The vsock driver: packets in and out. What they mean is the business of `net`.

mod packet;

pub use packet::{
    Endpoint, HEADER_LENGTH, Header, Operation, SHUTDOWN_RECEIVE, SHUTDOWN_SEND, TYPE_STREAM,
};

use super::device::{Clock, Device, DeviceError, Transport};
use super::queue::{Segment, VirtQueue};
use super::shared::{SharedArena, SharedBuffer};
use alloc::boxed::Box;
use core::time::Duration;

const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;
const EVENT: u16 = 2;
const RECEIVE_SLOTS: u16 = 64;
const TRANSMIT_SLOTS: u16 = 32;
const EVENT_SLOTS: u16 = 2;
/// Header and data: devices expect them in descriptors of their own.
const TRANSMIT_LINKS: u16 = 2;
const RECEIVE_BUFFER: usize = 4096;
const HEADER_ROOM: usize = 64;
const EVENT_LENGTH: usize = 4;
/// The highest context identifier of a machine; the ones above are reserved.
const HIGHEST_CID: u64 = 0xffff_fffe;
const FIRST_GUEST_CID: u64 = 3;

/// The most data one received packet carries.
pub const RECEIVE_DATA: usize = RECEIVE_BUFFER - HEADER_LENGTH;
/// The most data one sent packet carries.
pub const TRANSMIT_DATA: usize = 16 << 10;

/// What the device delivered.
#[derive(Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A packet, whose data was copied to the front of the buffer.
    Packet(Header),
    /// A packet whose length field disagrees with what arrived; its data was dropped.
    Malformed(Header),
}

/// A vsock device.
pub struct VsockDevice {
    device: Device,
    receive: VirtQueue,
    transmit: VirtQueue,
    event: VirtQueue,
    received: SharedBuffer,
    headers: SharedBuffer,
    sending: SharedBuffer,
    events: SharedBuffer,
    cid: u64,
}

impl VsockDevice {
    /// Sets up a vsock device and gives it all receive buffers.
    pub fn new(
        transport: Box<dyn Transport>,
        arena: &mut SharedArena,
        clock: Clock,
    ) -> Result<Self, DeviceError> {
        let mut device = Device::negotiate(transport, clock, 0, 0)?;
        let mut receive = device.queue(arena, RECEIVE, RECEIVE_SLOTS, 1)?;
        let transmit = device.queue(arena, TRANSMIT, TRANSMIT_SLOTS, TRANSMIT_LINKS)?;
        let mut event = device.queue(arena, EVENT, EVENT_SLOTS, 1)?;
        let received = arena.allocate(
            RECEIVE_BUFFER * usize::from(receive.slots()),
            RECEIVE_BUFFER,
        )?;
        let headers = arena.allocate(HEADER_ROOM * usize::from(transmit.slots()), HEADER_ROOM)?;
        let sending = arena.allocate(TRANSMIT_DATA * usize::from(transmit.slots()), 4096)?;
        let events = arena.allocate(EVENT_LENGTH * usize::from(event.slots()), EVENT_LENGTH)?;
        for slot in 0..receive.slots() {
            receive.submit(slot, &[writable(&received, RECEIVE_BUFFER, slot)]);
        }
        for slot in 0..event.slots() {
            event.submit(slot, &[writable(&events, EVENT_LENGTH, slot)]);
        }
        let cid = read_cid(&mut device)?;
        device.start();
        device.notify(RECEIVE, &receive);
        device.notify(EVENT, &event);
        Ok(Self {
            device,
            receive,
            transmit,
            event,
            received,
            headers,
            sending,
            events,
            cid,
        })
    }

    /// The context identifier the host gave this machine.
    pub fn cid(&self) -> u64 {
        self.cid
    }

    /// The next packet. Its data is at the front of `data`.
    pub fn receive(
        &mut self,
        data: &mut [u8; RECEIVE_DATA],
    ) -> Result<Option<Arrival>, DeviceError> {
        for _ in 0..self.receive.slots() {
            let Some(done) = self.receive.completion()? else {
                return Ok(None);
            };
            let at = RECEIVE_BUFFER * usize::from(done.slot);
            // What is shorter than a header has no sender to answer.
            let arrived = (done.written as usize).checked_sub(HEADER_LENGTH);
            let arrival = arrived.map(|arrived| {
                let mut header = [0; HEADER_LENGTH];
                self.received.copy_out(at, &mut header);
                let header = Header::parse(&header);
                if header.length as usize > arrived {
                    return Arrival::Malformed(header);
                }
                self.received
                    .copy_out(at + HEADER_LENGTH, &mut data[..header.length as usize]);
                Arrival::Packet(header)
            });
            // A device that returns a buffer without having written it (vhost-device-vsock does when a connection has
            // just gone) must not make an old packet count twice.
            self.received.copy_in(at, &[0; HEADER_LENGTH]);
            let segment = writable(&self.received, RECEIVE_BUFFER, done.slot);
            self.receive.submit(done.slot, &[segment]);
            self.device.notify(RECEIVE, &self.receive);
            if arrival.is_some() {
                return Ok(arrival);
            }
        }
        Ok(None)
    }

    /// Whether [`Self::transmit`] has a buffer to use.
    pub fn can_transmit(&mut self) -> Result<bool, DeviceError> {
        while self.transmit.completion()?.is_some() {}
        Ok(self.transmit.idle_slot().is_some())
    }

    /// Sends a packet with `data` of at most [`TRANSMIT_DATA`] bytes. False if the device holds every buffer.
    pub fn transmit(&mut self, header: &Header, data: &[u8]) -> Result<bool, DeviceError> {
        if !self.can_transmit()? || data.len() > TRANSMIT_DATA {
            return Ok(false);
        }
        let Some(slot) = self.transmit.idle_slot() else {
            return Ok(false);
        };
        let header_at = HEADER_ROOM * usize::from(slot);
        let data_at = TRANSMIT_DATA * usize::from(slot);
        self.headers.copy_in(header_at, &header.to_bytes());
        self.sending.copy_in(data_at, data);
        let segments = [
            Segment {
                address: self.headers.address(header_at),
                length: HEADER_LENGTH as u32,
                device_writes: false,
            },
            Segment {
                address: self.sending.address(data_at),
                length: data.len() as u32,
                device_writes: false,
            },
        ];
        let used = if data.is_empty() { 1 } else { 2 };
        self.transmit.submit(slot, &segments[..used]);
        self.device.notify(TRANSMIT, &self.transmit);
        Ok(true)
    }

    /// Whether the host cut all connections (a migration, or a restart of its vsock service). The context identifier
    /// may have changed.
    pub fn was_reset(&mut self) -> Result<bool, DeviceError> {
        let mut reset = false;
        // One kind of event is defined and the answer to an unknown one would be the same, so the contents do not matter.
        for _ in 0..self.event.slots() {
            let Some(done) = self.event.completion()? else {
                break;
            };
            let segment = writable(&self.events, EVENT_LENGTH, done.slot);
            self.event.submit(done.slot, &[segment]);
            self.device.notify(EVENT, &self.event);
            reset = true;
        }
        if reset {
            self.cid = read_cid(&mut self.device)?;
        }
        Ok(reset)
    }

    /// Notices a device that was reset or gave up.
    pub fn check_health(&mut self, now: Duration) -> Result<(), DeviceError> {
        self.device.check_health(now)
    }

    /// Shuts the device down.
    pub fn fail(&mut self, error: DeviceError) -> DeviceError {
        self.device.fail(error)
    }
}

fn read_cid(device: &mut Device) -> Result<u64, DeviceError> {
    let cid = u64::from_le_bytes(device.config(0)?);
    if !(FIRST_GUEST_CID..=HIGHEST_CID).contains(&cid) {
        return Err(device.fail(DeviceError::Configuration));
    }
    Ok(cid)
}

fn writable(buffer: &SharedBuffer, length: usize, slot: u16) -> Segment {
    Segment {
        address: buffer.address(length * usize::from(slot)),
        length: length as u32,
        device_writes: true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fake::{FakeDevice, FakeTransport};
    use super::super::test_arena;
    use super::*;
    use alloc::rc::Rc;
    use core::cell::RefCell;

    fn clock() -> Duration {
        Duration::ZERO
    }

    fn device(cid: u64) -> (Rc<RefCell<FakeDevice>>, Result<VsockDevice, DeviceError>) {
        let fake = FakeDevice::new(0, &cid.to_le_bytes());
        let device = VsockDevice::new(
            FakeTransport::silent(&fake),
            &mut test_arena(2 << 20),
            clock,
        );
        (fake, device)
    }

    fn header(length: u32) -> Header {
        Header {
            source: Endpoint { cid: 2, port: 5000 },
            destination: Endpoint { cid: 3, port: 8443 },
            length,
            socket_type: TYPE_STREAM,
            operation: Some(Operation::Data),
            flags: 0,
            buffer: 1 << 16,
            consumed: 0,
        }
    }

    fn deliver(fake: &Rc<RefCell<FakeDevice>>, bytes: &[u8]) {
        let mut fake = fake.borrow_mut();
        let chain = fake.ring(RECEIVE).take().unwrap();
        let written = chain.write(bytes);
        fake.ring(RECEIVE).finish(chain.head, written);
    }

    #[test]
    fn packets_travel_both_ways() {
        let (fake, device) = device(3);
        let mut device = device.unwrap();
        let mut data = [0; RECEIVE_DATA];
        for _ in 0..200 {
            deliver(&fake, &[&header(3).to_bytes()[..], b"abc"].concat());
            assert_eq!(
                device.receive(&mut data),
                Ok(Some(Arrival::Packet(header(3))))
            );
            assert_eq!(&data[..3], b"abc");
            assert_eq!(device.transmit(&header(2), b"xy"), Ok(true));
            let mut fake = fake.borrow_mut();
            let sent = fake.ring(TRANSMIT).take().unwrap();
            assert_eq!(sent.readable(), [&header(2).to_bytes()[..], b"xy"].concat());
            fake.ring(TRANSMIT).finish(sent.head, 0);
        }
        assert_eq!(device.receive(&mut data), Ok(None));
    }

    #[test]
    fn a_length_beyond_what_arrived_is_malformed() {
        let (fake, device) = device(3);
        let mut device = device.unwrap();
        deliver(&fake, &[0; HEADER_LENGTH - 1]);
        deliver(&fake, &[&header(4).to_bytes()[..], b"abc"].concat());
        deliver(&fake, &header(u32::MAX).to_bytes());
        let mut data = [0; RECEIVE_DATA];
        assert_eq!(
            device.receive(&mut data),
            Ok(Some(Arrival::Malformed(header(4))))
        );
        assert_eq!(
            device.receive(&mut data),
            Ok(Some(Arrival::Malformed(header(u32::MAX))))
        );
        assert_eq!(device.receive(&mut data), Ok(None));
    }

    #[test]
    fn a_buffer_returned_unwritten_repeats_nothing() {
        let (fake, device) = device(3);
        let mut device = device.unwrap();
        let mut data = [0; RECEIVE_DATA];
        for _ in 0..RECEIVE_SLOTS {
            deliver(&fake, &[&header(3).to_bytes()[..], b"abc"].concat());
            device.receive(&mut data).unwrap();
        }
        {
            let mut fake = fake.borrow_mut();
            let chain = fake.ring(RECEIVE).take().unwrap();
            fake.ring(RECEIVE)
                .finish(chain.head, HEADER_LENGTH as u32 + 3);
        }
        let Ok(Some(Arrival::Packet(stale))) = device.receive(&mut data) else {
            panic!("a packet of zeros");
        };
        assert_eq!(
            (stale.destination.cid, stale.length, stale.operation),
            (0, 0, None)
        );
    }

    #[test]
    fn a_transport_reset_is_reported_once_and_the_new_identifier_read() {
        let (fake, device) = device(3);
        let mut device = device.unwrap();
        assert_eq!(device.was_reset(), Ok(false));
        {
            let mut fake = fake.borrow_mut();
            fake.config = 77u64.to_le_bytes().to_vec();
            let chain = fake.ring(EVENT).take().unwrap();
            fake.ring(EVENT).finish(chain.head, 4);
        }
        assert_eq!(device.was_reset(), Ok(true));
        assert_eq!(device.was_reset(), Ok(false));
        assert_eq!(device.cid(), 77);
    }

    #[test]
    fn reserved_context_identifiers_are_refused() {
        for cid in [0, 1, 2, 0xffff_ffff, u64::MAX] {
            assert_eq!(device(cid).1.err(), Some(DeviceError::Configuration));
        }
    }

    #[test]
    fn a_device_that_returns_no_buffers_only_fills_up() {
        let (_fake, device) = device(3);
        let mut device = device.unwrap();
        for _ in 0..TRANSMIT_SLOTS {
            assert_eq!(device.transmit(&header(1), b"z"), Ok(true));
        }
        assert_eq!(device.transmit(&header(1), b"z"), Ok(false));
    }
}
