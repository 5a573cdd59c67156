use message_queue_sqlite::prelude::*;

#[callback]
async fn nothing() {}

#[callback]
async fn two(_first: TaskResult, _second: TaskResult) {}

#[callback]
async fn more(_result: TaskResult, _count: u32) {}

#[callback(use_cache)]
async fn kept(_result: TaskResult) {}

#[callback(max_atempts = 3)]
async fn misspelt(_result: TaskResult) {}

#[callback]
fn neither(_result: TaskResult) {}

fn main() {}
