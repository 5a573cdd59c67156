//! What is to fail, when, and as which error.

use std::ffi::c_int;
use std::fmt;

use rusqlite::ffi;

/// What SQLite asks of its files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Opening or creating a file.
    Open,
    /// Reading some bytes.
    Read,
    /// Writing some bytes.
    Write,
    /// Making what was written durable.
    Sync,
    /// Cutting a file.
    Truncate,
    /// Deleting a file.
    Delete,
}

impl Operation {
    /// All of them.
    pub const ALL: [Operation; 6] = [
        Operation::Open,
        Operation::Read,
        Operation::Write,
        Operation::Sync,
        Operation::Truncate,
        Operation::Delete,
    ];

    /// The code with which SQLite's own VFS reports that it failed.
    fn code(self) -> c_int {
        match self {
            Operation::Open => ffi::SQLITE_CANTOPEN,
            Operation::Read => ffi::SQLITE_IOERR_READ,
            Operation::Write => ffi::SQLITE_IOERR_WRITE,
            Operation::Sync => ffi::SQLITE_IOERR_FSYNC,
            Operation::Truncate => ffi::SQLITE_IOERR_TRUNCATE,
            Operation::Delete => ffi::SQLITE_IOERR_DELETE,
        }
    }
}

/// The kinds of files that a database has. The index of the log (`-shm`) isn't one of them: it is
/// memory that SQLite maps by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum File {
    /// The database itself.
    Database,
    /// The write-ahead log, `-wal`.
    Log,
    /// The rollback journal, `-journal`.
    Journal,
}

impl File {
    /// All of them.
    pub const ALL: [File; 3] = [File::Database, File::Log, File::Journal];

    /// What the file of this name is.
    pub(crate) fn of(name: &[u8]) -> Self {
        if name.ends_with(b"-wal") {
            File::Log
        } else if name.ends_with(b"-journal") {
            File::Journal
        } else {
            File::Database
        }
    }
}

/// Which operations fail, and how. It counts those that it is about from the moment that it is
/// armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "nothing fails until it is armed"]
pub struct Plan {
    operation: Option<Operation>,
    file: Option<File>,
    nth: u64,
    for_ever: bool,
    full: bool,
    holds: bool,
    broken: bool,
}

/// What becomes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It fails with this code.
    Fails(c_int),
    /// It fails with this code, and the system's error is that of a broken disk.
    Breaks(c_int),
    /// It hangs until the faults are healed.
    Hangs,
}

impl Plan {
    /// The next operation of this kind fails, with the error that SQLite has for it.
    pub fn fail(operation: Operation) -> Self {
        let operation = Some(operation);
        Plan {
            operation,
            file: None,
            nth: 1,
            for_ever: false,
            full: false,
            holds: false,
            broken: false,
        }
    }

    /// The next operation fails, whatever it is.
    pub fn fail_any() -> Self {
        Plan { operation: None, ..Plan::fail(Operation::Open) }
    }

    /// The next write finds the disk full.
    pub fn disk_full() -> Self {
        Plan { full: true, ..Plan::fail(Operation::Write) }
    }

    /// The next write finds the disk broken: as [`Plan::fail`], with the system's error for it
    /// (`EIO`), which a quota or a limit on file sizes hasn't.
    pub fn broken_disk() -> Self {
        Plan { broken: true, ..Plan::fail(Operation::Write) }
    }

    /// The next operation of this kind takes until the faults are healed, and is done then.
    pub fn hang(operation: Operation) -> Self {
        Plan { holds: true, ..Plan::fail(operation) }
    }

    /// Only operations on files of this kind are meant.
    pub fn on(self, file: File) -> Self {
        Plan { file: Some(file), ..self }
    }

    /// The `nth` of them is the one that fails, counted from 1.
    pub fn at(self, nth: u64) -> Self {
        Plan { nth, ..self }
    }

    /// All that follow it fail as well, until the faults are healed.
    pub fn for_ever(self) -> Self {
        Plan { for_ever: true, ..self }
    }

    /// Whether the plan is about this operation.
    pub(crate) fn means(&self, operation: Operation, file: File) -> bool {
        self.operation.is_none_or(|meant| meant == operation)
            && self.file.is_none_or(|meant| meant == file)
    }

    /// What becomes of the `count`th of the operations that the plan is about: nothing out
    /// of the ordinary if that is `None`.
    pub(crate) fn verdict(&self, count: u64, operation: Operation) -> Option<Verdict> {
        let meant = count == self.nth || self.for_ever && count > self.nth;
        meant.then(|| match (self.holds, self.full) {
            (true, _) => Verdict::Hangs,
            (false, true) => Verdict::Fails(ffi::SQLITE_FULL),
            (false, false) if self.broken => Verdict::Breaks(operation.code()),
            (false, false) => Verdict::Fails(operation.code()),
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.operation {
            Some(operation) => write!(f, "{operation:?}")?,
            None => f.write_str("operation")?,
        }
        write!(f, " no. {}", self.nth)?;
        if let Some(file) = self.file {
            write!(f, " of the {file:?}")?;
        }
        if self.holds {
            return f.write_str(if self.for_ever { " and all later ones hang" } else { " hangs" });
        }
        let error = if self.full { "FULL" } else { "IOERR" };
        let lasts = if self.for_ever { "and all later ones fail" } else { "fails" };
        write!(f, " {lasts} with {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_told_by_the_end_of_its_name() {
        assert_eq!(File::of(b"/a/shard-000.db"), File::Database);
        assert_eq!(File::of(b"/a/shard-000.db-wal"), File::Log);
        assert_eq!(File::of(b"/a/shard-000.db-journal"), File::Journal);
    }

    #[test]
    fn a_single_fault_hits_one_operation() {
        let plan = Plan::fail(Operation::Sync).at(2);
        assert_eq!(plan.verdict(1, Operation::Sync), None);
        assert_eq!(plan.verdict(2, Operation::Sync), Some(Verdict::Fails(ffi::SQLITE_IOERR_FSYNC)));
        assert_eq!(plan.verdict(3, Operation::Sync), None);
    }

    #[test]
    fn a_lasting_fault_hits_all_that_follow() {
        let plan = Plan::disk_full().at(2).for_ever();
        assert_eq!(plan.verdict(1, Operation::Write), None);
        assert_eq!(plan.verdict(2, Operation::Write), Some(Verdict::Fails(ffi::SQLITE_FULL)));
        assert_eq!(plan.verdict(9, Operation::Write), Some(Verdict::Fails(ffi::SQLITE_FULL)));
    }

    #[test]
    fn a_plan_is_about_what_it_names() {
        let plan = Plan::fail(Operation::Write).on(File::Log);
        assert!(plan.means(Operation::Write, File::Log));
        assert!(!plan.means(Operation::Write, File::Database));
        assert!(!plan.means(Operation::Sync, File::Log));
        assert!(Plan::fail_any().means(Operation::Delete, File::Journal));
    }

    #[test]
    fn a_plan_says_what_it_does() {
        let plan = Plan::fail(Operation::Write).on(File::Log).at(3).for_ever();
        let text = "Write no. 3 of the Log and all later ones fail with IOERR";
        assert_eq!(plan.to_string(), text);
        let text = "operation no. 1 fails with IOERR";
        assert_eq!(Plan::fail_any().to_string(), text);
        assert_eq!(Plan::hang(Operation::Sync).to_string(), "Sync no. 1 hangs");
    }
}
