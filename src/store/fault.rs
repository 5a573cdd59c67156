//! From the database library's and the system's errors to [`StoreError`].
//!
//! A message is made of the library's error code and our own words. The library's own text is used
//! only where it can name nothing but tables, columns and constraints: never a bound value.

use rusqlite::{Error as SqliteError, ffi};
use rustix::io::Errno;

use crate::error::{StoreError, StoreErrorKind};

/// Adds to an error what couldn't be done, and makes it ours.
pub(crate) trait Fault<T> {
    /// `action` completes the sentence "cannot …".
    fn fault(self, action: &str) -> Result<T, StoreError>;
}

impl<T> Fault<T> for Result<T, SqliteError> {
    fn fault(self, action: &str) -> Result<T, StoreError> {
        self.map_err(|error| from_sqlite(action, &error))
    }
}

impl<T> Fault<T> for std::io::Result<T> {
    fn fault(self, action: &str) -> Result<T, StoreError> {
        self.map_err(|error| {
            StoreError::new(kind_of_io(&error), format!("cannot {action}: {error}"))
        })
    }
}

impl<T> Fault<T> for rustix::io::Result<T> {
    fn fault(self, action: &str) -> Result<T, StoreError> {
        self.map_err(std::io::Error::from).fault(action)
    }
}

/// The error's kind and text, where the caller's own error says what couldn't be done.
pub(crate) fn store_error(error: SqliteError) -> StoreError {
    StoreError::new(kind_of(&error), describe(&error))
}

fn from_sqlite(action: &str, error: &SqliteError) -> StoreError {
    StoreError::new(kind_of(error), format!("cannot {action}: {}", describe(error)))
}

fn kind_of(error: &SqliteError) -> StoreErrorKind {
    match code_of(error) {
        Some(ffi::SQLITE_IOERR_WRITE) => {
            kind_of_write(Errno::from_io_error(&std::io::Error::last_os_error()))
        }
        code => code.map_or(StoreErrorKind::Other, kind_of_code),
    }
}

/// SQLite says that a write failed and not why; it tells only a full file system by itself. The
/// thread's last system error is still that of the write, as calls that succeed leave it alone: it
/// names a broken disk. Anything else is a quota or a file size limit, and taken for a full disk.
fn kind_of_write(last: Option<Errno>) -> StoreErrorKind {
    if last == Some(Errno::IO) { StoreErrorKind::Io } else { StoreErrorKind::Full }
}

fn code_of(error: &SqliteError) -> Option<i32> {
    match error {
        SqliteError::SqliteFailure(failure, _) => Some(failure.extended_code),
        SqliteError::SqlInputError { error, .. } => Some(error.extended_code),
        _ => None,
    }
}

/// What SQLite's extended result code means for us.
fn kind_of_code(code: i32) -> StoreErrorKind {
    match code {
        // A quota and a file size limit show as a failed write, not as a full disk.
        ffi::SQLITE_IOERR_WRITE => return StoreErrorKind::Full,
        // The file was unlinked or renamed while it was open.
        ffi::SQLITE_READONLY_DBMOVED => return StoreErrorKind::Missing,
        ffi::SQLITE_CANTOPEN_ISDIR | ffi::SQLITE_CANTOPEN_SYMLINK => {
            return StoreErrorKind::NotAFile;
        }
        ffi::SQLITE_IOERR_NOMEM => return StoreErrorKind::Other,
        _ => {}
    }
    match code & 0xff {
        ffi::SQLITE_FULL => StoreErrorKind::Full,
        ffi::SQLITE_IOERR => StoreErrorKind::Io,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => StoreErrorKind::Busy,
        ffi::SQLITE_CORRUPT => StoreErrorKind::Corrupt,
        ffi::SQLITE_NOTADB => StoreErrorKind::NotADatabase,
        ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM | ffi::SQLITE_READONLY | ffi::SQLITE_AUTH => {
            StoreErrorKind::Permission
        }
        _ => StoreErrorKind::Other,
    }
}

/// What the file says of how many tasks there are isn't true.
const WRONG_COUNTS: &str = "more tasks leave a status than are counted in it";

/// An error of our own between those of the library.
pub(crate) fn wrong_counts() -> SqliteError {
    let failure = ffi::Error::new(ffi::SQLITE_CORRUPT);
    SqliteError::SqliteFailure(failure, Some(WRONG_COUNTS.to_owned()))
}

/// A page that says what can't be, as SQLite would say it if it had noticed.
pub(crate) fn damaged_page() -> SqliteError {
    SqliteError::SqliteFailure(ffi::Error::new(ffi::SQLITE_CORRUPT), None)
}

/// The error in words that can hold no bound value.
fn describe(error: &SqliteError) -> String {
    match error {
        SqliteError::SqliteFailure(failure, text) => {
            let code = failure.extended_code;
            match text {
                // "UNIQUE constraint failed: name.name"
                Some(text) if code & 0xff == ffi::SQLITE_CONSTRAINT => format!("{text} ({code})"),
                Some(text) if text == WRONG_COUNTS => WRONG_COUNTS.to_owned(),
                _ => format!("{} ({code})", ffi::code_to_str(code)),
            }
        }
        // Text about our own statements, which are constants.
        SqliteError::SqlInputError { error, msg, .. } => {
            format!("{msg} ({})", error.extended_code)
        }
        SqliteError::FromSqlConversionFailure(column, kind, _) => {
            format!("column {column} holds a {kind} that does not convert")
        }
        SqliteError::IntegralValueOutOfRange(column, _) => {
            format!("the number in column {column} is out of range")
        }
        SqliteError::InvalidColumnType(column, name, kind) => {
            format!("column {column} ({name}) holds a {kind}")
        }
        SqliteError::QueryReturnedNoRows => "a row is missing".to_owned(),
        SqliteError::Utf8Error(column, _) => format!("column {column} is not valid UTF-8"),
        _ => "the database library refused the call".to_owned(),
    }
}

/// What the system's error number means for us.
fn kind_of_io(error: &std::io::Error) -> StoreErrorKind {
    let Some(errno) = Errno::from_io_error(error) else {
        return match error.kind() {
            // A path with a NUL in it, for one.
            std::io::ErrorKind::InvalidInput => StoreErrorKind::Permission,
            _ => StoreErrorKind::Io,
        };
    };
    match errno {
        Errno::NOSPC | Errno::DQUOT | Errno::FBIG => StoreErrorKind::Full,
        Errno::NOENT => StoreErrorKind::Missing,
        Errno::LOOP => StoreErrorKind::NotAFile,
        Errno::ACCESS
        | Errno::PERM
        | Errno::ROFS
        | Errno::NOTDIR
        | Errno::EXIST
        | Errno::NAMETOOLONG => StoreErrorKind::Permission,
        _ => StoreErrorKind::Io,
    }
}

#[cfg(test)]
mod tests;
