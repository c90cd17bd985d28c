//! Hosts that answer, answer late, answer nonsense, or change their answer.

use super::*;
use crate::virtio::test_arena;
use core::sync::atomic::{AtomicU64, Ordering};
use std::rc::Rc;
use std::thread_local;
use tdx::call::LeafRegisters;
use tdx::fake::{Call, Fake};
use tdx::status::Status;

thread_local! {
    static NOW: Rc<AtomicU64> = Rc::default();
}

fn clock() -> Duration {
    NOW.with(|now| Duration::from_secs(now.load(Ordering::Relaxed)))
}

fn pass(seconds: u64) {
    NOW.with(|now| now.fetch_add(seconds, Ordering::Relaxed));
}

/// A module whose reports carry the data they are asked for, and a host that takes requests with `r10`.
fn machine(r10: u64) -> Fake {
    Fake::new(move |call| {
        match call {
            Call::Module(LeafRegisters { rax, rcx, rdx, .. }) => {
                let report: *mut u8 = core::ptr::with_exposed_provenance_mut(*rcx as usize);
                let data: *const [u8; 64] = core::ptr::with_exposed_provenance(*rdx as usize);
                // SAFETY: `leaf::report` passes a report and the data for it.
                unsafe { report.add(128).cast::<[u8; 64]>().write(*data) }
                *rax = 0;
            }
            Call::Host(registers) => registers.r10 = r10,
        }
        Status(0)
    })
}

fn quoter(r10: u64) -> Quoter<Fake> {
    let mut arena = test_arena(1 << 20);
    Quoter::with(machine(r10), AddressWidth::Bits48, &mut arena, clock).expect("room")
}

/// A version 4 quote of a TD that is all zeros but for its REPORTDATA.
fn quote_with(data: &[u8; 64]) -> Vec<u8> {
    let mut quote = vec![0; 48 + 520];
    quote[0] = 4;
    quote[4] = 0x81;
    quote.extend(data);
    quote.extend([0xab; 300]);
    quote
}

/// Writes a status and a quote as the host does.
fn answer(quoter: &mut Quoter<Fake>, status: u64, length: u32, quote: &[u8]) {
    quoter.buffer.write_u64(8, status);
    quoter.buffer.write_u32(20, length);
    quoter.buffer.copy_in(quote::HEADER, quote);
}

const DATA: [u8; 64] = [0x5a; 64];
const IN_FLIGHT: u64 = u64::MAX;

#[test]
fn a_quote_of_the_own_report_is_returned_once() {
    let mut quoter = quoter(0);
    assert_eq!(quoter.poll(), None);
    quoter.start(&DATA).expect("a request");
    let [request] = quoter.tdcall.host_calls()[..] else {
        panic!("one request")
    };
    let address = quoter.buffer.address(0).0;
    assert_eq!((request.r11, request.r12), (0x1_0002, address | 1 << 47));
    assert_eq!((request.r12 % PAGE, request.r13), (0, 128 << 10));
    let mut sent = [0; 24 + 1024];
    quoter.buffer.copy_out(0, &mut sent);
    assert_eq!(sent[24 + 128..][..64], DATA);

    answer(&mut quoter, IN_FLIGHT, 0, &[]);
    assert_eq!(quoter.poll(), None);
    assert_eq!(quoter.start(&DATA), Err(QuoteError::Busy));
    let quote = quote_with(&DATA);
    answer(&mut quoter, 0, quote.len() as u32, &quote);
    assert_eq!(quoter.poll(), Some(Ok(quote)));
    assert_eq!(quoter.poll(), None);
}

#[test]
fn another_quote_is_refused() {
    for (quote, difference) in [
        (quote_with(&[1; 64]), Difference::ReportData),
        (vec![0; 700], Difference::NotAQuote),
    ] {
        let mut quoter = quoter(0);
        quoter.start(&DATA).expect("a request");
        answer(&mut quoter, 0, quote.len() as u32, &quote);
        assert_eq!(quoter.poll(), Some(Err(QuoteError::NotOurs(difference))));
    }
}

#[test]
fn lengths_and_statuses_are_the_hosts_word() {
    for (status, length, error) in [
        (0, 0, quote::HostError::Length(0)),
        (0, u32::MAX, quote::HostError::Length(u32::MAX)),
        (
            0,
            (128 << 10) - 23,
            quote::HostError::Length((128 << 10) - 23),
        ),
        (1 << 63, 632, quote::HostError::Failed),
        (1 << 63 | 1, 632, quote::HostError::Unavailable),
        (7, 632, quote::HostError::Status(7)),
    ] {
        let mut quoter = quoter(0);
        quoter.start(&DATA).expect("a request");
        answer(&mut quoter, status, length, &quote_with(&DATA));
        assert_eq!(quoter.poll(), Some(Err(QuoteError::Service(error))));
        // And the next one is asked for as if nothing had been.
        quoter.start(&DATA).expect("another request");
    }
}

#[test]
fn a_host_that_is_stuck_is_given_up() {
    let mut quoter = quoter(0);
    quoter.start(&DATA).expect("a request");
    answer(&mut quoter, IN_FLIGHT, 0, &[]);
    pass(39);
    assert_eq!(quoter.poll(), None);
    pass(2);
    assert_eq!(quoter.poll(), Some(Err(QuoteError::Timeout)));
    quoter.start(&DATA).expect("another request");
}

#[test]
fn a_host_that_does_not_take_requests_is_told_from_one_that_fails() {
    let mut quoter = quoter(1);
    let refused = QuoteError::Refused(hypercall::HostError::Retry);
    assert_eq!(quoter.start(&DATA), Err(refused));
    assert_eq!(quoter.poll(), None);
}
