//! The whole queue on one thread, under a clock that jumps from event to event: its actors are the real
//! ones, so are its files, and everything that happens follows from a seed.

mod client;
mod known;
mod model;
mod tasks;
mod world;

pub(crate) use world::{World, print_events};
