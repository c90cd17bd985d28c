//! A command as a line a POSIX shell reads back to the same words.

use std::ffi::OsStr;

/// Quotes and joins the words of a command.
pub fn join<T: AsRef<OsStr>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<String> = words
        .into_iter()
        .map(|word| quote(&word.as_ref().to_string_lossy()))
        .collect();
    words.join(" ")
}

/// A word without special characters stays as it is; any other goes into single quotes.
fn quote(word: &str) -> String {
    let plain = |c: char| {
        c.is_ascii_alphanumeric()
            || matches!(c, '_' | '-' | '.' | '/' | ':' | '=' | ',' | '+' | '@' | '%')
    };
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_needs_quotes_gets_them() {
        assert_eq!(
            join(["qemu", "-m", "512M", "a b", "", "it's", "#8443", "$x"]),
            r"qemu -m 512M 'a b' '' 'it'\''s' '#8443' '$x'"
        );
    }

    #[test]
    fn a_shell_reads_it_back() {
        let words = [
            "a b", "'", "\"", "\\", "$HOME", "`x`", "*", "~", "\n", "ä", "!",
        ];
        let script = format!("for w in {}; do printf '%s\\0' \"$w\"; done", join(words));
        let output = std::process::Command::new("sh")
            .args(["-c", &script])
            .output()
            .unwrap();
        let read: Vec<&[u8]> = output.stdout.split(|&byte| byte == 0).collect();
        let expected: Vec<&[u8]> = words
            .iter()
            .map(|word| word.as_bytes())
            .chain([&b""[..]])
            .collect();
        assert_eq!(read, expected);
    }
}
