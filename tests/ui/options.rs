use message_queue_sqlite::prelude::*;

#[task(max_attemps = 5)]
async fn misspelt() {}

#[task(colour = "red")]
async fn made_up() {}

#[task(name = 5, priority = "high", max_attempts = 2.5, timeout = 30, codec = json, blocking = "no")]
async fn wrong_types() {}

#[task(name, timeout)]
async fn no_values() {}

#[task(timeout = "30 seconds")]
async fn no_duration() {}

#[task(timeout = "0s")]
async fn no_time() {}

#[task(timeout = "366d")]
async fn too_much_time() {}

#[task(backoff = "10m..1s")]
async fn descending() {}

#[task(backoff = "1s")]
async fn no_range() {}

#[task(name = "../mail")]
async fn no_name() {}

#[task(queue = "No Queue")]
async fn no_queue() {}

#[task]
#[allow(non_snake_case)]
async fn SendMail() {}

#[task(max_attempts = 0)]
async fn no_attempts() {}

#[task(max_attempts = 1001)]
async fn too_many_attempts() {}

#[task(priority = -32769)]
async fn too_low() {}

#[task(codec = "xml")]
async fn no_codec() {}

#[task(priority = 1, priority = 2)]
async fn twice() {}

#[task(name = )]
async fn unfinished() {}

fn main() {}
