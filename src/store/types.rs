//! How domain types look in the database: ids as uuid, named enumerations and currencies as text.

use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueRef},
};
use uuid::Uuid;

use crate::domain::{
    circuit_breaker::BreakerState,
    customer::{Locale, Role},
    flash_sale::SaleNotice,
    ids::{
        AddressId, CartLineId, CategoryId, CustomerId, DeadLetterId, FlashSaleId, MailId, OneTimeTokenId, OrderId, PaymentId, ProductId,
        RefundId, SessionId, StockMovementId, WishlistItemId,
    },
    money::Currency,
    order::{OrderEventReason, OrderStatus},
    page::PageTagKind,
    payment::{PaymentStatus, RefundStatus},
    reconciliation::BreakKind,
    stock::StockMovementKind,
};

macro_rules! as_uuid {
    ($($name:ident),+ $(,)?) => {$(
        impl Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <Uuid as Type<Postgres>>::type_info()
            }
        }

        impl PgHasArrayType for $name {
            fn array_type_info() -> PgTypeInfo {
                <Uuid as PgHasArrayType>::array_type_info()
            }
        }

        impl Encode<'_, Postgres> for $name {
            fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                <Uuid as Encode<Postgres>>::encode_by_ref(&self.0, buffer)
            }
        }

        impl Decode<'_, Postgres> for $name {
            fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
                <Uuid as Decode<Postgres>>::decode(value).map(Self)
            }
        }
    )+};
}

as_uuid!(
    AddressId,
    CartLineId,
    CategoryId,
    CustomerId,
    DeadLetterId,
    FlashSaleId,
    MailId,
    OneTimeTokenId,
    OrderId,
    PaymentId,
    ProductId,
    RefundId,
    SessionId,
    StockMovementId,
    WishlistItemId,
);

macro_rules! as_text {
    ($($name:ident),+ $(,)?) => {$(
        impl Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <str as Type<Postgres>>::type_info()
            }

            fn compatible(ty: &PgTypeInfo) -> bool {
                <str as Type<Postgres>>::compatible(ty)
            }
        }

        impl PgHasArrayType for $name {
            fn array_type_info() -> PgTypeInfo {
                <&str as PgHasArrayType>::array_type_info()
            }
        }

        impl Encode<'_, Postgres> for $name {
            fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
                <&str as Encode<Postgres>>::encode_by_ref(&self.as_str(), buffer)
            }
        }

        impl Decode<'_, Postgres> for $name {
            fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
                Ok(<&str as Decode<Postgres>>::decode(value)?.parse()?)
            }
        }
    )+};
}

as_text!(
    BreakKind,
    BreakerState,
    Currency,
    Locale,
    OrderEventReason,
    OrderStatus,
    PageTagKind,
    PaymentStatus,
    RefundStatus,
    Role,
    SaleNotice,
    StockMovementKind
);
