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

/// A QEMU that writes its arguments to a file, one a line, says what a guest says, and then stays until it is ended.
pub fn fake_qemu(directory: &Path) -> PathBuf {
    let path = directory.join("qemu");
    let arguments = directory.join("arguments");
    program(
        &path,
        &format!(
            "printf '%s\\n' \"$@\" > '{}'\necho 'vitrine: ready vsock=8443 isa=avx512 vcpus=2 boot_ms=9'\nexec sleep 600",
            arguments.display()
        ),
    );
    path
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
