//! `history`: what goes through beside tasks that are over, and in an empty database.

use super::measure::median_of;
use super::report::Row;
use super::scenario::Case;
use super::throughput::{Way, calibrate, rate, run};
use super::{AnyError, Bench, bare};

/// `single` in a new directory and in one with finished tasks, in turns. The latter gains a round's
/// tasks with each round.
pub(crate) fn measure(bench: &Bench, case: Case) -> Result<Vec<Row>, AnyError> {
    let empty = |tasks| bench.in_fresh(|dir| run(&dir.join("queue"), case, Way::Each, tasks));
    bench.progress.step(case, "calibrating");
    let tasks = calibrate(bench.options.seconds, |tasks| rate(&empty(tasks)?))?;
    bench.progress.step(case, "filling");
    let rows = bench.options.rows;
    let row = bench.in_fresh(|full| {
        let full = full.join("queue");
        run(&full, case, Way::Bulks, rows)?;
        let (mut bares, mut empties, mut rounds) = (Vec::new(), Vec::new(), Vec::new());
        bench.rounds(case, || {
            let bare = |dir: std::path::PathBuf| {
                bare::run(&dir, case.durability.name(), case.shards, tasks)
            };
            bares.push(bench.in_fresh(bare)?);
            empties.push(empty(tasks)?);
            rounds.push(run(&full, case, Way::Each, tasks)?);
            Ok(())
        })?;
        let empty = median_of(&empties, |round| round.tasks_per_s);
        let full = median_of(&rounds, |round| round.tasks_per_s);
        let row = Row::of(case, &bares, &rounds).with("tasks", tasks).with("rows", rows);
        let row = row.with("empty_tasks_per_s", empty);
        Ok(row.with("of_empty", full.zip(empty).map(|(full, empty)| full / empty)))
    })?;
    Ok(vec![row])
}
