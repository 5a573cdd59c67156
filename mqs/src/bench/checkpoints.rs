//! How often SQLite has copied logs back to their files, from what their heads say.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

/// How many syncs a checkpoint is: of the log before it is copied, of the file after that, and of the
/// log's new head, by the first commit that begins it anew.
pub(crate) const SYNCS: u64 = 3;

/// Where the head of a log has how often it was begun anew: four bytes, the most significant first.
const AT: usize = 12;

/// How often the logs of the databases in a directory were begun anew. Each has one complete
/// checkpoint before it; the last one, after which nothing was committed, isn't among them.
pub(crate) fn checkpoints(directory: &Path) -> io::Result<u64> {
    let mut all = 0;
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.as_os_str().as_encoded_bytes().ends_with(b"-wal") {
            all += u64::from(of_log(&path)?);
        }
    }
    Ok(all)
}

fn of_log(path: &Path) -> io::Result<u32> {
    let mut head = [0; AT + 4];
    match File::open(path).and_then(|mut log| log.read_exact(&mut head)) {
        Ok(()) => {
            let [.., a, b, c, d] = head;
            Ok(u32::from_be_bytes([a, b, c, d]))
        }
        // nothing was written to it so far
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    #[test]
    fn each_checkpoint_counts_once_something_is_written_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            let connection = Connection::open(dir.path().join(name)).unwrap();
            connection.pragma_update(None, "journal_mode", "WAL").unwrap();
            connection
        };
        let (one, other) = (open("one.db"), open("other.db"));
        assert_eq!(checkpoints(dir.path()).unwrap(), 0);
        for connection in [&one, &other] {
            connection.execute_batch("create table number (is_it integer)").unwrap();
        }
        let round = |connection: &Connection| {
            connection
                .execute_batch("pragma wal_checkpoint; insert into number values (1)")
                .unwrap();
        };
        assert_eq!(checkpoints(dir.path()).unwrap(), 0);
        round(&one);
        round(&one);
        round(&other);
        assert_eq!(checkpoints(dir.path()).unwrap(), 3);
        one.execute_batch("pragma wal_checkpoint").unwrap();
        assert_eq!(checkpoints(dir.path()).unwrap(), 3);
    }
}
