//! What the tests of hosts play: a directory of their own, a QEMU that records its command line, and a quote generation service.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use testpki::qgs::{self, ErrorCode};
use testpki::{Platform, QuoteFormat, TestPki};

/// An empty directory for one test.
pub fn place(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    // It may be left from another run.
    let _ = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Writes a program for `/bin/sh`.
pub fn program(path: &Path, script: &str) {
    fs::write(path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A QEMU 10.1 whose guest says that it is ready.
pub fn fake_qemu(directory: &Path) -> PathBuf {
    qemu(directory, "10.1.0", "tdx-guest", READY)
}

/// The arguments that a [`fake_qemu`] got.
pub fn arguments(directory: &Path) -> Vec<String> {
    let text = fs::read_to_string(directory.join("arguments")).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// Listens at `socket` as Intel's quote generation service does, for the platform of the PKI it returns.
pub fn quote_service(socket: &Path) -> Arc<TestPki> {
    let pki = Arc::new(TestPki::generate(Platform::default()).unwrap());
    let listener = UnixListener::bind(socket).unwrap();
    let service = Arc::clone(&pki);
    thread::spawn(move || {
        for connection in listener.incoming() {
            let quoting = |report: &[u8]| {
                service
                    .quoting_enclave()
                    .quote(report, QuoteFormat::V4)
                    .map_err(|_| ErrorCode::InvalidParameter)
            };
            // A client that breaks off is no concern of the service.
            let _ = qgs::serve(&mut connection.unwrap(), quoting);
        }
    });
    pki
}

/// What a guest says when it serves.
pub const READY: &str = "vitrine: ready vsock=8443 isa=avx512 vcpus=2 boot_ms=9";
const CPU: &str =
    "flags\t\t: fpu avx2 fma f16c avx512f avx512bw avx512cd avx512dq avx512vl avx512_vnni\n";

/// A machine on which everything is as it should be.
pub fn good_machine(name: &str) -> PathBuf {
    let root = place(name);
    for (path, content) in [
        ("proc/sys/kernel/osrelease", "6.16.3-generic\n"),
        ("proc/cpuinfo", CPU),
        ("sys/module/kvm_intel/parameters/tdx", "Y\n"),
        (
            "sys/kernel/mm/transparent_hugepage/shmem_enabled",
            "always within_size [advise] never deny force\n",
        ),
        ("dev/kvm", ""),
        ("dev/vhost-vsock", ""),
    ] {
        write(&root, path, content);
    }
    fake_qemu(&root);
    root
}

/// Writes a file of a machine.
pub fn write(root: &Path, path: &str, content: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// A QEMU of this version that offers this object. Started as a machine it writes its arguments to a file, one a line, says this on the
/// guest's console, and stays until it is ended.
pub fn qemu(directory: &Path, version: &str, object: &str, console: &str) -> PathBuf {
    let path = directory.join("qemu");
    let arguments = directory.join("arguments");
    program(
        &path,
        &format!(
            "case \"$1\" in\n\
             --version) echo 'QEMU emulator version {version} (Debian)';;\n\
             -object) printf 'List of user creatable objects:\\n  secret\\n  {object}\\n';;\n\
             *) printf '%s\\n' \"$@\" > '{}'; echo '{console}'; exec sleep 600;;\n\
             esac",
            arguments.display()
        ),
    );
    path
}

/// The smallest image that a TDX host takes: 64 KiB with the metadata of BFV and TD_HOB (`tdx.md` 1.1).
pub fn image() -> Vec<u8> {
    const SIZE: u32 = 0x1_0000;
    const DESCRIPTOR: u32 = 0x100;
    let section = |data: u32, address: u64, memory: u64, kind: u32, attributes: u32| {
        [
            &0u32.to_le_bytes()[..],
            &data.to_le_bytes(),
            &address.to_le_bytes(),
            &memory.to_le_bytes(),
            &kind.to_le_bytes(),
            &attributes.to_le_bytes(),
        ]
        .concat()
    };
    let descriptor = [
        b"TDVF",
        &[80, 1, 2].map(u32::to_le_bytes).concat()[..],
        &section(SIZE, (1 << 32) - u64::from(SIZE), SIZE.into(), 0, 1),
        &section(0, 0x80_0000, 0x2000, 2, 0),
    ]
    .concat();
    // e47a6535-984a-4798-865e-4685a7bf8ec2 and 96b582de-1fb2-45f7-baea-a366c55a082d in EFI's byte order.
    let table = [
        &(SIZE - DESCRIPTOR).to_le_bytes()[..],
        &22u16.to_le_bytes(),
        b"\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2",
        &40u16.to_le_bytes(),
        b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d",
    ]
    .concat();
    let mut image = vec![0; SIZE as usize];
    image[DESCRIPTOR as usize..][..descriptor.len()].copy_from_slice(&descriptor);
    let end = SIZE as usize - 32;
    image[end - table.len()..end].copy_from_slice(&table);
    image
}
