//! The address book.

use async_graphql::{Context, ID, InputObject, Object, Result, SimpleObject};
use uuid::Uuid;

use super::{
    context::ContextExt,
    customer::Customer,
    errors::{UserError, UserErrorCode},
    loaders::Own,
};
use crate::{
    domain::{address::PostalAddress, ids::AddressId},
    sealing::SealedColumn,
    services::{
        ServiceError,
        address::{self, RemovedAddress, SaveAddress, SavedAddress},
    },
    store,
};

pub struct Address(pub store::address::Address);

/// The sealed content of an address.
pub fn open(ctx: &Context<'_>, address: &store::address::Address) -> Result<PostalAddress> {
    let content = ctx.app().sealing.open(SealedColumn::AddressContent, address.id.0, &address.content_sealed);
    let content = content.map_err(ServiceError::from)?;
    Ok(serde_json::from_str(&content).map_err(ServiceError::from)?)
}

/// An entry of the address book: an immutable version; an edit makes a new one with a new id.
#[Object]
impl Address {
    pub(super) async fn id(&self) -> ID {
        self.0.id.to_string().into()
    }

    /// Where parcels go when a purchase names no address.
    async fn is_default(&self) -> bool {
        self.0.is_default
    }

    #[graphql(flatten)]
    async fn content(&self, ctx: &Context<'_>) -> Result<ShippingAddress> {
        open(ctx, &self.0).map(ShippingAddress)
    }
}

pub struct ShippingAddress(pub PostalAddress);

/// The address as it was when the order was made.
#[Object]
impl ShippingAddress {
    async fn recipient(&self) -> &str {
        &self.0.recipient
    }

    async fn line1(&self) -> &str {
        &self.0.line1
    }

    async fn line2(&self) -> Option<&str> {
        self.0.line2.as_deref()
    }

    async fn city(&self) -> &str {
        &self.0.city
    }

    async fn postal_code(&self) -> &str {
        &self.0.postal_code
    }

    /// ISO 3166-1 alpha-2, like KR.
    async fn country_code(&self) -> &str {
        &self.0.country_code
    }

    async fn phone(&self) -> Option<&str> {
        self.0.phone.as_deref()
    }
}

#[derive(InputObject)]
pub struct AddressInput {
    #[graphql(secret)]
    recipient: String,
    #[graphql(secret)]
    line1: String,
    #[graphql(secret)]
    line2: Option<String>,
    #[graphql(secret)]
    city: String,
    #[graphql(secret)]
    postal_code: String,
    /// ISO 3166-1 alpha-2, like KR.
    country_code: String,
    #[graphql(secret)]
    phone: Option<String>,
    /// True makes it the default. A book always has one: the first address, until another is made the default.
    is_default: Option<bool>,
}

/// Addresses are immutable versions: saving an existing one makes a new version; orders keep theirs.
#[derive(InputObject)]
pub struct SaveAddressInput {
    /// The entry to replace; a new entry when left out.
    id: Option<ID>,
    address: AddressInput,
    /// Made by the client: the same request under the same key answers the same address, for 7 days.
    idempotency_key: Option<Uuid>,
}

#[derive(SimpleObject)]
pub struct SaveAddressPayload {
    address: Option<Address>,
    user_errors: Vec<UserError>,
}

impl From<UserError> for SaveAddressPayload {
    fn from(error: UserError) -> Self {
        Self { address: None, user_errors: vec![error] }
    }
}

#[derive(InputObject)]
pub struct RemoveAddressInput {
    id: ID,
}

#[derive(SimpleObject)]
pub struct RemoveAddressPayload {
    /// With the address book as it is now.
    customer: Option<Customer>,
    user_errors: Vec<UserError>,
}

/// The caller's address of a global id, old versions too.
pub async fn find(ctx: &Context<'_>, id: &str) -> Result<Option<Address>> {
    let Some(id) = AddressId::parse(id) else { return Ok(None) };
    Ok(ctx.loader().load_one(Own(id)).await?.map(Address))
}

fn no_such_address() -> UserError {
    UserError::new(UserErrorCode::NotFound, &["id"], "No such address in your book.")
}

#[derive(Default)]
pub struct AddressMutation;

#[Object]
impl AddressMutation {
    /// Adds an address to the book, or replaces one.
    async fn save_address(&self, ctx: &Context<'_>, input: SaveAddressInput) -> Result<SaveAddressPayload> {
        let viewer = ctx.signed_in()?;
        let id = input.id.map(|id| AddressId::parse(&id));
        if id == Some(None) {
            return Ok(no_such_address().into());
        }
        let typed = input.address;
        let wanted = SaveAddress {
            id: id.flatten(),
            is_default: typed.is_default,
            address: PostalAddress {
                recipient: typed.recipient,
                line1: typed.line1,
                line2: typed.line2,
                city: typed.city,
                postal_code: typed.postal_code,
                country_code: typed.country_code,
                phone: typed.phone,
            },
            idempotency_key: input.idempotency_key,
        };
        Ok(match address::save(ctx.app(), viewer.customer, wanted).await? {
            SavedAddress::Saved(id) => {
                SaveAddressPayload { address: ctx.loader().load_one(id).await?.map(Address), user_errors: Vec::new() }
            }
            SavedAddress::Invalid(invalid) => UserError::from(invalid).into(),
            SavedAddress::NoSuchAddress => no_such_address().into(),
            SavedAddress::LimitReached => UserError::new(UserErrorCode::LimitReached, &[], "An address book holds 50 addresses.").into(),
            SavedAddress::KeyReused => {
                let message = "This key was used for another address: make a new one.";
                UserError::new(UserErrorCode::IdempotencyKeyReused, &["idempotencyKey"], message).into()
            }
        })
    }
    /// Takes an address out of the book; orders keep it. When it was the default, the oldest one left becomes the default.
    async fn remove_address(&self, ctx: &Context<'_>, input: RemoveAddressInput) -> Result<RemoveAddressPayload> {
        let viewer = ctx.signed_in()?;
        let removed = match AddressId::parse(&input.id) {
            Some(id) => address::remove(ctx.app(), viewer.customer, id).await?,
            None => RemovedAddress::NoSuchAddress,
        };
        Ok(match removed {
            RemovedAddress::Removed => {
                let customer = ctx.loader().load_one(viewer.customer).await?.map(Customer);
                RemoveAddressPayload { customer, user_errors: Vec::new() }
            }
            RemovedAddress::NoSuchAddress => RemoveAddressPayload { customer: None, user_errors: vec![no_such_address()] },
        })
    }
}
