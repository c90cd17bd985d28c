//! What a TD must have been launched as for its program to start in it. The host chose; the TDX module says what it chose.

use core::fmt;

use tdx::address::{AddressWidth, WidthError};
use tdx::leaf::VpInfo;
use tdx::report::Attributes;

/// This TD is not one to start in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaunchError {
    /// The CPU that boots is not number 0.
    Index(u32),
    /// The register at reset and the module do not agree.
    Widths {
        /// Bits of an address by the register.
        reset: u64,
        /// Bits of an address by the module.
        module: u64,
    },
    /// Addresses have a width that no TD has.
    Width(WidthError),
    /// The host can read everything.
    Debug,
    /// The host could have the program run into memory that was never accepted without the TD's end.
    SeptVeEnabled,
}

impl fmt::Display for LaunchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "booting on virtual CPU {index}"),
            Self::Widths { reset, module } => write!(
                f,
                "addresses have {reset} bits at reset and {module} by the TDX module"
            ),
            Self::Width(error) => error.fmt(f),
            Self::Debug => f.write_str("the TD has the DEBUG attribute"),
            Self::SeptVeEnabled => f.write_str("the TD lacks the SEPT_VE_DISABLE attribute"),
        }
    }
}

impl core::error::Error for LaunchError {}

/// Checks what the module says of the TD and of the CPU that boots, and `address_bits`, the register at reset, against it. Returns the
/// width of addresses.
///
/// # Errors
/// [`LaunchError`], for the first thing that is wrong.
pub fn check(info: &VpInfo, address_bits: u64) -> Result<AddressWidth, LaunchError> {
    if info.index != 0 {
        return Err(LaunchError::Index(info.index));
    }
    if info.address_bits != address_bits {
        return Err(LaunchError::Widths {
            reset: address_bits,
            module: info.address_bits,
        });
    }
    let width = AddressWidth::new(address_bits).map_err(LaunchError::Width)?;
    if info.attributes.contains(Attributes::DEBUG) {
        return Err(LaunchError::Debug);
    }
    if !info.attributes.contains(Attributes::SEPT_VE_DISABLE) {
        return Err(LaunchError::SeptVeEnabled);
    }
    Ok(width)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first CPU of a TD as mainline QEMU makes it.
    const SOUND: VpInfo = VpInfo {
        address_bits: 52,
        attributes: Attributes::SEPT_VE_DISABLE,
        vcpus: 2,
        max_vcpus: 2,
        index: 0,
    };

    fn with(change: impl FnOnce(&mut VpInfo)) -> VpInfo {
        let mut info = SOUND;
        change(&mut info);
        info
    }

    #[test]
    fn only_a_sound_launch_passes() {
        let all_else = Attributes(!(Attributes::DEBUG.0));
        let table = [
            (SOUND, 52, Ok(AddressWidth::Bits52)),
            (
                with(|info| info.address_bits = 48),
                48,
                Ok(AddressWidth::Bits48),
            ),
            (
                with(|info| info.attributes = all_else),
                52,
                Ok(AddressWidth::Bits52),
            ),
            (with(|info| info.index = 1), 52, Err(LaunchError::Index(1))),
            (
                SOUND,
                48,
                Err(LaunchError::Widths {
                    reset: 48,
                    module: 52,
                }),
            ),
            (
                SOUND,
                1 << 32 | 52,
                Err(LaunchError::Widths {
                    reset: 1 << 32 | 52,
                    module: 52,
                }),
            ),
            (
                with(|info| info.address_bits = 0),
                0,
                Err(LaunchError::Width(WidthError(0))),
            ),
            (
                with(|info| info.address_bits = 57),
                57,
                Err(LaunchError::Width(WidthError(57))),
            ),
            (
                with(|info| info.attributes.0 |= Attributes::DEBUG.0),
                52,
                Err(LaunchError::Debug),
            ),
            (
                with(|info| info.attributes.0 = 0),
                52,
                Err(LaunchError::SeptVeEnabled),
            ),
        ];
        for (info, address_bits, outcome) in table {
            assert_eq!(check(&info, address_bits), outcome, "{info:?}");
        }
    }
}
