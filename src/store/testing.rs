//! What the tests of this folder share.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tempfile::TempDir;

use super::directory::{Directory, DirectoryOptions};
use super::open::{self, OpenKind, OpenOptions, OpenedShard};
use crate::error::StoreError;
use crate::record::ShardId;

/// A place for a queue's directory; removed at the end of the test.
pub(crate) struct Place {
    root: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Place { root: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.root.path().join("queue")
    }

    pub(crate) fn beside(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn open(&self) -> Directory {
        Directory::open(&self.path(), &directory_options()).unwrap()
    }

    /// A directory with `count` shards, each of them opened once and closed.
    pub(crate) fn with_shards(count: u16) -> Self {
        let place = Place::new();
        let directory = place.open();
        for shard in directory.ensure_shards(count).unwrap() {
            let opened = first(&directory, shard.0).unwrap();
            open::close_clean(opened.connection, 0).unwrap();
        }
        place
    }

    pub(crate) fn shard(&self, index: u16) -> PathBuf {
        self.path().join(format!("shard-{index:03}.db"))
    }

    /// Every file's bytes but the lock's.
    pub(crate) fn bytes(&self) -> BTreeMap<String, Vec<u8>> {
        fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "queue.lock")
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect()
    }
}

pub(crate) fn directory_options() -> DirectoryOptions {
    DirectoryOptions { allow_network_filesystem: true, ballast_bytes: 0 }
}

pub(crate) fn options() -> OpenOptions {
    OpenOptions {
        synced_commits: true,
        busy_timeout: Duration::from_millis(20),
        cache_bytes: 1 << 20,
        wal_limit_bytes: 64 << 20,
        row_bytes_max: 4 << 20,
        quick_check: true,
    }
}

pub(crate) fn first(directory: &Directory, shard: u16) -> Result<OpenedShard, StoreError> {
    open::open_shard(directory, ShardId(shard), &options(), OpenKind::First)
}

pub(crate) fn rebuild(directory: &Directory, shard: u16) -> Result<OpenedShard, StoreError> {
    open::open_shard(directory, ShardId(shard), &options(), OpenKind::Rebuild)
}

/// A plain connection, as another program would make it.
pub(crate) fn stranger(path: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(path).unwrap()
}

pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const CHILD: &str = "MQS_TEST_CHILD";

/// In a child process that [`run_in_child`] started: what it was told.
pub(crate) fn child_argument() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

/// Runs one test of this binary again, in a process of its own, and returns how that ended.
pub(crate) fn run_in_child(test: &str, argument: &Path) -> Output {
    run(Command::new(std::env::current_exe().unwrap()), test, argument)
}

/// [`run_in_child`] with no file allowed to grow beyond `blocks` of 512 bytes, which to the child is
/// a full disk.
pub(crate) fn run_in_narrow_child(test: &str, argument: &Path, blocks: u32) -> Output {
    let mut shell = Command::new("sh");
    let script = r#"trap '' XFSZ; ulimit -f "$0"; exec "$@""#;
    shell.args(["-c", script, &blocks.to_string()]).arg(std::env::current_exe().unwrap());
    run(shell, test, argument)
}

fn run(mut command: Command, test: &str, argument: &Path) -> Output {
    command
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(CHILD, argument)
        .output()
        .unwrap()
}
