//! TDVMCALL GetQuote: the VMM takes a request from shared memory and answers there later (QEMU `tdx_handle_get_quote`; `tdx.md` 1.6).

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use tdx::quote::{BUFFER, HEADER};
use tdx::report::REPORT;

use super::HostStatus;
use crate::cpu::gpr::{R12, R13};
use crate::hostile::{Attack, Target};
use crate::memory::{PAGE, PageState};
use crate::quoting::QuotingService;
use crate::report::Identity;
use crate::td::Td;

/// Requests in flight at once; QEMU wants more to be tried again (`tdx_handle_get_quote`, `TDX_MAX_GET_QUOTE_REQUEST`).
const MAX_IN_FLIGHT: u32 = 16;
/// Offset of the caller's data in a TDREPORT (`tdx.md` 1.5).
const REPORT_DATA: usize = 128;
/// The status while the service works, and where the buffer has status and length (`tdx.md` 1.6, from QEMU `tdx-quote-generator.c`).
const IN_FLIGHT: u64 = u64::MAX;
/// Offset of the status in the buffer.
const STATUS: u64 = 8;
/// Offset of the quote's length in the buffer.
const LENGTH: usize = 20;
/// How long the service takes: long enough that a TD which does not wait is found out.
const SERVICE_TIME: Duration = Duration::from_millis(2);
/// How long a hostile host takes.
const LONG: Duration = Duration::from_millis(1500);

/// The VMM's side of attestation.
pub struct Quoting {
    service: QuotingService,
    in_flight: Arc<AtomicU32>,
    /// The vCPU and vector to interrupt when a quote is complete; zero for none.
    notification: AtomicU32,
}

impl Quoting {
    /// A VMM connected to `service`.
    pub fn new(service: QuotingService) -> Self {
        Self {
            service,
            in_flight: Arc::default(),
            notification: AtomicU32::new(0),
        }
    }
}

/// R12 is the buffer, with the shared bit; R13 its length.
pub fn get_quote(td: &Td, host: &[u64; 16]) -> HostStatus {
    let (address, length) = (host[R12], host[R13]);
    let gpa = address & !td.shared_bit();
    if !gpa.is_multiple_of(PAGE) || !length.is_multiple_of(PAGE) {
        return HostStatus::AlignError;
    }
    let shared = address & td.shared_bit() != 0
        && (1..=BUFFER as u64).contains(&length)
        && td.memory.all(gpa, length, PageState::Shared);
    if !shared {
        return HostStatus::InvalidOperand;
    }
    let quoting = &td.quoting;
    let mut request = vec![0; length as usize];
    if td.memory.read_any(gpa, true, &mut request).is_err() {
        return HostStatus::InvalidOperand;
    }
    let strikes = |attack| td.host.strikes(attack, Target::Launch);
    if strikes(Attack::QuoteRetry) {
        return HostStatus::Retry;
    }
    if strikes(Attack::QuoteOfAnother) {
        replace_report(td, &mut request);
    }
    let Ok(mut answer) = quoting.service.answer(&request) else {
        return HostStatus::InvalidOperand;
    };
    if strikes(Attack::QuoteLengthHuge) {
        answer.bytes[LENGTH..LENGTH + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    }
    if let Some(refusal) = &answer.refusal {
        td.trace
            .line(0, format_args!("the quoting service refuses: {refusal}"));
    }
    if quoting.in_flight.fetch_add(1, Ordering::SeqCst) >= MAX_IN_FLIGHT {
        quoting.in_flight.fetch_sub(1, Ordering::SeqCst);
        return HostStatus::Retry;
    }
    let memory = td.memory.shared().clone();
    write(&memory, gpa + STATUS, &IN_FLIGHT.to_le_bytes());
    let (in_flight, apics, host) = (quoting.in_flight.clone(), td.apics.clone(), td.host.clone());
    let time = if strikes(Attack::QuoteLate) {
        LONG
    } else {
        SERVICE_TIME
    };
    let notification = quoting.notification.load(Ordering::SeqCst);
    thread::spawn(move || {
        thread::sleep(time);
        while host.strikes(Attack::QuoteNever, Target::Launch) {
            thread::sleep(SERVICE_TIME);
        }
        // The status is what the TD waits for, so the header comes last.
        let (header, quote) = answer.bytes.split_at(HEADER);
        write(&memory, gpa + HEADER as u64, quote);
        write(&memory, gpa, header);
        in_flight.fetch_sub(1, Ordering::SeqCst);
        if notification != 0 {
            let (vcpu, vector) = (notification >> 8, notification as u8);
            apics.0[vcpu as usize].post(vector);
        }
    });
    HostStatus::Success
}

/// Puts the report of a TD of the host's own in place of this one's, with the same data.
fn replace_report(td: &Td, request: &mut [u8]) {
    let Some(report) = request.get_mut(HEADER..HEADER + REPORT) else {
        return;
    };
    let mut data = [0; 64];
    data.copy_from_slice(&report[REPORT_DATA..REPORT_DATA + 64]);
    let service = &td.quoting.service;
    let other = Identity::new(service.platform(), *service.report_key(), 0, [0xee; 48]);
    report.copy_from_slice(other.report(&data).as_bytes());
}

/// R12 is the vector, 32 to 255, on this vCPU.
pub fn set_notification(td: &Td, vcpu: u32, vector: u64) -> HostStatus {
    if !(32..=255).contains(&vector) {
        return HostStatus::InvalidOperand;
    }
    let notification = vcpu << 8 | vector as u32;
    td.quoting
        .notification
        .store(notification, Ordering::SeqCst);
    HostStatus::Success
}

fn write(memory: &crate::bus::SharedMemory, gpa: u64, bytes: &[u8]) {
    use vm_memory::{Bytes, GuestAddress};
    memory
        .write_slice(bytes, GuestAddress(gpa))
        .expect("the whole buffer is memory, and memory does not go away");
}
