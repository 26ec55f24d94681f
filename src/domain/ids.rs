//! Ids: newtypes over `UUIDv7`, so that an order's id cannot be passed where a sale's is wanted.
//!
//! Their public form is `prefix_` and the UUID's 32 hex digits; clients treat it as opaque.

use std::fmt;

use uuid::Uuid;

macro_rules! ids {
    ($($(#[$meta:meta])* $name:ident = $prefix:literal),+ $(,)?) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub Uuid);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            /// A new id; later ids sort after earlier ones.
            #[must_use]
            #[allow(clippy::new_without_default, reason = "an id is made on purpose, never by default")]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// Reads the public form; `None` for anything else, another type's id included.
            #[must_use]
            pub fn parse(text: &str) -> Option<Self> {
                let digits = text.strip_prefix($prefix)?.strip_prefix('_')?;
                let canonical = digits.len() == 32 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
                if canonical { Uuid::try_parse(digits).ok().map(Self) } else { None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    )+};
}

ids! {
    AddressId = "addr",
    /// The same digits as its customer's.
    CartId = "cart",
    CartLineId = "line",
    CategoryId = "cat",
    CustomerId = "cust",
    DeadLetterId = "dead",
    FlashSaleId = "sale",
    MailId = "mail",
    OneTimeTokenId = "link",
    OrderId = "ord",
    PaymentId = "pay",
    ProductId = "prod",
    RefundId = "refund",
    SessionId = "sess",
    StockMovementId = "move",
    WishlistItemId = "wish",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_form_is_read_back() {
        let id = OrderId::new();
        assert_eq!(OrderId::parse(&id.to_string()), Some(id));
    }

    #[test]
    fn anything_else_is_no_id() {
        let id = OrderId::new();
        let hex = id.0.simple().to_string();
        for text in [
            String::new(),
            "ord_".into(),
            hex.clone(),
            format!("sale_{hex}"),
            format!("ord_{}", hex.to_uppercase().replace('0', "A")),
            format!("ord_{}", id.0),
            format!("ord_{hex}0"),
            format!("ord_{hex}\0"),
        ] {
            assert_eq!(OrderId::parse(&text), None, "{text:?}");
        }
    }
}
