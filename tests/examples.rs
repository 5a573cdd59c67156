//! The examples do what their headers say, and print the last lines that are promised.
//!
//! `cargo test` builds them; a run of this target alone needs `cargo build --examples` before it.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use message_queue_sqlite::prelude::*;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Longer than anything here takes on a slow machine; only a hang is longer.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn the_quickstart_awaits_its_task_and_hears_of_it() {
    let ran = run(example("quickstart")).await;
    assert!(ran.status.success(), "{ran:?}");
    assert!(ran.stdout.contains("awaited: hello, world\n"), "{ran:?}");
    assert!(ran.stdout.contains("Finished: Ok(\"hello, world\")\n"), "{ran:?}");
}

#[tokio::test]
async fn the_readme_demo_calls_every_submission_back_with_its_own_result() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = example("readme_demo");
    demo.args(["--count", "50", "--dir"]).arg(dir.path().join("queue"));
    let ran = run(demo).await;
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(ran.last_line(), "submitted=100 finished=100 failed=0 callbacked=100");
}

#[tokio::test]
async fn the_readme_demo_runs_until_it_is_interrupted_and_leaves_no_row_running() {
    for signal in [Signal::INT, Signal::TERM] {
        let dir = tempfile::tempdir().unwrap();
        let queue_dir = dir.path().join("queue");
        let mut demo = example("readme_demo");
        demo.arg("--dir").arg(&queue_dir).stdout(Stdio::piped());
        let mut demo = demo.spawn().unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        let mut last = String::new();
        let mut count = 0;
        while let Some(line) = timeout(LONG, lines.next_line()).await.unwrap().unwrap() {
            count += 1;
            if count == 100 {
                send(&demo, signal);
            }
            last = line;
        }
        assert!(ended(&mut demo).await.success());
        let tally: Vec<&str> = last.split([' ', '=']).collect();
        let ["submitted", submitted, "finished", finished, "failed", "0", "callbacked", called] =
            tally[..]
        else {
            panic!("the last line is {last:?}");
        };
        assert_eq!((submitted, submitted), (finished, called));

        let queue = Queue::builder().dir(&queue_dir).start().await.unwrap();
        assert_eq!(queue.recovery().restarted, 0);
        let counts = queue.counts().await.unwrap();
        let submitted: u64 = submitted.parse().unwrap();
        assert_eq!(counts.get(&TaskStatus::Callbacked), Some(&submitted), "{counts:?}");
        queue.shutdown(LONG).await.unwrap();
    }
}

#[tokio::test]
async fn survive_a_crash_loses_nothing() {
    let ran = run(example("survive_a_crash")).await;
    assert!(ran.status.success(), "{ran:?}");
    assert!(ran.stdout.contains("killed a child after 100 callbacks of 400\n"), "{ran:?}");
    assert_eq!(ran.last_line(), "submitted=400 finished=400 failed=0 callbacked=400");
}

#[tokio::test]
async fn hash_tree_writes_a_manifest_that_sha256sum_accepts() {
    let tree = Tree::new(300);
    let ran = run(tree.hash()).await;
    assert!(ran.status.success(), "{ran:?}");
    assert_eq!(ran.last_line(), tree.all_hashed());
    tree.check_manifest();
}

#[tokio::test]
async fn hash_tree_run_again_hashes_nothing_twice() {
    let tree = Tree::new(20);
    run(tree.hash()).await;
    let again = run(tree.hash()).await;
    assert_eq!(again.last_line(), tree.all_hashed());
    tree.check_manifest();
    assert_eq!(tree.tasks_by_file().await, tree.one_task_each());
}

#[tokio::test]
async fn hash_tree_killed_at_many_points_ends_with_the_same_manifest() {
    let tree = Tree::new(3_000);
    let mut killed = 0;
    // the log of a run starts empty, so its size says how far the run has come
    for log_size in (0..40).map(|step| step * 100_000) {
        let mut child = tree.hash().spawn().unwrap();
        if !tree.log_reaches(log_size, &mut child).await {
            break;
        }
        // now and then it is asked politely; before it can listen, that kills it as well
        let (signal, codes) = match killed % 4 {
            3 => (Signal::TERM, [None, Some(130)]),
            _ => (Signal::KILL, [None; 2]),
        };
        send(&child, signal);
        let status = ended(&mut child).await;
        if status.success() {
            break;
        }
        assert!(codes.contains(&status.code()), "{status}");
        killed += 1;
    }
    assert!(killed >= 4, "the tree is too small to be interrupted often: {killed} times");
    let ran = run(tree.hash()).await;
    assert_eq!(ran.last_line(), tree.all_hashed());
    tree.check_manifest();
    assert_eq!(tree.tasks_by_file().await, tree.one_task_each());
}

#[tokio::test]
async fn hash_tree_reports_a_file_that_it_cannot_read_and_goes_on() {
    let tree = Tree::new(5);
    // the system opens no path of this length, not even for root
    let name = too_long_to_open(&tree.root());
    let ran = run(tree.hash()).await;
    assert!(ran.status.success(), "{ran:?}");
    let hashed = tree.files.len();
    assert_eq!(ran.last_line(), format!("files={} hashed={hashed} failed=1", hashed + 1));
    assert!(ran.stderr.contains(&format!("{name}: File name too long")), "{ran:?}");
    tree.check_manifest();
}

/// What a finished example left.
#[derive(Debug)]
struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

impl Ran {
    fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_else(|| panic!("no last line: {self:?}"))
    }
}

/// An example's command. The binaries stand beside the directory of this test's own.
fn example(name: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    let path = own.parent().unwrap().with_file_name("examples").join(name);
    assert!(path.exists(), "{} is missing: `cargo build --examples` makes it", path.display());
    let mut command = Command::new(path);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn run(mut command: Command) -> Ran {
    let output = timeout(LONG, command.output()).await.expect("the example ends").unwrap();
    Ran {
        status: output.status,
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn send(child: &Child, signal: Signal) {
    // one that has ended but wasn't waited for is still there to be signalled
    let id = child.id().expect("nobody has waited for it");
    kill_process(Pid::from_raw(id.cast_signed()).unwrap(), signal).unwrap();
}

async fn ended(child: &mut Child) -> ExitStatus {
    timeout(LONG, child.wait()).await.expect("the example ends").unwrap()
}

/// A tree of files to hash, with what is to come out.
struct Tree {
    dir: TempDir,
    /// Hashes by path, computed here.
    files: BTreeMap<OsString, String>,
}

impl Tree {
    /// Makes `plain` files, some with names that a manifest must escape, and things to be skipped.
    fn new(plain: usize) -> Self {
        let mut tree = Tree { dir: tempfile::tempdir().unwrap(), files: BTreeMap::new() };
        for number in 0..plain {
            tree.add(format!("sub-{}/file {number}.txt", number % 7), number * 37 % 5_000);
        }
        tree.add("empty", 0);
        tree.add("larger than a buffer", 300_000);
        for name in
            ["back\\slash", "new\nline", "carriage\rreturn", "\\", " ", "*star", "ende\u{301}"]
        {
            tree.add(name, 10);
        }
        #[cfg(target_os = "linux")]
        {
            use std::os::unix::ffi::OsStrExt;
            tree.add(OsStr::from_bytes(b"not utf-8 \xff\xfe"), 10);
            let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR);
            rustix::fs::mknodat(rustix::fs::CWD, tree.root().join("pipe"), kind, mode, 0).unwrap();
        }
        std::os::unix::fs::symlink("empty", tree.root().join("link")).unwrap();
        std::os::unix::fs::symlink("..", tree.root().join("link to a directory")).unwrap();
        tree
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    fn manifest(&self) -> PathBuf {
        self.root().join("sums")
    }

    fn add(&mut self, name: impl AsRef<Path>, size: usize) {
        let path = self.root().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let seed = path.as_os_str().as_encoded_bytes();
        let contents: Vec<u8> = seed.iter().copied().cycle().take(size).collect();
        fs::write(&path, &contents).unwrap();
        let hash = Sha256::digest(&contents).iter().map(|byte| format!("{byte:02x}")).collect();
        self.files.insert(path.into(), hash);
    }

    /// The queue and the manifest are in the tree, and are not to be hashed.
    fn hash(&self) -> Command {
        let mut command = example("hash_tree");
        command.arg(self.root()).arg("--dir").arg(self.root().join("queue"));
        command.arg("--out").arg(self.manifest()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn all_hashed(&self) -> String {
        let files = self.files.len();
        format!("files={files} hashed={files} failed=0")
    }

    /// Waits until the shard's log has this size; false if the process ends before.
    async fn log_reaches(&self, size: u64, child: &mut Child) -> bool {
        let log = self.root().join("queue/shard-000.db-wal");
        let reached = async {
            while fs::metadata(&log).is_ok_and(|log| log.len() < size) || !log.exists() {
                tokio::time::sleep(Duration::from_millis(1)).await;
                if child.try_wait().unwrap().is_some() {
                    return false;
                }
            }
            true
        };
        timeout(LONG, reached).await.expect("the log grows or the example ends")
    }

    /// Against what was computed here, and with the real `sha256sum` where there is one.
    fn check_manifest(&self) {
        let manifest = fs::read(self.manifest()).unwrap();
        let mut lines = manifest.split_inclusive(|byte| *byte == b'\n');
        for (path, hash) in &self.files {
            let (escape, name) = escaped(path);
            let expected = [escape, hash.as_bytes(), b"  ", &name, b"\n"].concat();
            let line = lines.next().unwrap_or_default();
            let text = String::from_utf8_lossy;
            assert!(line == expected, "{} and not {}", text(line), text(&expected));
        }
        assert_eq!(lines.next(), None);

        let mut check = std::process::Command::new("sha256sum");
        check.args(["--check", "--strict", "--quiet"]).arg(self.manifest());
        // macOS may have none
        if let Ok(status) = check.status() {
            assert!(status.success());
        }
    }

    /// How many tasks the queue has had for each file.
    async fn tasks_by_file(&self) -> BTreeMap<OsString, usize> {
        let queue = Queue::builder().dir(self.root().join("queue")).start().await.unwrap();
        let mut tasks = BTreeMap::new();
        let name = Some("hash_file".to_string());
        let mut list = ListTasks { name, limit: 1_000, ..ListTasks::default() };
        loop {
            let page = queue.list(list.clone()).await.unwrap();
            for task in page.tasks {
                let path: OsString = task.payload.unwrap().decode().unwrap();
                *tasks.entry(path).or_default() += 1;
            }
            let Some(next) = page.next else { break };
            list.after = Some(next);
        }
        queue.shutdown(LONG).await.unwrap();
        tasks
    }

    fn one_task_each(&self) -> BTreeMap<OsString, usize> {
        self.files.keys().map(|path| (path.clone(), 1)).collect()
    }
}

/// A name as `sha256sum` writes it, and what stands before its line.
fn escaped(name: &OsStr) -> (&'static [u8], Vec<u8>) {
    let name = name.as_encoded_bytes();
    let escaped: Vec<u8> = name
        .iter()
        .flat_map(|byte| match byte {
            b'\\' => b"\\\\".to_vec(),
            b'\n' => b"\\n".to_vec(),
            b'\r' => b"\\r".to_vec(),
            byte => vec![*byte],
        })
        .collect();
    (if escaped == name { b"" } else { b"\\" }, escaped)
}

/// Makes a file whose directory can be read, but whose path is longer than the system takes.
fn too_long_to_open(root: &Path) -> String {
    use rustix::fs::{Mode, OFlags, mkdirat, open, openat};
    let part = "x".repeat(250);
    let mut path = root.as_os_str().to_str().unwrap().to_string();
    let mut directory = open(root, OFlags::DIRECTORY, Mode::empty()).unwrap();
    while path.len() + 1 + part.len() < 4_096 {
        mkdirat(&directory, &part, Mode::RWXU).unwrap();
        directory = openat(&directory, &part, OFlags::DIRECTORY, Mode::empty()).unwrap();
        path = format!("{path}/{part}");
    }
    openat(&directory, &part, OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
    format!("{path}/{part}")
}
