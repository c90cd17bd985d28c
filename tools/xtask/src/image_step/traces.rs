//! What must not be in the image: a directory of the machine it was built on, the name of a user, a date.

use std::env;
use std::fs;
use std::time::SystemTime;

use super::remaps::Remap;
use crate::calendar::{DAY, dates};
use crate::failure::{Context, Failure, Result};

/// Fails if the image says where, by whom or when it was built. `user` is a name that no word contains.
pub fn check(image: &[u8], remaps: &[Remap], user: Option<&str>) -> Result<()> {
    let inside_another = |remap: &&Remap| {
        let mut others = remaps.iter().filter(|other| other.from != remap.from);
        others.any(|other| remap.from.starts_with(&other.from))
    };
    let mut traces: Vec<String> = remaps
        .iter()
        .filter(|remap| !inside_another(remap))
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
    traces.extend(user.map(str::to_owned));
    // A build that began before midnight, or west of here.
    let now = SystemTime::now();
    for day in [now - DAY, now, now + DAY] {
        traces.extend(dates(day));
    }
    let trace = traces
        .iter()
        .find_map(|trace| find(image, trace.as_bytes()));
    let directories = top_level()?;
    let Some(offset) = trace.or_else(|| absolute(image, &directories)) else {
        return Ok(());
    };
    let end = image.len().min(offset + 120);
    let text = image[offset..end].utf8_chunks().next();
    Err(Failure::new(format!(
        "the image says where, by whom or when it was built: it has {:?} at {offset:#x}",
        text.map_or("", |chunk| chunk.valid())
    )))
}

/// The directories in this machine's root, with what separates them from their contents.
fn top_level() -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir("/").context("list /")? {
        let entry = entry.context("list /")?;
        // The one absolute name that the precompiled libraries have.
        if entry.path().is_dir() && entry.file_name() != "rustc" {
            names.push(format!("{}/", entry.file_name().display()));
        }
    }
    Ok(names)
}

/// The first path that begins with one of these directories of the root.
fn absolute(image: &[u8], directories: &[String]) -> Option<usize> {
    let is_path = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+/".contains(&byte);
    (0..image.len()).find(|&offset| {
        // Inside a relative path a slash begins nothing.
        let begins = image[offset] == b'/' && (offset == 0 || !is_path(image[offset - 1]));
        begins
            && directories
                .iter()
                .any(|name| image[offset + 1..].starts_with(name.as_bytes()))
    })
}

fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_in_the_image_is_found() {
        let remaps = ["/srv/checkout", "/srv/checkout/target"].map(|from| Remap {
            from: from.into(),
            to: "x".into(),
        });
        let check = |image: &[u8]| super::check(image, &remaps, Some("balthasar"));
        assert!(check(b"ab/rustc/1/library/core.rs\0vitrine/guest/src/bin/a.rs").is_ok());
        let today = dates(SystemTime::now()).map(String::into_bytes);
        for image in [
            &b"x/srv/checkout/guest/src/main.rs"[..],
            b"\xff/home/me/.cargo\xff",
            b"\0/usr/include/string.h",
            b"by balthasar",
            &today[0],
            &today[1],
        ] {
            let failure = check(image).unwrap_err().to_string();
            assert!(failure.contains("where, by whom or when"), "{failure}");
        }
    }
}
