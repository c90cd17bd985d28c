//! All attacks, one row each.

use std::ops::Range;

/// Whom an attack goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The model disk and every other.
    Disk,
    /// The network card.
    Card,
    /// The vsock device.
    Vsock,
    /// The platform: bus, interrupts, clock.
    Platform,
    /// The trust domain's start, its processors, and the hypercalls that no device answers.
    Launch,
}

impl Target {
    /// Its name, as in the names of threads.
    pub fn name(self) -> &'static str {
        match self {
            Self::Disk => "virtio-blk",
            Self::Card => "virtio-net",
            Self::Vsock => "virtio-vsock",
            Self::Platform => "platform",
            Self::Launch => "launch",
        }
    }
}

/// What the host does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attack {
    /// Completes a request that does not exist.
    UsedIdOutOfRange,
    /// Completes the second descriptor of a request instead of the first.
    UsedIdInsideRequest,
    /// Completes a request of the receive queue or of a disk twice.
    UsedTwice,
    /// Completes a request of the transmit queue twice.
    SentTwice,
    /// Lets the used index run ahead of what was submitted.
    UsedIndexAhead,
    /// Turns the used index back.
    UsedIndexBack,
    /// Claims to have written more than the buffer holds.
    UsedLengthHuge,
    /// Claims to have written nothing.
    UsedLengthZero,
    /// Completes requests in another order.
    Reordered,
    /// Completes requests late.
    Delayed,
    /// Overwrites descriptors, the available ring and the request itself once they are its own.
    RequestOverwritten,
    /// Overwrites a buffer between the guest's use of it and its own.
    BufferOverwritten,
    /// Changes the length in a completion back and forth while the guest reads it.
    LengthFlickers,
    /// Asks for no notifications, for ever.
    NoNotifications,
    /// Takes the device away.
    Vanish,
    /// Asks for a reset.
    NeedsReset,
    /// Never completes a reset.
    ResetStuck,
    /// Offers no virtio 1.
    FeaturesMissing,
    /// Does not offer to go through the platform's translation (VIRTIO_F_ACCESS_PLATFORM): it wants to reach all memory.
    PlatformBypassed,
    /// Refuses the features it offered.
    FeaturesRefused,
    /// Has no queues.
    QueueSizeZero,
    /// Has queues of a size that is no power of two.
    QueueSizeOdd,
    /// Changes its configuration at every look.
    GenerationFlaps,
    /// Notifications would go outside of its registers.
    DoorbellOutside,
    /// A capability points at itself.
    CapabilityLoop,
    /// Register blocks lie outside of the function's registers.
    BlockOutside,
    /// A base address register asks for gigabytes.
    BarHuge,
    /// A base address register keeps an address in memory.
    BarStuck,
    /// A base address register already holds an address in memory.
    BarPreset,
    /// The capacity does not fit the contents.
    CapacityWrong,
    /// The serial has no decimal length.
    SerialText,
    /// The serial's length is not the disk's.
    SerialHuge,
    /// The serial says that the disk is for something else.
    SerialRole,
    /// Reports an error.
    DiskStatus,
    /// Puts bytes behind the contents.
    DiskPadding,
    /// The context identifier is nobody's.
    CidReserved,
    /// The card's address is a group's.
    MacGroup,
    /// Packets that no connection asked for: unknown operations, wrong addresses, resets, data for nobody.
    PacketFlood,
    /// A packet whose length field is larger than what arrived.
    PacketLength,
    /// Grants no credit to send.
    CreditZero,
    /// Says to have consumed what was never sent, and to buffer anything.
    CreditAbsurd,
    /// Says that all connections were cut.
    TransportReset,
    /// Frames of random bytes, of every length.
    FrameFlood,
    /// Random bytes behind sound Ethernet, IP and TCP headers.
    SegmentFlood,
    /// Leases of impossible addresses.
    LeaseImpossible,
    /// Loses interrupts.
    InterruptLost,
    /// Loses interrupts that processors send each other.
    SignalLost,
    /// Sends each interrupt several times.
    InterruptRepeated,
    /// Sends interrupts nobody asked for, of every vector from 32 on.
    InterruptSpurious,
    /// Sends the highest vector, which is the APIC's own for spurious interrupts, as an ordinary interrupt.
    InterruptHighest,
    /// Shows functions of every kind everywhere on the bus.
    GhostFunctions,
    /// The clock shows nonsense.
    ClockNonsense,
    /// The hand-off block calls memory present that has to be accepted.
    MemoryPresent,
    /// The hand-off block has an entry of another kind.
    MemoryEntryKind,
    /// The hand-off block's ranges overlap.
    MemoryOverlaps,
    /// The hand-off block has memory where devices and the image are.
    MemoryOverImage,
    /// The hand-off block has less memory than there is.
    MemoryWithheld,
    /// The hand-off block's list does not end where it says.
    MemoryListEnd,
    /// There are bytes behind the hand-off block's end.
    MemoryListContinues,
    /// The register that points to the hand-off block points elsewhere.
    MemoryPointer,
    /// The processors but the first never run.
    ProcessorsWithheld,
    /// The processors but the first run long before it.
    ProcessorsFirst,
    /// Pages are converted to shared memory one by one, each with a request to try again.
    ConversionInPieces,
    /// The host asks to try again, for ever.
    ConversionStuck,
    /// The host asks to try again, further back.
    ConversionTurnsBack,
    /// The host refuses to convert pages.
    ConversionRefused,
    /// Halting returns at once.
    HaltReturns,
    /// Stops a processor behind its last look for work, where it enables interrupts to halt, until an interrupt has come for it.
    InterruptBeforeHalt,
    /// The trust domain is made without AVX-512, which the processor has.
    FeaturesWithheld,
    /// The host gives processors random APIC identifiers when they ask for theirs.
    ApicIdRandom,
    /// Every register that a call to the host exposes comes back with a random value, but for those that carry its answer.
    RegistersRandom,
    /// A quote takes long.
    QuoteLate,
    /// A quote never comes.
    QuoteNever,
    /// A quote is another TD's.
    QuoteOfAnother,
    /// The host is too busy for quotes, for ever.
    QuoteRetry,
    /// A quote is longer than the buffer.
    QuoteLengthHuge,
    /// No processor runs.
    TimeWithheld,
    /// A device does nothing.
    Idle,
}

/// What the guest must make of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes on and gives the same tokens, at the latest once the host behaves.
    Continue,
    /// It shuts the device down, saying one of these on the console, and gives the same tokens over the other network device.
    Degrade(&'static [&'static str]),
    /// It does not serve without evidence, saying one of these on the console if there are any; once the host behaves it gives the same tokens.
    Unattested(&'static [&'static str]),
    /// It may be of no service while this goes on, which it does when [`Host::attack`](super::Host::attack) says so; as soon as the host
    /// behaves it gives the same tokens.
    Deny,
    /// It refuses to serve, saying one of these on the console.
    Stop(&'static [&'static str]),
}

/// One attack with its schedule and its outcome.
#[derive(Debug)]
pub struct Row {
    /// What `--hostile` takes.
    pub name: &'static str,
    /// What is done.
    pub attack: Attack,
    /// Through what.
    pub target: Target,
    /// Which occasions are used.
    pub occasions: Range<u32>,
    /// What the guest must make of it.
    pub outcome: Outcome,
    /// Whether it may be one of several.
    pub can_be_combined: bool,
}

const ALWAYS: Range<u32> = 0..u32::MAX;

const fn row(
    name: &'static str,
    attack: Attack,
    target: Target,
    occasions: Range<u32>,
    outcome: Outcome,
) -> Row {
    Row {
        name,
        attack,
        target,
        occasions,
        outcome,
        can_be_combined: true,
    }
}

/// An attack that would hide others, or be hidden by them.
const fn alone(row: Row) -> Row {
    Row {
        can_be_combined: false,
        ..row
    }
}

const USED_ID: &[&str] = &["completed a request it did not own"];
const USED_INDEX: &[&str] = &["used index is out of range"];
const USED_LENGTH: &[&str] = &["written beyond a buffer"];
/// Which of the two is noticed depends on how much is under way.
const USED_AGAIN: &[&str] = &[USED_ID[0], USED_INDEX[0]];
const NO_DISK: &[&str] = &["there is no usable model disk"];
const NOT_SHARED: &[&str] = &["does not get on with sharing memory"];
const NO_QUOTE: &[&str] = &["vitrine: no quote"];
const LEFT_OUT: &[&str] = &["left out: virtio-"];

/// All attacks.
pub fn catalogue() -> &'static [Row] {
    CATALOGUE
}

// One row a line, as a table is read.
#[rustfmt::skip]
static CATALOGUE: &[Row] = {
    use Attack as A;
    use Outcome::{Continue, Degrade, Deny, Stop, Unattested};
    use Target::{Card, Disk, Launch, Platform, Vsock};
    &[
        row("disk-used-id-out-of-range", A::UsedIdOutOfRange, Disk, 2..3, Stop(USED_ID)),
        row("disk-used-id-inside-request", A::UsedIdInsideRequest, Disk, 2..3, Stop(USED_ID)),
        row("disk-used-twice", A::UsedTwice, Disk, 2..3, Stop(USED_AGAIN)),
        row("disk-used-index-ahead", A::UsedIndexAhead, Disk, 2..3, Stop(USED_INDEX)),
        row("disk-used-index-back", A::UsedIndexBack, Disk, 2..3, Stop(USED_INDEX)),
        row("disk-used-length-huge", A::UsedLengthHuge, Disk, 2..3, Stop(USED_LENGTH)),
        row("disk-used-length-zero", A::UsedLengthZero, Disk, ALWAYS, Continue),
        row("disk-reordered", A::Reordered, Disk, ALWAYS, Continue),
        row("disk-delayed", A::Delayed, Disk, 2..12, Continue),
        row("disk-request-overwritten", A::RequestOverwritten, Disk, ALWAYS, Continue),
        row("disk-buffer-overwritten", A::BufferOverwritten, Disk, ALWAYS, Continue),
        row("disk-length-flickers", A::LengthFlickers, Disk, ALWAYS, Continue),
        row("disk-no-notifications", A::NoNotifications, Disk, ALWAYS, Continue),
        row("disk-vanishes", A::Vanish, Disk, 4..5, Stop(NO_DISK)),
        row("disk-reset-stuck", A::ResetStuck, Disk, ALWAYS, Stop(&["did not complete a reset"])),
        row("disk-features-missing", A::FeaturesMissing, Disk, ALWAYS, Stop(&["lacks a required feature"])),
        row("disk-platform-bypassed", A::PlatformBypassed, Disk, ALWAYS, Stop(&["lacks a required feature"])),
        row("disk-features-refused", A::FeaturesRefused, Disk, ALWAYS, Stop(&["refused its own features"])),
        row("disk-queue-size-zero", A::QueueSizeZero, Disk, ALWAYS, Stop(&["queue 0 is missing or too small"])),
        row("disk-queue-size-odd", A::QueueSizeOdd, Disk, ALWAYS, Continue),
        row("disk-generation-flaps", A::GenerationFlaps, Disk, ALWAYS, Stop(&["the device configuration is invalid"])),
        row("disk-doorbell-outside", A::DoorbellOutside, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-capability-loop", A::CapabilityLoop, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-block-outside", A::BlockOutside, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-bar-huge", A::BarHuge, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-bar-stuck", A::BarStuck, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-bar-preset", A::BarPreset, Disk, ALWAYS, Continue),
        row("disk-capacity-wrong", A::CapacityWrong, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-serial-text", A::SerialText, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-serial-huge", A::SerialHuge, Disk, ALWAYS, Stop(NO_DISK)),
        row("disk-serial-role", A::SerialRole, Disk, ALWAYS, Stop(&["there is no model"])),
        row("disk-status", A::DiskStatus, Disk, 2..3, Stop(&["the disk reports error 1"])),
        row("disk-padding", A::DiskPadding, Disk, ALWAYS, Stop(&["not zero behind its contents"])),
        row("card-used-id-out-of-range", A::UsedIdOutOfRange, Card, 2..3, Degrade(USED_ID)),
        row("card-used-index-ahead", A::UsedIndexAhead, Card, 2..3, Degrade(USED_INDEX)),
        row("card-used-index-back", A::UsedIndexBack, Card, 2..3, Degrade(USED_INDEX)),
        row("card-used-length-huge", A::UsedLengthHuge, Card, 0..1, Degrade(USED_LENGTH)),
        row("card-sent-twice", A::SentTwice, Card, 1..2, Degrade(USED_AGAIN)),
        alone(row("card-used-twice", A::UsedTwice, Card, 2..8, Continue)),
        row("card-used-length-zero", A::UsedLengthZero, Card, 2..8, Continue),
        row("card-reordered", A::Reordered, Card, 2..40, Continue),
        row("card-delayed", A::Delayed, Card, 2..12, Continue),
        row("card-request-overwritten", A::RequestOverwritten, Card, ALWAYS, Continue),
        row("card-buffer-overwritten", A::BufferOverwritten, Card, ALWAYS, Continue),
        row("card-length-flickers", A::LengthFlickers, Card, 2..20, Continue),
        row("card-no-notifications", A::NoNotifications, Card, ALWAYS, Continue),
        alone(row("card-vanishes", A::Vanish, Card, 8..9, Degrade(&["virtio-net shut down"]))),
        row("card-needs-reset", A::NeedsReset, Card, 1..u32::MAX, Degrade(&["needs a reset"])),
        row("card-features-missing", A::FeaturesMissing, Card, ALWAYS, Degrade(LEFT_OUT)),
        row("card-platform-bypassed", A::PlatformBypassed, Card, ALWAYS, Degrade(LEFT_OUT)),
        row("card-queue-size-odd", A::QueueSizeOdd, Card, ALWAYS, Continue),
        row("card-bar-preset", A::BarPreset, Card, ALWAYS, Continue),
        row("card-mac-group", A::MacGroup, Card, ALWAYS, Degrade(LEFT_OUT)),
        row("card-frame-flood", A::FrameFlood, Card, 0..200, Continue),
        row("card-segment-flood", A::SegmentFlood, Card, 0..200, Continue),
        row("card-lease-impossible", A::LeaseImpossible, Card, 0..40, Continue),
        row("vsock-used-id-out-of-range", A::UsedIdOutOfRange, Vsock, 0..1, Degrade(USED_ID)),
        row("vsock-used-id-inside-request", A::UsedIdInsideRequest, Vsock, 0..1, Degrade(USED_ID)),
        row("vsock-used-index-ahead", A::UsedIndexAhead, Vsock, 0..1, Degrade(USED_INDEX)),
        row("vsock-used-index-back", A::UsedIndexBack, Vsock, 0..1, Degrade(USED_INDEX)),
        row("vsock-used-length-huge", A::UsedLengthHuge, Vsock, 0..1, Degrade(USED_LENGTH)),
        row("vsock-sent-twice", A::SentTwice, Vsock, 0..1, Degrade(USED_AGAIN)),
        alone(row("vsock-used-twice", A::UsedTwice, Vsock, 0..6, Continue)),
        row("vsock-used-length-zero", A::UsedLengthZero, Vsock, 0..3, Continue),
        row("vsock-reordered", A::Reordered, Vsock, 0..6, Continue),
        row("vsock-delayed", A::Delayed, Vsock, 0..10, Continue),
        row("vsock-request-overwritten", A::RequestOverwritten, Vsock, ALWAYS, Continue),
        row("vsock-buffer-overwritten", A::BufferOverwritten, Vsock, ALWAYS, Continue),
        row("vsock-length-flickers", A::LengthFlickers, Vsock, 0..6, Continue),
        row("vsock-no-notifications", A::NoNotifications, Vsock, ALWAYS, Continue),
        alone(row("vsock-vanishes", A::Vanish, Vsock, 8..9, Degrade(&["virtio-vsock shut down"]))),
        row("vsock-needs-reset", A::NeedsReset, Vsock, 1..u32::MAX, Degrade(&["needs a reset"])),
        row("vsock-features-refused", A::FeaturesRefused, Vsock, ALWAYS, Degrade(LEFT_OUT)),
        row("vsock-platform-bypassed", A::PlatformBypassed, Vsock, ALWAYS, Degrade(LEFT_OUT)),
        row("vsock-queue-size-odd", A::QueueSizeOdd, Vsock, ALWAYS, Continue),
        row("vsock-bar-preset", A::BarPreset, Vsock, ALWAYS, Continue),
        row("vsock-cid-reserved", A::CidReserved, Vsock, ALWAYS, Degrade(LEFT_OUT)),
        row("vsock-packet-flood", A::PacketFlood, Vsock, 0..200, Continue),
        row("vsock-packet-length", A::PacketLength, Vsock, 0..3, Continue),
        row("vsock-credit-zero", A::CreditZero, Vsock, 0..6, Continue),
        row("vsock-credit-absurd", A::CreditAbsurd, Vsock, 0..20, Continue),
        row("vsock-transport-reset", A::TransportReset, Vsock, 0..3, Continue),
        row("interrupts-lost", A::InterruptLost, Platform, 0..50, Continue),
        row("interrupts-never", A::InterruptLost, Platform, ALWAYS, Continue),
        row("signals-lost", A::SignalLost, Launch, 0..50, Continue),
        row("interrupts-repeated", A::InterruptRepeated, Platform, ALWAYS, Continue),
        row("interrupts-spurious", A::InterruptSpurious, Platform, ALWAYS, Continue),
        row("interrupts-highest", A::InterruptHighest, Platform, ALWAYS, Continue),
        alone(row("pci-ghost-functions", A::GhostFunctions, Platform, ALWAYS, Continue)),
        row("clock-nonsense", A::ClockNonsense, Platform, ALWAYS, Continue),
        row("memory-present", A::MemoryPresent, Launch, ALWAYS, Stop(&["memory present that nobody asked for"])),
        row("memory-entry-kind", A::MemoryEntryKind, Launch, ALWAYS, Stop(&["unexpected type 0x7"])),
        row("memory-overlaps", A::MemoryOverlaps, Launch, ALWAYS, Stop(&["range out of order"])),
        row("memory-over-image", A::MemoryOverImage, Launch, ALWAYS, Stop(&["memory where devices or the image are"])),
        row("memory-withheld", A::MemoryWithheld, Launch, ALWAYS, Continue),
        row("memory-list-end", A::MemoryListEnd, Launch, ALWAYS, Stop(&["does not end at"])),
        row("memory-list-continues", A::MemoryListContinues, Launch, ALWAYS, Continue),
        row("memory-pointer", A::MemoryPointer, Launch, ALWAYS, Continue),
        row("processors-withheld", A::ProcessorsWithheld, Launch, ALWAYS, Continue),
        row("processors-first", A::ProcessorsFirst, Launch, ALWAYS, Continue),
        row("conversion-in-pieces", A::ConversionInPieces, Launch, 0..64, Continue),
        row("conversion-stuck", A::ConversionStuck, Launch, ALWAYS, Stop(NOT_SHARED)),
        row("conversion-turns-back", A::ConversionTurnsBack, Launch, ALWAYS, Stop(NOT_SHARED)),
        row("conversion-refused", A::ConversionRefused, Launch, ALWAYS, Stop(&["calls an operand invalid"])),
        row("halt-returns", A::HaltReturns, Launch, 0..20_000, Continue),
        alone(row("interrupts-before-halt", A::InterruptBeforeHalt, Launch, ALWAYS, Continue)),
        row("features-withheld", A::FeaturesWithheld, Launch, ALWAYS, Continue),
        row("apic-id-random", A::ApicIdRandom, Launch, ALWAYS, Continue),
        row("registers-random", A::RegistersRandom, Launch, ALWAYS, Continue),
        row("quote-late", A::QuoteLate, Launch, ALWAYS, Continue),
        row("quote-never", A::QuoteNever, Launch, ALWAYS, Unattested(&[])),
        row("quote-of-another-once", A::QuoteOfAnother, Launch, 0..1, Continue),
        row("quote-of-another", A::QuoteOfAnother, Launch, ALWAYS, Unattested(NO_QUOTE)),
        row("quote-retry-twice", A::QuoteRetry, Launch, 0..2, Continue),
        row("quote-retry", A::QuoteRetry, Launch, ALWAYS, Unattested(NO_QUOTE)),
        row("quote-length-huge", A::QuoteLengthHuge, Launch, ALWAYS, Unattested(NO_QUOTE)),
        alone(row("time-withheld", A::TimeWithheld, Launch, ALWAYS, Deny)),
        alone(row("signals-withheld", A::SignalLost, Launch, ALWAYS, Deny)),
        alone(row("card-withheld", A::Idle, Card, ALWAYS, Deny)),
        alone(row("vsock-withheld", A::Idle, Vsock, ALWAYS, Deny)),
    ]
};
