//! Reading the answer to a purchase, as little of it as the stampede needs: the load generator must leave the machine to the
//! server. Called by buyers.rs.

use serde::Deserialize;

use crate::domain::ids::OrderId;

const UNREADABLE: &str = "UNREADABLE";

/// What matters of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Read<'a> {
    /// The member of the result, or the code of the first error.
    pub kind: &'a str,
    pub order: Option<OrderId>,
    pub replayed: bool,
}

#[derive(Deserialize)]
struct Body<'a> {
    #[serde(borrow)]
    data: Option<Data<'a>>,
    #[serde(borrow, default)]
    errors: Vec<Error<'a>>,
}

#[derive(Deserialize)]
struct Data<'a> {
    #[serde(borrow, rename = "buyNow")]
    buy_now: Payload<'a>,
}

#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow)]
    result: Option<Outcome<'a>>,
    #[serde(borrow, default, rename = "userErrors")]
    user_errors: Vec<Code<'a>>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(rename = "__typename")]
    kind: &'a str,
    #[serde(default)]
    replayed: bool,
    #[serde(borrow)]
    order: Option<Order<'a>>,
}

#[derive(Deserialize)]
struct Order<'a> {
    id: &'a str,
}

#[derive(Deserialize)]
struct Error<'a> {
    #[serde(borrow)]
    extensions: Code<'a>,
}

#[derive(Deserialize)]
struct Code<'a> {
    code: &'a str,
}

#[must_use]
pub fn read(body: &[u8]) -> Read<'_> {
    let other = |kind| Read { kind, order: None, replayed: false };
    let Ok(body) = serde_json::from_slice::<Body<'_>>(body) else { return other(UNREADABLE) };
    let user_error = body.data.as_ref().and_then(|data| data.buy_now.user_errors.first());
    if let Some(code) = body.errors.first().map(|error| &error.extensions).or(user_error) {
        return other(code.code);
    }
    match body.data.and_then(|data| data.buy_now.result) {
        Some(Outcome { kind, replayed, order }) => Read { kind, order: order.and_then(|order| OrderId::parse(order.id)), replayed },
        None => other(UNREADABLE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_by_kind() {
        let kind = |text: &'static str| read(text.as_bytes()).kind;
        assert_eq!(kind(r#"{"data":{"buyNow":{"result":{"__typename":"SoldOut","holdsPending":true},"userErrors":[]}}}"#), "SoldOut");
        assert_eq!(kind(r#"{"data":{"buyNow":{"result":null,"userErrors":[{"code":"NOT_FOUND","field":["input"]}]}}}"#), "NOT_FOUND");
        assert_eq!(kind(r#"{"data":null,"errors":[{"message":"no","extensions":{"code":"INTERNAL"}}]}"#), "INTERNAL");
        assert_eq!(kind("<html>"), UNREADABLE);
        let order = "ord_0198f0d2a1b27c3d8e4f5061728394a5";
        let text = format!(
            r#"{{"data":{{"buyNow":{{"result":{{"__typename":"OrderAccepted","replayed":true,"order":{{"id":"{order}","version":1}}}},"userErrors":[]}}}}}}"#
        );
        assert_eq!(read(text.as_bytes()), Read { kind: "OrderAccepted", order: OrderId::parse(order), replayed: true });
    }
}
