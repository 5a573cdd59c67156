//! Runs the cases of a row until its figures are reached.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::case::{Case, Failure, Seen};
use crate::control;
use crate::journal::{Journal, Progress};
use crate::row::{Row, Scale};
use crate::running::Running;
use crate::scene::harness;

/// The end of the name of a commit whose tree has changes.
pub(crate) const CHANGES: &str = "and changes";

/// How often what was reached is written down.
const KEEP_EVERY: Duration = Duration::from_secs(5);

/// Where and how the rows run.
pub(crate) struct Runner {
    pub(crate) scale: Scale,
    /// The first case of a row has this seed, the next one the next.
    pub(crate) first_seed: u64,
    pub(crate) commit: String,
    pub(crate) date: String,
    pub(crate) journal: Journal,
    pub(crate) running: Arc<Running>,
}

/// A case that failed, or a control arm that didn't.
pub(crate) struct Broken {
    /// The case's, unless it is a control arm's.
    pub(crate) seed: Option<u64>,
    pub(crate) failure: Failure,
}

impl Runner {
    /// Runs a row to its figures, from where an earlier run of the same commit was stopped.
    pub(crate) fn run(&mut self, row: &Row) -> Result<Progress, Broken> {
        let mut progress = self.begin(row);
        if progress.date.is_some() {
            return Ok(progress);
        }
        let bar = bar(row);
        for (control, number) in row.controls.iter().zip(1..) {
            bar.set_message(format!("control arm: {}", control.without));
            let seeds = (1..).map(|seed| seed ^ 0xc0_0000);
            let failed = control::must_fail(row, number, seeds, &self.running);
            let cases = failed.map_err(|failure| Broken { seed: None, failure })?;
            progress.counts.insert(format!("control: {}", control.without), cases);
        }
        let done = self.cases(row, &mut progress, &bar);
        bar.finish_and_clear();
        if done.is_ok() {
            progress.date = Some(self.date.clone());
        }
        self.keep(row, &progress)?;
        done.map(|()| progress)
    }

    fn begin(&self, row: &Row) -> Progress {
        let fresh = Progress {
            commit: self.commit.clone(),
            scale: self.scale.name().into(),
            first_seed: self.first_seed,
            ..Progress::default()
        };
        let same = |old: &&Progress| {
            (&old.commit, &old.scale, old.first_seed)
                == (&fresh.commit, &fresh.scale, fresh.first_seed)
        };
        // of one tree with changes nobody knows whether it is another one
        let goes_on = !self.commit.ends_with(CHANGES);
        let known = self.journal.row(row.name).filter(|_| goes_on).filter(same);
        known.cloned().unwrap_or(fresh)
    }

    fn keep(&mut self, row: &Row, progress: &Progress) -> Result<(), Broken> {
        let kept = self.journal.keep(row.name, progress.clone());
        kept.map_err(|error| Broken { seed: None, failure: Failure::new("harness", error) })
    }

    fn reached(&self, row: &Row, progress: &Progress) -> bool {
        let so_far = |what| progress.counts.get(what).copied().unwrap_or(0);
        row.goals.iter().all(|goal| so_far(goal.what) >= goal.at(self.scale))
    }

    fn cases(
        &mut self,
        row: &Row,
        progress: &mut Progress,
        bar: &ProgressBar,
    ) -> Result<(), Broken> {
        if self.reached(row, progress) {
            return Ok(());
        }
        let (began, before) = (Instant::now(), progress.seconds);
        let first = self.first_seed + progress.cases;
        let next = AtomicU64::new(first);
        let running = self.running.clone();
        let (outcomes, come) = mpsc::channel();
        std::thread::scope(|threads| {
            for _ in 0..row.side_by_side {
                let (outcomes, next, running) = (outcomes.clone(), &next, &running);
                threads.spawn(move || {
                    loop {
                        let seed = next.fetch_add(1, Ordering::AcqRel);
                        let case = format!("{} --seed {seed}", row.name);
                        let under_way = running.begin(case).map_err(harness);
                        let outcome = under_way.and_then(|_case| Case::run(seed, row.case));
                        // a case may take an hour: none begins before it is known to be needed
                        let (go_on, may_go_on) = mpsc::channel();
                        drop(outcomes.send((seed, outcome, go_on)));
                        if may_go_on.recv() != Ok(true) {
                            return;
                        }
                    }
                });
            }
            drop(outcomes);
            let (mut kept, mut broken) = (Instant::now(), None);
            // counted in the order of the seeds: those that are counted are all before the next one
            let (mut passed, mut counted) = (BTreeMap::new(), first);
            for (seed, outcome, go_on) in come {
                match outcome {
                    Ok(seen) => {
                        passed.insert(seed, seen);
                        while let Some(seen) = passed.remove(&counted) {
                            self.passed(row, progress, seen, bar);
                            counted += 1;
                        }
                    }
                    Err(failure) => {
                        broken.get_or_insert(Broken { seed: Some(seed), failure });
                    }
                }
                progress.seconds = before + began.elapsed().as_secs_f64();
                let goes_on = broken.is_none() && !self.reached(row, progress);
                if goes_on && kept.elapsed() > KEEP_EVERY {
                    self.keep(row, progress)?;
                    kept = Instant::now();
                }
                // its thread waits for this
                let _ = go_on.send(goes_on);
            }
            broken.map_or(Ok(()), Err)
        })
    }

    fn passed(&self, row: &Row, progress: &mut Progress, seen: Seen, bar: &ProgressBar) {
        progress.add(seen);
        let goal = &row.goals[0];
        bar.set_length(goal.at(self.scale));
        bar.set_position(progress.counts.get(goal.what).copied().unwrap_or(0));
        bar.set_message(format!("{} in {} cases", goal.what, progress.cases));
        bar.tick();
    }
}

/// Hidden by itself where standard error is no terminal.
fn bar(row: &Row) -> ProgressBar {
    let bar = ProgressBar::new(1);
    let style = ProgressStyle::with_template("{prefix} {bar:30} {pos}/{len} {wide_msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_prefix(row.name);
    bar
}
