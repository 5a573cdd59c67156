use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU8;
use std::path::PathBuf;
use std::time::Duration;

use super::*;

mod hostile;
mod limits;
mod properties;

const CODECS: [Codec; 2] = [Codec::Bincode, Codec::Json];
const LIMIT: usize = 1 << 20;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Unit,
    Newtype(u16),
    Tuple(i8, String),
    Struct { width: f32, tags: Vec<String> },
}

/// Written as one text, read back through it.
#[derive(Clone, Debug, PartialEq)]
struct Hex(Vec<u8>);

mod as_hex {
    use super::Hex;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(hex: &Hex, serializer: S) -> Result<S::Ok, S::Error> {
        let text: String = hex.0.iter().map(|byte| format!("{byte:02x}")).collect();
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Hex, D::Error> {
        let text = String::deserialize(deserializer)?;
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(text.get(at..at + 2).unwrap_or("?"), 16))
            .collect::<Result<_, _>>()
            .map(Hex)
            .map_err(|error| D::Error::custom(format!("{error} in {text}")))
    }
}

/// A type that writes and reads bytes as bytes, not as a sequence.
#[derive(Clone, Debug, PartialEq)]
struct Blob(Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl<'de> serde::de::Visitor<'de> for Bytes {
            type Value = Blob;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("bytes")
            }
            fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Blob, E> {
                Ok(Blob(bytes))
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<Blob, A::Error> {
                let mut bytes = Vec::new();
                while let Some(byte) = seq.next_element()? {
                    bytes.push(byte);
                }
                Ok(Blob(bytes))
            }
        }
        deserializer.deserialize_byte_buf(Bytes)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Meters(f64);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pair(u8, u8);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Marker;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Envelope<T> {
    body: T,
    kind: PhantomData<T>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    small: (u8, i8, u16, i16),
    large: (u32, i32, u64, i64, u128, i128, usize),
    floats: (f32, f64),
    letter: char,
    flag: bool,
    text: String,
    boxed: Box<str>,
    bytes: Vec<u8>,
    blob: Blob,
    array: [u16; 3],
    nothing: (),
    marker: Marker,
    newtype: Meters,
    pair: Pair,
    shapes: Vec<Shape>,
    some: Option<Option<u8>>,
    none: Option<String>,
    result: Result<u8, String>,
    hashed: HashMap<String, Vec<i32>>,
    sorted: BTreeMap<u32, Shape>,
    set: BTreeSet<char>,
    pause: Duration,
    path: PathBuf,
    envelope: Envelope<Vec<Envelope<Option<Meters>>>>,
    #[serde(with = "as_hex")]
    hex: Hex,
    nonzero: NonZeroU8,
    #[serde(skip)]
    skipped: u8,
    #[serde(rename = "other", default)]
    renamed: u8,
}

fn everything() -> Everything {
    Everything {
        small: (u8::MAX, i8::MIN, u16::MAX, i16::MIN),
        large: (u32::MAX, i32::MIN, u64::MAX, i64::MIN, u128::MAX, i128::MIN, usize::MAX),
        floats: (f32::MIN_POSITIVE, f64::MAX),
        letter: '列',
        flag: true,
        text: "任务 and \u{0}\"quotes\"".to_owned(),
        boxed: "boxed".into(),
        bytes: (0..=255).collect(),
        blob: Blob(vec![0, 255, 7]),
        array: [0, 250, 65_535],
        nothing: (),
        marker: Marker,
        newtype: Meters(-0.5),
        pair: Pair(1, 2),
        shapes: vec![
            Shape::Unit,
            Shape::Newtype(300),
            Shape::Tuple(-3, "t".to_owned()),
            Shape::Struct { width: 1.5, tags: vec![String::new()] },
        ],
        some: Some(Some(9)),
        none: None,
        result: Err("no".to_owned()),
        hashed: HashMap::from([("a".to_owned(), vec![1, -1]), (String::new(), vec![])]),
        sorted: BTreeMap::from([(7, Shape::Unit), (1 << 20, Shape::Newtype(1))]),
        set: BTreeSet::from(['a', 'é']),
        pause: Duration::new(3, 999_999_999),
        path: PathBuf::from("some/where"),
        envelope: Envelope {
            body: vec![Envelope { body: Some(Meters(2.0)), kind: PhantomData }],
            kind: PhantomData,
        },
        hex: Hex(vec![0xde, 0xad]),
        nonzero: NonZeroU8::MAX,
        skipped: 0,
        renamed: 4,
    }
}

/// The bytes as a vector, which the tests compare and change.
fn encode<T: Serialize + ?Sized>(
    codec: Codec,
    value: &T,
    limit: usize,
) -> Result<Vec<u8>, CodecError> {
    super::encode(codec, value, limit).map(|bytes| bytes.to_vec())
}

/// Encodes another value of the same thread while it is encoded itself.
#[test]
fn a_value_may_have_another_encoded_meanwhile() {
    struct Outer;
    impl Serialize for Outer {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let inner = encode(Codec::Json, &vec![7; 100], LIMIT).unwrap();
            serializer.collect_seq(inner)
        }
    }
    let expected = serde_json::to_vec(&serde_json::to_vec(&vec![7; 100]).unwrap()).unwrap();
    for _ in 0..3 {
        assert_eq!(encode(Codec::Json, &Outer, LIMIT).unwrap(), expected);
    }
}

#[test]
fn nothing_of_a_value_before_gets_into_the_next() {
    for codec in CODECS {
        let short = encode(codec, "a", LIMIT).unwrap();
        encode(codec, &"long".repeat(20_000), LIMIT).unwrap();
        encode(codec, "refused because it is over the limit", 5).unwrap_err();
        assert_eq!(encode(codec, "a", LIMIT).unwrap(), short, "{codec}");
    }
}

fn round_trip<T: Serialize + DeserializeOwned>(codec: Codec, value: &T) -> T {
    decode(codec, &encode(codec, value, LIMIT).unwrap()).unwrap()
}

fn fails<T: DeserializeOwned>(codec: Codec, bytes: &[u8]) -> CodecError {
    decode::<T>(codec, bytes).err().expect("the bytes must not decode")
}

#[test]
fn every_kind_of_value_comes_back_as_it_was() {
    for codec in CODECS {
        assert_eq!(round_trip(codec, &everything()), everything(), "{codec}");
        assert_eq!(round_trip(codec, &(1u8, "a".to_owned())), (1, "a".to_owned()), "{codec}");
        round_trip(codec, &());
    }
}

#[test]
fn stored_bytes_keep_their_layout() {
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Email {
        to: String,
        size: u32,
        shift: i16,
        shape: Shape,
        copies: Vec<u64>,
        reply: Option<bool>,
    }
    let email = Email {
        to: "é".to_owned(),
        size: 70_000,
        shift: -300,
        shape: Shape::Tuple(-1, "x".to_owned()),
        copies: vec![250, 251],
        reply: Some(true),
    };
    let binary: &[u8] = &[
        2, 0xc3, 0xa9, 0xfc, 0x70, 0x11, 0x01, 0x00, 0xfb, 0x57, 0x02, 2, 0xff, 1, b'x', 2, 0xfa,
        0xfb, 0xfb, 0x00, 1, 1,
    ];
    let json: &[u8] = r#"{"to":"é","size":70000,"shift":-300,"shape":{"Tuple":[-1,"x"]},"copies":[250,251],"reply":true}"#.as_bytes();
    for (codec, bytes) in [(Codec::Bincode, binary), (Codec::Json, json)] {
        assert_eq!(encode(codec, &email, LIMIT).unwrap(), bytes, "{codec}");
        assert_eq!(decode::<Email>(codec, bytes).unwrap(), email, "{codec}");
    }
}

#[test]
fn binary_types_use_their_compact_form() {
    struct Readable;
    impl Serialize for Readable {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let readable = serializer.is_human_readable();
            serializer.serialize_bool(readable)
        }
    }
    #[derive(Debug, PartialEq)]
    struct AsRead(bool);
    impl<'de> Deserialize<'de> for AsRead {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let readable = deserializer.is_human_readable();
            bool::deserialize(deserializer).map(|written| AsRead(written && readable))
        }
    }
    let binary = encode(Codec::Bincode, &[Readable], LIMIT).unwrap();
    assert_eq!(binary, [0]);
    assert_eq!(decode::<(AsRead,)>(Codec::Bincode, &[1]).unwrap(), (AsRead(false),));
    assert_eq!(decode::<(AsRead,)>(Codec::Json, b"[true]").unwrap(), (AsRead(true),));
}

#[test]
fn encoding_stops_at_the_limit() {
    /// Never ends by itself.
    struct Forever;
    impl Serialize for Forever {
        fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeSeq;
            let mut seq = serializer.serialize_seq(Some(usize::MAX))?;
            loop {
                seq.serialize_element("element")?;
            }
        }
    }
    for codec in CODECS {
        let error = encode(codec, &Forever, 1000).unwrap_err();
        let CodecError::TooLarge { limit: 1000, actual } = error else {
            panic!("{codec}: {error}")
        };
        assert!((1001..1020).contains(&actual), "{codec}: {actual}");

        let exact = encode(codec, "four", LIMIT).unwrap().len();
        assert!(encode(codec, "four", exact).is_ok(), "{codec}");
        let error = encode(codec, "four", exact - 1).unwrap_err();
        assert_eq!(error, CodecError::TooLarge { limit: exact - 1, actual: exact }, "{codec}");
        assert!(encode(codec, "four", 0).is_err(), "{codec}");
    }
}

#[test]
fn values_that_a_format_cannot_carry_are_refused() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Flat {
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }
    #[derive(Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u8),
    }
    let flat = Flat { rest: BTreeMap::new() };
    let error = encode(Codec::Bincode, &flat, LIMIT).unwrap_err();
    assert!(error.to_string().contains("use the json codec"), "{error}");
    let bytes = encode(Codec::Bincode, &Untagged::Number(1), LIMIT).unwrap();
    let error = fails::<Untagged>(Codec::Bincode, &bytes);
    assert!(error.to_string().contains("use the json codec"), "{error}");
    round_trip(Codec::Json, &flat);

    let keys = HashMap::from([((1, 2), 3)]);
    let error = encode(Codec::Json, &keys, LIMIT).unwrap_err();
    assert!(error.to_string().contains("a map's keys must be"), "{error}");
}

#[test]
fn codecs_have_stable_numbers_and_names() {
    assert_eq!(CODECS.map(Codec::code), [1, 2]);
    assert_eq!(CODECS.map(|codec| codec.to_string()), ["bincode", "json"]);
    assert_eq!(Codec::default(), Codec::Bincode);
    for codec in CODECS {
        assert_eq!(Codec::from_code(codec.code()), Some(codec));
        assert_eq!(codec.name().parse(), Ok(codec));
        let json = encode(Codec::Json, &codec, LIMIT).unwrap();
        assert_eq!(json, format!("\"{codec}\"").as_bytes());
        assert_eq!(round_trip(Codec::Bincode, &codec), codec);
    }
    assert_eq!([0, 3, 255].map(Codec::from_code), [None; 3]);
    assert_eq!("Bincode".parse::<Codec>(), Err(ParseCodecError));
}
