//! What was measured, for a person and for a program.

use std::fmt::Write;

use measurements::{
    ConfigurationEntry, ExpectedTdInfo, ImageMeasurement, ModelEntry, Register, Section,
};
use serde_json::json;

/// All that can be said of a TD before it exists.
pub struct Report<'a> {
    pub image: ImageMeasurement,
    pub sections: &'a [Section],
    pub configuration: &'a ConfigurationEntry,
    /// Without a model nothing is known of RTMR[3].
    pub model: Option<&'a ModelEntry>,
    /// The release it was found to be.
    pub published: Option<&'a str>,
}

impl Report<'_> {
    /// For a person, one register a line.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let mut line = |name: &str, value: &str, remark: &str| {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name:<14}{value}{remark}");
        };
        let Report { image, .. } = self;
        let td = self.td();
        line("size", &image.bytes.to_string(), " bytes");
        line("SHA-384", &image.sha384.to_string(), "");
        for (index, section) in self.sections.iter().enumerate() {
            let measured = match section.attributes.extend() {
                true => "contents measured",
                false => "address measured",
            };
            line(
                &format!("section {index}"),
                &format!(
                    "{:<8} {:#010x}, {:#x} bytes, {measured}",
                    section.kind.to_string(),
                    section.address,
                    section.size
                ),
                "",
            );
        }
        line(
            Register::Mrtd.name(),
            &td.mrtd.page_by_page.to_string(),
            " (mainline KVM)",
        );
        line(
            "",
            &td.mrtd.add_then_extend.to_string(),
            " (hosts of QEMU 8)",
        );
        for (register, value) in [(Register::Rtmr0, td.rtmr0), (Register::Rtmr1, td.rtmr1)] {
            line(register.name(), &value.to_string(), " (unused)");
        }
        line(
            Register::Rtmr2.name(),
            &td.rtmr2.to_string(),
            &format!(" (configuration {})", self.configuration.name),
        );
        match self.model {
            Some(model) => line(
                Register::Rtmr3.name(),
                &model.rtmr3.to_string(),
                &format!(" (model {}, SHA-256 {})", model.name, model.sha256),
            ),
            None => line(Register::Rtmr3.name(), "depends on the model: --model", ""),
        }
        for (register, condition) in [
            (Register::Attributes, td.attributes),
            (Register::Xfam, td.xfam),
        ] {
            line(
                register.name(),
                &format!("& {} == {}", condition.mask, condition.value),
                "",
            );
        }
        line(
            Register::MrConfigId.name(),
            &format!("zero or {}", td.mr_config_id[1]),
            "",
        );
        for register in [
            Register::MrOwner,
            Register::MrOwnerConfig,
            Register::ServtdHash,
        ] {
            line(register.name(), "zero", "");
        }
        if let Some(version) = self.published {
            line("published", version, "");
        }
        text
    }

    /// For a program.
    pub fn json(&self) -> String {
        let sections: Vec<_> = self
            .sections
            .iter()
            .map(|section| {
                json!({
                    "type": section.kind.to_string(),
                    "data_offset": section.data.start,
                    "data_bytes": section.data.len(),
                    "address": section.address,
                    "bytes": section.size,
                    "measured": section.attributes.extend(),
                })
            })
            .collect();
        let td = self.td();
        let object = json!({
            "image": {
                "bytes": self.image.bytes,
                "sha384": self.image.sha384,
                "sections": sections,
            },
            "configuration": self.configuration,
            "model": self.model,
            "published": self.published,
            "attributes": td.attributes,
            "xfam": td.xfam,
            "mrtd": td.mrtd,
            "mrconfigid": td.mr_config_id,
            "mrowner": td.mr_owner,
            "mrownerconfig": td.mr_owner_config,
            "rtmr0": td.rtmr0,
            "rtmr1": td.rtmr1,
            "rtmr2": td.rtmr2,
            "rtmr3": td.rtmr3,
            "servtd_hash": td.servtd_hash,
        });
        format!("{object:#}\n")
    }

    fn td(&self) -> ExpectedTdInfo {
        ExpectedTdInfo::new(&self.image, self.configuration, self.model)
    }
}
