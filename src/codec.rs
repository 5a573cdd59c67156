//! How arguments and results become bytes, and back.
//!
//! Each stored payload carries the number of its [`Codec`], so a row stays readable when a
//! definition's codec changes. The bytes may come from a damaged or hostile file: decoding them
//! ends in a [`CodecError`], at once, whatever they are. Four rules see to that:
//!
//! - nothing is allocated on the word of a length that the data claims (`guard.rs`),
//! - nesting and empty elements are bounded (`guard.rs`),
//! - bytes after the value are an error, and
//! - no error says what the bytes were.
//!
//! Encoding keeps to the same limits (`encode_guard.rs`), so what it accepts decodes again.

mod encode_guard;
mod guard;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::str::FromStr;
use std::sync::Arc;

use bincode::config::{Configuration, LittleEndian, NoLimit, Varint};
use bincode::error::{DecodeError, EncodeError};
use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize};
use serde_json::error::Category;

use encode_guard::Room;
use guard::{Budget, DEPTH_MAX, EMPTY_ELEMENTS_MAX, Guarded, Trip};

/// The format of encoded arguments and results.
///
/// Written and parsed as `bincode` and `json`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Codec {
    /// bincode 2 with variable-length integers: compact, fast, the default.
    ///
    /// The bytes name neither fields nor types: a stored value stays readable only while its
    /// type's fields and variants keep their order and types. Types that must look at the data to
    /// know what comes next don't decode: `serde_json::Value`, untagged and internally tagged
    /// enums, `flatten`; neither does a field that `skip_serializing_if` left out.
    #[default]
    Bincode = 1,
    /// JSON, for producers in other languages and types that bincode can't carry.
    ///
    /// JSON has no NaN and no infinities: they are written as null, which no float decodes from.
    Json = 2,
}

impl Codec {
    /// The number that is stored with each payload.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The codec with this number.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Codec::Bincode, Codec::Json].into_iter().find(|codec| codec.code() == code)
    }

    /// The codec's name, as it is printed and parsed.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Bincode => "bincode",
            Codec::Json => "json",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Codec {
    type Err = ParseCodecError;

    fn from_str(name: &str) -> Result<Self, ParseCodecError> {
        [Codec::Bincode, Codec::Json]
            .into_iter()
            .find(|codec| codec.name() == name)
            .ok_or(ParseCodecError)
    }
}

/// A text names no [`Codec`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a codec is bincode or json")]
pub struct ParseCodecError;

/// Why a value didn't become bytes, or bytes no value. Never says what the bytes are.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CodecError {
    /// The encoded value is larger than the limit; encoding stopped there.
    #[error("the value takes at least {actual} bytes, over the limit of {limit}")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
        /// How many bytes the value takes at least.
        actual: usize,
    },

    /// The value ends before the bytes do.
    #[error("{bytes} bytes follow the value")]
    Trailing {
        /// How many bytes are left.
        bytes: usize,
    },

    /// The value is nested too deeply. Each struct, enum, tuple, sequence, map and option is a
    /// level.
    #[error("the value is nested more than {limit} levels deep")]
    TooDeep {
        /// The limit, in levels.
        limit: usize,
    },

    /// There are more elements than the bytes can hold: at most one for each byte, and 1,024 more
    /// for elements that take no bytes, such as `()`.
    #[error("the value announces more than {limit} elements")]
    TooManyElements {
        /// The limit for this value, in elements.
        limit: usize,
    },

    /// The value can't be written in this format, or the bytes aren't such a value.
    #[error("{codec}: {message}")]
    Invalid {
        /// The format.
        codec: Codec,
        /// What is wrong, and where as far as that is known.
        message: String,
    },
}

impl CodecError {
    fn invalid(codec: Codec, message: impl Into<String>) -> Self {
        CodecError::Invalid { codec, message: message.into() }
    }
}

/// The pinned layout: what is stored today must be readable for ever.
///
/// It has no limit of its own because it needs none: all that the reader hands out is a slice of
/// the input, and the input has been limited when it was written.
type Layout = Configuration<LittleEndian, Varint, NoLimit>;

const LAYOUT: Layout =
    bincode::config::standard().with_little_endian().with_variable_int_encoding().with_no_limit();

/// Encodes `value`, or stops as soon as it takes more than `limit` bytes.
///
/// # Errors
///
/// [`CodecError::TooLarge`] over the limit; [`CodecError::TooDeep`] and
/// [`CodecError::TooManyElements`] for what wouldn't decode; [`CodecError::Invalid`] if the format
/// can't carry the value or its `Serialize` refuses.
pub(crate) fn encode<T: Serialize + ?Sized>(
    codec: Codec,
    value: &T,
    limit: usize,
) -> Result<Arc<[u8]>, CodecError> {
    let mut sink = Sink { bytes: scratch(), limit, refused: None };
    let room = match codec {
        Codec::Bincode => Room::for_bytes(limit),
        Codec::Json => Room::for_text(),
    };
    let guarded = encode_guard::Guarded::new(value, &room);
    let written = match codec {
        Codec::Bincode => bincode::serde::encode_into_writer(guarded, &mut sink, LAYOUT)
            .map_err(|error| CodecError::invalid(codec, bincode_encode_message(&error))),
        Codec::Json => serde_json::to_writer(&mut sink, &guarded)
            .map_err(|error| CodecError::invalid(codec, json_encode_message(&error))),
    };
    match room.trip() {
        Some(Trip::TooDeep) => return Err(CodecError::TooDeep { limit: DEPTH_MAX as usize }),
        Some(Trip::TooManyElements) => {
            return Err(CodecError::TooManyElements { limit: room.elements_max() });
        }
        None => {}
    }
    if let Some(actual) = sink.refused {
        return Err(CodecError::TooLarge { limit, actual });
    }
    written?;
    let elements_max = sink.bytes.len().saturating_add(EMPTY_ELEMENTS_MAX);
    if codec == Codec::Bincode && room.announced() > elements_max {
        return Err(CodecError::TooManyElements { limit: elements_max });
    }
    Ok(sink.bytes.as_slice().into())
}

/// Decodes a value that takes all of `bytes`.
///
/// # Errors
///
/// Every [`CodecError`] but [`CodecError::TooLarge`].
pub(crate) fn decode<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> Result<T, CodecError> {
    match codec {
        Codec::Bincode => decode_bincode(bytes),
        Codec::Json => decode_json(bytes),
    }
}

/// The most that a thread keeps room for between two values, in bytes.
const SCRATCH_MAX: usize = 64 * 1024;

thread_local! {
    /// Where values are encoded, so that only what they come to is allocated. A value that has
    /// another encoded meanwhile finds nothing here, and takes room of its own.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Nothing, in a thread that is ending.
fn scratch() -> Vec<u8> {
    SCRATCH.try_with(Cell::take).unwrap_or_default()
}

/// Takes bytes up to a limit, and remembers that it refused some.
struct Sink {
    bytes: Vec<u8>,
    limit: usize,
    refused: Option<usize>,
}

impl Sink {
    #[inline]
    fn push(&mut self, bytes: &[u8]) -> bool {
        let length = self.bytes.len().saturating_add(bytes.len());
        if length > self.limit || self.refused.is_some() {
            self.refused.get_or_insert(length);
            return false;
        }
        self.bytes.extend_from_slice(bytes);
        true
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.clear();
        bytes.shrink_to(SCRATCH_MAX);
        let _kept = SCRATCH.try_with(|scratch| scratch.set(bytes));
    }
}

impl bincode::enc::write::Writer for Sink {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> Result<(), EncodeError> {
        if self.push(bytes) { Ok(()) } else { Err(EncodeError::UnexpectedEnd) }
    }
}

impl io::Write for Sink {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.push(bytes) { Ok(bytes.len()) } else { Err(io::ErrorKind::FileTooLarge.into()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Decodes a `T` through the guard.
struct GuardedSeed<'b, T>(&'b Budget, PhantomData<T>);

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for GuardedSeed<'_, T> {
    type Value = T;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        T::deserialize(Guarded::new(deserializer, self.0))
    }
}

fn decode_bincode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let budget = Budget::for_input(bytes.len());
    let seed = GuardedSeed::<T>(&budget, PhantomData);
    let decoded = bincode::serde::seed_decode_from_slice(seed, bytes, LAYOUT);
    match budget.trip() {
        Some(Trip::TooDeep) => return Err(CodecError::TooDeep { limit: DEPTH_MAX as usize }),
        Some(Trip::TooManyElements) => {
            return Err(CodecError::TooManyElements { limit: bytes.len() + EMPTY_ELEMENTS_MAX });
        }
        None => {}
    }
    match decoded {
        Ok((value, read)) if read == bytes.len() => Ok(value),
        Ok((_, read)) => Err(CodecError::Trailing { bytes: bytes.len() - read }),
        Err(error) => Err(CodecError::invalid(Codec::Bincode, bincode_decode_message(&error))),
    }
}

fn decode_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let is_blank = |byte: &u8| b" \t\n\r".contains(byte);
    if bytes.iter().all(is_blank) {
        return Err(CodecError::invalid(Codec::Json, "there is no value"));
    }
    // serde_json limits the depth of arrays and objects; types can recurse without either
    let budget = Budget::for_text();
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let decoded = GuardedSeed::<T>(&budget, PhantomData).deserialize(&mut reader);
    let read = reader.into_iter::<IgnoredAny>().byte_offset();
    if budget.trip().is_some() {
        return Err(CodecError::TooDeep { limit: DEPTH_MAX as usize });
    }
    let rest = bytes.get(read..).unwrap_or_default();
    match decoded {
        Ok(value) => match rest.iter().position(|byte| !is_blank(byte)) {
            None => Ok(value),
            Some(blanks) => Err(CodecError::Trailing { bytes: rest.len() - blanks }),
        },
        Err(error) => Err(json_decode_error(&error, rest.len())),
    }
}

/// serde_json's errors have no kinds for these; their texts are fixed and are covered by tests.
fn json_decode_error(error: &serde_json::Error, rest: usize) -> CodecError {
    let text = error.to_string();
    let problem = match error.classify() {
        Category::Syntax if text.starts_with("recursion limit exceeded") => {
            return CodecError::TooDeep { limit: DEPTH_MAX as usize };
        }
        Category::Syntax if text.starts_with("trailing characters") => {
            return CodecError::Trailing { bytes: rest };
        }
        Category::Syntax => "the input is not JSON",
        Category::Eof => "the input ends within the value",
        Category::Data => refusal(&text),
        Category::Io => "the input cannot be read",
    };
    let place = format!(" at line {} column {}", error.line(), error.column());
    CodecError::invalid(Codec::Json, problem.to_owned() + &place)
}

fn json_encode_message(error: &serde_json::Error) -> &'static str {
    if error.to_string().starts_with("key must be a string") {
        "a map's keys must be texts, numbers or booleans"
    } else {
        "a type refused to be encoded"
    }
}

fn bincode_encode_message(error: &EncodeError) -> &'static str {
    match error {
        EncodeError::Serde(bincode::serde::EncodeError::SequenceMustHaveLength) => {
            "a sequence or map does not know its length (flatten?); use the json codec"
        }
        _ => "a type refused to be encoded",
    }
}

/// Only what is wrong: bincode's own texts quote the value.
fn bincode_decode_message(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::UnexpectedEnd { .. } | DecodeError::LimitExceeded => {
            "the input ends within the value"
        }
        DecodeError::InvalidIntegerType { .. } | DecodeError::OutsideUsizeRange(_) => {
            "an integer is out of its type's range"
        }
        DecodeError::NonZeroTypeIsZero { .. } => "an integer is zero that must not be",
        DecodeError::UnexpectedVariant { .. } | DecodeError::EmptyEnum { .. } => "unknown variant",
        DecodeError::Utf8 { .. } => "a text is not UTF-8",
        DecodeError::InvalidCharEncoding(_) => "a character is not one",
        DecodeError::InvalidBooleanValue(_) => "a boolean is neither 0 nor 1",
        DecodeError::Serde(_) => {
            "the type must see the data to know what comes next (untagged or internally tagged \
             enums, flatten); use the json codec"
        }
        DecodeError::OtherString(text) => refusal(text),
        _ => "a value is out of its type's range",
    }
}

/// The kind of one of serde's own messages, without the rest, which may quote the value.
fn refusal(text: &str) -> &'static str {
    const KINDS: [&str; 7] = [
        "invalid type",
        "invalid value",
        "invalid length",
        "unknown variant",
        "unknown field",
        "missing field",
        "duplicate field",
    ];
    KINDS.into_iter().find(|kind| text.starts_with(kind)).unwrap_or("a type refused its value")
}
