//! The command that runs the image in the emulator: this program again, as `vitrine emulator`.

use std::ffi::OsString;
use std::path::PathBuf;

use super::machine::Forward;

/// A machine for the emulator.
pub struct Emulated {
    /// This program.
    pub program: PathBuf,
    pub image: PathBuf,
    pub cpus: u32,
    pub memory_mib: u64,
    /// What each disk is for, and its file.
    pub disks: Vec<(&'static str, PathBuf)>,
    pub tcp: Option<Forward>,
    /// The Unix socket of its vsock device.
    pub vsock: Option<PathBuf>,
    pub guest_port: u16,
    /// More of the emulator's own arguments.
    pub more: Vec<OsString>,
}

impl Emulated {
    /// Program and arguments.
    pub fn command(&self) -> Vec<OsString> {
        let mut command: Vec<OsString> = vec![self.program.clone().into(), "emulator".into()];
        let mut option = |name: &str, value: OsString| command.extend([name.into(), value]);
        option("--image", self.image.clone().into());
        option("--cpus", self.cpus.to_string().into());
        option("--memory", format!("{}M", self.memory_mib).into());
        for (role, path) in &self.disks {
            let mut disk = OsString::from(format!("{role}="));
            disk.push(path);
            option("--disk", disk);
        }
        if let Some(forward) = &self.tcp {
            option("--tcp", forward.host.to_string().into());
        }
        if let Some(path) = &self.vsock {
            option("--vsock-uds", path.clone().into());
        }
        option("--guest-port", self.guest_port.to_string().into());
        command.extend(self.more.iter().cloned());
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_machine_is_an_argument() {
        let machine = Emulated {
            program: "/bin/vitrine".into(),
            image: "a b.fd".into(),
            cpus: 4,
            memory_mib: 768,
            disks: vec![("model", "m.gguf".into()), ("config", "c.toml".into())],
            tcp: Some(Forward {
                host: 9000,
                guest: 8443,
            }),
            vsock: Some("v.sock".into()),
            guest_port: 8443,
            more: vec!["--sept".into(), "2m".into()],
        };
        assert_eq!(
            machine.command(),
            [
                "/bin/vitrine",
                "emulator",
                "--image",
                "a b.fd",
                "--cpus",
                "4",
                "--memory",
                "768M",
                "--disk",
                "model=m.gguf",
                "--disk",
                "config=c.toml",
                "--tcp",
                "9000",
                "--vsock-uds",
                "v.sock",
                "--guest-port",
                "8443",
                "--sept",
                "2m"
            ]
        );
    }
}
