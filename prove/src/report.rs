//! The table in docs/reliability.md.

use std::fmt::Write;
use std::path::Path;
use std::{fs, io};

use crate::journal::Progress;
use crate::row::Row;

/// Between these lines of the document is the table.
const BEGIN: &str = "<!-- the table: written by scripts/prove -->";
const END: &str = "<!-- the table ends -->";

/// Replaces the lines of these rows in the document's table; those of others stay.
pub(crate) fn write(document: &Path, rows: &[(&Row, &Progress)]) -> io::Result<()> {
    let text = fs::read_to_string(document)?;
    let missing = || io::Error::other("docs/reliability.md has lost the marks of its table");
    let (head, rest) = text.split_once(BEGIN).ok_or_else(missing)?;
    let (table, tail) = rest.split_once(END).ok_or_else(missing)?;
    let mut lines: Vec<String> = table.trim().lines().map(str::to_string).collect();
    for (row, progress) in rows {
        let mark = format!("| {} |", row.name);
        let line = line(row, progress);
        match lines.iter_mut().find(|old| old.starts_with(&mark)) {
            Some(old) => *old = line,
            None => lines.push(line),
        }
    }
    fs::write(document, format!("{head}{BEGIN}\n\n{}\n\n{END}{tail}", lines.join("\n")))
}

/// `2,000 kills; 104,212 acknowledged; 0 lost; 0 stuck`
pub(crate) fn figures(row: &Row, progress: &Progress) -> String {
    let mut figures: Vec<String> = Vec::new();
    let counts = progress.counts.iter().filter(|(what, _)| !what.starts_with("control:"));
    let (places, others): (Vec<_>, Vec<_>) = counts.partition(|(what, _)| what.starts_with("at "));
    for (what, number) in others {
        figures.push(format!("{} {what}", grouped(*number)));
    }
    if let Some(least) = places.iter().map(|(_, number)| **number).min() {
        figures.push(format!("at each of {} points {} or more", places.len(), grouped(least)));
    }
    figures.extend(row.never.iter().map(|what| format!("0 {what}")));
    for (what, times) in &progress.times {
        figures.push(histogram(what, times));
    }
    for control in row.controls {
        figures.push(format!("control arm failed as it must: {}", control.without));
    }
    figures.join("; ")
}

fn line(row: &Row, progress: &Progress) -> String {
    format!(
        "| {} | {} | {} | {} | {} s | {} | {} |",
        row.name,
        row.promise,
        row.test,
        figures(row, progress),
        progress.took().as_secs(),
        progress.date.as_deref().unwrap_or("not completed"),
        progress.commit,
    )
}

fn histogram(what: &str, micros: &[u64]) -> String {
    let mut sorted = micros.to_vec();
    sorted.sort_unstable();
    let at = |part: f64| sorted[((sorted.len() - 1) as f64 * part) as usize] as f64 / 1e3;
    let mut text = format!("{what} (ms):");
    for (name, part) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("longest", 1.0)] {
        let _ = write!(text, " {name} {:.1}", at(part));
    }
    text
}

/// `104212` as `104,212`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_set_apart() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(104_212), "104,212");
        assert_eq!(grouped(1_000_000), "1,000,000");
    }
}
