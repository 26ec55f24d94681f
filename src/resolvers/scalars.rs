//! Scalars of our own: the library's dates have nanoseconds, and its decimals may have been floats.

use async_graphql::{InputValueError, InputValueResult, Scalar, ScalarType, SimpleObject, Value};
use chrono::{SecondsFormat, Utc};

use crate::domain::money;

/// RFC 3339, UTC, milliseconds: `2026-11-30T03:00:00.000Z`.
#[derive(Clone, Copy, Debug)]
pub struct DateTime(pub chrono::DateTime<Utc>);

/// RFC 3339, UTC, milliseconds: `2026-11-30T03:00:00.000Z`.
#[Scalar(name = "DateTime", specified_by_url = "https://datatracker.ietf.org/doc/html/rfc3339")]
impl ScalarType for DateTime {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => {
                let parsed = chrono::DateTime::parse_from_rfc3339(text);
                parsed.map(|at| Self(at.to_utc())).map_err(|_| InputValueError::custom("a time like 2026-11-30T03:00:00.000Z"))
            }
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

impl From<chrono::DateTime<Utc>> for DateTime {
    fn from(at: chrono::DateTime<Utc>) -> Self {
        Self(at)
    }
}

/// An exact decimal as a string, never a float: `"129000"` or `"19.90"`.
#[derive(Clone, Debug)]
pub struct Decimal(pub String);

/// An exact decimal as a string, never a float: `"129000"` or `"19.90"`.
#[Scalar]
impl ScalarType for Decimal {
    fn parse(value: Value) -> InputValueResult<Self> {
        match value {
            Value::String(text) => Ok(Self(text)),
            _ => Err(InputValueError::custom("a decimal is a string like \"19.90\", never a number")),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.clone())
    }
}

/// ISO 4217: `KRW`, `USD`.
#[derive(Clone, Copy, Debug)]
pub struct CurrencyCode(pub money::Currency);

/// ISO 4217: `KRW`, `USD`.
#[Scalar(specified_by_url = "https://www.iso.org/iso-4217-currency-codes.html")]
impl ScalarType for CurrencyCode {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::String(text) => text.parse().map(Self).map_err(InputValueError::custom),
            _ => Err(InputValueError::expected_type(value)),
        }
    }

    fn to_value(&self) -> Value {
        Value::String(self.0.to_string())
    }
}

/// An exact amount of money.
#[derive(SimpleObject, Clone, Debug)]
pub struct Money {
    pub amount: Decimal,
    pub currency: CurrencyCode,
}

impl From<money::Money> for Money {
    fn from(money: money::Money) -> Self {
        Self { amount: Decimal(money.amount()), currency: CurrencyCode(money.currency) }
    }
}
