//! The disk driver against scripted disks, well-behaved and not.

use super::super::fake::{FakeDevice, FakeTransport};
use super::super::test_arena;
use super::*;
use alloc::format;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};

extern crate std;
std::thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// A clock that moves a millisecond at every look, so that every wait ends.
fn clock() -> Duration {
    NOW.set(NOW.get() + Duration::from_millis(1));
    NOW.get()
}

/// How the scripted disk answers a read, after it has been identified.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Good,
    Reversed,
    Silent,
    Error,
    Duplicate,
    Overlong,
    ForeignId,
}

fn contents(length: usize) -> Vec<u8> {
    (0..length)
        .map(|index| (index * 7 + index / 251) as u8)
        .collect()
}

/// A disk holding `image`, which is padded to whole sectors.
fn disk(
    serial: &str,
    mut image: Vec<u8>,
    manner: Manner,
) -> (Rc<RefCell<FakeDevice>>, Result<Option<Disk>, DiskError>) {
    image.resize(image.len().next_multiple_of(SECTOR), 0);
    let capacity = (image.len() / SECTOR) as u64;
    let mut identity = [0; SERIAL_LENGTH];
    identity[..serial.len()].copy_from_slice(serial.as_bytes());
    let fake = FakeDevice::new(READ_ONLY, &capacity.to_le_bytes());
    let transport = FakeTransport::scripted(&fake, move |device, queue| {
        let ring = device.ring(queue);
        let mut requests = Vec::new();
        while let Some(request) = ring.take() {
            requests.push(request);
        }
        if manner == Manner::Reversed {
            requests.reverse();
        }
        for request in requests {
            let header = request.readable();
            let room: u32 = request
                .segments
                .iter()
                .filter(|part| part.device_writes)
                .map(|part| part.length)
                .sum();
            if header[0] == TYPE_IDENTIFY as u8 {
                let written = request.write(&[&identity[..], &[STATUS_OK]].concat());
                ring.finish(request.head, written);
                continue;
            }
            let at = u64::from_le_bytes(header[8..16].try_into().unwrap()) as usize * SECTOR;
            let mut answer = image[at..at + room as usize - 1].to_vec();
            answer.push(if manner == Manner::Error {
                1
            } else {
                STATUS_OK
            });
            if manner == Manner::Silent {
                continue;
            }
            let written = request.write(&answer);
            match manner {
                Manner::Overlong => ring.finish_raw(request.head.into(), written + 1),
                Manner::ForeignId => ring.finish_raw(u32::from(request.head) + 1, written),
                _ => ring.finish(request.head, written),
            }
            if manner == Manner::Duplicate {
                ring.finish(request.head, written);
            }
        }
    });
    let disk = Disk::open(transport, &mut test_arena(2 << 20), clock);
    (fake, disk)
}

fn read_all(disk: &mut Disk, step: usize) -> Result<Vec<u8>, DiskError> {
    let mut all = Vec::new();
    let mut part = vec![0; step];
    while disk.remaining() > 0 {
        let count = disk.read(&mut part)?;
        all.extend_from_slice(&part[..count]);
    }
    Ok(all)
}

#[test]
fn a_disk_is_read_whole_whatever_the_step_and_the_order() {
    for length in [
        1,
        512,
        CHUNK - 1,
        CHUNK,
        CHUNK + 1,
        3 * CHUNK * SLOTS as usize + 700,
    ] {
        for (step, manner) in [
            (1 << 20, Manner::Good),
            (4096, Manner::Good),
            (77_777, Manner::Reversed),
        ] {
            let (fake, disk) = disk(&std::format!("model:{length}"), contents(length), manner);
            let mut disk = disk.unwrap().unwrap();
            assert_eq!(disk.label().length, length as u64);
            assert_eq!(read_all(&mut disk, step).unwrap(), contents(length));
            assert!(!fake.borrow().failed());
        }
    }
}

#[test]
fn a_disk_can_be_read_again_wherever_reading_stopped() {
    let contents = contents(3 * CHUNK + 100);
    for stop in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK, contents.len()] {
        let label = format!("model:{}", contents.len());
        let (_fake, disk) = disk(&label, contents.clone(), Manner::Good);
        let mut disk = disk.unwrap().unwrap();
        let mut part = vec![0; stop];
        let mut held = 0;
        while held < stop {
            held += disk.read(&mut part[held..]).unwrap();
        }
        disk.rewind().unwrap();
        assert_eq!(disk.remaining(), contents.len() as u64);
        assert!(
            read_all(&mut disk, 4096).unwrap() == contents,
            "after {stop}"
        );
    }
}

#[test]
fn a_foreign_disk_is_ignored() {
    assert!(matches!(
        disk("backup:512", contents(512), Manner::Good).1,
        Ok(None)
    ));
}

#[test]
fn a_label_that_disagrees_with_the_capacity_fails_the_disk() {
    let (fake, disk) = disk("model:5000", contents(512), Manner::Good);
    assert_eq!(
        disk.err(),
        Some(DiskError::Length {
            length: 5000,
            capacity: 1
        })
    );
    assert!(fake.borrow().failed());
}

#[test]
fn padding_must_be_zero() {
    let (_fake, disk) = disk("config:600", contents(601), Manner::Good);
    let mut disk = disk.unwrap().unwrap();
    assert_eq!(read_all(&mut disk, 4096), Err(DiskError::Padding));
}

#[test]
fn misbehaviour_ends_the_disk_with_a_lasting_error() {
    for (manner, expected) in [
        (Manner::Silent, DiskError::Device(DeviceError::Timeout)),
        (Manner::Error, DiskError::Status(1)),
        (Manner::Duplicate, DiskError::Device(DeviceError::UsedIndex)),
        (Manner::Overlong, DiskError::Device(DeviceError::UsedLength)),
        (Manner::ForeignId, DiskError::Device(DeviceError::UsedId)),
    ] {
        let (fake, disk) = disk("model:4000000", contents(4_000_000), manner);
        let mut disk = disk.unwrap().unwrap();
        assert_eq!(read_all(&mut disk, 4096), Err(expected));
        assert_eq!(disk.read(&mut [0; 16]), Err(expected));
        assert!(fake.borrow().failed());
    }
}

#[test]
fn set_up_refuses_devices_that_cannot_be_driven() {
    let mut arena = test_arena(1 << 20);
    let mut open = |prepare: fn(&mut FakeDevice)| {
        let fake = FakeDevice::new(0, &1u64.to_le_bytes());
        prepare(&mut fake.borrow_mut());
        Disk::open(FakeTransport::silent(&fake), &mut arena, clock).err()
    };
    let device = |error| Some(DiskError::Device(error));
    assert_eq!(
        open(|fake| fake.features = 0),
        device(DeviceError::FeatureMissing)
    );
    assert_eq!(
        open(|fake| fake.largest_queue = 0),
        device(DeviceError::Queue(0))
    );
    assert_eq!(
        open(|fake| fake.largest_queue = 2),
        device(DeviceError::Queue(0))
    );
    assert_eq!(
        open(|fake| fake.generation_step = 1),
        device(DeviceError::Configuration)
    );
    assert_eq!(open(|_| ()), device(DeviceError::Timeout));
    assert_eq!(
        open(|fake| {
            fake.status = 1;
            fake.resets = false;
        }),
        device(DeviceError::ResetTimeout)
    );
}

#[test]
fn an_arena_without_room_is_an_error() {
    let fake = FakeDevice::new(0, &1u64.to_le_bytes());
    let error = Disk::open(FakeTransport::silent(&fake), &mut test_arena(256), clock).err();
    assert_eq!(error, Some(DiskError::Device(DeviceError::ArenaFull)));
}
