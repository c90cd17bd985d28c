#!/usr/bin/env python3
"""Counts what one image of Vitrine replaces: the lines of code of an ordinary system that serves a model.

    replaced.py FOLDER [--llama FOLDER]      prints measurements/published/replaced.json

The system: Debian 12's kernel for clouds, glibc, OpenSSL, and llama.cpp with its server. FOLDER keeps what is downloaded by apt-get (Debian 12
with network; some 200 MB). llama.cpp comes from the package that ggml's kernels are taken from; --llama says where it is unpacked.

Counted as in tcb.json: lines of compiled C, C++ and assembly files that are neither blank nor comment; no headers, no tests. Which files are
compiled, the programs themselves say: the kernel by its makefiles and Debian's configuration (what is built in, =y, without a single module,
so the number is too small), glibc and OpenSSL by the members of Debian's static libraries, llama.cpp by its source folders for x86-64. Not counted
at all: firmware, the hypervisor's drivers, the shell and services that a distribution adds.
"""

import argparse
import json
import lzma
import pathlib
import re
import subprocess
import sys
import tarfile

SOURCES = (".c", ".S", ".s", ".cc", ".cpp")
SUITE = "bookworm"


def count(text):
    """Lines with code in a C or assembly file."""
    text = re.sub(r"/\*.*?\*/", lambda comment: "\n" * comment[0].count("\n"), text, flags=re.S)
    lines = (line.strip() for line in text.splitlines())
    return sum(1 for line in lines if line and not line.startswith("//"))


def read(path):
    return path.read_text(encoding="utf-8", errors="replace")


def total(files):
    files = sorted(set(files))
    return {"files": len(files), "lines": sum(count(read(file)) for file in files)}


def run(*command, cwd):
    subprocess.run(command, cwd=cwd, check=True, stdout=sys.stderr)


def download(folder):
    """Fetches packages and sources of Debian's main archive."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lists/partial").mkdir(parents=True, exist_ok=True)
    base = "http://deb.debian.org/debian"
    (folder / "sources.list").write_text(f"deb {base} {SUITE} main\ndeb-src {base} {SUITE} main\n")
    options = [
        f"-oDir::Etc::SourceList={folder}/sources.list",
        "-oDir::Etc::SourceParts=/dev/null",
        f"-oDir::State::Lists={folder}/lists",
        "-oAPT::Sandbox::User=root",
    ]
    run("apt-get", *options, "-q", "update", cwd=folder)
    packages = ["linux-source-6.1", "linux-config-6.1", "libc6-dev", "libssl-dev"]
    run("apt-get", *options, "-q", "download", *packages, cwd=folder)
    run("apt-get", *options, "-q", "source", "--download-only", "glibc", "openssl", cwd=folder)


def package(folder, name):
    """An unpacked package, and its version."""
    deb = sorted(folder.glob(f"{name}_*.deb"))[-1]
    version = deb.name.split("_")[1].replace("%3a", ":")
    out = folder / name
    if not out.exists():
        run("dpkg-deb", "--extract", str(deb), str(out), cwd=folder)
    return out, version


def unpacked(archive, out):
    """The one folder in an archive."""
    if not out.exists():
        with tarfile.open(archive) as tar:
            tar.extractall(out, filter="tar")
    return next(path for path in out.iterdir() if path.is_dir())


def kernel(folder):
    source, version = package(folder, "linux-source-6.1")
    settings, _ = package(folder, "linux-config-6.1")
    tree = unpacked(next(source.rglob("linux-source-*.tar.xz")), folder / "linux")
    name = "config.amd64_none_cloud-amd64"
    with lzma.open(next(settings.rglob(name + ".xz")), "rt") as file:
        config = dict(re.findall(r"^(CONFIG_\w+)=(.*)$", file.read(), flags=re.M))
    result = total(kbuild(tree, config))
    return {"what": f"Linux, Debian's {name}, built-in code only", "version": version, **result}


def kbuild(tree, config):
    """Sources of everything that the kernel's makefiles build in."""
    config = dict(config, CONFIG_64BIT="y")
    folders, seen, files = [tree], set(), []

    def chosen(suffix):
        name = re.fullmatch(r"\$\((CONFIG_\w+)\)", suffix)
        return suffix in ("y", "objs") or bool(name) and config.get(name[1]) == "y"

    def value(text):
        text = re.sub(r"\$\((CONFIG_\w+)\)", lambda name: config.get(name[1], ""), text)
        return text.replace("$(SRCARCH)", "x86").replace("$(BITS)", "64").strip()

    def holds(line):
        """Whether a conditional is taken; what is not about the configuration is."""
        if found := re.match(r"if(n?)def\s+(CONFIG_\w+)", line):
            return (found[2] in config) != bool(found[1])
        if found := re.match(r"if(n?)eq\s*\((.*?),(.*)\)$", line):
            return (value(found[2]) == value(found[3])) != bool(found[1])
        return True

    while folders:
        folder = folders.pop()
        if folder in seen or not folder.is_dir():
            continue
        seen.add(folder)
        makefile = next((folder / name for name in ("Kbuild", "Makefile") if (folder / name).exists()), None)
        if makefile is None:
            continue
        lists, taken = {}, []
        for line in read(makefile).replace("\\\n", " ").splitlines():
            line = line.split("#")[0].strip()
            if re.match(r"ifn?(def|eq)\b", line):
                taken.append(holds(line))
            elif re.match(r"else\b", line) and taken:
                taken[-1] = not taken[-1]
            elif re.match(r"endif\b", line) and taken:
                taken.pop()
            elif all(taken):
                found = re.match(r"([\w./-]+?)-(y|objs|\$\(CONFIG_\w+\))\s*[:+]?=\s*(.*)$", line)
                if found and chosen(found[2]):
                    lists.setdefault(found[1], []).extend(value(found[3]).split())
        pending = lists.get("obj", []) + lists.get("lib", [])
        # The top and arch/x86 name their folders in ways of their own.
        pending += [path + "/" for path in lists.get("core", []) + lists.get("drivers", []) + lists.get("libs", [])]
        done = set()
        while pending:
            item = pending.pop()
            if item in done:
                continue
            done.add(item)
            if item.endswith("/"):
                root = tree if item.startswith("arch/") and folder == tree else folder
                folders.append((root / item).resolve())
                continue
            stem = item.removesuffix(".o")
            if stem in lists:
                pending += lists[stem]
                continue
            files += [folder / (stem + end) for end in (".c", ".S") if (folder / (stem + end)).is_file()]
    return files


def members(library):
    """Names of a static library's objects."""
    listing = subprocess.run(["ar", "t", library], check=True, capture_output=True, text=True).stdout
    return listing.split()


def by_members(tree, libraries, stem):
    """Sources of the objects in static libraries, found by name; of several, the one nearest to x86-64."""
    candidates = {}
    for path in tree.rglob("*"):
        if path.suffix in SOURCES and path.is_file():
            candidates.setdefault(path.stem, []).append(path)
    order = ("x86_64", "x86", "i386", "linux", "posix", "generic")

    def nearness(path):
        text = str(path)
        other = re.search(r"/(aarch64|arm|powerpc|s390|sparc|mips|riscv|ia64|alpha|m68k|hppa|nios2|sh|arc|csky|hurd|mach)\w*/", text)
        return bool(other), next((rank for rank, word in enumerate(order) if word in text), len(order)), len(text)

    wanted = {stem(member) for library in libraries for member in members(library)}
    return [min(candidates[name], key=nearness) for name in wanted if name in candidates]


def libc(folder):
    development, version = package(folder, "libc6-dev")
    tree = unpacked(next(folder.glob("glibc_*.orig.tar.xz")), folder / "glibc")
    library = next(development.rglob("libc.a"))
    files = by_members(tree, [library], lambda member: member.removesuffix(".o"))
    return {"what": "glibc, the members of libc.a", "version": version, **total(files)}


def openssl(folder):
    development, version = package(folder, "libssl-dev")
    tree = unpacked(next(folder.glob("openssl_*.orig.tar.gz")), folder / "openssl")
    libraries = [next(development.rglob(name)) for name in ("libcrypto.a", "libssl.a")]
    files = by_members(tree, libraries, lambda member: re.sub(r"^lib\w+-\w+-|\.o$", "", member))
    return {"what": "OpenSSL, the members of libcrypto.a and libssl.a", "version": version, **total(files)}


def llama(folder):
    def below(part, recursive=False):
        found = (folder / part).rglob("*") if recursive else (folder / part).glob("*")
        return [path for path in found if path.suffix in SOURCES and path.is_file()]

    files = below("src", recursive=True) + below("common") + below("ggml/src") + below("ggml/src/ggml-cpu")
    files += below("ggml/src/ggml-cpu/arch/x86") + below("ggml/src/ggml-cpu/llamafile") + below("ggml/src/ggml-cpu/amx")
    files += below("tools/server") + below("vendor/cpp-httplib")
    return {"what": "llama.cpp for x86-64 processors, common code and server", "version": folder.parent.name, **total(files)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--llama", type=pathlib.Path, help="llama.cpp [default: where cargo unpacked it]")
    parser.add_argument("--offline", action="store_true", help="use what was downloaded before")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not arguments.offline:
        download(folder)
    unpacked_by_cargo = sorted(pathlib.Path.home().glob(".cargo/registry/src/*/llama-cpp-sys-2-*/llama.cpp"))
    parts = [kernel(folder), libc(folder), openssl(folder), llama(arguments.llama or unpacked_by_cargo[-1])]
    result = {
        "method": "measurements/python/replaced.py: compiled C, C++ and assembly files, no headers, neither blank lines nor comments",
        "lines": sum(part["lines"] for part in parts),
        "parts": parts,
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
