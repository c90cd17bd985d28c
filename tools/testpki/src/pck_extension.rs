//! The SGX extension of a PCK certificate: OID 1.2.840.113741.1.13.1, a sequence of (OID, value) pairs.

use rcgen::CustomExtension;
use yasna::models::ObjectIdentifier;
use yasna::{DERWriter, DERWriterSeq};

use crate::Platform;

/// 1.2.840.113741.1.13.1
pub(crate) const SGX_EXTENSION: [u64; 7] = [1, 2, 840, 113_741, 1, 13, 1];

/// The extension that says what `platform` is.
pub(crate) fn encode(platform: &Platform) -> CustomExtension {
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            entry(writer, &[1], |value| value.write_bytes(&platform.ppid));
            entry(writer, &[2], |value| {
                value.write_sequence(|writer| tcb(writer, platform))
            });
            entry(writer, &[3], |value| value.write_bytes(&platform.pce_id));
            entry(writer, &[4], |value| value.write_bytes(&platform.fmspc));
            // 1: a scalable platform, as every genuine TDX host says.
            entry(writer, &[5], |value| value.write_enum(1));
            entry(writer, &[6], |value| value.write_bytes(&platform.instance));
            entry(writer, &[7], |value| {
                value.write_sequence(|writer| configuration(writer, platform))
            });
        });
    });
    CustomExtension::from_oid_content(&SGX_EXTENSION, content)
}

/// `.2.1` … `.2.16` the components, `.2.17` PCESVN, `.2.18` CPUSVN, which is the components again.
fn tcb(writer: &mut DERWriterSeq<'_>, platform: &Platform) {
    for (index, &component) in (1..).zip(&platform.components) {
        entry(writer, &[2, index], |value| value.write_u8(component));
    }
    entry(writer, &[2, 17], |value| value.write_u16(platform.pce_svn));
    entry(writer, &[2, 18], |value| {
        value.write_bytes(&platform.components)
    });
}

fn configuration(writer: &mut DERWriterSeq<'_>, platform: &Platform) {
    let flags = [platform.dynamic, platform.cached_keys, platform.smt];
    for (index, flag) in (1..).zip(flags) {
        entry(writer, &[7, index], |value| value.write_bool(flag));
    }
}

/// One pair; the OID is the extension's with `arcs` behind it.
fn entry(writer: &mut DERWriterSeq<'_>, arcs: &[u64], value: impl FnOnce(DERWriter<'_>)) {
    let oid = [&SGX_EXTENSION, arcs].concat();
    writer.next().write_sequence(|writer| {
        writer.next().write_oid(&ObjectIdentifier::from_slice(&oid));
        value(writer.next());
    });
}
