#!/usr/bin/env python3
"""What a TDX module measures of an image: a second voice, in Python's standard library only.

It shares nothing with the Rust library but the documents: TDVF's metadata as QEMU reads it (hw/i386/pc_sysfw_ovmf.c, hw/i386/tdvf.c) and
the records of the TDX module (tdh_mem_page_add.c, tdh_mr_extend.c). It checks what it needs to compute and nothing else; the Rust library is
the one that judges images.

    mrtd.py IMAGE                    both values of MRTD and the SHA-384 of the file, as JSON
    mrtd.py --rtmr DIGEST [DIGEST]   a register after these digests (96 hexadecimal digits each) were extended into it
"""

import argparse
import hashlib
import json
import struct
import sys
import uuid

PAGE = 4096
CHUNK = 256
FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
TDX_ENTRY = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
TYPES = {0: "BFV", 1: "CFV", 2: "TD_HOB", 3: "TEMP_MEM"}
MR_EXTEND = 1


def guid_entries(image):
    """The table's entries, last one first: pairs of GUID and data."""
    end = len(image) - 32
    if image[end - 16 : end] != FOOTER:
        raise ValueError("no GUID table")
    (total,) = struct.unpack("<H", image[end - 18 : end - 16])
    start, end = end - total, end - 18
    while end - start >= 18:
        (length,) = struct.unpack("<H", image[end - 18 : end - 16])
        if not 18 <= length <= end - start:
            raise ValueError("damaged GUID table")
        yield image[end - 16 : end], image[end - length : end - 18]
        end -= length


def sections(image):
    """(data offset, bytes in the file, address, bytes in memory, type, attributes) in the order of the file."""
    data = next((data for guid, data in guid_entries(image) if guid == TDX_ENTRY), None)
    if data is None:
        raise ValueError("no TDX entry in the GUID table")
    descriptor = image[len(image) - int.from_bytes(data, "little") :]
    signature, length, version, count = struct.unpack_from("<4sIII", descriptor)
    if (signature, version, length) != (b"TDVF", 1, 16 + 32 * count):
        raise ValueError("no TDVF descriptor")
    found = [struct.unpack_from("<IIQQII", descriptor, 16 + 32 * i) for i in range(count)]
    unknown = [kind for *_, kind, _ in found if kind not in TYPES]
    if unknown:
        raise ValueError(f"unknown section type {unknown[0]}")
    return found


def record(name, address):
    """The 128 bytes that a step contributes besides contents."""
    return name.ljust(16, b"\0") + struct.pack("<Q", address) + bytes(104)


def mrtd(image, page_by_page):
    """The measurement, pages extended one by one as they are added or all of a section at its end."""
    digest = hashlib.sha384()

    def add(address):
        digest.update(record(b"MEM.PAGE.ADD", address))

    def extend(address, contents):
        for at in range(0, PAGE, CHUNK):
            digest.update(record(b"MR.EXTEND", address + at))
            digest.update(contents[at : at + CHUNK])

    for offset, _, address, size, _, attributes in sections(image):
        measured = attributes & MR_EXTEND
        for at in range(0, size, PAGE):
            add(address + at)
            if measured and page_by_page:
                extend(address + at, image[offset + at : offset + at + PAGE])
        for at in range(0, 0 if page_by_page or not measured else size, PAGE):
            extend(address + at, image[offset + at : offset + at + PAGE])
    return digest.hexdigest()


def rtmr(digests):
    """A register after extensions: 48 zero bytes at first."""
    value = bytes(48)
    for digest in digests:
        value = hashlib.sha384(value + digest).digest()
    return value.hex()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", nargs="?")
    parser.add_argument("--rtmr", nargs="+", metavar="DIGEST", type=bytes.fromhex)
    arguments = parser.parse_args()
    if arguments.rtmr:
        print(rtmr(arguments.rtmr))
        return
    if not arguments.image:
        parser.error("an image is needed")
    with open(arguments.image, "rb") as file:
        image = file.read()
    try:
        measured = {"page_by_page": mrtd(image, True), "add_then_extend": mrtd(image, False)}
    except (ValueError, struct.error) as error:
        sys.exit(f"{arguments.image}: {error}")
    print(json.dumps({"sha384": hashlib.sha384(image).hexdigest(), "mrtd": measured}, indent=2))


if __name__ == "__main__":
    main()
