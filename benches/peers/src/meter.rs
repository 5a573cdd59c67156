//! Time, processor time and memory of a process.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Measures a stretch of a round.
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    cpu: Duration,
}

/// What a stretch took.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    pub took: Duration,
    /// Processor time of all threads, in user code and in the kernel.
    pub cpu: Duration,
}

impl Meter {
    pub fn start() -> Meter {
        Meter { began: Instant::now(), cpu: cpu() }
    }

    pub fn stop(self) -> Spent {
        Spent { took: self.began.elapsed(), cpu: cpu().saturating_sub(self.cpu) }
    }
}

fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec as u32)
}

/// The most resident memory of this process so far, in units of 1,000,000 bytes; `None` where there
/// is no Linux to ask.
pub(crate) fn most_rss_mb() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kib: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024.0 / 1e6)
}
