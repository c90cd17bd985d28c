//! Every call against the register tables of the GHCI specification, and every way in which a host can answer.

use super::*;
use crate::address::AddressWidth;
use crate::fake::Fake;
use proptest::prelude::*;

/// A host that does what it is asked and answers `r11`.
fn willing(r11: u64) -> Fake {
    Fake::host(move |registers| (registers.r10, registers.r11) = (0, r11))
}

/// The one call that was made: exposed registers, then R10 to R15.
fn only_call(fake: &Fake) -> [u64; 7] {
    let [call] = fake.host_calls()[..] else {
        panic!("one call")
    };
    assert_eq!(
        [call.rbx, call.rdx, call.rsi, call.rdi, call.r8, call.r9],
        [0; 6]
    );
    [
        call.exposed,
        call.r10,
        call.r11,
        call.r12,
        call.r13,
        call.r14,
        call.r15,
    ]
}

#[test]
fn calls_are_encoded_as_the_specification_says() {
    let register = AddressWidth::Bits48.share(0xe000_0014);
    type Case = (fn(&Fake, SharedAddress) -> Result<u64, HostError>, [u64; 5]);
    let cases: [Case; 9] = [
        (
            |host, _| read_port(host, 0x3fd, Width::Byte).map(u64::from),
            [30, 1, 0, 0x3fd, 0],
        ),
        (
            |host, _| write_port(host, 0xcf8, Width::Double, 0x8000_0010).map(|()| 0),
            [30, 4, 1, 0xcf8, 0x8000_0010],
        ),
        (
            |host, _| write_port(host, 0x3f8, Width::Byte, 0x1ff).map(|()| 0),
            [30, 1, 1, 0x3f8, 0xff],
        ),
        (|host, _| read_msr(host, 0x6e0), [31, 0x6e0, 0, 0, 0]),
        (
            |host, _| write_msr(host, 0x830, 1 << 32 | 0x4021).map(|()| 0),
            [32, 0x830, 1 << 32 | 0x4021, 0, 0],
        ),
        (
            |host, at| read_register(host, at, Width::Word),
            [48, 2, 0, 0x8000_e000_0014, 0],
        ),
        (
            |host, at| write_register(host, at, Width::Quad, u64::MAX).map(|()| 0),
            [48, 8, 1, 0x8000_e000_0014, u64::MAX],
        ),
        (
            |host, at| get_quote(host, at, 0x2_0000).map(|()| 0),
            [0x1_0002, 0x8000_e000_0014, 0x2_0000, 0, 0],
        ),
        (
            // SAFETY: a fake host takes no memory away.
            |host, at| unsafe { share(host, at, 0x4000) }.map(|()| 0),
            [0x1_0001, 0x8000_e000_0014, 0x4000, 0, 0],
        ),
    ];
    for (call, [r11, r12, r13, r14, r15]) in cases {
        let host = willing(0);
        assert_eq!(call(&host, register), Ok(0));
        assert_eq!(only_call(&host), [0xfc00, 0, r11, r12, r13, r14, r15]);
        // What the host or the module refuses is not taken for done.
        for status in [1 << 63, 1 << 63 | 1, 1 << 63 | 2, 1 << 63 | 3, 7] {
            let unwilling = Fake::host(move |registers| registers.r10 = status);
            assert!(call(&unwilling, register).is_err(), "{r11}, {status:#x}");
        }
        let module = Fake::new(|_| Status(0xc000_0100_0000_0001));
        let error = HostError::Module(0xc000_0100);
        assert_eq!(call(&module, register), Err(error), "{r11}");
    }
}

#[test]
fn answers_are_cut_to_the_width_of_the_access() {
    let register = AddressWidth::Bits52.share(0);
    let host = willing(u64::MAX);
    assert_eq!(read_port(&host, 1, Width::Byte), Ok(0xff));
    assert_eq!(read_port(&host, 1, Width::Word), Ok(0xffff));
    assert_eq!(read_port(&host, 1, Width::Double), Ok(u32::MAX));
    assert_eq!(read_register(&host, register, Width::Byte), Ok(0xff));
    assert_eq!(read_register(&host, register, Width::Quad), Ok(u64::MAX));
    assert_eq!(read_msr(&host, 0x1b), Ok(u64::MAX));
}

#[test]
fn a_halt_has_interrupts_on_and_says_so() {
    let host = willing(0);
    // SAFETY: a fake host interrupts nobody.
    assert_eq!(unsafe { halt(&host) }, Ok(()));
    assert_eq!(host.host_calls()[0].interruptible, 1);
    assert_eq!(only_call(&host), [0xfc00, 0, 12, 0, 0, 0, 0]);
    let host = willing(0);
    halt_for_good(&host);
    assert_eq!(host.host_calls()[0].interruptible, 0);
    assert_eq!(only_call(&host), [0xfc00, 0, 12, 1, 0, 0, 0]);
}

#[test]
fn every_status_is_understood() {
    for (r10, error) in [
        (1, HostError::Retry),
        (0x8000_0000_0000_0000, HostError::InvalidOperand),
        (0x8000_0000_0000_0001, HostError::InUse),
        (0x8000_0000_0000_0002, HostError::Misaligned),
        (0x8000_0000_0000_0003, HostError::Unsupported),
        (2, HostError::Unknown(2)),
        (u64::MAX, HostError::Unknown(u64::MAX)),
    ] {
        let host = Fake::host(move |registers| registers.r10 = r10);
        assert_eq!(read_msr(&host, 0), Err(error));
    }
    let module = Fake::new(|_| Status(0xc000_0100_0000_0001));
    assert_eq!(read_msr(&module, 0), Err(HostError::Module(0xc000_0100)));
}

#[test]
fn a_fatal_error_carries_its_message_in_eight_registers() {
    let message = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+-and more";
    let host = willing(0);
    report_fatal_error(&host, message);
    let call = host.host_calls()[0];
    assert_eq!(
        (call.exposed, call.r11, call.r12, call.r13),
        (0xffcc, 0x1_0003, 0, 0)
    );
    let words = [
        call.r14, call.r15, call.rbx, call.rdi, call.rsi, call.r8, call.r9, call.rdx,
    ];
    let bytes: std::vec::Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(bytes, &message.as_bytes()[..MESSAGE]);
}

/// Shares `pages` pages through a host that answers retries by `next`, given the first page it was asked for and how often it was.
fn share_with(
    pages: u64,
    mut next: impl FnMut(u64, u32) -> Option<u64> + 'static,
) -> (Result<(), HostError>, usize) {
    let start = AddressWidth::Bits48.share(0x10_0000);
    let mut calls = 0;
    let host = Fake::host(move |registers| {
        calls += 1;
        match next(registers.r12, calls) {
            Some(resume) => (registers.r10, registers.r11) = (1, resume),
            None => registers.r10 = 0,
        }
    });
    // SAFETY: a fake host takes no memory away.
    let outcome = unsafe { share(&host, start, pages * PAGE) };
    let calls = host.host_calls();
    let end = start.get() + pages * PAGE;
    assert!(calls.iter().all(|call| call.r12 + call.r13 == end));
    (outcome, calls.len())
}

#[test]
fn sharing_goes_on_where_the_host_stopped() {
    let by_page = |position, calls| (calls < 8).then_some(position + PAGE);
    assert_eq!(share_with(8, by_page), (Ok(()), 8));
    let patient = |position, calls| (calls <= STALLS).then_some(position);
    assert_eq!(share_with(8, patient), (Ok(()), STALLS as usize + 1));
}

#[test]
fn sharing_ends_when_the_host_does_not_get_on() {
    let stuck = |position, _| Some(position);
    let (outcome, calls) = share_with(8, stuck);
    assert_eq!(outcome, Err(HostError::NoProgress));
    assert_eq!(calls, STALLS as usize + 1);
    for resume in [0, 0x10_0000, 0x8000_0010_0800, 0x8000_0010_8000, u64::MAX] {
        let (outcome, calls) = share_with(8, move |_, _| Some(resume));
        assert_eq!((outcome, calls), (Err(HostError::NoProgress), 1));
    }
    let back = |position: u64, calls| {
        Some(if calls == 1 {
            position + 2 * PAGE
        } else {
            position - PAGE
        })
    };
    assert_eq!(share_with(8, back), (Err(HostError::NoProgress), 2));
}

proptest! {
    #[test]
    fn sharing_ends_whatever_the_host_answers(answers: std::vec::Vec<Option<u16>>, pages in 1u64..64) {
        let mut answers = answers.into_iter().map(|pages| pages.map(|pages| 0x8000_0010_0000 + u64::from(pages % 64) * PAGE));
        let (_, calls) = share_with(pages, move |_, _| answers.next().flatten());
        prop_assert!(calls <= 64 * (STALLS as usize + 1));
    }
}
