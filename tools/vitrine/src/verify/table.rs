//! A verdict for people: a table of checks, and below it what is wrong, in full.

use core::fmt::Write as _;

use verifier::{Check, Outcome, Report};

use crate::terminal::printable;

/// The widest cell. Hashes are longer; their ends are enough to compare at a glance, and findings are shown in full.
const CELL: usize = 40;
const HEAD: [&str; 4] = ["check", "expected", "found", "verdict"];

/// Writes the table.
pub fn render(report: &Report) -> String {
    let rows: Vec<[String; 4]> = report.checks.iter().map(row).collect();
    let mut widths = HEAD.map(str::len);
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = line(&HEAD.map(str::to_owned), &widths);
    text += &line(&widths.map(|width| "-".repeat(width)), &widths);
    for row in &rows {
        text += &line(row, &widths);
    }
    let _ = writeln!(text, "\ntrust anchor  {}", report.anchor);
    if let Some(proved) = &report.proved {
        let lag = proved.tcb_lag.as_deref().unwrap_or("the newest level");
        let _ = writeln!(
            text,
            "TCB           {}, of {}: {lag}",
            proved.tcb_status, proved.tcb_date
        );
    }
    let _ = writeln!(text, "verdict       {}", report.verdict);
    for check in &report.checks {
        if let Outcome::Failed(code) = check.outcome {
            let _ = writeln!(
                text,
                "\n{code}: {}\n  expected  {}\n  found     {}",
                check.name,
                printable(&check.expected),
                printable(&check.found)
            );
        }
    }
    text
}

fn row(check: &Check) -> [String; 4] {
    let verdict = match check.outcome {
        Outcome::Passed => "ok".to_owned(),
        Outcome::Failed(code) => code.name().to_owned(),
        Outcome::Noted => "-".to_owned(),
    };
    [
        check.name.to_owned(),
        shorten(&check.expected),
        shorten(&check.found),
        verdict,
    ]
}

fn line(cells: &[String; 4], widths: &[usize; 4]) -> String {
    let mut text = String::new();
    for (cell, width) in cells.iter().zip(widths) {
        let _ = write!(text, "{cell:width$}  ");
    }
    text.trim_end().to_owned() + "\n"
}

/// A cell of one line and bounded width: the beginning and the end of what is longer.
fn shorten(text: &str) -> String {
    let text = printable(text).replace(['\n', '\t'], " ");
    let count = text.chars().count();
    if count <= CELL {
        return text;
    }
    let end = CELL / 4;
    let beginning: String = text.chars().take(CELL - end - 1).collect();
    let tail: String = text.chars().skip(count - end).collect();
    format!("{beginning}…{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_keep_both_ends_and_their_width() {
        assert_eq!(shorten("short"), "short");
        let long: String = ('a'..='z').cycle().take(96).collect();
        let cell = shorten(&long);
        assert_eq!(cell.chars().count(), CELL);
        assert!(cell.starts_with("abc") && long.ends_with(&cell[cell.len() - 10..]));
        assert_eq!(shorten("a\nb\u{1b}"), "a b\u{fffd}");
    }
}
