//! Text to quantity: sign, digits, point, digits, suffix.

use super::{BINARY_MAX_NANOS, Format, MAX_NANOS, NANO, Quantity, QuantityError};

/// What a suffix multiplies by.
enum Scale {
    /// 2^n
    Binary(u32),
    /// 10^n
    Decimal(i64),
}

pub(super) fn quantity(text: &str) -> Result<Quantity, QuantityError> {
    let wrong = || QuantityError::Format { found: text.to_owned() };
    let (negative, unsigned) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (whole, rest) = digits(unsigned);
    let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(wrong());
    }
    if !suffix.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'-') {
        return Err(wrong());
    }
    let (scale, mut format) = scale(suffix)
        .ok_or_else(|| QuantityError::Suffix { found: text.to_owned(), suffix: suffix.to_owned() })?;
    let nanos = match scale {
        Scale::Binary(power) => binary_nanos(whole, fraction, power),
        Scale::Decimal(exponent) => decimal_nanos(whole, fraction, exponent),
    };
    // As apimachinery: less than one cannot be said in binary suffixes.
    if format == Format::BinarySi && nanos < NANO && nanos > 0 {
        format = Format::DecimalSi;
    }
    Ok(Quantity::from_nanos(if negative { -nanos } else { nanos }, format))
}

/// Leading decimal digits, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.bytes().take_while(u8::is_ascii_digit).count())
}

fn scale(suffix: &str) -> Option<(Scale, Format)> {
    let decimal = |power| Some((Scale::Decimal(power), Format::DecimalSi));
    let binary = |power| Some((Scale::Binary(power), Format::BinarySi));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            Some((Scale::Decimal(exponent), Format::DecimalExponent))
        }
    }
}

fn is_nonzero(digits: &str) -> bool {
    digits.bytes().any(|byte| byte != b'0')
}

/// Digits as a number, at most [`MAX_NANOS`].
fn number(digits: impl Iterator<Item = u8>) -> i128 {
    digits.fold(0, |sum: i128, byte| {
        sum.saturating_mul(10).saturating_add(i128::from(byte - b'0')).min(MAX_NANOS)
    })
}

/// `whole.fraction · 2^power` in billionths, rounded up, at most 2^63 - 1.
fn binary_nanos(whole: &str, fraction: &str, power: u32) -> i128 {
    let unit = NANO << power;
    // Long division from the last digit on: exact however many digits there are.
    let (mut part, mut inexact) = (0, false);
    for byte in fraction.bytes().rev() {
        let sum = part + i128::from(byte - b'0') * unit;
        inexact |= sum % 10 != 0;
        part = sum / 10;
    }
    let nanos = number(whole.bytes()).saturating_mul(unit).saturating_add(part + i128::from(inexact));
    nanos.min(BINARY_MAX_NANOS)
}

/// `whole.fraction · 10^exponent` in billionths, rounded up, at most [`MAX_NANOS`].
fn decimal_nanos(whole: &str, fraction: &str, exponent: i64) -> i128 {
    if !is_nonzero(whole) && !is_nonzero(fraction) {
        return 0;
    }
    // Where the point is once the number counts billionths.
    let length = i64::try_from(whole.len()).unwrap_or(i64::MAX);
    let point = length.saturating_add(exponent).saturating_add(9);
    let point = usize::try_from(point.max(0)).unwrap_or(usize::MAX);
    let all = || whole.bytes().chain(fraction.bytes());
    let missing = point.saturating_sub(whole.len() + fraction.len());
    // 39 zeros reach the limit, however few digits stand before them.
    let nanos = number(all().take(point).chain(std::iter::repeat_n(b'0', missing.min(39))));
    let inexact = all().skip(point).any(|byte| byte != b'0');
    (nanos + i128::from(inexact)).min(MAX_NANOS)
}
