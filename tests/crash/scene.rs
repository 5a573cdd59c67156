//! A directory of a scene, the processes that play in it, and what they wrote down.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use message_queue_sqlite::TaskRecord;
use message_queue_sqlite::prelude::*;

use crate::retiring::Ran;

/// The part that a child plays, and where.
pub(crate) const PART: &str = "MQS_CRASH_TEST_PART";
pub(crate) const DIR: &str = "MQS_CRASH_TEST_DIR";

/// The longest that anything here may take.
pub(crate) const LONGEST: Duration = Duration::from_secs(30);

pub(crate) const SHARDS: usize = 2;

/// A file of lines, each written in one go behind the others, by one process at a time.
pub(crate) struct Journal(File);

/// Where the durable callback writes.
pub(crate) struct Called(pub(crate) Journal);

impl Journal {
    /// Opens a file to write on where its last whole line ends: a process that was killed in the middle
    /// of a write has left a part of one.
    pub(crate) fn open(path: &Path) -> Self {
        let file = OpenOptions::new().create(true).append(true).open(path).unwrap();
        let bytes = fs::read(path).unwrap();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if whole < bytes.len() {
            file.set_len(whole as u64).unwrap();
        }
        Journal(file)
    }

    pub(crate) fn line(&self, line: &str) -> Result<(), io::Error> {
        (&self.0).write_all(format!("{line}\n").as_bytes())
    }
}

/// The whole lines of a journal; a process that died may have left a part of one.
pub(crate) fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    whole.lines().map(str::to_string).collect()
}

/// The files of one scene.
#[derive(Clone)]
pub(crate) struct Scene(pub(crate) PathBuf);

impl Scene {
    pub(crate) fn journal(&self) -> PathBuf {
        self.0.join("journal")
    }

    pub(crate) fn called(&self) -> PathBuf {
        self.0.join("called")
    }

    pub(crate) fn ran(&self) -> PathBuf {
        self.0.join("ran")
    }

    pub(crate) async fn queue(&self, max_crashes: u32) -> Queue {
        let mut settings = Settings::default();
        settings.tasks.max_crashes = max_crashes;
        settings.shards.count = Some(SHARDS);
        self.start(settings).await
    }

    /// A queue that soon adds a shard to these, if it has something to do: each submission waits for
    /// a commit of its own, and none may wait.
    pub(crate) async fn queue_that_grows(&self, shards: usize) -> Queue {
        let mut settings = Settings::default();
        settings.tasks.max_crashes = 100;
        (settings.shards.min, settings.shards.max) = (shards, Some(shards + 1));
        settings.shards.target_wait = Duration::from_micros(10);
        settings.limits.batch = 1;
        self.start(settings).await
    }

    pub(crate) async fn start(&self, settings: Settings) -> Queue {
        let queue = Queue::builder().settings(settings).dir(self.0.join("queue"));
        let queue = queue.discover("crash").data(Called(Journal::open(&self.called())));
        let queue = queue.data(Ran(Journal::open(&self.ran())));
        queue.start().await.unwrap()
    }

    pub(crate) fn spawn(&self, part: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).stdout(Stdio::null());
        command.env(PART, part).env(DIR, &self.0).spawn().unwrap()
    }

    /// Lets a child play its part until the journal has `more` lines more, then kills it.
    pub(crate) fn kill_after(&self, part: &str, more: usize) {
        let until = lines(&self.journal()).len() + more;
        self.kill_when(part, |scene| lines(&scene.journal()).len() >= until);
    }

    /// Lets a child play its part until something is so, then kills it.
    pub(crate) fn kill_when(&self, part: &str, reached: impl Fn(&Scene) -> bool) {
        let mut child = self.spawn(part);
        let since = Instant::now();
        while !reached(self) {
            assert_eq!(child.try_wait().unwrap(), None, "the child ended by itself");
            assert!(since.elapsed() < LONGEST, "the child doesn't get there");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Lets a child play its part to its end.
    pub(crate) fn run(&self, part: &str) -> ExitStatus {
        let mut child = self.spawn(part);
        let since = Instant::now();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status;
            }
            if since.elapsed() > LONGEST {
                child.kill().unwrap();
                panic!("the child never ends");
            }
            std::thread::yield_now();
        }
    }
}

/// Looks until nothing is left to do.
pub(crate) async fn until_all_ended(queue: &Queue) {
    let ended = async {
        loop {
            let counts = queue.counts().await.unwrap();
            let open = [TaskStatus::NotStarted, TaskStatus::Running, TaskStatus::Callbacking];
            if open.iter().all(|status| counts.get(status).is_none_or(|tasks| *tasks == 0)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    if tokio::time::timeout(LONGEST, ended).await.is_err() {
        let open = [TaskStatus::NotStarted, TaskStatus::Running, TaskStatus::Callbacking];
        let mut left = Vec::new();
        for status in open {
            let list = ListTasks { status: Some(status), limit: 5, ..ListTasks::default() };
            left.extend(queue.list(list).await.unwrap().tasks);
        }
        panic!("not every task ends: {:?}, as {left:#?}", queue.counts().await);
    }
}

pub(crate) async fn all(queue: &Queue, name: &str) -> BTreeMap<TaskId, TaskRecord> {
    let mut found = BTreeMap::new();
    let mut list = ListTasks { name: Some(name.into()), limit: 500, ..ListTasks::default() };
    loop {
        let page = queue.list(list.clone()).await.unwrap();
        found.extend(page.tasks.into_iter().map(|record| (record.id, record)));
        match page.next {
            Some(next) => list.after = Some(next),
            None => return found,
        }
    }
}
