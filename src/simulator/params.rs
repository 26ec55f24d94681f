//! The parameters of a call: the provider's form encoding with brackets, read strictly.
//! Owns: reading and refusing them. An unknown parameter is an error, as it is at the provider: a misspelt one
//! must not pass the tests here and fail there.

use std::collections::BTreeMap;

use axum::{
    extract::{Form, FromRequest, Query, Request},
    http::header::CONTENT_TYPE,
};

use super::{
    cards::CardRef,
    idempotency,
    table::Page,
    wire::{ApiError, Expand},
};

const PAGE_DEFAULT: usize = 10;
const PAGE_MAX: usize = 100;
/// The provider takes amounts of up to eight digits.
const AMOUNT_MAX: i64 = 99_999_999;

pub struct Params(Vec<(String, String)>);

impl<S: Send + Sync> FromRequest<S> for Params {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let is_form = request.method() == "POST" && request.headers().contains_key(CONTENT_TYPE);
        let pairs = if is_form {
            Form::from_request(request, state).await.map(|Form(pairs)| pairs).ok()
        } else {
            Query::try_from_uri(request.uri()).map(|Query(pairs)| pairs).ok()
        };
        pairs.map(Self).ok_or_else(|| ApiError::invalid("parameter_invalid", "", "The parameters can't be read."))
    }
}

impl Params {
    /// Refuses any parameter not in `known`; a known name ending in `[` stands for all in that bracket.
    pub fn only(&self, known: &[&str]) -> Result<(), ApiError> {
        let is_known = |name: &str| known.iter().any(|known| if known.ends_with('[') { name.starts_with(known) } else { name == *known });
        match self.0.iter().find(|(name, _)| !is_known(name)) {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::invalid("parameter_unknown", name, "Received unknown parameter.")),
        }
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).map(str::to_owned)
    }

    pub fn required(&self, name: &str) -> Result<&str, ApiError> {
        self.get(name).ok_or_else(|| ApiError::invalid("parameter_missing", name, "Missing required param."))
    }

    /// An amount in minor units, if given.
    pub fn amount(&self) -> Result<Option<i64>, ApiError> {
        let Some(text) = self.get("amount") else {
            return Ok(None);
        };
        match text.parse() {
            Ok(amount) if amount > AMOUNT_MAX => {
                Err(ApiError::invalid("amount_too_large", "amount", "Amount must be no more than 99999999."))
            }
            Ok(amount) if amount >= 1 => Ok(Some(amount)),
            _ => Err(ApiError::invalid("parameter_invalid_integer", "amount", "Invalid positive integer.")),
        }
    }

    pub fn currency(&self) -> Result<String, ApiError> {
        let text = self.required("currency")?;
        if text.len() != 3 || !text.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(ApiError::invalid("parameter_invalid", "currency", "Invalid currency."));
        }
        Ok(text.to_ascii_lowercase())
    }

    pub fn card(&self) -> Result<Option<CardRef>, ApiError> {
        let Some(token) = self.get("payment_method") else {
            return Ok(None);
        };
        let missing = || ApiError::invalid("resource_missing", "payment_method", "No such PaymentMethod.");
        CardRef::find(token).map(Some).ok_or_else(missing)
    }

    pub fn return_url(&self) -> Result<Option<String>, ApiError> {
        match self.get("return_url") {
            Some(url) if !url.starts_with("https://") && !url.starts_with("http://") => {
                Err(ApiError::invalid("url_invalid", "return_url", "Not a valid URL."))
            }
            url => Ok(url.map(str::to_owned)),
        }
    }

    pub fn metadata(&self) -> BTreeMap<String, String> {
        let entry = |name: &str| name.strip_prefix("metadata[")?.strip_suffix(']').map(str::to_owned);
        self.0.iter().filter_map(|(name, value)| Some((entry(name)?, value.clone()))).collect()
    }

    pub fn expand(&self) -> Result<Expand, ApiError> {
        let mut expand = Expand::Nothing;
        for (_, value) in self.0.iter().filter(|(name, _)| name.starts_with("expand[")) {
            if value != "payment_method" && value != "data.payment_method" {
                return Err(ApiError::invalid("parameter_invalid", "expand", "This property cannot be expanded."));
            }
            expand = Expand::PaymentMethod;
        }
        Ok(expand)
    }

    pub fn page(&self) -> Result<Page, ApiError> {
        let limit = self.get("limit").map_or(Ok(PAGE_DEFAULT), str::parse);
        match limit {
            Ok(limit) if (1..=PAGE_MAX).contains(&limit) => Ok(Page { limit, starting_after: self.text("starting_after") }),
            _ => Err(ApiError::invalid("parameter_invalid_integer", "limit", "Must be between 1 and 100.")),
        }
    }

    /// The `created[…]` filter of a list: whole seconds, lowest and highest, both included.
    pub fn created(&self) -> Result<std::ops::RangeInclusive<u64>, ApiError> {
        let at = |name: &str| match self.get(name).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(second)) => Ok(Some(second)),
            Some(Err(_)) => Err(ApiError::invalid("parameter_invalid_integer", name, "Must be a Unix time.")),
        };
        let after = at("created[gt]")?.map(|second| second.saturating_add(1));
        let before = at("created[lt]")?.map(|second| second.saturating_sub(1));
        let from = at("created[gte]")?.max(after).unwrap_or(0);
        let to = [at("created[lte]")?, before].into_iter().flatten().min().unwrap_or(u64::MAX);
        Ok(from..=to)
    }

    pub fn fingerprint(&self, endpoint: &str) -> u64 {
        idempotency::fingerprint(endpoint, &self.0)
    }
}
