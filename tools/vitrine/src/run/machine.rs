//! The virtual machine as QEMU's command line: a pure function of what was asked for.
//!
//! A q35 machine without QEMU's default devices; modern virtio only (`disable-legacy=on`). A disk tells its role and exact
//! length in its serial, because its capacity counts whole sectors. vhost-user shares the guest's memory with another process,
//! hence the memfd back-end for it.

use std::ffi::OsString;
use std::path::PathBuf;

use super::accelerator::Accelerator;
use super::tdx::{self, QuoteService};

/// Where the guest listens unless its configuration says otherwise.
pub const GUEST_PORT: u16 = 8443;

/// A disk of the machine.
#[derive(Clone, Debug)]
pub struct Disk {
    /// `model` or `config`.
    pub role: &'static str,
    pub path: PathBuf,
    /// The file's length in bytes.
    pub length: u64,
}

/// A port that leads to the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// On the host's loopback interface.
    pub host: u16,
    pub guest: u16,
}

/// How the guest gets its vsock device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Vsock {
    /// The host kernel's, with this context identifier.
    Kernel { cid: u32 },
    /// vhost-device-vsock, listening on this socket.
    User { socket: PathBuf },
}

/// Everything the command line depends on.
#[derive(Clone, Debug)]
pub struct Machine {
    pub qemu: PathBuf,
    pub accelerator: Accelerator,
    pub image: PathBuf,
    pub cpus: u32,
    pub memory_mib: u64,
    pub disks: Vec<Disk>,
    pub tcp: Option<Forward>,
    pub vsock: Option<Vsock>,
    /// Makes the machine a trust domain whose quotes come from there.
    pub quotes: Option<QuoteService>,
}

impl Machine {
    /// The command: program first.
    pub fn command(&self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec![self.qemu.clone().into()];
        let mut add = |option: &str, value: String| {
            words.push(option.into());
            words.push(value.into());
        };
        add("-accel", self.accelerator.accel().into());
        add("-cpu", self.accelerator.cpu().into());
        let shared = matches!(self.vsock, Some(Vsock::User { .. }));
        if shared {
            let size = self.memory_mib;
            add(
                "-object",
                format!("memory-backend-memfd,id=memory,size={size}M,share=on"),
            );
        }
        let mut machine = "q35".to_owned();
        if shared {
            machine += ",memory-backend=memory";
        }
        if let Some(quotes) = &self.quotes {
            add("-object", tdx::object(quotes));
            // KVM has no PIC and no PIT for a TD, and QEMU demands that the I/O APIC be its own.
            machine += ",kernel_irqchip=split,hpet=off,confidential-guest-support=";
            machine += tdx::ID;
        }
        add("-machine", machine);
        add("-smp", self.cpus.to_string());
        add("-m", format!("{}M", self.memory_mib));
        add("-bios", self.image.display().to_string());
        add("-display", "none".into());
        add("-monitor", "none".into());
        add("-serial", "stdio".into());
        if self.quotes.is_none() {
            // A trust domain ends by ReportFatalError instead.
            add("-device", "isa-debug-exit,iobase=0xf4,iosize=1".into());
        }
        for Disk { role, path, length } in &self.disks {
            let path = escape(&path.display().to_string());
            add(
                "-drive",
                format!("if=none,id={role},format=raw,readonly=on,file={path}"),
            );
            add(
                "-device",
                format!("virtio-blk-pci,drive={role},serial={role}:{length},disable-legacy=on"),
            );
        }
        if let Some(Forward { host, guest }) = self.tcp {
            // `restrict` leaves the guest nothing to reach; forwarded ports still lead in.
            add(
                "-netdev",
                format!("user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{host}-:{guest}"),
            );
            add(
                "-device",
                "virtio-net-pci,netdev=net,disable-legacy=on".into(),
            );
        }
        match &self.vsock {
            Some(Vsock::Kernel { cid }) => {
                add(
                    "-device",
                    format!("vhost-vsock-pci,guest-cid={cid},disable-legacy=on"),
                );
            }
            Some(Vsock::User { socket }) => {
                let socket = escape(&socket.display().to_string());
                add("-chardev", format!("socket,id=vsock,path={socket}"));
                add(
                    "-device",
                    "vhost-user-vsock-pci,chardev=vsock,disable-legacy=on".into(),
                );
            }
            None => {}
        }
        words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        words
    }
}

/// In QEMU's option lists a comma ends a value unless doubled.
fn escape(path: &str) -> String {
    path.replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            qemu: "qemu-system-x86_64".into(),
            accelerator: Accelerator::Tcg,
            image: "vitrine.fd".into(),
            cpus: 2,
            memory_mib: 512,
            disks: vec![Disk {
                role: "model",
                path: "a,b.gguf".into(),
                length: 12_345,
            }],
            tcp: None,
            vsock: None,
            quotes: None,
        }
    }

    #[test]
    fn a_disk_tells_its_role_and_length() {
        assert_eq!(
            crate::shell::join(machine().command()),
            "qemu-system-x86_64 -accel tcg -cpu max -machine q35 -smp 2 -m 512M -bios vitrine.fd -display none -monitor none \
             -serial stdio -device isa-debug-exit,iobase=0xf4,iosize=1 \
             -drive if=none,id=model,format=raw,readonly=on,file=a,,b.gguf \
             -device virtio-blk-pci,drive=model,serial=model:12345,disable-legacy=on -nodefaults -no-user-config -no-reboot"
        );
    }

    #[test]
    fn tcp_is_forwarded_from_the_loopback_only() {
        let machine = Machine {
            tcp: Some(Forward {
                host: 18443,
                guest: GUEST_PORT,
            }),
            ..machine()
        };
        let command = crate::shell::join(machine.command());
        assert!(
            command.contains("-netdev user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:18443-:8443 ")
        );
        assert!(command.contains("-device virtio-net-pci,netdev=net,disable-legacy=on"));
    }

    #[test]
    fn a_trust_domain_is_the_machine_of_qemus_documentation() {
        let machine = Machine {
            accelerator: Accelerator::Kvm { cpu: "host" },
            cpus: 16,
            memory_mib: 65536,
            vsock: Some(Vsock::Kernel { cid: 10 }),
            quotes: Some("unix:/run/tdx-qgs/qgs.socket".parse().unwrap()),
            ..machine()
        };
        assert_eq!(
            crate::shell::join(machine.command()),
            "qemu-system-x86_64 -accel kvm -cpu host \
             -object '{\"qom-type\":\"tdx-guest\",\"id\":\"tdx0\",\
             \"quote-generation-socket\":{\"type\":\"unix\",\"path\":\"/run/tdx-qgs/qgs.socket\"}}' \
             -machine q35,kernel_irqchip=split,hpet=off,confidential-guest-support=tdx0 -smp 16 -m 65536M -bios vitrine.fd \
             -display none -monitor none -serial stdio \
             -drive if=none,id=model,format=raw,readonly=on,file=a,,b.gguf \
             -device virtio-blk-pci,drive=model,serial=model:12345,disable-legacy=on \
             -device vhost-vsock-pci,guest-cid=10,disable-legacy=on -nodefaults -no-user-config -no-reboot"
        );
    }

    #[test]
    fn vhost_user_needs_shared_memory_and_the_kernel_does_not() {
        let user = Machine {
            vsock: Some(Vsock::User {
                socket: "v,m.sock".into(),
            }),
            accelerator: Accelerator::Kvm { cpu: "host" },
            ..machine()
        };
        let command = crate::shell::join(user.command());
        assert!(command.contains("-accel kvm -cpu host "));
        assert!(command.contains("-object memory-backend-memfd,id=memory,size=512M,share=on -machine q35,memory-backend=memory "));
        assert!(command.contains("-chardev socket,id=vsock,path=v,,m.sock -device vhost-user-vsock-pci,chardev=vsock,disable-legacy=on"));
        let kernel = Machine {
            vsock: Some(Vsock::Kernel { cid: 9 }),
            ..machine()
        };
        let command = crate::shell::join(kernel.command());
        assert!(!command.contains("memory-backend"));
        assert!(command.contains("-device vhost-vsock-pci,guest-cid=9,disable-legacy=on"));
    }
}
