//! What the system says of this process: memory and processor time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::DirEntry;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// How often a [`Watch`] looks at the memory.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Processor time of all threads so far, in user code and in the kernel.
pub(crate) fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec as u32)
}

/// Resident memory now, in units of 1,000,000 bytes; `None` where there is no Linux to ask.
pub(crate) fn rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}

/// How often each thread of this process, but for the one that asks, went to sleep so far. One that did
/// anything in between has done so once more.
pub(crate) struct Sleeps(BTreeMap<OsString, u64>);

impl Sleeps {
    /// `None` where there is no Linux to ask.
    pub(crate) fn of_others() -> Option<Self> {
        let me = std::fs::read_link("/proc/thread-self").ok()?;
        let threads = std::fs::read_dir("/proc/self/task").ok()?;
        let sleeps = |thread: DirEntry| {
            // one that has ended meanwhile isn't there any more
            let status = std::fs::read_to_string(thread.path().join("status")).ok()?;
            let mut lines = status.lines();
            let line = lines.find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            Some((thread.file_name(), line.trim().parse().ok()?))
        };
        let others = threads.filter_map(Result::ok);
        let others = others.filter(|thread| Some(thread.file_name().as_os_str()) != me.file_name());
        Some(Sleeps(others.filter_map(sleeps).collect()))
    }

    /// How often they woke up since: one that has ended in between doesn't hide what others did.
    pub(crate) fn woken_since(&self, before: &Sleeps) -> u64 {
        let more = self.0.iter().map(|(thread, sleeps)| {
            sleeps.saturating_sub(before.0.get(thread).copied().unwrap_or_default())
        });
        more.sum()
    }
}

/// Watches the resident memory from a thread of its own.
pub(crate) struct Watch {
    stop: Sender<()>,
    thread: JoinHandle<Option<f64>>,
}

impl Watch {
    pub(crate) fn start() -> Self {
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let mut most = rss_mb()?;
            while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
                most = most.max(rss_mb()?);
            }
            Some(most.max(rss_mb()?))
        });
        Watch { stop, thread }
    }

    /// The most that was seen.
    pub(crate) fn stop(self) -> Option<f64> {
        drop(self.stop);
        self.thread.join().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_watch_sees_memory_that_is_taken_while_it_watches() {
        let before = rss_mb().unwrap();
        let watch = Watch::start();
        let block = std::hint::black_box(vec![1u8; 64 << 20]);
        let most = watch.stop().unwrap();
        assert!(most > before + 60.0, "{before} MB before, at most {most} MB");
        drop(block);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_does_something_has_slept_once_more() {
        let (ask, asked) = channel::<()>();
        let (answer, answered) = channel();
        let (tell, told) = channel();
        let thread = std::thread::spawn(move || {
            let me = std::fs::read_link("/proc/thread-self").unwrap();
            tell.send(me.file_name().unwrap().to_owned()).unwrap();
            asked.iter().for_each(|()| answer.send(()).unwrap());
        });
        let other = told.recv().unwrap();
        let seen = || {
            let mut sleeps = Sleeps::of_others().unwrap();
            sleeps.0.retain(|thread, _| *thread == other);
            sleeps
        };
        let before = seen();
        assert_eq!((before.0.len(), seen().woken_since(&before) <= 1), (1, true));
        ask.send(()).unwrap();
        answered.recv().unwrap();
        // it may still be on its way to sleep
        let began = std::time::Instant::now();
        while seen().woken_since(&before) == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "it went to sleep unseen");
            std::thread::yield_now();
        }
        drop(ask);
        thread.join().unwrap();
    }

    #[test]
    fn time_that_was_spent_is_counted() {
        let before = cpu();
        let mut sum = 0u64;
        while cpu() - before < Duration::from_millis(1) {
            sum = std::hint::black_box(sum + 1);
        }
        assert!(sum > 0);
    }
}
