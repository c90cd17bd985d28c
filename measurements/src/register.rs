//! The registers of a TD that a verifier compares: names, and what each holds (`architecture.md` §4, TDINFO of the TDX module).

use std::fmt;

/// A register of a TD's report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Register {
    /// Build-time measurement: the image.
    Mrtd,
    /// Run-time measurement 0: unused.
    Rtmr0,
    /// Run-time measurement 1: unused.
    Rtmr1,
    /// Run-time measurement 2: the configuration.
    Rtmr2,
    /// Run-time measurement 3: the model.
    Rtmr3,
    /// The TD's attributes.
    Attributes,
    /// The extended processor state the TD may use.
    Xfam,
    /// The configuration's digest as the host announced it.
    MrConfigId,
    /// The TD's owner as the host announced it.
    MrOwner,
    /// The owner's configuration as the host announced it.
    MrOwnerConfig,
    /// Digest of the service TDs bound to the TD.
    ServtdHash,
}

impl Register {
    /// All of them, in the order in which they are explained.
    pub const ALL: [Self; 11] = [
        Self::Mrtd,
        Self::Rtmr0,
        Self::Rtmr1,
        Self::Rtmr2,
        Self::Rtmr3,
        Self::Attributes,
        Self::Xfam,
        Self::MrConfigId,
        Self::MrOwner,
        Self::MrOwnerConfig,
        Self::ServtdHash,
    ];

    /// The name the TDX documentation uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mrtd => "MRTD",
            Self::Rtmr0 => "RTMR[0]",
            Self::Rtmr1 => "RTMR[1]",
            Self::Rtmr2 => "RTMR[2]",
            Self::Rtmr3 => "RTMR[3]",
            Self::Attributes => "ATTRIBUTES",
            Self::Xfam => "XFAM",
            Self::MrConfigId => "MRCONFIGID",
            Self::MrOwner => "MROWNER",
            Self::MrOwnerConfig => "MROWNERCONFIG",
            Self::ServtdHash => "SERVTD_HASH",
        }
    }

    /// What is in it.
    pub const fn holds(self) -> &'static str {
        match self {
            Self::Mrtd => {
                "the whole image, page by page: loader, guest program, every constant in it; nothing else"
            }
            Self::Rtmr0 | Self::Rtmr1 => {
                "nothing: 48 zero bytes, because there is no firmware and no operating system to measure"
            }
            Self::Rtmr2 => {
                "the digest of the canonical configuration, extended once before serving; the text itself comes with the evidence"
            }
            Self::Rtmr3 => {
                "the model: its name, the SHA-256 of the sealed file if it was sealed, and of the GGUF file, extended once before serving"
            }
            Self::Attributes => {
                "what the host may do to the TD: debug it, migrate it, inject faults for missing pages"
            }
            Self::Xfam => "which extended processor state the TD may use: AVX, AVX-512, AMX",
            Self::MrConfigId => {
                "zero, or what the host announced as the configuration's digest when it built the TD"
            }
            Self::MrOwner | Self::MrOwnerConfig => "zero: this image does not use it",
            Self::ServtdHash => {
                "zero: no service TD, such as one that migrates, is bound to the TD"
            }
        }
    }

    /// Who chooses its value.
    pub const fn chosen_by(self) -> &'static str {
        match self {
            Self::Mrtd => "the build: whoever has the sources computes it",
            Self::Rtmr0 | Self::Rtmr1 => "nobody",
            Self::Rtmr2 | Self::MrConfigId => "the operator",
            Self::Rtmr3 => "the owner of the model",
            Self::Attributes | Self::Xfam => "the host; the client judges them by masks",
            Self::MrOwner | Self::MrOwnerConfig | Self::ServtdHash => "the host",
        }
    }

    /// What it means when it is not what was expected.
    pub const fn change_means(self) -> &'static str {
        match self {
            Self::Mrtd => {
                "another program is running. `vitrine measure diff` names the first page that differs. If only the order of pages differs, \
                 the host is of the other kind and the manifest's other value matches"
            }
            Self::Rtmr0 | Self::Rtmr1 => {
                "something other than this image ran in the TD: it never extends these registers"
            }
            Self::Rtmr2 => {
                "another configuration, in a key that matters to clients; ports, limits and threads do not. Compare the text that came \
                 with the evidence"
            }
            Self::Rtmr3 => {
                "another model, another sealing of the same model, or another name for it"
            }
            Self::Attributes => {
                "the host asked for a TD that it could look into or move; do not send it anything"
            }
            Self::Xfam => {
                "the TD lacks AVX or has processor state this program was not written for; answers stay the same, but nobody checked"
            }
            Self::MrConfigId => {
                "the operator announced one configuration and loaded another; the TD itself refuses that"
            }
            Self::MrOwner | Self::MrOwnerConfig => {
                "the host set what nothing here reads; harmless, but not what was published"
            }
            Self::ServtdHash => "another TD may act on this one; do not send it anything",
        }
    }
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
