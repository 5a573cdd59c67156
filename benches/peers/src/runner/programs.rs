//! Building the peers' programs and running one for a round.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use peers::{AnyError, Order, Report};

/// How much longer than a round's limit its process may take, for what comes before and after.
const GRACE: Duration = Duration::from_secs(120);

/// How much of what a process wrote on its standard error is shown if it fails.
const SHOWN: usize = 600;

/// How the names of the variables begin that `cargo run` sets for this crate alone.
const OF_THIS_CRATE: [&str; 3] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_CRATE_"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where this program was built, and where the others are.
fn target_dir() -> Result<PathBuf, AnyError> {
    let program = std::env::current_exe()?;
    let target = program.parent().and_then(Path::parent).map(Path::to_path_buf);
    target.ok_or_else(|| "this program is in no target directory".into())
}

/// Builds a peer's program with the versions of its lock file.
pub(crate) fn build(package: &str) -> Result<(), AnyError> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // what `cargo run` says of this crate would make build scripts run again
    for (name, _) in std::env::vars_os() {
        let of_this = OF_THIS_CRATE.iter().any(|start| name.to_string_lossy().starts_with(start));
        if of_this {
            build.env_remove(name);
        }
    }
    let built = build
        .args(["build", "--release", "--locked", "--quiet", "--manifest-path"])
        .arg(root().join(package).join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir()?)
        .status()?;
    built.success().then_some(()).ok_or_else(|| format!("cannot build {package}").into())
}

/// The version of a peer's library, from its lock file.
pub(crate) fn version(package: &str) -> Option<String> {
    let library = match package {
        "ours" => "message_queue_sqlite",
        "apalis" => "apalis-sqlite",
        other => other,
    };
    let lock = fs::read_to_string(root().join(package).join("Cargo.lock")).ok()?;
    let name = format!("name = \"{library}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    let version = lines.nth(1)?.strip_prefix("version = \"")?.strip_suffix('"')?;
    Some(version.to_string())
}

/// Runs a program once.
///
/// # Errors
///
/// It says that it failed, or doesn't end.
pub(crate) fn run(package: &str, order: &Order) -> Result<Report, AnyError> {
    let program = target_dir()?.join("release").join(format!("peer-{package}"));
    let err = order.dir.join("messages");
    let process = Command::new(program)
        .arg(serde_json::to_string(order)?)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(File::create(&err)?)
        .spawn()?;
    let limit = Duration::from_secs_f64(order.limit_s) + GRACE;
    let (status, report) = finish(process, limit)?;
    if !status.success() {
        let said = fs::read(&err)?;
        let said = String::from_utf8_lossy(&said[said.len().saturating_sub(SHOWN)..]).into_owned();
        return Err(format!("{status}: {}", said.trim()).into());
    }
    Ok(serde_json::from_str(report.trim())?)
}

/// Waits until a process has ended, and gives back what it wrote; one that takes longer than `limit` is
/// killed. Its standard output is a pipe, which the system closes when it ends: that can be waited for
/// with a limit, its end can't.
fn finish(mut process: Child, limit: Duration) -> Result<(ExitStatus, String), AnyError> {
    let mut out = process.stdout.take().ok_or("its standard output isn't a pipe")?;
    let (tell, told) = channel();
    let reader = std::thread::spawn(move || {
        let mut written = String::new();
        let read = out.read_to_string(&mut written).map(|_| written);
        // if nobody waits any more, it came too late
        let _ = tell.send(read);
    });
    let Ok(written) = told.recv_timeout(limit) else {
        process.kill()?;
        process.wait()?;
        return Err(format!("it didn't end within {} s", limit.as_secs()).into());
    };
    reader.join().map_err(|_| "the thread that reads what it writes has panicked")?;
    Ok((process.wait()?, written?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runner::contenders::CONTENDERS;

    fn shell(script: &str) -> Child {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    #[test]
    fn a_process_that_ends_gives_its_status_and_what_it_wrote() {
        let limit = Duration::from_secs(60);
        let (status, written) = finish(shell("echo report; exit 3"), limit).unwrap();
        assert_eq!((status.code(), written.as_str()), (Some(3), "report\n"));
    }

    #[test]
    fn a_process_that_does_not_end_is_killed() {
        let process = shell("exec tail -f /dev/null");
        let error = finish(process, Duration::from_millis(10)).unwrap_err();
        assert_eq!(error.to_string(), "it didn't end within 0 s");
    }

    #[test]
    fn each_lock_file_says_the_version_of_its_library() {
        for contender in CONTENDERS {
            let version = version(contender.package).unwrap();
            assert!(version.split('.').count() >= 3, "{}: {version}", contender.name);
        }
    }
}
