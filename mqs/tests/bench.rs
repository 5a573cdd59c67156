//! `mqs bench` in small: each scenario runs and says what it measured, and options that make no sense
//! are refused. Nothing here is about speed.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use serde_json::Value;

const SCENARIOS: [&str; 10] = [
    "single", "bulk", "enqueue", "latency", "history", "backlog", "reopen", "mixed", "auto", "idle",
];

/// The fields of every row.
const FIELDS: [&str; 15] = [
    "scenario",
    "durability",
    "shards",
    "tasks_per_s",
    "bare_tasks_per_s",
    "ratio",
    "row_writes_per_task",
    "fsyncs_per_task",
    "submit_p50_us",
    "submit_p99_us",
    "e2e_p50_us",
    "e2e_p99_us",
    "rss_mb",
    "cpu_s",
    "workers",
];

const RATES: [&str; 3] = ["tasks_per_s", "bare_tasks_per_s", "ratio"];
const SUBMITS: [&str; 2] = ["submit_p50_us", "submit_p99_us"];
const ENDS: [&str; 2] = ["e2e_p50_us", "e2e_p99_us"];
const COSTS: [&str; 2] = ["row_writes_per_task", "cpu_s"];

struct Ran {
    status: ExitStatus,
    stdout: String,
    stderr: String,
}

/// Runs the command with databases below `dir`.
fn mqs(dir: &Path, arguments: &[&str]) -> Ran {
    let (out, err) = (dir.join("stdout"), dir.join("stderr"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_mqs"));
    command.args(arguments).stdin(Stdio::null());
    command.stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let status = command.status().unwrap();
    let text = |path| fs::read_to_string(path).unwrap();
    Ran { status, stdout: text(&out), stderr: text(&err) }
}

/// Measures a scenario in small, with more arguments, and returns its rows.
fn measure(scenario: &str, more: &[&str]) -> Vec<Value> {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    let small = ["--rounds", "1", "--rows", "3000", "--dir", data.to_str().unwrap()];
    let first = ["bench", "--json", "--scenario", scenario];
    let ran = mqs(dir.path(), &[&first[..], &small, more].concat());
    assert!(ran.status.success(), "{}", ran.stderr);
    assert_eq!(ran.stderr, "", "progress is for terminals");
    assert_eq!(fs::read_dir(&data).unwrap().count(), 0, "the databases are removed");
    let rows: Vec<Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.iter().for_each(|row| check(row, scenario));
    rows
}

/// Checks what every row has.
fn check(row: &Value, scenario: &str) {
    let fields: BTreeSet<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
    for field in FIELDS {
        assert!(fields.contains(field), "{scenario} has no {field}");
    }
    assert_eq!(row["scenario"], scenario);
    assert!(row["durability"] == "FULL" || row["durability"] == "NORMAL");
    assert!(row["shards"].as_u64().unwrap() >= 1);
    assert!(row["workers"].as_u64().unwrap() >= 1);
    for field in FIELDS.iter().filter(|field| field.contains('_') || **field == "ratio") {
        let value = &row[field];
        assert!(
            value.is_null() || value.as_f64().unwrap() >= 0.0,
            "{scenario}: {field} is {value}"
        );
    }
    assert_eq!(row["rss_mb"].is_number(), cfg!(target_os = "linux"));
    assert!(row["must"].is_object());
    assert_eq!(row["reached"].is_null(), row["must"].as_object().unwrap().is_empty());
}

/// Checks that these fields are above 0 and these have no value.
fn says(row: &Value, figures: &[&[&str]], nothing: &[&[&str]]) {
    for field in figures.concat() {
        assert!(row[field].as_f64().unwrap() > 0.0, "{field} is {}", row[field]);
    }
    for field in nothing.concat() {
        assert!(row[field].is_null(), "{field} is {}", row[field]);
    }
}

/// Checks that a figure lies between two others.
fn lies(row: &Value, field: &str, least: f64, most: f64) {
    let value = row[field].as_f64().unwrap();
    assert!((least..=most).contains(&value), "{field} is {value}");
}

fn keys(row: &Value) -> Vec<&str> {
    let own = row.as_object().unwrap().keys().map(String::as_str);
    own.filter(|key| !FIELDS.contains(key) && !["must", "reached"].contains(key)).collect()
}

#[test]
fn single_measures_both_durabilities_with_one_shard_and_two() {
    let rows = measure("single", &["--seconds", "0.02"]);
    let cases: Vec<_> = rows.iter().map(|row| (&row["durability"], &row["shards"])).collect();
    let cases = serde_json::to_string(&cases).unwrap();
    assert_eq!(cases, r#"[["NORMAL",1],["NORMAL",2],["FULL",1],["FULL",2]]"#);
    for row in &rows {
        says(row, &[&RATES, &SUBMITS, &ENDS, &COSTS], &[]);
        // its insertion, its end and its delivery, a claim if it waits, and its share of the counts
        lies(row, "row_writes_per_task", 2.0, 9.0);
        // at NORMAL only checkpoints sync, and there may have been none
        let synced = row["durability"] == "FULL";
        assert!(row["fsyncs_per_task"].as_f64().unwrap() > 0.0 || !synced);
        assert_eq!(keys(row), ["tasks"]);
        let rates =
            row["tasks_per_s"].as_f64().unwrap() / row["bare_tasks_per_s"].as_f64().unwrap();
        assert!((row["ratio"].as_f64().unwrap() - rates).abs() < 1e-3);
    }
}

#[test]
fn bulk_measures_the_durability_and_the_shards_that_it_is_told() {
    let rows = measure("bulk", &["--seconds", "0.02", "--durability", "full", "--shards", "3"]);
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    assert_eq!((&row["durability"], &row["shards"]), (&"FULL".into(), &3.into()));
    says(row, &[&RATES, &SUBMITS, &ENDS, &COSTS, &["fsyncs_per_task"]], &[]);
    lies(row, "row_writes_per_task", 2.0, 9.0);
    assert!(row["reached"].is_null(), "no figure is set for three shards");
}

#[test]
fn enqueue_writes_each_task_once_and_runs_none() {
    let rows = measure("enqueue", &["--seconds", "0.02"]);
    assert_eq!(rows.len(), 2);
    for row in &rows {
        says(row, &[&RATES, &SUBMITS, &COSTS], &[&ENDS]);
        lies(row, "row_writes_per_task", 1.0, 1.1);
    }
}

#[test]
fn latency_compares_with_a_bare_commit() {
    let rows = measure("latency", &["--seconds", "0.02"]);
    assert_eq!(rows.len(), 2);
    for row in &rows {
        says(row, &[&RATES, &SUBMITS, &ENDS], &[&["cpu_s"]]);
        assert_eq!(keys(row), ["bare_commit_p50_us", "e2e_of_bare", "submit_of_bare"]);
        // three transactions, each with a step of the log
        lies(row, "row_writes_per_task", 2.0, 18.0);
        let submit = row["submit_p50_us"].as_f64().unwrap();
        assert!(row["e2e_p50_us"].as_f64().unwrap() >= submit * 0.5);
        lies(row, "submit_of_bare", 0.0, f64::MAX);
    }
    let full = rows.iter().find(|row| row["durability"] == "FULL").unwrap();
    lies(full, "fsyncs_per_task", 2.0, 4.0);
}

#[test]
fn history_compares_with_an_empty_database() {
    let rows = measure("history", &["--seconds", "0.02", "--durability", "normal"]);
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    says(row, &[&RATES, &SUBMITS, &ENDS, &COSTS, &["of_empty", "empty_tasks_per_s"]], &[]);
    assert_eq!(row["rows"], 3000);
    lies(row, "row_writes_per_task", 2.0, 9.0);
}

#[test]
fn backlog_compares_with_a_short_queue() {
    let rows = measure("backlog", &["--seconds", "0.02", "--durability", "normal"]);
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    says(row, &[&RATES, &COSTS, &["of_short", "short_tasks_per_s"]], &[&SUBMITS, &ENDS]);
    assert_eq!(row["rss_growth_mb"].is_number(), cfg!(target_os = "linux"));
    // a claim, an end and a delivery; some of what is behind is under way, too
    lies(row, "row_writes_per_task", 2.0, 30.0);
}

#[test]
fn reopen_starts_after_a_clean_and_an_unclean_end() {
    let rows = measure("reopen", &[]);
    let ends: Vec<&Value> = rows.iter().map(|row| &row["end"]).collect();
    assert_eq!(ends, ["clean", "unclean"]);
    for row in &rows {
        says(row, &[&["first_task_ms", "cpu_s"]], &[&RATES, &SUBMITS, &ENDS]);
        assert!(row["row_writes_per_task"].is_null() && row["fsyncs_per_task"].is_null());
    }
}

#[test]
fn mixed_says_how_busy_the_slots_were() {
    let rows = measure("mixed", &["--seconds", "0.2"]);
    let shards: Vec<&Value> = rows.iter().map(|row| &row["shards"]).collect();
    assert_eq!(shards, [1, 2]);
    for row in &rows {
        says(row, &[&["tasks_per_s", "ready_s"], &COSTS], &[&SUBMITS, &ENDS, &RATES[1..]]);
        lies(row, "busy_ratio", 0.01, 1.0);
        let longest = row["longest_idle_ms"].as_f64().unwrap();
        lies(row, "idle_p999_ms", 0.0, longest);
        // which is rounded
        assert!(if row["idle_over_5ms"] == 0 { longest <= 5.0 } else { longest >= 5.0 });
        assert_eq!(row["must"]["longest_idle_ms"]["at_most"], 5.0);
        // its insertion and its end, and a claim if it waits
        lies(row, "row_writes_per_task", 2.0, 9.0);
    }
}

#[test]
fn auto_measures_each_number_of_shards_and_one_that_adapts_in_each_phase() {
    let rows = measure("auto", &["--seconds", "0.02", "--shards", "2"]);
    let shards: Vec<(&Value, &Value)> =
        rows.iter().map(|row| (&row["shards"], &row["adapts"])).collect();
    let (one, two) = (Value::from(1), Value::from(2));
    assert_eq!(shards, [(&one, &false.into()), (&two, &false.into()), (&two, &true.into())]);
    for row in &rows {
        says(row, &[&RATES, &SUBMITS, &ENDS, &COSTS], &[]);
        lies(row, "tasks_per_s", 0.1, f64::MAX);
    }
    let of_best = |row: &Value, phase: usize| row["of_best"][phase].as_f64().unwrap();
    for phase in 0..5 {
        let best = rows[..2].iter().map(|row| of_best(row, phase)).fold(0.0, f64::max);
        assert_eq!(best, 1.0, "one of them is the best of phase {phase}");
    }
    let adapts = &rows[2];
    let worst = (0..5).map(|phase| of_best(adapts, phase)).fold(f64::INFINITY, f64::min);
    lies(adapts, "worst_of_best", worst - 0.01, worst + 0.01);
    assert!(adapts["direction_changes"].is_u64());
    let added = adapts["shards_added"].as_u64().unwrap();
    assert!(adapts["shards_retired"].as_u64().unwrap() <= added, "no more than were added");
}

#[test]
fn idle_sees_a_queue_that_writes_nothing() {
    let rows = measure("idle", &["--seconds", "0.1"]);
    let [row] = &rows[..] else { panic!("{} rows", rows.len()) };
    says(row, &[], &[&RATES, &SUBMITS, &ENDS, &["row_writes_per_task"]]);
    assert_eq!((&row["commits"], &row["row_writes"]), (&0.0.into(), &0.0.into()));
    assert!(row["cpu_percent"].is_number());
    assert_eq!(row["wakeups"].is_number(), cfg!(target_os = "linux"));
    assert_eq!(row["must"]["wakeups"]["at_most"], 0.0);
}

#[test]
fn check_ends_with_1_if_a_figure_is_missed_and_with_0_if_not() {
    let dir = tempfile::tempdir().unwrap();
    let small = ["--rounds", "1", "--seconds", "0.02", "--scenario", "single", "--json", "--check"];
    let place = ["--dir", dir.path().to_str().unwrap()];
    let ran = mqs(dir.path(), &[&["bench"], &small[..], &place].concat());
    let all = ran.stdout.lines().all(|line| line.contains(r#""reached":true"#));
    assert_eq!(ran.stdout.lines().count(), 4, "{}", ran.stderr);
    assert_eq!(ran.status.code(), Some(i32::from(!all)), "{}", ran.stderr);
}

#[test]
fn the_table_says_what_must_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().to_str().unwrap();
    let small =
        ["bench", "--rounds", "1", "--seconds", "0.02", "--scenario", "idle", "--dir", place];
    let ran = mqs(dir.path(), &small);
    assert!(ran.status.success(), "{}", ran.stderr);
    assert!(ran.stdout.contains("\nscenario sync"), "{}", ran.stdout);
    assert!(ran.stdout.contains("\nidle     FULL"), "{}", ran.stdout);
    let figure = "must reach commits at most 0: reached";
    assert!(ran.stdout.contains(figure), "{}", ran.stdout);
}

#[test]
fn the_scenarios_can_be_listed() {
    let dir = tempfile::tempdir().unwrap();
    let ran = mqs(dir.path(), &["bench", "--list"]);
    assert!(ran.status.success());
    let names: Vec<&str> =
        ran.stdout.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(names, SCENARIOS);
}

#[test]
fn options_that_make_no_sense_are_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let cases: [(&[&str], &str); 12] = [
        (&["--scenario", "sinlge"], "sinlge"),
        (&["--seconds", "0"], "from 0.01 to 3600"),
        (&["--seconds", "-1"], "-1"),
        (&["--seconds", "NaN"], "from 0.01 to 3600"),
        (&["--seconds", "long"], "not a number of seconds"),
        (&["--rounds", "2"], "odd"),
        (&["--rounds", "0"], "from 1 to 99"),
        (&["--rows", "0"], "from 1 to 100000000"),
        (&["--shards", "65"], "from 1 to 64"),
        (&["--durability", "half"], "full, normal"),
        (&["--speed"], "--speed"),
        (&["single"], "single"),
    ];
    for (arguments, reason) in cases {
        let ran = mqs(dir.path(), &[&["bench"], arguments].concat());
        assert_eq!(ran.status.code(), Some(2), "{arguments:?}");
        assert!(ran.stderr.contains(reason), "{arguments:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{arguments:?}");
    }
    let ran = mqs(dir.path(), &["bench", "--scenario", "sinlge"]);
    assert!(ran.stderr.contains(&SCENARIOS.join(", ")), "{}", ran.stderr);
}

#[test]
fn a_command_without_arguments_says_how_it_is_used() {
    let dir = tempfile::tempdir().unwrap();
    let ran = mqs(dir.path(), &[]);
    assert_eq!(ran.status.code(), Some(2));
    assert!(ran.stderr.contains("Usage: mqs <COMMAND>"), "{}", ran.stderr);
    assert!(!ran.stderr.contains("bench-fill"), "that is for the benchmark itself");
}

#[test]
fn a_directory_that_is_not_there_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let ran = mqs(dir.path(), &["bench", "--scenario", "idle", "--dir", nowhere.to_str().unwrap()]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.stderr.starts_with("error: cannot write to "), "{}", ran.stderr);
}

#[test]
fn help_gives_the_units() {
    let dir = tempfile::tempdir().unwrap();
    let ran = mqs(dir.path(), &["bench", "--help"]);
    assert!(ran.status.success());
    for words in ["seconds", "a million take about 300 MB", "1 to 64", "exit code 1"] {
        assert!(ran.stdout.contains(words), "{words} isn't in {}", ran.stdout);
    }
}
