//! What holds for any value and any bytes.

use proptest::prelude::*;

use super::hostile::{Branch, Keyed};
use super::*;

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        Just(Shape::Unit),
        any::<u16>().prop_map(Shape::Newtype),
        (any::<i8>(), ".{0,8}").prop_map(|(number, text)| Shape::Tuple(number, text)),
        (-1e9f32..1e9, prop::collection::vec(".{0,8}", 0..4))
            .prop_map(|(width, tags)| Shape::Struct { width, tags }),
    ]
}

type Sample = (Vec<Shape>, BTreeMap<String, Option<i64>>, (u128, i128), char, [u8; 4], Vec<()>);

fn sample() -> impl Strategy<Value = Sample> {
    (
        prop::collection::vec(shape(), 0..8),
        prop::collection::btree_map(".{0,8}", any::<Option<i64>>(), 0..8),
        any::<(u128, i128)>(),
        any::<char>(),
        any::<[u8; 4]>(),
        prop::collection::vec(Just(()), 0..300),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_value_comes_back_as_it_was(value in sample()) {
        for codec in CODECS {
            prop_assert_eq!(&round_trip(codec, &value), &value);
        }
    }

    #[test]
    fn the_limit_is_exact(value in sample(), below in 1usize..50) {
        for codec in CODECS {
            let bytes = encode(codec, &value, LIMIT).unwrap();
            prop_assert_eq!(encode(codec, &value, bytes.len()).unwrap(), bytes.clone());
            let limit = bytes.len().saturating_sub(below);
            let error = encode(codec, &value, limit).unwrap_err();
            let CodecError::TooLarge { actual, .. } = error else { panic!("{error}") };
            prop_assert!(limit < actual && actual <= bytes.len());
        }
    }

    #[test]
    fn no_bytes_are_worse_than_an_error(bytes in any::<Vec<u8>>()) {
        for codec in CODECS {
            decode::<Everything>(codec, &bytes).ok();
            decode::<Sample>(codec, &bytes).ok();
            decode::<Vec<()>>(codec, &bytes).ok();
            decode::<Vec<Vec<Option<String>>>>(codec, &bytes).ok();
            decode::<HashMap<String, Blob>>(codec, &bytes).ok();
            decode::<Branch>(codec, &bytes).ok();
            decode::<Keyed>(codec, &bytes).ok();
            decode::<serde_json::Value>(codec, &bytes).ok();
        }
    }

    #[test]
    fn no_damaged_value_is_worse_than_an_error(
        value in sample(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        for codec in CODECS {
            let mut bytes = encode(codec, &value, LIMIT).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = byte;
            if let Ok(decoded) = decode::<Sample>(codec, &bytes) {
                prop_assert!(encode(codec, &decoded, 2 * LIMIT).is_ok());
            }
        }
    }
}
