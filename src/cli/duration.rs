//! Lengths of time on the command line: `30s`, `500ms`, `2m`.

use std::time::Duration;

/// For clap.
pub fn parse(text: &str) -> Result<Duration, String> {
    let end_of_number = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end_of_number);
    let number: u32 = number.parse().map_err(|_| format!("`{text}`: a length of time looks like 30s, 500ms or 2m"))?;
    let unit = match unit {
        "ms" => Duration::from_millis(1),
        "s" | "" => Duration::from_secs(1),
        "m" => Duration::from_mins(1),
        _ => return Err(format!("`{text}`: the unit is ms, s or m")),
    };
    Ok(unit * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_of_time_is_a_number_with_its_unit() {
        let ms = |text| parse(text).map(|length| length.as_millis()).ok();
        assert_eq!([ms("30s"), ms("30"), ms("500ms"), ms("2m")], [Some(30_000), Some(30_000), Some(500), Some(120_000)]);
        assert_eq!([ms(""), ms("s"), ms("1h"), ms("-1s"), ms("1.5s")], [None; 5]);
    }
}
