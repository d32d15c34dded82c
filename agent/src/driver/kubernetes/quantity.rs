//! Quantities as Kubernetes writes them: `500m`, `2`, `1.5Gi`, `1e3`; here in billionths.

/// One.
pub(super) const ONE: i128 = 1_000_000_000;

/// Reads a quantity, rounded down to billionths; none if it is malformed or beyond all measure.
pub(super) fn parse(text: &str) -> Option<i128> {
    let end = text.find(|letter: char| !(letter.is_ascii_digit() || matches!(letter, '.' | '+' | '-')));
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (numerator, denominator) = factor(suffix)?;
    let (sign, digits) = match number.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, number.strip_prefix('+').unwrap_or(number)),
    };
    if !digits.chars().all(|letter| letter.is_ascii_digit() || letter == '.') {
        return None;
    }
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    // More digits than that are below a billionth of anything.
    let part = part.get(..part.len().min(9))?;
    let mantissa: i128 = format!("{whole}{part}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let billionths = mantissa.checked_mul(ONE)?.checked_mul(numerator)?;
    Some(sign * billionths / scale.checked_mul(denominator)?)
}

/// What a suffix multiplies by, as a fraction.
fn factor(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    let decimal = |power: u32| Some((10_i128.checked_pow(power)?, 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        exponent => {
            let power: i32 = exponent.strip_prefix(['e', 'E'])?.parse().ok()?;
            let by = 10_i128.checked_pow(power.unsigned_abs())?;
            Some(if power < 0 { (1, by) } else { (by, 1) })
        }
    }
}

/// As a plain number; of bytes, in the largest binary unit that leaves no rest.
pub(super) fn shown(billionths: i128) -> String {
    let units = [("Ti", 1_i128 << 40), ("Gi", 1 << 30), ("Mi", 1 << 20)];
    let unit = units.into_iter().find(|(_, size)| billionths != 0 && billionths % (size * ONE) == 0);
    if let Some((name, size)) = unit {
        return format!("{}{name}", billionths / (size * ONE));
    }
    let (whole, part) = (billionths / ONE, (billionths % ONE).unsigned_abs());
    if part == 0 {
        return whole.to_string();
    }
    let part = format!("{part:09}");
    format!("{whole}.{}", part.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_as_kubernetes_reads_them() {
        for (text, billionths) in [
            ("0", 0),
            ("2", 2 * ONE),
            ("500m", ONE / 2),
            ("1.5", ONE + ONE / 2),
            (".5", ONE / 2),
            ("1e3", 1_000 * ONE),
            ("1E3", 1_000 * ONE),
            ("12E", 12 * 10_i128.pow(18) * ONE),
            ("5e-1", ONE / 2),
            ("250u", 250_000),
            ("7n", 7),
            ("1k", 1_000 * ONE),
            ("1.5Gi", 3 * (1_i128 << 29) * ONE),
            ("-1", -ONE),
        ] {
            assert_eq!(parse(text), Some(billionths), "{text}");
        }
        for text in ["", "x", "1x", "1mm", "1.2.3", "Gi", "1e99", "--1"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn they_are_shown_as_people_write_them() {
        let cases = [("500m", "0.5"), ("3", "3"), ("2Gi", "2Gi"), ("1536Mi", "1536Mi"), ("1001m", "1.001"), ("0", "0")];
        for (text, wanted) in cases {
            assert_eq!(parse(text).map(shown).as_deref(), Some(wanted), "{text}");
        }
    }
}
