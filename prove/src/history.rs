//! What was submitted and acknowledged, beside what the queue has: nothing lost, nothing stuck, nothing
//! that nobody submitted. (The checker `total-queue` of Jepsen asks the same of a queue.)

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use message_queue_sqlite::TaskRecord;
use message_queue_sqlite::prelude::*;

use crate::case::Failure;
use crate::scene::harness;

/// A file of lines, each written in one go behind the others, by one process at a time.
pub(crate) struct Lines(File);

impl Lines {
    /// Opens a file to write on where its last whole line ends: a process that was killed in the middle
    /// of a write has left a part of one.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let bytes = fs::read(path)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64)?;
        }
        Ok(Lines(file))
    }

    pub(crate) fn add(&self, line: &str) -> io::Result<()> {
        (&self.0).write_all(format!("{line}\n").as_bytes())
    }

    /// How many whole lines a file has by now.
    pub(crate) fn count(path: &Path) -> usize {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.iter().filter(|byte| **byte == b'\n').count()
    }

    /// The whole lines of a file; a process that died may have left a part of one.
    pub(crate) fn read(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_string).collect()
    }
}

/// What clients know.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The numbers whose submission began.
    pub(crate) tried: BTreeSet<u64>,
    /// The tasks that were acknowledged, with their numbers.
    pub(crate) acknowledged: BTreeMap<TaskId, u64>,
    /// The numbers of submissions that were answered with an error which says that nothing is stored.
    pub(crate) refused: BTreeSet<u64>,
}

impl History {
    /// Reads what clients wrote down: `try NUMBER` before a submission, `ack NUMBER ID` or
    /// `refused NUMBER` after it.
    pub(crate) fn read(journal: &Path) -> Result<Self, Failure> {
        let mut history = History::default();
        for line in Lines::read(journal) {
            let words: Vec<&str> = line.split(' ').collect();
            let parsed = |text: &str| text.parse::<u64>().map_err(harness);
            match words[..] {
                ["try", number] => drop(history.tried.insert(parsed(number)?)),
                ["ack", number, id] => {
                    let id: TaskId = id.parse().map_err(harness)?;
                    if history.acknowledged.insert(id, parsed(number)?).is_some() {
                        return Err(Failure::new("twice", format!("{id} was given out twice")));
                    }
                }
                ["refused", number] => drop(history.refused.insert(parsed(number)?)),
                ["ended", ..] => {}
                _ => return Err(harness(line)),
            }
        }
        Ok(history)
    }

    /// Compares it with all records of a queue in which everything has ended.
    pub(crate) fn check(&self, tasks: &BTreeMap<TaskId, TaskRecord>) -> Result<(), Failure> {
        for (id, number) in &self.acknowledged {
            let lost = || Failure::new("lost", format!("{id}, number {number}, is not there"));
            let record = tasks.get(id).ok_or_else(lost)?;
            if number_of(record)? != *number {
                return Err(Failure::new("corrupt", format!("{id} isn't number {number}")));
            }
        }
        let mut stored = BTreeSet::new();
        for (id, record) in tasks {
            let number = number_of(record)?;
            if !self.tried.contains(&number) {
                return Err(Failure::new("unexpected", format!("nobody submitted {number}")));
            }
            if self.refused.contains(&number) {
                let what = format!("{id}, number {number}, was refused, and is there");
                return Err(Failure::new("refused and stored", what));
            }
            if !stored.insert(number) {
                return Err(Failure::new("twice", format!("{number} was stored twice")));
            }
            if record.outcome != Some(Outcome::Finished) {
                return Err(Failure::new("stuck", format!("{id} ended as {:?}", record.outcome)));
            }
            let output = record.output.as_ref().map(|output| output.decode::<u64>());
            if !matches!(output, Some(Ok(output)) if output == number) {
                return Err(Failure::new("corrupt", format!("{id} has the output {output:?}")));
            }
        }
        Ok(())
    }
}

/// The number that a `step` was given.
pub(crate) fn number_of(record: &TaskRecord) -> Result<u64, Failure> {
    let corrupt = |why: String| Failure::new("corrupt", format!("{}: {why}", record.id));
    let payload = record.payload.as_ref().ok_or_else(|| corrupt("no arguments".into()))?;
    let (number, _) =
        payload.decode::<(u64, Vec<u8>)>().map_err(|error| corrupt(error.to_string()))?;
    Ok(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_process_wrote_of_a_line_is_not_written_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lines");
        for torn in ["", "a", "whole\n", "whole\nack 7 0-1"] {
            fs::write(&path, torn).unwrap();
            Lines::open(&path).unwrap().add("next").unwrap();
            let mut whole: Vec<&str> =
                torn.rsplit_once('\n').map_or("", |(whole, _)| whole).lines().collect();
            whole.push("next");
            assert_eq!(Lines::read(&path), whole);
        }
        fs::remove_file(&path).unwrap();
        Lines::open(&path).unwrap().add("first").unwrap();
        assert_eq!(Lines::read(&path), ["first"]);
    }
}
