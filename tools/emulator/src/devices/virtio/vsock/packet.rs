//! Packets between the two ends of connections (virtio 1.2, 5.10.6), as the parts here see them: without guest memory.

use virtio_vsock::packet::VsockPacket;

/// Socket type of byte streams (virtio 1.2, 5.10.6).
pub const TYPE_STREAM: u16 = 1;

/// Flags of [`Operation::Shutdown`] (virtio 1.2, 5.10.6): the sender will not receive, or not send, any more.
pub const WILL_NOT_RECEIVE: u32 = 1;
pub const WILL_NOT_SEND: u32 = 2;

/// What a packet does, by number (virtio 1.2, 5.10.6: `enum virtio_vsock_op`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    Request = 1,
    Response = 2,
    Reset = 3,
    Shutdown = 4,
    Data = 5,
    CreditUpdate = 6,
    CreditRequest = 7,
}

impl Operation {
    /// The operation with a number, if there is one.
    pub fn from_number(number: u16) -> Option<Self> {
        use Operation::{CreditRequest, CreditUpdate, Data, Request, Reset, Response, Shutdown};
        [
            Request,
            Response,
            Reset,
            Shutdown,
            Data,
            CreditUpdate,
            CreditRequest,
        ]
        .into_iter()
        .find(|operation| *operation as u16 == number)
    }
}

/// A packet to or from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// The host's port and the guest's.
    pub host_port: u32,
    pub guest_port: u32,
    pub socket_type: u16,
    /// A number of [`Operation`], or not.
    pub operation: u16,
    pub flags: u32,
    /// How much its sender can buffer, and has consumed so far.
    pub buffer: u32,
    pub consumed: u32,
    pub data: Vec<u8>,
}

impl Packet {
    /// A packet without data, flags or credit.
    pub fn new(host_port: u32, guest_port: u32, operation: Operation) -> Self {
        Self {
            host_port,
            guest_port,
            socket_type: TYPE_STREAM,
            operation: operation as u16,
            flags: 0,
            buffer: 0,
            consumed: 0,
            data: Vec::new(),
        }
    }

    /// A packet of the guest's, its data copied. Addresses of machines are not looked at: there are two.
    pub fn from_guest(packet: &VsockPacket<'_, ()>) -> Self {
        let mut data = vec![0; packet.len() as usize];
        if let Some(slice) = packet.data_slice() {
            slice.copy_to(&mut data[..]);
        }
        Self {
            host_port: packet.dst_port(),
            guest_port: packet.src_port(),
            socket_type: packet.type_(),
            operation: packet.op(),
            flags: packet.flags(),
            buffer: packet.buf_alloc(),
            consumed: packet.fwd_cnt(),
            data,
        }
    }
}
