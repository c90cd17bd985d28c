//! For tests of whatever measures images: images made by hand, and what they measure as.
//!
//! The values were computed by none of the programs that are tested: the same images and every record of 128 bytes, as the documentation of
//! the TDX module describes it, were packed in Perl and hashed by `sha384sum`.

pub const SIZE: usize = 64 << 10;
pub const DESCRIPTOR: usize = SIZE - 0x400;
pub const BASE: u64 = (1 << 32) - SIZE as u64;
pub const HOB: u64 = 0x80_0000;

/// A section's entry in the descriptor.
pub fn section(
    offset: u32,
    raw: u32,
    address: u64,
    size: u64,
    kind: u32,
    attributes: u32,
) -> Vec<u8> {
    let fields = [
        &offset.to_le_bytes()[..],
        &raw.to_le_bytes(),
        &address.to_le_bytes(),
        &size.to_le_bytes(),
    ]
    .concat();
    [&fields[..], &kind.to_le_bytes(), &attributes.to_le_bytes()].concat()
}

/// All of the image, measured.
pub fn bfv() -> Vec<u8> {
    section(0, SIZE as u32, BASE, SIZE as u64, 0, 1)
}

/// Where the host describes the machine.
pub fn hob() -> Vec<u8> {
    section(0, 0, HOB, 0x2000, 2, 0)
}

/// A 64 KiB image: a pattern, a descriptor with the given sections, and the GUID table with a foreign entry in it.
pub fn image(sections: &[Vec<u8>]) -> Vec<u8> {
    let mut image: Vec<u8> = (0..SIZE)
        .map(|byte| (byte / 256 * 7 + byte) as u8)
        .collect();
    let length = (16 + 32 * sections.len()) as u32;
    let numbers = [length, 1, sections.len() as u32]
        .map(u32::to_le_bytes)
        .concat();
    let descriptor = [b"TDVF", &numbers[..], &sections.concat()].concat();
    image[DESCRIPTOR..DESCRIPTOR + descriptor.len()].copy_from_slice(&descriptor);
    let tdx = [
        &((SIZE - DESCRIPTOR) as u32).to_le_bytes()[..],
        &[
            22, 0, 0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7,
            0xbf, 0x8e, 0xc2,
        ],
    ];
    let foreign = [&[1u8, 2, 3][..], &[21, 0], &[9; 16]].concat();
    let footer = [
        0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08,
        0x2d,
    ];
    let length = (22 + 21 + 18u16).to_le_bytes();
    let table = [&tdx.concat()[..], &foreign, &length, &footer].concat();
    image[SIZE - 32 - table.len()..SIZE - 32].copy_from_slice(&table);
    image
}

/// An image's sections, and MRTD page by page and with all pages added first.
pub struct Example {
    pub sections: Vec<Vec<u8>>,
    pub mrtd: [&'static str; 2],
}

/// One image that is measured whole, and one of every kind of section, out of order, one of them with contents that are not measured.
pub fn examples() -> [Example; 2] {
    [
        Example {
            sections: vec![bfv(), hob()],
            mrtd: [
                "c53704452c0f6e78f01aac7458289ff40b8f7ad2d878d31f6942b76ee58b63216a2c3307d42c496fac5477e3447e68f4",
                "1f017abb6e94ef79f61302c2572c29130cdf5bf1b032bcb244e3308a9e7f1a66a10f26cf701eb2399f67f1dcfbb77f3b",
            ],
        },
        Example {
            sections: vec![
                hob(),
                section(0x2000, 0x3000, BASE, 0x3000, 0, 1),
                section(0, 0, 0x10_0000, 0x5000, 3, 0),
                section(0x8000, 0x1000, BASE + 0x8000, 0x1000, 1, 0),
                section(0x9000, 0x2000, BASE + 0x9000, 0x2000, 1, 1),
            ],
            mrtd: [
                "845e98e145e963fc418c302c7f58be7214c9a63d835f8951c05e9f8cdf05be0ac56159c403b526cad9668d0f1a82661b",
                "c97f949612b4cb97d62d763c065beabdd05da56d4e3c18a0f1efa1ffa700e5daf99a42b469ec33a36b532873e6fe6224",
            ],
        },
    ]
}
