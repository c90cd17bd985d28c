//! What was measured, for a person and for a program.

use std::fmt::Write;

use measurements::{
    ConfigurationEntry, Hex, ImageMeasurement, ModelEntry, Register, Section, manifest::Masked,
};
use serde_json::{Value, json};

const ZERO: Hex<48> = Hex([0; 48]);

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
            &image.mrtd.page_by_page.to_string(),
            " (mainline KVM)",
        );
        line(
            "",
            &image.mrtd.add_then_extend.to_string(),
            " (hosts of QEMU 8)",
        );
        for register in [Register::Rtmr0, Register::Rtmr1] {
            line(register.name(), &ZERO.to_string(), " (unused)");
        }
        line(
            Register::Rtmr2.name(),
            &self.configuration.rtmr2.to_string(),
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
        for (register, condition) in masks() {
            line(
                register.name(),
                &format!("& {} == {}", condition.mask, condition.value),
                "",
            );
        }
        line(
            Register::MrConfigId.name(),
            &format!("zero or {}", self.configuration.digest),
            "",
        );
        for register in zeros() {
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
        let mut object = json!({
            "image": {
                "bytes": self.image.bytes,
                "sha384": self.image.sha384,
                "sections": sections,
            },
            "mrtd": self.image.mrtd,
            "rtmr0": ZERO,
            "rtmr1": ZERO,
            "configuration": self.configuration,
            "model": self.model,
            "mrconfigid": [ZERO, self.configuration.digest],
            "published": self.published,
        });
        for (register, condition) in masks() {
            object[register.name().to_lowercase()] = json!(condition);
        }
        for register in zeros() {
            object[register.name().to_lowercase()] = json!(ZERO);
        }
        object["rtmr2"] = json!(self.configuration.rtmr2);
        object["rtmr3"] = self.model.map_or(Value::Null, |model| json!(model.rtmr3));
        format!("{object:#}\n")
    }
}

fn masks() -> [(Register, Masked); 2] {
    [
        (Register::Attributes, Masked::ATTRIBUTES),
        (Register::Xfam, Masked::XFAM),
    ]
}

fn zeros() -> [Register; 3] {
    [
        Register::MrOwner,
        Register::MrOwnerConfig,
        Register::ServtdHash,
    ]
}
