//! What a hostile host puts on the network. With an honest host everything here passes through unchanged.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, IpProtocol, Ipv4Address,
    Ipv4Packet, Ipv4Repr, TcpPacket,
};

use super::{Attack, GATEWAY, GUEST_ADDRESS, GUEST_MAC, Host, OVERSIZED, Target, nat};

/// Bytes of two addresses and a type (IEEE 802.3).
const ETHERNET_HEADER: usize = 14;
/// A port at which the guest may well listen.
const LIKELY_PORT: u16 = 8443;
/// EtherTypes (IANA IEEE 802 numbers).
const IPV4: [u8; 2] = [8, 0];
const ARP: [u8; 2] = [8, 6];

/// A frame that no sound machine would send.
pub fn garbage(host: &Host) -> Option<Vec<u8>> {
    if !host.is_hostile() {
        return None;
    }
    if host.strikes(Attack::FrameFlood, Target::Card) {
        let length = host.below(2 * OVERSIZED as u64).min(OVERSIZED as u64) as usize;
        let mut frame = random_bytes(host, length);
        // One in two is for the guest and looks like something it handles.
        if host.below(2) == 0 && frame.len() > ETHERNET_HEADER {
            frame[..6].copy_from_slice(&GUEST_MAC);
            frame[12..14].copy_from_slice(if host.below(2) == 0 { &IPV4 } else { &ARP });
        }
        return Some(frame);
    }
    host.strikes(Attack::SegmentFlood, Target::Card)
        .then(|| segment(host))
}

/// A TCP segment from the gateway to the guest: addresses, lengths and checksums are sound, the rest of its header and its contents random.
fn segment(host: &Host) -> Vec<u8> {
    let length = 20 + host.below(600) as usize;
    let ip = Ipv4Repr {
        src_addr: GATEWAY,
        dst_addr: GUEST_ADDRESS,
        next_header: IpProtocol::Tcp,
        payload_len: length,
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: nat::MAC,
        dst_addr: EthernetAddress(GUEST_MAC),
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut frame = random_bytes(host, ETHERNET_HEADER + ip.buffer_len() + length);
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    let (head, tail) = frame[ETHERNET_HEADER..].split_at_mut(ip.buffer_len());
    ip.emit(
        &mut Ipv4Packet::new_unchecked(head),
        &ChecksumCapabilities::default(),
    );
    let mut tcp = TcpPacket::new_unchecked(tail);
    tcp.set_dst_port(LIKELY_PORT);
    tcp.set_header_len(20);
    tcp.fill_checksum(&GATEWAY.into(), &GUEST_ADDRESS.into());
    frame
}

fn random_bytes(host: &Host, length: usize) -> Vec<u8> {
    (0..length).map(|_| host.below(256) as u8).collect()
}

/// The address that is given to the guest.
pub fn lease(host: &Host, honest: Ipv4Address) -> Ipv4Address {
    if host.is_hostile() && host.strikes(Attack::LeaseImpossible, Target::Card) {
        let choices = [
            Ipv4Address::BROADCAST,
            Ipv4Address::UNSPECIFIED,
            Ipv4Address::new(224, 0, 0, 1),
        ];
        return choices[host.below(choices.len() as u64) as usize];
    }
    honest
}
