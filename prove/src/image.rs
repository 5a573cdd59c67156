//! What a power cut left of a queue, and whether a queue can go on with it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use message_queue_sqlite_faults::Image;
use rusqlite::Connection;

use crate::case::Failure;
use crate::history::History;
use crate::scene::{self, Called, all, block_on, harness, in_time, until_all_ended};

/// A power cut, and what was known at its moment.
pub(crate) struct Cut {
    pub(crate) image: Image,
    pub(crate) manifest: Option<Vec<u8>>,
    pub(crate) history: History,
}

/// Opens an image, lets everything in it end, and compares.
pub(crate) fn check(place: &Path, cut: &Cut) -> Result<(), Failure> {
    let dir = place.join("queue");
    fs::create_dir_all(&dir).map_err(harness)?;
    restrict(&dir)?;
    cut.image.write_to(&dir).map_err(harness)?;
    if let Some(manifest) = &cut.manifest {
        fs::write(dir.join("manifest.json"), manifest).map_err(harness)?;
    }
    block_on(async {
        let builder = scene::builder(scene::settings(2), &dir, Called::nobody());
        let queue = builder.start().await.map_err(|error| Failure::new("corrupt", error))?;
        until_all_ended(&queue).await?;
        let tasks = all(&queue, "prove.step").await?;
        let report = in_time("stuck", "the shutdown", queue.shutdown(scene::LIMIT)).await?;
        report.map_err(harness)?;
        cut.history.check(&tasks)
    })?;
    integrity(&dir)?;
    fs::remove_dir_all(place).map_err(harness)
}

/// Has SQLite check every database of a directory that no queue has open.
pub(crate) fn integrity(dir: &Path) -> Result<(), Failure> {
    for file in databases(dir)? {
        let connection = Connection::open(&file).map_err(harness)?;
        let verdict: String = connection
            .query_row("pragma integrity_check", [], |row| row.get(0))
            .map_err(|error| Failure::new("corrupt", error))?;
        if verdict != "ok" {
            return Err(Failure::new("corrupt", format!("{}: {verdict}", file.display())));
        }
    }
    Ok(())
}

/// The queue refuses a directory that others may enter.
fn restrict(dir: &Path) -> Result<(), Failure> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).map_err(harness)
}

fn databases(dir: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(harness)? {
        let path = entry.map_err(harness)?.path();
        found.extend(path.extension().is_some_and(|end| end == "db").then_some(path));
    }
    Ok(found)
}
