//! Damage to what decides which code runs with which arguments: a row's arguments and id, its
//! definition's name and codec, its checksum. The file around it is sound, so that nothing but the
//! checksum can tell, and it must: exactly the damaged tasks end as corrupt, the others run.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use message_queue_sqlite::prelude::*;
use rusqlite::{Connection, params};

use super::{DEADLINE, Ran, builder};
use crate::case::Failure;
use crate::scene::{self, harness, lock, until_all_ended};

/// What a damage comes to.
pub(super) struct Damaged {
    pub(super) what: String,
    /// The numbers of the tasks that must be reported.
    tasks: BTreeSet<u64>,
    /// Whether they are there to be reported: a row whose id or name is another one is not.
    found: bool,
}

/// Damages what a sound file says of one task, or of all of a definition.
pub(super) fn damage(
    dir: &Path,
    numbers: &BTreeMap<TaskId, u64>,
    random: &mut fastrand::Rng,
) -> Result<Damaged, Failure> {
    let file = Connection::open(dir.join("shard-000.db")).map_err(harness)?;
    let ids: Vec<TaskId> = numbers.keys().copied().collect();
    let pair = random.choose_multiple(ids.iter().copied(), 2);
    let (one, two) = (pair[0], pair[1]);
    let (first, second) = (one.sequence() as i64, two.sequence() as i64);
    let run = |statement: &str, values: &[i64]| {
        let changed =
            file.execute(statement, rusqlite::params_from_iter(values)).map_err(harness)?;
        if changed == 0 { Err(harness(format!("nothing changed: {statement}"))) } else { Ok(()) }
    };
    let bit = 1_i64 << random.u8(..6);
    let damaged = |what: &str, ids: &[TaskId], found| {
        let tasks = ids.iter().map(|id| numbers[id]).collect();
        Damaged { what: format!("{what} of {ids:?}, {bit}"), tasks, found }
    };
    let of_definition = |is: &dyn Fn(u64) -> bool| -> Vec<TaskId> {
        ids.iter().copied().filter(|id| is(numbers[id])).collect()
    };
    Ok(match random.u8(..7) {
        0 => {
            flip_payload(&file, first, random)?;
            damaged("arguments", &[one], true)
        }
        1 => {
            run(
                "update task set checksum = (checksum | ?2) - (checksum & ?2) where id = ?1",
                &[first, bit],
            )?;
            damaged("checksum", &[one], true)
        }
        2 => {
            for (from, to) in [(first, -1), (second, first), (-1, second)] {
                run("update task set id = ?2 where id = ?1", &[from, to])?;
            }
            damaged("exchanged ids", &[one, two], true)
        }
        3 => {
            run("update task set id = id + 1048576 where id = ?1", &[first])?;
            damaged("id", &[one], false)
        }
        4 => {
            // those of `prove.two` are all in bincode
            run(
                "update kind set codec = (codec | ?1) - (codec & ?1) where name = 'prove.two'",
                &[bit],
            )?;
            damaged("codec", &of_definition(&|number| number % 2 == 1), true)
        }
        5 => {
            // of those in bincode; no task is in both
            run("update kind set name = 'free' where name = 'prove.one' and codec = 1", &[])?;
            run("update kind set name = 'prove.one' where name = 'prove.two'", &[])?;
            run("update kind set name = 'prove.two' where name = 'free'", &[])?;
            damaged("exchanged names", &of_definition(&|number| number % 4 != 0), true)
        }
        _ => {
            // a 't' with a bit flipped
            run("update kind set name = 'prove.4wo' where name = 'prove.two'", &[])?;
            damaged("name", &of_definition(&|number| number % 2 == 1), false)
        }
    })
}

fn flip_payload(file: &Connection, id: i64, random: &mut fastrand::Rng) -> Result<(), Failure> {
    let select = "select payload from task where id = ?1";
    let mut bytes: Vec<u8> = file.query_row(select, [id], |row| row.get(0)).map_err(harness)?;
    let bit = random.usize(..bytes.len() * 8);
    bytes[bit / 8] ^= 1 << (bit % 8);
    let update = "update task set payload = ?2 where id = ?1";
    file.execute(update, params![id, bytes]).map_err(harness)?;
    Ok(())
}

/// Opens the directory, lets everything run, and looks that the damage is reported, and nothing else.
pub(super) fn run(
    dir: &Path,
    numbers: &BTreeMap<TaskId, u64>,
    damaged: &Damaged,
) -> Result<&'static str, Failure> {
    let ran = Ran::default();
    let sound: BTreeSet<u64> =
        numbers.values().copied().filter(|number| !damaged.tasks.contains(number)).collect();
    let failed = scene::block_on(async {
        let starting = scene::in_time("stuck", "the start", builder(dir, &ran).start()).await?;
        let queue = starting.map_err(|error| Failure::new("unreported", error))?;
        queue.resume_queue("default").await.map_err(harness)?;
        let failed = if damaged.found {
            until_all_ended(&queue).await?;
            corrupt(&queue, numbers).await?
        } else {
            let all = async {
                while !sound.is_subset(&numbers_of(&ran)) {
                    scene::pause().await;
                }
            };
            scene::in_time("wrong", "the run of each sound task", all).await?;
            // what isn't there is counted as open for ever; it must not run
            super::settled(&queue).await;
            BTreeSet::new()
        };
        scene::in_time("stuck", "the shutdown", queue.shutdown(DEADLINE)).await?.ok();
        Ok::<_, Failure>(failed)
    })?;
    super::check_arguments(&ran, numbers)?;
    let ran = numbers_of(&ran);
    if ran != sound {
        return Err(Failure::new("wrong", format!("{ran:?} ran, and {sound:?} are sound")));
    }
    if damaged.found && failed != damaged.tasks {
        let what = format!("{failed:?} are corrupt, and {:?} were damaged", damaged.tasks);
        return Err(Failure::new("unreported", what));
    }
    Ok("damaged rows of sound files")
}

fn numbers_of(ran: &Ran) -> BTreeSet<u64> {
    lock(&ran.0).iter().map(|(_, number, _)| *number).collect()
}

/// The numbers of the tasks that ended as corrupt.
async fn corrupt(queue: &Queue, numbers: &BTreeMap<TaskId, u64>) -> Result<BTreeSet<u64>, Failure> {
    let mut corrupt = BTreeSet::new();
    for (id, number) in numbers {
        let record = queue.record(*id).await.map_err(|error| Failure::new("unreported", error))?;
        match record.error {
            Some(error) if error.kind == FailureKind::Corrupt => drop(corrupt.insert(*number)),
            Some(error) if error.kind == FailureKind::Panicked => {
                return Err(Failure::new("panicked", error));
            }
            _ => {}
        }
    }
    Ok(corrupt)
}
