//! The packet header of virtio sockets (virtio 1.2 §5.10.6): 44 bytes, little-endian.

/// Bytes of a header.
pub const HEADER_LENGTH: usize = 44;

/// Socket type of byte streams, the only one spoken here.
pub const TYPE_STREAM: u16 = 1;

/// In a [`Operation::Shutdown`]: the sender will receive no more.
pub const SHUTDOWN_RECEIVE: u32 = 1;
/// In a [`Operation::Shutdown`]: the sender will send no more.
pub const SHUTDOWN_SEND: u32 = 2;

/// What a packet does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum Operation {
    /// Asks for a connection.
    Request = 1,
    /// Accepts one.
    Response = 2,
    /// Ends or refuses one at once.
    Reset = 3,
    /// Ends one or both directions.
    Shutdown = 4,
    /// Carries data.
    Data = 5,
    /// Carries nothing but the credit fields.
    CreditUpdate = 6,
    /// Asks for a credit update.
    CreditRequest = 7,
}

impl Operation {
    fn from_number(number: u16) -> Option<Self> {
        Some(match number {
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Reset,
            4 => Self::Shutdown,
            5 => Self::Data,
            6 => Self::CreditUpdate,
            7 => Self::CreditRequest,
            _ => return None,
        })
    }
}

/// One end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Context identifier: which machine.
    pub cid: u64,
    /// Port on it.
    pub port: u32,
}

/// A packet header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The sender.
    pub source: Endpoint,
    /// The receiver.
    pub destination: Endpoint,
    /// Bytes of data behind the header.
    pub length: u32,
    /// [`TYPE_STREAM`] or something this machine refuses.
    pub socket_type: u16,
    /// What the packet does; None for a number without a meaning.
    pub operation: Option<Operation>,
    /// `SHUTDOWN_*` bits.
    pub flags: u32,
    /// Bytes the sender can buffer.
    pub buffer: u32,
    /// Bytes of data the sender has consumed so far, modulo 2^32.
    pub consumed: u32,
}

impl Header {
    /// Reads a header; every bit pattern is one.
    pub fn parse(bytes: &[u8; HEADER_LENGTH]) -> Self {
        let mut fields = Fields(bytes);
        let source_cid = u64::from_le_bytes(fields.take());
        let destination_cid = u64::from_le_bytes(fields.take());
        Self {
            source: Endpoint {
                cid: source_cid,
                port: u32::from_le_bytes(fields.take()),
            },
            destination: Endpoint {
                cid: destination_cid,
                port: u32::from_le_bytes(fields.take()),
            },
            length: u32::from_le_bytes(fields.take()),
            socket_type: u16::from_le_bytes(fields.take()),
            operation: Operation::from_number(u16::from_le_bytes(fields.take())),
            flags: u32::from_le_bytes(fields.take()),
            buffer: u32::from_le_bytes(fields.take()),
            consumed: u32::from_le_bytes(fields.take()),
        }
    }

    /// Writes the header.
    pub fn to_bytes(&self) -> [u8; HEADER_LENGTH] {
        let mut bytes = [0; HEADER_LENGTH];
        let operation = self.operation.map_or(0, |operation| operation as u16);
        bytes[0..8].copy_from_slice(&self.source.cid.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.destination.cid.to_le_bytes());
        bytes[16..20].copy_from_slice(&self.source.port.to_le_bytes());
        bytes[20..24].copy_from_slice(&self.destination.port.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.length.to_le_bytes());
        bytes[28..30].copy_from_slice(&self.socket_type.to_le_bytes());
        bytes[30..32].copy_from_slice(&operation.to_le_bytes());
        bytes[32..36].copy_from_slice(&self.flags.to_le_bytes());
        bytes[36..40].copy_from_slice(&self.buffer.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.consumed.to_le_bytes());
        bytes
    }
}

/// Takes fixed-size fields off the front. The header is long enough for all of them.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn fields_stand_where_the_specification_puts_them() {
        let mut bytes = [0; HEADER_LENGTH];
        for (index, byte) in bytes.iter_mut().enumerate() {
            *byte = index as u8;
        }
        let header = Header::parse(&bytes);
        assert_eq!(header.source.cid, 0x0706_0504_0302_0100);
        assert_eq!(header.destination.port, 0x1716_1514);
        assert_eq!(header.socket_type, 0x1d1c);
        assert_eq!(header.consumed, 0x2b2a_2928);
        assert_eq!(header.operation, None);
    }

    proptest! {
        #[test]
        fn a_header_survives_the_wire(bytes in proptest::collection::vec(any::<u8>(), HEADER_LENGTH)) {
            let mut bytes: [u8; HEADER_LENGTH] = bytes.try_into().unwrap();
            bytes[30] %= 9;
            bytes[31] = 0;
            let header = Header::parse(&bytes);
            let again = Header::parse(&header.to_bytes());
            prop_assert_eq!(header, again);
            if header.operation.is_some() {
                prop_assert_eq!(header.to_bytes(), bytes);
            }
        }
    }
}
