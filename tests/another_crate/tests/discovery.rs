//! A program finds the tasks of a library that it doesn't otherwise use.

use std::process::Command;

#[test]
fn a_program_finds_the_tasks_of_another_crate_and_runs_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_another_crate"));
    let ran = program.arg(dir.path().join("queue")).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let shown = String::from_utf8(ran.stdout).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(
        lines,
        [
            "discover: words.count words.counted",
            "discover_all: sums.add words.count words.counted",
            "sums.add: 42",
        ]
    );
}
