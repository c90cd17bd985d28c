//! Links the guest as a static, freestanding executable at the address the loader copies it to.

fn main() {
    let directory = std::env::var("CARGO_MANIFEST_DIR").expect("set by cargo");
    println!("cargo:rerun-if-changed=link.ld");
    for argument in [
        "-nostartfiles",
        "-nodefaultlibs",
        "-static",
        "-no-pie",
        "-Wl,--build-id=none,--gc-sections,--orphan-handling=error",
        "-Wl,-z,max-page-size=4096,-z,noexecstack,-z,norelro",
        // Not by -Wl, which would cut a path with a comma in two.
        &format!("-T{directory}/link.ld"),
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
