//! Attacks on the quote's own bytes: C1–C10.

use super::Case;
use super::Change::{Described, Prepared, Quoted, Shown, Tampered};
use crate::tcb::QE_PRODUCT;
use crate::{Quote, QuoteBody, QuoteFormat, Scenario};

pub(super) const CASES: &[Case] = &[
    // C1: a bit after signing.
    Case::new(
        "C1",
        "a bit of the header's user data flipped",
        Tampered(|quote| quote.user_data[3] ^= 1),
    ),
    Case::new(
        "C1",
        "a bit of the header's reserved bytes flipped",
        Tampered(|quote| quote.reserved[0] ^= 1),
    ),
    Case::new(
        "C1",
        "a bit of TEE_TCB_SVN flipped",
        Tampered(|quote| quote.body.bytes[0] ^= 1),
    ),
    Case::new(
        "C1",
        "a bit of MRTD flipped",
        Tampered(|quote| quote.body.bytes[136] ^= 1),
    ),
    Case::new(
        "C1",
        "a bit of RTMR3 flipped",
        Tampered(|quote| quote.body.bytes[472] ^= 0x80),
    ),
    Case::new(
        "C1",
        "the last bit of REPORTDATA flipped",
        Tampered(|quote| quote.body.bytes[583] ^= 0x80),
    ),
    Case::new(
        "C1",
        "DEBUG cleared after signing",
        Prepared(|scenario| {
            scenario.report.td.attributes.0 |= 1;
            scenario.after_signing = |quote| quote.body.bytes[120] &= !1;
            Ok(())
        }),
    ),
    // C2: what vouches for the attestation key.
    Case::new(
        "C2",
        "a bit of the QE report flipped",
        Tampered(|quote| quote.qe_report[70] ^= 1),
    ),
    Case::new(
        "C2",
        "the QE report's ISVSVN raised",
        Tampered(|quote| quote.qe_report[258] = 0xff),
    ),
    Case::new(
        "C2",
        "a bit of the QE report signature flipped",
        Tampered(|quote| quote.qe_report_signature[9] ^= 1),
    ),
    Case::new(
        "C2",
        "a bit of the QE authentication data flipped",
        Tampered(|quote| quote.auth_data[0] ^= 1),
    ),
    Case::new(
        "C2",
        "a bit of the attestation key flipped",
        Tampered(|quote| quote.attestation_key[20] ^= 1),
    ),
    Case::new(
        "C2",
        "the QE report vouches for another key",
        Described(|scenario| scenario.vouched_key = Some(scenario.pki.keys.root.public())),
    ),
    // C3: no signature at all.
    Case::new(
        "C3",
        "quote signature r = s = 0",
        Tampered(|quote| quote.signature = [0; 64]),
    ),
    Case::new(
        "C3",
        "quote signature r = s = 2^256 - 1",
        Tampered(|quote| quote.signature = [0xff; 64]),
    ),
    Case::new(
        "C3",
        "QE report signature r = s = 0",
        Tampered(|quote| quote.qe_report_signature = [0; 64]),
    ),
    Case::new(
        "C3",
        "attestation key not on the curve",
        Described(|scenario| scenario.vouched_key = Some([0x11; 64])),
    ),
    Case::new(
        "C3",
        "attestation key zero",
        Described(|scenario| scenario.vouched_key = Some([0; 64])),
    ),
    // C4
    Case::new(
        "C4",
        "s replaced by n - s, which signs the same",
        Tampered(|quote| negate_s(&mut quote.signature)),
    )
    .accepted(),
    // C5: well signed, and not what TDX quotes are.
    Case::new("C5", "version 3", Quoted(|quote| quote.version = 3)),
    Case::new("C5", "version 6", Quoted(|quote| quote.version = 6)),
    Case::new(
        "C5",
        "attestation key type 3",
        Quoted(|quote| quote.key_type = 3),
    ),
    Case::new(
        "C5",
        "another QE vendor",
        Quoted(|quote| quote.vendor[0] ^= 1),
    ),
    Case::new("C5", "TEE type 0", Quoted(|quote| quote.tee_type = 0)),
    Case::new("C5", "TEE type 0x82", Quoted(|quote| quote.tee_type = 0x82)),
    // C6: an enclave instead of a TD.
    Case::new(
        "C6",
        "a valid SGX quote with SGX collateral",
        Described(|scenario| {
            sgx_collateral(scenario);
            scenario.before_signing = |quote| {
                sgx(quote);
                quote.certification_type = None;
                quote.version = 3;
            };
        }),
    ),
    Case::new(
        "C6",
        "a version 4 SGX quote with SGX collateral",
        Described(|scenario| {
            sgx_collateral(scenario);
            scenario.before_signing = sgx;
        }),
    ),
    Case::new(
        "C6",
        "a version 5 SGX quote with SGX collateral",
        Described(|scenario| {
            sgx_collateral(scenario);
            scenario.before_signing = |quote| {
                sgx(quote);
                quote.version = 5;
                quote.body.descriptor = Some((1, 384));
            };
        }),
    ),
    // C7: well signed version 5 bodies that contradict themselves.
    Case::new(
        "C7",
        "type 3 with the size of type 2",
        Described(|scenario| td15(scenario, |quote| quote.body.descriptor = Some((3, 584)))),
    ),
    Case::new(
        "C7",
        "type 2 with the body of type 3",
        Described(|scenario| td15(scenario, |quote| quote.body.descriptor = Some((2, 648)))),
    ),
    Case::new(
        "C7",
        "type 1 around a TD's body",
        Described(|scenario| td15(scenario, |quote| quote.body.descriptor = Some((1, 648)))),
    ),
    Case::new(
        "C7",
        "type 5, which nobody knows",
        Described(|scenario| td15(scenario, |quote| quote.body.descriptor = Some((5, 648)))),
    ),
    Case::new(
        "C7",
        "a body of 4 GiB",
        Described(|scenario| {
            td15(scenario, |quote| {
                quote.body.descriptor = Some((3, u32::MAX))
            })
        }),
    ),
    // C8: lengths that lie, and ends too soon.
    Case::new(
        "C8",
        "signature data of 0 bytes",
        Tampered(|quote| quote.lengths.signature_data = Some(0)),
    ),
    Case::new(
        "C8",
        "signature data of 4 GiB",
        Tampered(|quote| quote.lengths.signature_data = Some(u32::MAX)),
    ),
    Case::new(
        "C8",
        "signature data one byte shorter",
        Shown(|evidence| adjust(&mut evidence.quote, -1)),
    ),
    Case::new(
        "C8",
        "signature data one byte longer",
        Shown(|evidence| adjust(&mut evidence.quote, 1)),
    ),
    Case::new(
        "C8",
        "certification data of 0 bytes",
        Tampered(|quote| quote.lengths.certification_data = Some(0)),
    ),
    Case::new(
        "C8",
        "certification data of 4 GiB",
        Tampered(|quote| quote.lengths.certification_data = Some(u32::MAX)),
    ),
    Case::new(
        "C8",
        "QE authentication data of 65535 bytes",
        Tampered(|quote| quote.lengths.auth_data = Some(0xffff)),
    ),
    Case::new(
        "C8",
        "QE authentication data of no bytes",
        Tampered(|quote| quote.lengths.auth_data = Some(0)),
    ),
    Case::new(
        "C8",
        "certificate chain of 4 GiB",
        Tampered(|quote| quote.lengths.chain = Some(u32::MAX)),
    ),
    Case::new(
        "C8",
        "certificate chain of no bytes",
        Tampered(|quote| quote.lengths.chain = Some(0)),
    ),
    Case::new("C8", "nothing", Shown(|evidence| evidence.quote.clear())),
    Case::new(
        "C8",
        "ends within the header",
        Shown(|evidence| evidence.quote.truncate(47)),
    ),
    Case::new(
        "C8",
        "ends after the header",
        Shown(|evidence| evidence.quote.truncate(48)),
    ),
    Case::new(
        "C8",
        "ends within the body",
        Shown(|evidence| evidence.quote.truncate(631)),
    ),
    Case::new(
        "C8",
        "ends after the body",
        Shown(|evidence| evidence.quote.truncate(632)),
    ),
    Case::new(
        "C8",
        "ends after the signature data's length",
        Shown(|evidence| evidence.quote.truncate(636)),
    ),
    Case::new(
        "C8",
        "ends after the attestation key",
        Shown(|evidence| evidence.quote.truncate(764)),
    ),
    Case::new(
        "C8",
        "ends within the QE report",
        Shown(|evidence| evidence.quote.truncate(1000)),
    ),
    Case::new(
        "C8",
        "ends within the last certificate",
        Shown(|evidence| {
            evidence.quote.pop();
        }),
    ),
    // C9: what follows the quote.
    Case::new(
        "C9",
        "70 zeros follow",
        Shown(|evidence| pad(&mut evidence.quote, 70, 0)),
    )
    .accepted(),
    Case::new(
        "C9",
        "zeros follow up to 8000 bytes",
        Shown(|evidence| evidence.quote.resize(8000, 0)),
    )
    .accepted(),
    Case::new(
        "C9",
        "one byte that is not zero follows",
        Shown(|evidence| pad(&mut evidence.quote, 1, 0xaa)),
    ),
    Case::new(
        "C9",
        "zeros and a one follow",
        Shown(|evidence| {
            pad(&mut evidence.quote, 70, 0);
            pad(&mut evidence.quote, 1, 1);
        }),
    ),
    Case::new(
        "C9",
        "64 KiB of 0xAA follow",
        Shown(|evidence| pad(&mut evidence.quote, 65_536, 0xaa)),
    ),
    Case::new(
        "C9",
        "zeros follow up to a byte more than 16 KiB",
        Shown(|evidence| evidence.quote.resize(16_385, 0)),
    ),
    Case::new(
        "C9",
        "1 MiB of zeros follows",
        Shown(|evidence| pad(&mut evidence.quote, 1 << 20, 0)),
    ),
    // C10: certification data of another type.
    Case::new(
        "C10",
        "outer certification type 5",
        Tampered(|quote| quote.certification_type = Some(5)),
    ),
    Case::new(
        "C10",
        "outer certification type 7",
        Tampered(|quote| quote.certification_type = Some(7)),
    ),
    Case::new(
        "C10",
        "inner certification type 1",
        Tampered(|quote| quote.chain_type = 1),
    ),
    Case::new(
        "C10",
        "inner certification type 2",
        Tampered(|quote| quote.chain_type = 2),
    ),
    Case::new(
        "C10",
        "inner certification type 3",
        Tampered(|quote| quote.chain_type = 3),
    ),
    Case::new(
        "C10",
        "inner certification type 4",
        Tampered(|quote| quote.chain_type = 4),
    ),
    Case::new(
        "C10",
        "inner certification type 6",
        Tampered(|quote| quote.chain_type = 6),
    ),
    Case::new(
        "C10",
        "inner certification type 7",
        Tampered(|quote| quote.chain_type = 7),
    ),
];

/// Replaces `s` in `r ‖ s` by `n - s`, where `n` is the order of P-256.
fn negate_s(signature: &mut [u8; 64]) {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
        0xff, 0xbc, 0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63,
        0x25, 0x51,
    ];
    let mut borrow = false;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER).rev() {
        let (difference, under) = order.overflowing_sub(*byte);
        let (difference, under_again) = difference.overflowing_sub(u8::from(borrow));
        *byte = difference;
        borrow = under || under_again;
    }
}

/// A quote of version 5 with a TD 1.5 body, changed before it is signed.
fn td15(scenario: &mut Scenario<'_>, change: fn(&mut Quote)) {
    scenario.format = QuoteFormat::V5Td15;
    scenario.before_signing = change;
}

/// An enclave's report instead of a TD's; it looks like the quoting enclave's own.
fn sgx(quote: &mut Quote) {
    quote.tee_type = 0;
    quote.body = QuoteBody {
        descriptor: None,
        bytes: quote.qe_report.to_vec(),
    };
}

/// The documents Intel issues for SGX instead of those for TDX.
fn sgx_collateral(scenario: &mut Scenario<'_>) {
    scenario.tcb_info.id = "SGX".into();
    for level in &mut scenario.tcb_info.tcb_levels {
        level.tcb.tdx.clear();
    }
    scenario.qe_identity.id = "QE".into();
    scenario.qe_identity.isvprodid = QE_PRODUCT;
}

/// Changes the written length of the signature data of a version 4 quote.
fn adjust(quote: &mut [u8], by: i32) {
    let field: &mut [u8; 4] = (&mut quote[632..636]).try_into().expect("four bytes");
    *field = u32::from_le_bytes(*field)
        .wrapping_add_signed(by)
        .to_le_bytes();
}

/// Appends `count` bytes of one value.
fn pad(quote: &mut Vec<u8>, count: usize, value: u8) {
    quote.resize(quote.len() + count, value);
}
