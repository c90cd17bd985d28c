//! What each backend needs of a machine.
//!
//! TDX: Linux 6.16 hosts trust domains (`Documentation/virt/kvm/x86/intel-tdx.rst`), QEMU 10.1 makes them
//! (`docs/system/i386/tdx.rst`), Intel's quote generation service signs for them.

use std::io;
use std::os::unix::net::UnixStream;

use serde::Serialize;
use vsock::VsockStream;

use super::check::{Check, State};
use super::machine::{Machine, may_trace};
use super::qemu;
use crate::run::{Backend, QuoteService};

/// The first kernel whose KVM hosts trust domains.
const TDX_KERNEL: (u32, u32) = (6, 16);
/// The first kernel that makes huge pages of shared memory on demand (`MADV_COLLAPSE`).
const COLLAPSE_KERNEL: (u32, u32) = (6, 1);
/// What the kernels for AVX-512 use, as `/proc/cpuinfo` names it.
const AVX512: &[&str] = &[
    "avx512f",
    "avx512bw",
    "avx512cd",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
];
/// What the slower kernels use.
const AVX2: &[&str] = &["avx2", "fma", "f16c"];

/// All of them, the best first.
pub const ALL: [Backend; 3] = [Backend::Tdx, Backend::Emulator, Backend::Qemu];

/// A backend's name, and what it makes of the image, for a person.
pub fn title(backend: Backend) -> &'static str {
    match backend {
        Backend::Tdx => "tdx (a trust domain in silicon)",
        Backend::Emulator => "emulator (a trust domain in the emulator, under a test root)",
        Backend::Qemu => "qemu (the image in QEMU, not a trust domain)",
    }
}

/// What was found for one backend.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    pub backend: Backend,
    /// Nothing is bad.
    pub usable: bool,
    pub checks: Vec<Check>,
}

/// Looks at everything the backend needs.
pub fn examine(backend: Backend, machine: &Machine, quotes: &QuoteService) -> Finding {
    let checks = match backend {
        Backend::Tdx => {
            let mut checks = vec![kernel(machine), kvm_device(machine), kvm_tdx(machine)];
            checks.extend(qemu::makes_trust_domains());
            checks.extend([quote_service(quotes), vhost_vsock(machine)]);
            checks
        }
        Backend::Emulator => vec![
            ptrace(machine),
            instructions(machine, State::Bad),
            huge_pages(machine),
        ],
        Backend::Qemu => vec![
            qemu::present(),
            acceleration(machine),
            instructions(machine, State::Poor),
            vhost_vsock(machine),
        ],
    };
    Finding {
        backend,
        usable: checks.iter().all(|check| check.state != State::Bad),
        checks,
    }
}

fn kernel(machine: &Machine) -> Check {
    let advice = "boot Linux 6.16 or newer: the first whose KVM hosts trust domains";
    match machine.kernel() {
        Some((release, version)) if version >= TDX_KERNEL => Check::good("kernel", release),
        Some((release, _)) => Check::bad("kernel", release, advice),
        None => Check::bad("kernel", "its version is not to be seen", advice),
    }
}

fn kvm_device(machine: &Machine) -> Check {
    match machine.open("/dev/kvm") {
        Ok(()) => Check::good("/dev/kvm", "opens"),
        Err(error) => Check::bad("/dev/kvm", words(&error), kvm_advice(&error)),
    }
}

fn kvm_advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "join the group that owns it: usermod -aG kvm USER, then log in again"
        }
        _ => "enable virtualisation (VT-x) in the firmware's setup, then modprobe kvm_intel",
    }
}

/// KVM has initialised the TDX module.
fn kvm_tdx(machine: &Machine) -> Check {
    let name = "kvm_intel.tdx";
    match machine.read("/sys/module/kvm_intel/parameters/tdx") {
        Some(value) if matches!(&*value, "Y" | "1") => Check::good(name, value),
        Some(value) => Check::bad(
            name,
            value,
            "enable TDX (and TME-MT, SGX) in the firmware's setup, boot with kvm_intel.tdx=1, and see `dmesg | grep -i tdx`",
        ),
        None => Check::bad(
            name,
            "there is no such parameter",
            "an Intel processor with TDX (4th generation Xeon or newer) and a kernel built with CONFIG_KVM_INTEL_TDX are needed; \
             modprobe kvm_intel",
        ),
    }
}

/// Something listens where QEMU will ask for quotes.
fn quote_service(quotes: &QuoteService) -> Check {
    let connected = match quotes {
        QuoteService::Unix { path } => UnixStream::connect(path).map(|_| ()),
        QuoteService::Vsock { cid, port } => cid
            .parse()
            .and_then(|cid| Ok((cid, port.parse()?)))
            .map_err(io::Error::other)
            .and_then(|(cid, port)| VsockStream::connect_with_cid_port(cid, port).map(|_| ())),
    };
    match connected {
        Ok(()) => Check::good("quote service", format!("answers at {quotes}")),
        Err(error) => Check::bad(
            "quote service",
            format!("{quotes}: {}", words(&error)),
            "install Intel's tdx-qgs and register the platform (mpa_registration or a PCCS), then systemctl start qgsd; \
             or say with --quote-service where it listens",
        ),
    }
}

fn vhost_vsock(machine: &Machine) -> Check {
    match machine.open("/dev/vhost-vsock") {
        Ok(()) => Check::good("vhost-vsock", "opens"),
        Err(error) => Check::poor(
            "vhost-vsock",
            words(&error),
            "modprobe vhost_vsock and join the group that owns the device, or use `vitrine run --tcp`",
        ),
    }
}

/// The emulator traces the process that executes the guest's code.
fn ptrace(machine: &Machine) -> Check {
    // Yama (Documentation/admin-guide/LSM/Yama.rst): 0 and 1 let a process trace its children.
    let scope = machine.read("/proc/sys/kernel/yama/ptrace_scope");
    match (may_trace(), scope.as_deref()) {
        (Ok(()), _) => Check::good("ptrace", "children can be traced"),
        (Err(error), Some(scope @ ("2" | "3"))) => Check::bad(
            "ptrace",
            format!("{} (kernel.yama.ptrace_scope is {scope})", words(&error)),
            "sysctl kernel.yama.ptrace_scope=1; a 3 can be changed by a reboot only",
        ),
        (Err(error), _) => Check::bad(
            "ptrace",
            words(&error),
            "in a container, allow the system call: --cap-add SYS_PTRACE, or another seccomp profile",
        ),
    }
}

/// What the guest's kernels will use; `without` is what it means to have neither AVX-512 nor AVX2.
fn instructions(machine: &Machine, without: State) -> Check {
    let name = "instructions";
    if machine.has_features(AVX512) {
        return Check::good(name, "AVX-512 with VNNI");
    }
    if machine.has_features(AVX2) {
        return Check::poor(
            name,
            "AVX2, no AVX-512",
            "answers come more slowly; benchmarks mean little here",
        );
    }
    Check {
        state: without,
        ..Check::poor(
            name,
            "neither AVX-512 nor AVX2",
            "use an x86-64 processor of the last ten years",
        )
    }
}

/// Shared memory in pages of 2 MiB, by which the emulator backs a guest. It makes them itself (`MADV_COLLAPSE`), whatever the system's setting
/// is, unless that denies them.
fn huge_pages(machine: &Machine) -> Check {
    let name = "huge pages";
    let slower = "without them answers come more slowly";
    let Some(setting) = machine.read("/sys/kernel/mm/transparent_hugepage/shmem_enabled") else {
        let advice = format!("use a kernel built with CONFIG_TRANSPARENT_HUGEPAGE; {slower}");
        return Check::poor(name, "the kernel has none for shared memory", advice);
    };
    // The setting in force is in brackets.
    if setting.contains("[deny]") {
        let advice = format!(
            "as root: echo never > /sys/kernel/mm/transparent_hugepage/shmem_enabled; {slower}"
        );
        return Check::poor(name, "denied for shared memory", advice);
    }
    match machine.kernel() {
        Some((_, version)) if version >= COLLAPSE_KERNEL => {
            Check::good(name, "the emulator can make them")
        }
        Some((release, _)) => Check::poor(
            name,
            format!("Linux {release} makes none on demand"),
            format!("use Linux 6.1 or later; {slower}"),
        ),
        None => Check::poor(name, "the kernel does not tell its version", slower),
    }
}

/// How QEMU without TDX executes the guest's code.
fn acceleration(machine: &Machine) -> Check {
    match machine.open("/dev/kvm") {
        Ok(()) => Check::good("/dev/kvm", "opens"),
        Err(error) => Check::poor(
            "/dev/kvm",
            format!("{}; QEMU will interpret, which is slow", words(&error)),
            kvm_advice(&error),
        ),
    }
}

/// An error of the operating system without its number.
fn words(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
