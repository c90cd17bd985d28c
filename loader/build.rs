//! Links the loader to the top of the 4 GiB space. The addresses come from `layout.rs`, as symbols for the linker script.

#[allow(dead_code)] // the linker needs only some of the addresses
#[path = "src/layout.rs"]
mod layout;

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    println!("cargo:rerun-if-changed=link.ld");
    println!("cargo:rerun-if-changed=src/layout.rs");
    let mut arguments = vec![
        "-nostartfiles".into(),
        "-nodefaultlibs".into(),
        "-static".into(),
        "-no-pie".into(),
        "-Wl,--build-id=none,--gc-sections,--orphan-handling=error".into(),
        "-Wl,-z,max-page-size=4096,-z,noexecstack,-z,norelro".into(),
        // Not by -Wl, which would cut a path with a comma in two.
        format!("-T{directory}/link.ld"),
    ];
    for (name, address) in [
        ("DATA", layout::DATA),
        ("RODATA", layout::RODATA),
        ("TEXT", layout::TEXT),
        ("TOP", layout::TOP),
        ("REAL_MODE", layout::REAL_MODE),
        ("GUID_TABLE", layout::GUID_TABLE),
        ("RESET", layout::RESET),
    ] {
        arguments.push(format!("-Wl,--defsym=LAYOUT_{name}={address:#x}"));
    }
    for argument in arguments {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
