use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Quantity {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn quantities_are_printed_in_canonical_form() {
    let cases = [
        ("0", "0"),
        ("0Gi", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("+7", "7"),
        ("1500m", "1500m"),
        ("1.5", "1500m"),
        ("0.5Gi", "512Mi"),
        ("1.5Gi", "1536Mi"),
        ("1536Mi", "1536Mi"),
        ("1024Mi", "1Gi"),
        ("1024Ki", "1Mi"),
        ("512Ki", "512Ki"),
        ("0.5Ki", "512"),
        ("1023Ki", "1023Ki"),
        ("1000Ki", "1000Ki"),
        ("0.0001Ki", "102400u"),
        ("1.001Ki", "1025024m"),
        ("1000m", "1"),
        ("100000m", "100"),
        ("1000", "1k"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e6", "12e6"),
        ("1200e3", "1200e3"),
        ("1.2e6", "1200e3"),
        ("1e-3", "1e-3"),
        ("100e0", "100"),
        ("1e2", "100"),
        ("12E", "12E"),
        ("1000E", "1e21"),
        (".5", "500m"),
        ("1.", "1"),
        ("1.G", "1G"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.1n", "2n"),
        ("0.0000000001", "1n"),
        ("123456789.123456789", "123456789123456789n"),
        ("8Ei", "9223372036854775807"),
        ("9223372036854775807Ki", "9223372036854775807"),
        ("7Ei", "7Ei"),
        ("-5Mi", "-5Mi"),
        ("-100Ei", "-9223372036854775807"),
        ("00000000000000000000000000000000000000000001", "1"),
        ("1e1000000000000000000", "100e27"),
        ("1e-1000000000000000000", "1e-9"),
        ("0e1000000000000000000", "0"),
    ];
    for (text, shown) in cases {
        assert_eq!(parse(text).to_string(), shown, "{text}");
    }
}

#[test]
fn whole_and_milli_values_round_away_from_zero() {
    let cases = [
        ("1", 1, 1000),
        ("0.1", 1, 100),
        ("1.0001", 2, 1001),
        ("-1.5", -2, -1500),
        ("1n", 1, 1),
        ("1Ki", 1024, 1_024_000),
        ("10E", i64::MAX, i64::MAX),
        ("-10E", i64::MIN, i64::MIN),
    ];
    for (text, value, milli) in cases {
        assert_eq!((parse(text).value(), parse(text).milli_value()), (value, milli), "{text}");
    }
}

#[test]
fn what_is_no_quantity_is_refused_with_the_reason() {
    let format =
        ["", " 1", "1 ", "1 Gi", "-", "+", ".", "Mi", "aoeu", "--1", "1.1.M", "1,5", "1\u{b5}", "\u{661}"];
    for text in format {
        let error = text.parse::<Quantity>().unwrap_err();
        assert!(matches!(error, QuantityError::Format { .. }), "{text:?}: {error}");
    }
    for text in
        ["1i", "1K", "1ki", "1mi", "1gi", "1GiB", "1Gi1", "1e", "1e1.", "1e+-1", "0.1am", "1m5", "1KI"]
    {
        let error = text.parse::<Quantity>().unwrap_err();
        assert!(!error.to_string().is_empty(), "{text}");
    }
    assert_eq!(
        "-1Gi".parse::<Quantity>().unwrap().to_bytes().unwrap_err().to_string(),
        "expected a quantity of zero or more, found -1Gi"
    );
}

#[test]
fn equality_is_of_the_number_and_sums_keep_the_first_format() {
    assert_eq!(parse("1Gi"), parse("1073741824"));
    assert_eq!(parse("1000m"), parse("1e0"));
    assert_eq!((parse("1Gi") + parse("1")).to_string(), "1073741825");
    assert_eq!((parse("0") + parse("1Gi")).to_string(), "1Gi");
    assert_eq!((parse("1Gi") - parse("2Gi")).to_string(), "-1Gi");
}

#[test]
fn json_takes_strings_and_numbers_and_gives_strings() {
    let cases = [("\"2Gi\"", "2Gi"), ("2", "2"), ("-3", "-3"), ("0.25", "250m"), ("1e3", "1k")];
    for (json, shown) in cases {
        assert_eq!(serde_json::from_str::<Quantity>(json).unwrap().to_string(), shown, "{json}");
    }
    assert_eq!(serde_json::to_string(&parse("2048Mi")).unwrap(), "\"2Gi\"");
    for json in ["null", "true", "[]", "\"x\""] {
        assert!(serde_json::from_str::<Quantity>(json).is_err(), "{json}");
    }
}

fn any_quantity() -> impl Strategy<Value = Quantity> {
    let format = prop_oneof![Just(Format::BinarySi), Just(Format::DecimalSi), Just(Format::DecimalExponent)];
    ((-MAX_NANOS..=MAX_NANOS), 0_u32..38, format)
        .prop_map(|(nanos, shrink, format)| Quantity { nanos: nanos / 10_i128.pow(shrink), format })
}

proptest! {
    #[test]
    fn printing_and_parsing_round_trip(quantity in any_quantity()) {
        let again: Quantity = quantity.to_string().parse().unwrap();
        prop_assert_eq!(again, quantity);
        prop_assert_eq!(again.to_string(), quantity.to_string());
    }

    #[test]
    fn order_is_that_of_the_numbers(one in any::<i64>(), two in any::<i64>()) {
        let (a, b) = (Quantity::from_milli(one), Quantity::from_milli(two));
        prop_assert_eq!(a.cmp(&b), one.cmp(&two));
    }

    #[test]
    fn sums_are_those_of_the_numbers(values in prop::collection::vec(-1_000_000_i64..1_000_000, 0..20)) {
        let sum: Quantity = values.iter().map(|value| Quantity::from_milli(*value)).sum();
        prop_assert_eq!(sum.milli_value(), values.iter().sum::<i64>());
    }

    #[test]
    fn a_whole_number_of_binary_units_is_exact(value in 0_u64..(1 << 33), power in 0_usize..4) {
        let suffix = ["", "Ki", "Mi", "Gi"][power];
        let bytes = format!("{value}{suffix}").parse::<Quantity>().unwrap().to_bytes().unwrap();
        prop_assert_eq!(bytes.0, value.saturating_mul(1 << (10 * power)).min(i64::MAX as u64));
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[-+]?[0-9]{0,50}\\.?[0-9]{0,50}[a-zA-Z]{0,3}[-+]?[0-9]{0,25}") {
        if let Ok(quantity) = text.parse::<Quantity>() {
            prop_assert_eq!(quantity.to_string().parse::<Quantity>().unwrap(), quantity);
        }
    }
}
