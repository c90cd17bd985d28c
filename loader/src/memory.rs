//! Who uses which RAM: the machine's ranges, cut along everything that already has a place.

use heapless::Vec;

use crate::handoff::{Mode, Span};
use crate::layout;

/// Ranges a memory map can have; RAM comes in two or three pieces, and a dozen things are cut out of it.
pub const MAX_RANGES: usize = 48;

/// What a range of RAM is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Use {
    /// Nothing: the guest's to allocate.
    Free = 1,
    /// The guest's segments.
    Guest = 2,
    /// The guest's first stack.
    Stack = 3,
    /// Page tables in use.
    Tables = 4,
    /// Where application processors start.
    Trampoline = 5,
    /// The copy of the loader's data.
    Loader = 6,
    /// The host's hand-off block in a TD.
    TdHob = 7,
    /// Left unmapped on purpose: page 0, the stack's guard, the video hole.
    Unmapped = 8,
    /// The memory that devices see.
    Shared = 9,
    /// The guest's to allocate, once it has accepted it from the host. In a TD only.
    Unaccepted = 10,
}

impl Use {
    /// Whether the loader of a TD accepts the memory: everything that must work before the guest can.
    pub const fn is_accepted_by_loader(self) -> bool {
        matches!(self, Self::Free | Self::Guest | Self::Stack | Self::Tables)
    }
}

/// A range of RAM and its use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct MemoryRange {
    /// Where.
    pub span: Span,
    /// What for.
    pub usage: Use,
}

impl MemoryRange {
    /// No range; fills unused room in tables.
    pub const EMPTY: Self = Self {
        span: Span {
            start: 0,
            length: 0,
        },
        usage: Use::Unmapped,
    };
}

/// All RAM, sorted, not overlapping.
pub type MemoryMap = Vec<MemoryRange, MAX_RANGES>;

/// The RAM does not suffice for, or does not fit, the fixed layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryError {
    /// Less than [`layout::MEMORY_MIN`].
    TooLittle {
        /// Bytes of RAM there are.
        bytes: u64,
    },
    /// Something with a fixed place does not lie in RAM.
    NotRam(MemoryRange),
    /// RAM where the devices or the image are.
    Misplaced(Span),
    /// More pieces than [`MAX_RANGES`].
    TooManyRanges,
}

impl core::fmt::Display for MemoryError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLittle { bytes } => {
                write!(
                    f,
                    "too little memory: {} MiB, at least {} MiB are needed",
                    bytes >> 20,
                    layout::MEMORY_MIN >> 20
                )
            }
            Self::NotRam(MemoryRange { span, usage }) => {
                write!(
                    f,
                    "no RAM at {:#x}, where {:#x} bytes are needed ({usage:?})",
                    span.start, span.length
                )
            }
            Self::Misplaced(span) => write!(
                f,
                "the memory map has RAM at {:#x}, where device registers are",
                span.start
            ),
            Self::TooManyRanges => f.write_str("the memory map has too many pieces"),
        }
    }
}

impl core::error::Error for MemoryError {}

/// Things with a fixed place.
pub type Reservations = Vec<MemoryRange, 10>;

/// What has a fixed place, in order of address. `guest` spans the guest's segments. Without the real-mode trampoline and the copy of the loader's
/// data in a TD, where no CPU starts in real mode and the loader's data is RAM.
pub fn reservations(guest: Span, mode: Mode) -> Reservations {
    let range = |start, end, usage| MemoryRange {
        span: Span::between(start, end),
        usage,
    };
    [
        range(0, layout::PAGE, Use::Unmapped),
        range(
            layout::TRAMPOLINE,
            layout::TRAMPOLINE + layout::PAGE,
            Use::Trampoline,
        ),
        range(
            layout::DATA_COPY,
            layout::DATA_COPY + layout::DATA_SIZE,
            Use::Loader,
        ),
        range(layout::VIDEO_HOLE, layout::VIDEO_HOLE_END, Use::Unmapped),
        range(
            layout::TD_HOB,
            layout::TD_HOB + layout::TD_HOB_SIZE,
            Use::TdHob,
        ),
        range(layout::STACK_GUARD, layout::STACK, Use::Unmapped),
        range(layout::STACK, layout::STACK_END, Use::Stack),
        range(
            layout::TABLES,
            layout::TABLES + layout::TABLES_SIZE,
            Use::Tables,
        ),
        MemoryRange {
            span: guest,
            usage: Use::Guest,
        },
        range(
            layout::SHARED,
            layout::SHARED + layout::SHARED_SIZE,
            Use::Shared,
        ),
    ]
    .into_iter()
    .filter(|range| mode == Mode::Plain || !matches!(range.usage, Use::Trampoline | Use::Loader))
    .collect()
}

/// Marks free RAM from [`layout::BOOT_MEMORY_END`] on as not accepted yet.
///
/// # Errors
/// [`MemoryError::TooManyRanges`].
pub fn withhold(map: &MemoryMap) -> Result<MemoryMap, MemoryError> {
    let mut held = MemoryMap::new();
    for range in map {
        let MemoryRange { span, usage } = *range;
        let cut = match usage {
            Use::Free => layout::BOOT_MEMORY_END.clamp(span.start, span.end()),
            _ => span.end(),
        };
        for (span, usage) in [
            (Span::between(span.start, cut), usage),
            (Span::between(cut, span.end()), Use::Unaccepted),
        ] {
            if span.length > 0 {
                held.push(MemoryRange { span, usage })
                    .map_err(|_| MemoryError::TooManyRanges)?;
            }
        }
    }
    Ok(held)
}

/// Cuts `ram` along `reserved`; both must be sorted and free of overlaps. What is left is [`Use::Free`].
///
/// # Errors
/// [`MemoryError`] if there is too little RAM, or not where it is needed.
pub fn partition(ram: &[Span], reserved: &[MemoryRange]) -> Result<MemoryMap, MemoryError> {
    let bytes = ram
        .iter()
        .fold(0u64, |sum, span| sum.saturating_add(span.length));
    if bytes < layout::MEMORY_MIN {
        return Err(MemoryError::TooLittle { bytes });
    }
    let devices = Span::between(layout::DEVICES, layout::IMAGE_END);
    if let Some(span) = ram.iter().find(|span| span.overlaps(&devices)) {
        return Err(MemoryError::Misplaced(*span));
    }
    if let Some(range) = reserved
        .iter()
        .find(|range| !ram.iter().any(|ram| contains(ram, &range.span)))
    {
        return Err(MemoryError::NotRam(*range));
    }
    let mut map = MemoryMap::new();
    let mut push = |span: Span, usage| match span.length {
        0 => Ok(()),
        _ => map
            .push(MemoryRange { span, usage })
            .map_err(|_| MemoryError::TooManyRanges),
    };
    for ram in ram {
        let mut position = ram.start;
        for range in reserved.iter().filter(|range| contains(ram, &range.span)) {
            push(Span::between(position, range.span.start), Use::Free)?;
            push(range.span, range.usage)?;
            position = range.span.end();
        }
        push(Span::between(position, ram.end()), Use::Free)?;
    }
    Ok(map)
}

fn contains(outer: &Span, inner: &Span) -> bool {
    outer.start <= inner.start && inner.end() <= outer.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::{GUEST, IMAGE_END};

    const GUEST_SPAN: Span = Span {
        start: GUEST,
        length: 0x20_0000,
    };

    #[test]
    fn every_byte_has_exactly_one_use() {
        let ram = [
            Span {
                start: 0,
                length: 0x8000_0000,
            },
            Span {
                start: IMAGE_END,
                length: 1 << 32,
            },
        ];
        let map = partition(&ram, &reservations(GUEST_SPAN, Mode::Plain)).expect("a valid map");
        assert!(
            map.windows(2)
                .all(|pair| pair[0].span.end() <= pair[1].span.start)
        );
        assert_eq!(
            map.iter().map(|range| range.span.length).sum::<u64>(),
            0x8000_0000 + (1 << 32)
        );
        assert_eq!(map.last().map(|range| range.usage), Some(Use::Free));
        for reserved in reservations(GUEST_SPAN, Mode::Plain) {
            assert!(map.contains(&reserved));
        }
    }

    #[test]
    fn too_little_or_wrong_memory_is_refused() {
        let small = [Span {
            start: 0,
            length: 32 << 20,
        }];
        assert_eq!(
            partition(&small, &reservations(GUEST_SPAN, Mode::Plain)),
            Err(MemoryError::TooLittle { bytes: 32 << 20 })
        );
        let high = [Span {
            start: IMAGE_END,
            length: 1 << 32,
        }];
        assert!(matches!(
            partition(&high, &reservations(GUEST_SPAN, Mode::Plain)),
            Err(MemoryError::NotRam(_))
        ));
        let devices = [Span {
            start: 0,
            length: 0xd000_0000,
        }];
        assert_eq!(
            partition(&devices, &reservations(GUEST_SPAN, Mode::Plain)),
            Err(MemoryError::Misplaced(devices[0]))
        );
    }

    #[test]
    fn fixed_places_are_sorted_and_apart() {
        for mode in [Mode::Plain, Mode::TrustDomain] {
            let reserved = reservations(GUEST_SPAN, mode);
            assert!(
                reserved
                    .windows(2)
                    .all(|pair| pair[0].span.end() <= pair[1].span.start)
            );
        }
    }

    #[test]
    fn a_trust_domain_has_no_memory_for_real_mode() {
        let reserved = reservations(GUEST_SPAN, Mode::TrustDomain);
        assert_eq!(
            reserved.len() + 2,
            reservations(GUEST_SPAN, Mode::Plain).len()
        );
        assert!(
            !reserved
                .iter()
                .any(|range| matches!(range.usage, Use::Trampoline | Use::Loader))
        );
    }

    #[test]
    fn free_memory_above_the_boot_memory_is_withheld() {
        let ram = [
            Span {
                start: 0,
                length: 0x8000_0000,
            },
            Span {
                start: IMAGE_END,
                length: 1 << 32,
            },
        ];
        let map =
            partition(&ram, &reservations(GUEST_SPAN, Mode::TrustDomain)).expect("a valid map");
        let held = withhold(&map).expect("room");
        let bytes = |map: &MemoryMap| map.iter().map(|range| range.span.length).sum::<u64>();
        assert_eq!(bytes(&held), bytes(&map));
        for range in &held {
            let above = range.span.start >= layout::BOOT_MEMORY_END;
            assert_eq!(range.usage == Use::Unaccepted, above, "{range:?}");
            assert!(above || range.span.end() <= layout::BOOT_MEMORY_END);
        }
    }
}
