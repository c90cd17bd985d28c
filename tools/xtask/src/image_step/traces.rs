//! What must not be in the image: a directory of the machine it was built on, the name of a user, a date.

use std::env;
use std::time::SystemTime;

use super::assembly::Remap;
use crate::calendar::{DAY, dates};
use crate::failure::{Failure, Result};

/// Fails if the image says where, by whom or when it was built.
pub fn check(image: &[u8], remaps: &[Remap]) -> Result<()> {
    let mut traces: Vec<String> = remaps
        .iter()
        .map(|remap| remap.from.display().to_string())
        .collect();
    traces.extend(["/home/".to_owned(), "/root/".to_owned(), "/tmp/".to_owned()]);
    for name in ["USER", "LOGNAME"]
        .iter()
        .filter_map(|name| env::var(name).ok())
    {
        // The bare name may be a word; as part of a path it is a trace.
        traces.push(format!("/{name}/"));
    }
    // A build that began before midnight, or west of here.
    let now = SystemTime::now();
    for day in [now - DAY, now, now + DAY] {
        traces.extend(dates(day));
    }
    for trace in &traces {
        if let Some(offset) = find(image, trace.as_bytes()) {
            let end = image.len().min(offset + 120);
            let text = image[offset..end].utf8_chunks().next();
            return Err(Failure::new(format!(
                "the image says where, by whom or when it was built: it has {:?} at {offset:#x}",
                text.map_or("", |chunk| chunk.valid())
            )));
        }
    }
    Ok(())
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_in_the_image_is_found() {
        let remaps = [Remap {
            from: "/srv/checkout".into(),
            to: "/x".into(),
        }];
        assert!(check(b"ab/rustc/1/library/core.rs\0/vitrine/guest", &remaps).is_ok());
        let today = dates(SystemTime::now()).map(String::into_bytes);
        for image in [
            &b"x/srv/checkout/guest/src/main.rs"[..],
            b"\xff/home/me/.cargo\xff",
            &today[0],
            &today[1],
        ] {
            let failure = check(image, &remaps).unwrap_err().to_string();
            assert!(failure.contains("where, by whom or when"), "{failure}");
        }
    }
}
