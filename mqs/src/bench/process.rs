//! What the system says of this process: memory and processor time.

use std::path::Path;
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

/// How often threads of this process, but for the one that asks, went to sleep so far; `None` where
/// there is no Linux to ask. A thread that did anything in between has done so once more.
pub(crate) fn sleeps_of_others() -> Option<u64> {
    let sleeps = |directory: &Path| {
        let status = std::fs::read_to_string(directory.join("status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    let all = std::fs::read_dir("/proc/self/task").ok()?;
    // a thread that has ended meanwhile isn't there any more
    let all: u64 = all.filter_map(|thread| sleeps(&thread.ok()?.path())).sum();
    Some(all.saturating_sub(sleeps(Path::new("/proc/thread-self"))?))
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
        let thread =
            std::thread::spawn(move || asked.iter().for_each(|()| answer.send(()).unwrap()));
        let before = sleeps_of_others().unwrap();
        ask.send(()).unwrap();
        answered.recv().unwrap();
        // it may still be on its way to sleep
        let began = std::time::Instant::now();
        while sleeps_of_others().unwrap() == before {
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
