//! Money: integer minor units plus a currency, never a float.

use std::{fmt, str::FromStr};

/// An ISO 4217 currency code.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Currency([u8; 3]);

#[derive(Debug, thiserror::Error)]
pub enum MoneyError {
    #[error("a currency is three capital letters of ISO 4217, like KRW")]
    Currency,
    #[error("an amount is an exact decimal like \"129000\" or \"19.90\", with at most {0} decimal places")]
    Amount(usize),
}

/// Currencies of ISO 4217 without a minor unit; every other one that a shop is likely to use has two decimal places.
const WITHOUT_MINOR_UNIT: [&str; 16] =
    ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "VND", "VUV", "XAF", "XOF", "XPF"];

impl Currency {
    pub const KRW: Self = Self(*b"KRW");

    /// Decimal places of the currency: how many minor units make a unit, as a power of ten.
    #[must_use]
    pub fn decimal_places(self) -> usize {
        if WITHOUT_MINOR_UNIT.contains(&self.as_str()) { 0 } else { 2 }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        // Always ASCII, see `from_str`.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl FromStr for Currency {
    type Err = MoneyError;

    fn from_str(text: &str) -> Result<Self, MoneyError> {
        match *text.as_bytes() {
            [a, b, c] if [a, b, c].iter().all(u8::is_ascii_uppercase) => Ok(Self([a, b, c])),
            _ => Err(MoneyError::Currency),
        }
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An amount in minor units of its currency.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Money {
    pub minor: i64,
    pub currency: Currency,
}

impl Money {
    #[must_use]
    pub const fn new(minor: i64, currency: Currency) -> Self {
        Self { minor, currency }
    }

    /// Reads an exact decimal with no more places than the currency has: digits, optionally a point and digits.
    ///
    /// # Errors
    /// Anything else: signs, exponents, spaces, separators, too many places, more than fits.
    pub fn parse(amount: &str, currency: Currency) -> Result<Self, MoneyError> {
        let places = currency.decimal_places();
        let error = || MoneyError::Amount(places);
        let (units, fraction) = amount.split_once('.').unwrap_or((amount, ""));
        let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        let well_formed = !units.is_empty()
            && digits(units)
            && digits(fraction)
            && fraction.len() <= places
            && (!amount.contains('.') || !fraction.is_empty());
        if !well_formed {
            return Err(error());
        }
        let minor = format!("{units}{fraction:0<places$}").parse().map_err(|_| error())?;
        Ok(Self { minor, currency })
    }

    /// The exact decimal, with as many places as the currency has.
    #[must_use]
    pub fn amount(self) -> String {
        let places = self.currency.decimal_places();
        if places == 0 {
            return self.minor.to_string();
        }
        let scale = 10_u64.pow(u32::try_from(places).unwrap_or_default());
        let sign = if self.minor < 0 { "-" } else { "" };
        let minor = self.minor.unsigned_abs();
        format!("{sign}{}.{:0places$}", minor / scale, minor % scale)
    }

    /// This price for so many pieces; `None` when it no longer fits.
    #[must_use]
    pub fn times(self, quantity: i32) -> Option<Self> {
        self.minor.checked_mul(i64::from(quantity)).map(|minor| Self { minor, ..self })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn currency(code: &str) -> Currency {
        code.parse().unwrap()
    }

    #[test]
    fn amounts_read_and_print_exactly() {
        for (code, text, minor) in [
            ("KRW", "129000", 129_000),
            ("KRW", "0", 0),
            ("USD", "19.90", 1990),
            ("USD", "0.05", 5),
            ("USD", "92233720368547758.07", i64::MAX),
        ] {
            let money = Money::parse(text, currency(code)).unwrap();
            assert_eq!(money.minor, minor);
            assert_eq!(money.amount(), text);
        }
        assert_eq!(Money::parse("19.9", currency("USD")).unwrap().amount(), "19.90");
        assert_eq!(Money::new(-5, currency("USD")).amount(), "-0.05");
    }

    #[test]
    fn anything_inexact_is_refused() {
        for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,000", " 1", "1.999", "٣", "92233720368547758.08"] {
            assert!(Money::parse(text, currency("USD")).is_err(), "{text:?}");
        }
        assert!(Money::parse("1.0", currency("KRW")).is_err(), "a won has no parts");
    }

    #[test]
    fn a_currency_is_three_capital_letters() {
        for text in ["", "KR", "krw", "KRWX", "K1W", "₩₩₩"] {
            assert!(text.parse::<Currency>().is_err(), "{text:?}");
        }
    }
}
