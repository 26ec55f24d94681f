//! Pure types and rules: ids, money, and the state machines.
//!
//! Owns: what is true without a database. Does not own: storage, clocks, wording for clients.
//! Used by every other layer; uses nothing of the program itself.

pub mod address;
pub mod cart;
pub mod circuit_breaker;
pub mod customer;
pub mod flash_sale;
pub mod ids;
pub mod money;
pub mod order;
pub mod page;
pub mod payment;
pub mod product;
pub mod quantity;
pub mod rate_limit;
pub mod reconciliation;
pub mod stock;

/// A value that is not one of an enumeration's names.
#[derive(Debug, thiserror::Error)]
#[error("unknown {type_name} {value:?}")]
pub struct UnknownName {
    pub(crate) type_name: &'static str,
    pub(crate) value: String,
}

/// An enumeration whose names are the same in the database, in the API and in logs.
macro_rules! named_enum {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant),+ }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name in the database and in the API.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::domain::UnknownName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|value| value.as_str() == text).ok_or_else(|| {
                    $crate::domain::UnknownName { type_name: stringify!($name), value: text.to_owned() }
                })
            }
        }
    };
}
pub(crate) use named_enum;

/// `Debug` of what holds something personal or secret: the type's name alone. Who derives it too is refused by the compiler.
macro_rules! opaque_debug {
    ($($name:ident),+) => {
        $(impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(concat!(stringify!($name), "(…)"))
            }
        })+
    };
}
pub(crate) use opaque_debug;
