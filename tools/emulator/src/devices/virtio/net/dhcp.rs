//! A DHCP server (RFC 2131) for the one guest, which always gets the same lease.

use smoltcp::wire::{DhcpMessageType, DhcpPacket, DhcpRepr, Ipv4Address};

use super::{GATEWAY, GUEST_ADDRESS};

/// Ports of the two ends (RFC 2131, 4.1).
pub const SERVER_PORT: u16 = 67;
pub const CLIENT_PORT: u16 = 68;
/// What an honest server gives.
pub const LEASE: Ipv4Address = GUEST_ADDRESS;

const NETMASK: Ipv4Address = Ipv4Address::new(255, 255, 255, 0);
const LEASE_SECONDS: u32 = 86_400;

/// The answer to a datagram, if it is a request for a lease. `lease` is the address to give.
pub fn answer(datagram: &[u8], lease: Ipv4Address) -> Option<Vec<u8>> {
    let packet = DhcpPacket::new_checked(datagram).ok()?;
    let request = DhcpRepr::parse(&packet).ok()?;
    let message_type = match request.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => {
            let wanted = request.requested_ip.unwrap_or(request.client_ip);
            let for_us = request
                .server_identifier
                .is_none_or(|server| server == GATEWAY);
            match (for_us, wanted == lease) {
                (false, _) => return None,
                (true, true) => DhcpMessageType::Ack,
                (true, false) => DhcpMessageType::Nak,
            }
        }
        _ => return None,
    };
    let refused = message_type == DhcpMessageType::Nak;
    let reply = DhcpRepr {
        message_type,
        your_ip: if refused {
            Ipv4Address::UNSPECIFIED
        } else {
            lease
        },
        server_ip: GATEWAY,
        router: (!refused).then_some(GATEWAY),
        subnet_mask: (!refused).then_some(NETMASK),
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(GATEWAY),
        parameter_request_list: None,
        dns_servers: None,
        max_size: None,
        lease_duration: (!refused).then_some(LEASE_SECONDS),
        renew_duration: None,
        rebind_duration: None,
        ..request
    };
    let mut bytes = vec![0; reply.buffer_len()];
    reply
        .emit(&mut DhcpPacket::new_unchecked(&mut bytes))
        .ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{DhcpMessageType as Type, EthernetAddress};

    fn request(message_type: Type, wanted: Option<Ipv4Address>) -> Vec<u8> {
        let repr = DhcpRepr {
            message_type,
            transaction_id: 7,
            secs: 0,
            client_hardware_address: EthernetAddress([2, 0, 0, 0, 0, 1]),
            client_ip: Ipv4Address::UNSPECIFIED,
            your_ip: Ipv4Address::UNSPECIFIED,
            server_ip: Ipv4Address::UNSPECIFIED,
            router: None,
            subnet_mask: None,
            relay_agent_ip: Ipv4Address::UNSPECIFIED,
            broadcast: false,
            requested_ip: wanted,
            client_identifier: None,
            server_identifier: wanted.map(|_| GATEWAY),
            parameter_request_list: None,
            dns_servers: None,
            max_size: None,
            lease_duration: None,
            renew_duration: None,
            rebind_duration: None,
            additional_options: &[],
        };
        let mut bytes = vec![0; repr.buffer_len()];
        repr.emit(&mut DhcpPacket::new_unchecked(&mut bytes))
            .unwrap();
        bytes
    }

    fn reply(request: &[u8]) -> Option<(Type, Ipv4Address)> {
        let bytes = answer(request, LEASE)?;
        let packet = DhcpPacket::new_checked(&bytes[..]).unwrap();
        let reply = DhcpRepr::parse(&packet).unwrap();
        assert_eq!(
            (reply.transaction_id, reply.server_identifier),
            (7, Some(GATEWAY))
        );
        Some((reply.message_type, reply.your_ip))
    }

    #[test]
    fn the_guest_gets_its_lease() {
        assert_eq!(
            reply(&request(Type::Discover, None)),
            Some((Type::Offer, LEASE))
        );
        assert_eq!(
            reply(&request(Type::Request, Some(LEASE))),
            Some((Type::Ack, LEASE))
        );
    }

    #[test]
    fn another_address_is_refused_and_noise_ignored() {
        let other = Ipv4Address::new(10, 0, 2, 99);
        assert_eq!(
            reply(&request(Type::Request, Some(other))),
            Some((Type::Nak, Ipv4Address::UNSPECIFIED))
        );
        assert_eq!(reply(&request(Type::Release, None)), None);
        assert_eq!(answer(&[1; 300], LEASE), None);
    }
}
