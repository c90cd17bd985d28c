//! Compiles ggml's x86 dot products twice, for AVX2 and for AVX-512.
//!
//! The sources are those of the package `llama-cpp-sys-2`, pinned by version and checksum in the lockfile and never built
//! itself. Whichever workspace builds this crate, cargo is asked for the packages of the one this crate is a member of: the
//! repository's root.
//!
//! The flags depend on neither profile nor target nor environment, so host and guest run the same instructions.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PACKAGE: &str = "llama-cpp-sys-2";

/// Each variant's prefix for symbols and the processor it is compiled for.
const VARIANTS: [(&str, &[&str]); 2] = [
    ("avx2", &["-march=x86-64-v3"]),
    ("avx512", &["-march=x86-64-v4", "-mavx512vnni"]),
];

/// The one source file needed; what it calls beyond itself is never reached and dropped by the linker.
const SOURCE: &str = "src/ggml-cpu/arch/x86/quants.c";

const FLAGS: [&str; 11] = [
    // Interrupts in the guest use the stack they find.
    "-mno-red-zone",
    // Nothing is rounded but where the source says so: both variants then agree to the last bit.
    "-ffp-contract=off",
    // Vectorised by hand; the compiler's own vectorisation would rely on alignment that rows need not have.
    "-fno-tree-vectorize",
    "-fno-math-errno",
    "-ffunction-sections",
    "-fdata-sections",
    "-fno-exceptions",
    "-fno-asynchronous-unwind-tables",
    "-fno-stack-protector",
    "-fcf-protection=none",
    "-w",
];

fn main() -> Result<(), Box<dyn Error>> {
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().contains("CFLAGS") {
            // SAFETY: there is no other thread yet.
            unsafe { env::remove_var(name) };
        }
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=names.txt");
    let architecture = env::var("CARGO_CFG_TARGET_ARCH")?;
    if architecture != "x86_64" {
        return Err(format!("ggml-sys has kernels for x86_64 only, not {architecture}").into());
    }
    let ggml = package_root()?.join("llama.cpp/ggml");
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    let names = fs::read_to_string("names.txt")?;
    for (variant, processor) in VARIANTS {
        let header = out.join(format!("{variant}.h"));
        fs::write(&header, renaming_header(variant, &names))?;
        compile(variant, processor, &ggml, &header)?;
    }
    Ok(())
}

/// Gives every exported name the variant's prefix, and half floats the conversion instruction instead of a 256 KiB table.
fn renaming_header(variant: &str, names: &str) -> String {
    let mut header = String::from("#define GGML_CPU_FP16_TO_FP32(x) _cvtsh_ss(x)\n");
    for name in names.lines() {
        header += &format!("#define {name} {variant}_{name}\n");
    }
    header
}

fn compile(
    variant: &str,
    processor: &[&str],
    ggml: &Path,
    header: &Path,
) -> Result<(), Box<dyn Error>> {
    let mut build = cc::Build::new();
    build
        .std("c11")
        .opt_level(3)
        .debug(false)
        .pic(true)
        .warnings(false)
        .define("NDEBUG", None)
        .define("_GNU_SOURCE", None)
        .include(ggml.join("include"))
        .include(ggml.join("src"))
        .include(ggml.join("src/ggml-cpu"))
        .flag(format!("-ffile-prefix-map={}=ggml", ggml.display()))
        .flag("-include")
        .flag(header)
        .flags(processor)
        .flags(FLAGS)
        .file(ggml.join(SOURCE))
        .try_compile(&format!("ggml_{variant}"))?;
    Ok(())
}

/// Where cargo unpacked the pinned package.
fn package_root() -> Result<PathBuf, Box<dyn Error>> {
    let manifest = Path::new(&env::var_os("CARGO_MANIFEST_DIR").ok_or("no manifest directory")?)
        .join("Cargo.toml");
    let cargo = env::var_os("CARGO").ok_or("CARGO is not set; build with cargo")?;
    let answer = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--locked"])
        .arg("--manifest-path")
        .arg(&manifest)
        .output()?;
    if !answer.status.success() {
        return Err(format!(
            "cannot find the sources of {PACKAGE}; run `cargo fetch --locked` in the root of the repository\n{}",
            String::from_utf8_lossy(&answer.stderr)
        )
        .into());
    }
    let metadata = String::from_utf8(answer.stdout)?;
    // A package's own entry continues with its version; where it is named as a dependency, it does not.
    let root = metadata
        .split_once(&format!("{{\"name\":\"{PACKAGE}\",\"version\":"))
        .and_then(|(_, entry)| entry.split_once("\"manifest_path\":\""))
        .and_then(|(_, path)| path.split_once('"'))
        .and_then(|(path, _)| Path::new(path).parent())
        .ok_or_else(|| {
            format!("`cargo metadata` does not list {PACKAGE}; is Cargo.lock complete?")
        })?;
    if !root.join("llama.cpp/ggml").join(SOURCE).is_file() {
        return Err(format!("{} has no {SOURCE}", root.display()).into());
    }
    Ok(root.to_path_buf())
}
