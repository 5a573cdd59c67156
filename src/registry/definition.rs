//! One definition, with its types erased.

use std::any::TypeId;
use std::fmt;
use std::panic::Location;
use std::sync::Arc;

use actix::Recipient;

use super::is_valid_name;
use crate::attempt::Attempt;
use crate::codec;
use crate::error::StartError;
use crate::load::ServiceTime;
use crate::record::Encoded;
use crate::result::TaskResult;
use crate::task::{
    CallbackHandler, CallbackTask, DataMap, Requirement, Run, Start, Task, TaskError, TaskOptions,
};

/// What a definition is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Submitted by callers.
    Task,
    /// Inserted when a task ends; takes its result.
    Callback,
    /// As a callback; hands the result to a mailbox.
    Subscriber,
}

/// Where a definition is in the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The module's path; empty for what was mounted by hand.
    pub(crate) module_path: &'static str,
    pub(crate) file: &'static str,
    pub(crate) line: u32,
}

impl Place {
    pub(crate) fn of(caller: &Location<'static>) -> Self {
        Place { module_path: "", file: caller.file(), line: caller.line() }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A mounted task, callback or subscriber: everything that the queue needs to run it.
pub(crate) struct Definition {
    pub(crate) name: Arc<str>,
    pub(crate) role: Role,
    pub(crate) options: TaskOptions,
    pub(crate) place: Place,
    pub(crate) requires: Vec<Requirement>,
    /// Whether its attempts run on the pool of threads that may block.
    pub(crate) blocking: bool,
    /// Whether its arguments are kept in memory only.
    pub(crate) cached: bool,
    /// What an attempt takes. Kept by the workers.
    pub(crate) service: ServiceTime,
    /// The type that it was made from; a subscriber has none and is only the same as itself.
    source: Option<TypeId>,
    start: Start,
    output_to_json: fn(&Encoded) -> Option<serde_json::Value>,
}

impl Definition {
    pub(crate) fn of_task<T: Task>(place: Place) -> Self {
        let (start, blocking, cached) = T::handler().into_parts();
        Definition {
            name: T::NAME.into(),
            role: Role::Task,
            options: T::options(),
            place,
            requires: T::requires(),
            blocking,
            cached,
            service: ServiceTime::default(),
            source: Some(TypeId::of::<T>()),
            start,
            output_to_json: output_to_json::<T>,
        }
    }

    pub(crate) fn of_callback<C: CallbackTask>(place: Place) -> Self {
        Definition {
            source: Some(TypeId::of::<C>()),
            options: C::options(),
            requires: C::requires(),
            ..Definition::of_handler(C::NAME, Role::Callback, place, C::handler())
        }
    }

    /// A durable mailbox: each result is sent to it, and delivered when its handler has returned.
    #[track_caller]
    pub(crate) fn subscriber(name: &str, mailbox: Recipient<TaskResult>) -> Self {
        let place = Place::of(Location::caller());
        let handler = CallbackHandler::future(move |result, _| {
            let mailbox = mailbox.clone();
            async move {
                let sent = mailbox.send(result).await;
                sent.map_err(|_| TaskError::retry("the subscriber's mailbox is closed"))
            }
        });
        Definition::of_handler(name, Role::Subscriber, place, handler)
    }

    fn of_handler(name: &str, role: Role, place: Place, handler: CallbackHandler) -> Self {
        let (start, blocking) = handler.into_parts();
        Definition {
            name: name.into(),
            role,
            options: TaskOptions::default(),
            place,
            requires: Vec::new(),
            blocking,
            cached: false,
            service: ServiceTime::default(),
            source: None,
            start,
            output_to_json: |_| Some(serde_json::Value::Null),
        }
    }

    /// Starts an attempt. The arguments of an async function are decoded here, those of a blocking
    /// one on its thread. Panics of the function go through.
    pub(crate) fn start(
        &self,
        attempt: Arc<Attempt>,
        data: Arc<DataMap>,
        result_limit: usize,
    ) -> Run {
        (self.start)(attempt, data, result_limit)
    }

    /// An output as JSON, whatever its codec; `None` if it doesn't decode or JSON can't carry it.
    pub(crate) fn output_json(&self, output: &Encoded) -> Option<serde_json::Value> {
        (self.output_to_json)(output)
    }

    /// Whether both were made from the same type, so that one of them is enough.
    pub(super) fn is_same(&self, other: &Definition) -> bool {
        self.source.is_some() && self.source == other.source
    }

    /// Every reason why this definition can't be run with this data.
    pub(super) fn mistakes(&self, data: &DataMap) -> Vec<StartError> {
        let name = || self.name.chars().take(80).collect::<String>();
        let place = || self.place.to_string();
        let mut mistakes = Vec::new();
        if !is_valid_name(&self.name) {
            mistakes.push(StartError::InvalidName { name: name(), place: place() });
        }
        for (option, given, allowed) in self.options.mistakes() {
            let (name, place) = (name(), place());
            mistakes.push(StartError::InvalidOption { name, place, option, given, allowed });
        }
        let mut missing = Vec::new();
        for requirement in self.requires.iter().filter(|one| !data.contains(one)) {
            if !missing.contains(&requirement.type_id) {
                missing.push(requirement.type_id);
                let type_name = requirement.type_name;
                mistakes.push(StartError::MissingData { name: name(), place: place(), type_name });
            }
        }
        mistakes
    }
}

impl fmt::Debug for Definition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Definition")
            .field("name", &self.name)
            .field("role", &self.role)
            .field("place", &format_args!("{}", self.place))
            .field("blocking", &self.blocking)
            .field("cached", &self.cached)
            .finish_non_exhaustive()
    }
}

fn output_to_json<T: Task>(output: &Encoded) -> Option<serde_json::Value> {
    let value: T::Output = codec::decode(output.codec, &output.bytes).ok()?;
    serde_json::to_value(value).ok()
}
