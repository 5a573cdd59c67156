//! Bytes that somebody made to do harm, or that a damaged file holds.

use std::time::Instant;

use super::*;

/// No value may be shown by an error, so tests look for this one.
const CANARY: &str = "canary-5f1d";

/// The error of a decoding that must be over at once: the fastest of five, so that a busy machine
/// doesn't count.
fn fails_at_once<T: DeserializeOwned>(bytes: &[u8]) -> CodecError {
    let fastest = (0..5).map(|_| {
        let start = Instant::now();
        let error = fails::<T>(Codec::Bincode, bytes);
        (start.elapsed(), error)
    });
    let (elapsed, error) = fastest.min_by_key(|(elapsed, _)| *elapsed).unwrap();
    assert!(elapsed < Duration::from_millis(10), "{error} took {elapsed:?}");
    error
}

#[test]
fn nine_bytes_that_claim_2_to_the_48_elements_are_refused_at_once() {
    let bytes = [0xfd, 0, 0, 0, 0, 0, 1, 0, 0];
    let limit = bytes.len() + EMPTY_ELEMENTS_MAX;
    let too_many = CodecError::TooManyElements { limit };
    assert_eq!(fails_at_once::<Vec<u8>>(&bytes), too_many);
    assert_eq!(fails_at_once::<Vec<String>>(&bytes), too_many);
    assert_eq!(fails_at_once::<HashMap<u8, u8>>(&bytes), too_many);
    assert_eq!(fails_at_once::<BTreeMap<(), ()>>(&bytes), too_many);
    assert!(matches!(fails_at_once::<String>(&bytes), CodecError::Invalid { .. }));
    assert!(matches!(fails_at_once::<Box<str>>(&bytes), CodecError::Invalid { .. }));
    assert!(matches!(fails_at_once::<PathBuf>(&bytes), CodecError::Invalid { .. }));
    assert!(matches!(fails_at_once::<Blob>(&bytes), CodecError::Invalid { .. }));
}

#[test]
fn a_claimed_length_allocates_nothing() {
    struct Greedy;
    impl<'de> Deserialize<'de> for Greedy {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            struct Trusting;
            impl<'de> serde::de::Visitor<'de> for Trusting {
                type Value = Greedy;
                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a sequence")
                }
                fn visit_seq<A: serde::de::SeqAccess<'de>>(
                    self,
                    seq: A,
                ) -> Result<Greedy, A::Error> {
                    drop(Vec::<u64>::with_capacity(seq.size_hint().unwrap_or(0)));
                    Err(serde::de::Error::custom("not reached by a hostile length"))
                }
            }
            deserializer.deserialize_seq(Trusting)
        }
    }
    let error = fails::<Greedy>(Codec::Bincode, &[0xfd, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert!(matches!(error, CodecError::TooManyElements { .. }), "{error}");
}

#[derive(Debug, Serialize, Deserialize)]
enum Chain {
    Next(Box<Chain>),
    End,
}

#[derive(Debug, Serialize, Deserialize)]
struct Optional(Option<Box<Optional>>);

#[derive(Debug, Serialize, Deserialize)]
struct Tree {
    children: Vec<Tree>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Keyed(pub(super) BTreeMap<u8, Keyed>);

#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Branch {
    Fields { left: Box<Branch>, right: Box<Branch> },
    Both(Box<Branch>, Box<Branch>),
    Leaf,
}

#[derive(Debug, Serialize, Deserialize)]
struct Endless(Box<Endless>);

#[test]
fn endless_nesting_is_refused_at_once() {
    let too_deep = CodecError::TooDeep { limit: 128 };
    let zeros = vec![0; 5_000_000];
    let ones = vec![1; 5_000_000];
    assert_eq!(fails_at_once::<Chain>(&zeros), too_deep);
    assert_eq!(fails_at_once::<Branch>(&zeros), too_deep);
    assert_eq!(fails_at_once::<Branch>(&ones), too_deep);
    assert_eq!(fails_at_once::<Optional>(&ones), too_deep);
    assert_eq!(fails_at_once::<Tree>(&ones), too_deep);
    assert_eq!(fails_at_once::<Keyed>(&ones), too_deep);
    assert_eq!(fails_at_once::<Endless>(&ones), too_deep);
    assert_eq!(fails::<Tree>(Codec::Json, r#"{"children":["#.repeat(500_000).as_bytes()), too_deep);
    assert_eq!(fails::<Chain>(Codec::Json, r#"{"Next":"#.repeat(500_000).as_bytes()), too_deep);
}

#[test]
fn nesting_up_to_the_limit_is_allowed() {
    let chain = |levels: u32| (1..levels).fold(Chain::End, |next, _| Chain::Next(Box::new(next)));
    let bytes = |levels| bincode::serde::encode_to_vec(chain(levels), LAYOUT).unwrap();
    assert!(decode::<Chain>(Codec::Bincode, &bytes(DEPTH_MAX)).is_ok());
    let error = fails::<Chain>(Codec::Bincode, &bytes(DEPTH_MAX + 1));
    assert_eq!(error, CodecError::TooDeep { limit: 128 });
}

#[test]
fn siblings_do_not_add_to_the_depth() {
    let siblings = vec![Some(Shape::Newtype(1)); 10_000];
    assert_eq!(round_trip(Codec::Bincode, &siblings), siblings);
}

#[test]
fn elements_that_take_no_bytes_are_bounded() {
    let hundreds = vec![(); 500];
    assert_eq!(round_trip(Codec::Bincode, &hundreds), hundreds);
    let most = 2 + 1 + EMPTY_ELEMENTS_MAX;
    assert_eq!(round_trip(Codec::Bincode, &vec![(); most]).len(), most);
    let one_more = bincode::serde::encode_to_vec(vec![(); most + 1], LAYOUT).unwrap();
    let error = fails::<Vec<()>>(Codec::Bincode, &one_more);
    assert_eq!(error, CodecError::TooManyElements { limit: most });

    let billions = encode(Codec::Bincode, &(1u64 << 33), LIMIT).unwrap();
    let limit = billions.len() + EMPTY_ELEMENTS_MAX;
    let too_many = CodecError::TooManyElements { limit };
    assert_eq!(fails_at_once::<Vec<()>>(&billions), too_many);
    assert_eq!(fails_at_once::<Vec<Marker>>(&billions), too_many);
    assert_eq!(fails_at_once::<Vec<PhantomData<u8>>>(&billions), too_many);
    assert_eq!(fails_at_once::<BTreeMap<(), ()>>(&billions), too_many);
}

#[test]
fn many_small_claims_share_one_budget() {
    let thousand = encode(Codec::Bincode, &1000u32, LIMIT).unwrap();
    let bytes = [vec![200], thousand.repeat(200)].concat();
    let error = fails_at_once::<Vec<Vec<()>>>(&bytes);
    assert!(matches!(error, CodecError::TooManyElements { .. }), "{error}");
}

#[test]
fn a_swallowed_refusal_is_still_one() {
    #[derive(Debug)]
    struct Lenient;
    impl<'de> Deserialize<'de> for Lenient {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Vec::<()>::deserialize(deserializer).ok();
            Ok(Lenient)
        }
    }
    let billions = encode(Codec::Bincode, &(1u64 << 33), LIMIT).unwrap();
    let error = fails::<Lenient>(Codec::Bincode, &billions);
    assert!(matches!(error, CodecError::TooManyElements { .. }), "{error}");
}

#[test]
fn data_without_empty_elements_is_never_too_many() {
    let values = vec![vec![vec![0u8]; 3]; 50_000];
    assert_eq!(round_trip(Codec::Bincode, &values), values);
    let map: BTreeMap<u16, Option<()>> = (0..20_000).map(|key| (key, None)).collect();
    assert_eq!(round_trip(Codec::Bincode, &map), map);
}

#[test]
fn bytes_after_the_value_are_refused() {
    assert_eq!(fails::<u8>(Codec::Bincode, &[7, 1, 2, 3]), CodecError::Trailing { bytes: 3 });
    assert_eq!(fails::<()>(Codec::Bincode, &[0]), CodecError::Trailing { bytes: 1 });
    assert_eq!(fails::<u8>(Codec::Json, b"7 8 9"), CodecError::Trailing { bytes: 3 });
    assert_eq!(fails::<u8>(Codec::Json, b"7x"), CodecError::Trailing { bytes: 1 });
    assert_eq!(fails::<Vec<u8>>(Codec::Json, b"[7]]"), CodecError::Trailing { bytes: 1 });
    assert_eq!(fails::<u8>(Codec::Json, b"7\x0c"), CodecError::Trailing { bytes: 1 });
    assert_eq!(decode::<u8>(Codec::Json, b" 7\r\n\t "), Ok(7));
}

#[test]
fn a_value_that_is_cut_off_is_refused() {
    for codec in CODECS {
        let bytes = encode(codec, &everything(), LIMIT).unwrap();
        for length in 0..bytes.len() {
            fails::<Everything>(codec, &bytes[..length]);
        }
    }
}

#[test]
fn no_error_shows_what_the_bytes_are() {
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Strict {
        #[expect(dead_code, reason = "only its type matters")]
        count: u8,
    }
    #[derive(Debug, Deserialize)]
    struct Coded(
        #[serde(with = "as_hex")]
        #[expect(dead_code, reason = "as above")]
        Hex,
    );

    let json = |text: &str| text.replace('@', CANARY).into_bytes();
    let mut errors = vec![
        fails::<Strict>(Codec::Json, &json(r#"{"count":"@"}"#)),
        fails::<Strict>(Codec::Json, &json(r#"{"@":1}"#)),
        fails::<Strict>(Codec::Json, &json(r#"{"count":1,"@":1}"#)),
        fails::<Strict>(Codec::Json, &json("@")),
        fails::<Strict>(Codec::Json, &json(r#""@"#)),
        fails::<Shape>(Codec::Json, &json(r#""@""#)),
        fails::<Coded>(Codec::Json, &json(r#""@""#)),
        fails::<char>(Codec::Json, &json(r#""@""#)),
        fails::<u8>(Codec::Json, &json("1 @")),
    ];
    let text = encode(Codec::Bincode, CANARY, LIMIT).unwrap();
    errors.push(fails::<Coded>(Codec::Bincode, &text));
    errors.push(fails::<(bool, u8)>(Codec::Bincode, &text));
    for error in errors {
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(CANARY) && !shown.contains("5f1d"), "{shown}");
    }
    let wrong: [(CodecError, &str); 5] = [
        (fails::<Shape>(Codec::Bincode, &[77]), "77"),
        (fails::<bool>(Codec::Bincode, &[77]), "77"),
        (fails::<char>(Codec::Bincode, &[0xff]), "255"),
        (fails::<u8>(Codec::Json, b"777"), "777"),
        (fails::<NonZeroU8>(Codec::Json, b"-77"), "77"),
    ];
    for (error, given) in wrong {
        assert!(!format!("{error} {error:?}").contains(given), "{error}");
    }
}

#[test]
fn errors_say_what_is_wrong_and_where() {
    let text = |codec, bytes: &[u8]| fails::<Vec<Shape>>(codec, bytes).to_string();
    assert_eq!(text(Codec::Bincode, &[1, 9]), "bincode: invalid value");
    assert_eq!(text(Codec::Bincode, &[2, 0]), "bincode: the input ends within the value");
    assert_eq!(text(Codec::Json, b"[\n\"Other\"]"), "json: unknown variant at line 2 column 7");
    assert_eq!(text(Codec::Json, b"{}"), "json: invalid type at line 1 column 0");
    assert_eq!(
        text(Codec::Json, b"[\"Unit\""),
        "json: the input ends within the value at line 1 column 7"
    );
    assert_eq!(text(Codec::Json, b"?"), "json: the input is not JSON at line 1 column 1");
    assert_eq!(text(Codec::Json, b""), "json: there is no value");
    let names = |codec, bytes: &[u8]| fails::<String>(codec, bytes).to_string();
    assert_eq!(names(Codec::Bincode, &[1, 0xff]), "bincode: a text is not UTF-8");
}

#[test]
fn json_into_a_type_that_recurses_without_arrays_or_objects_is_too_deep_and_the_process_lives() {
    #[derive(Debug, Deserialize)]
    struct Endless(#[expect(dead_code, reason = "it is only decoded")] Option<Box<Endless>>);

    let error = fails::<Endless>(Codec::Json, b"7");
    assert_eq!(error, CodecError::TooDeep { limit: DEPTH_MAX as usize });
    assert!(decode::<Endless>(Codec::Json, b"null").is_ok());
}
