//! What a resolver may ask its context for: the program, the caller, the loaders.

use std::net::IpAddr;

use async_graphql::{
    Context, Data, Error, Result, ServerResult,
    dataloader::DataLoader,
    extensions::ExtensionContext,
    parser::types::{ExecutableDocument, OperationType},
};
use uuid::Uuid;

use super::{errors::ApiError, loaders::StoreLoader, page_sources::PageSources};
use crate::{
    app::App,
    auth::Viewer,
    domain::opaque_debug,
    sealing::SealedColumn,
    services::{
        ServiceError,
        rate_limit::{self, Limit, Subject},
    },
};

/// Who asks, and how; made by http for each request or socket.
#[derive(Clone, Default)]
pub struct Caller {
    /// `None` is an anonymous caller; a bad token never gets here.
    pub viewer: Option<Viewer>,
    pub user_agent: Option<String>,
    /// Where the request comes from, as a limit counts it; `None` within the process.
    pub address: Option<IpAddr>,
    pub transport: Transport,
}

impl Caller {
    /// Counts an operation: of a customer, or of the address that an anonymous one comes from. Http does it before it looks at what is
    /// asked; on a socket each subscription is one.
    ///
    /// # Errors
    /// `RATE_LIMITED`.
    pub fn count_operation(&self, app: &App) -> Result<(), ApiError> {
        let counted = match (self.viewer, self.address) {
            (Some(viewer), _) => rate_limit::check(app, Limit::Account, viewer.customer),
            (None, Some(address)) => rate_limit::check(app, Limit::Address, address),
            (None, None) => Ok(()),
        };
        counted.map_err(|retry_after| ApiError::RateLimited { retry_after })
    }
}

opaque_debug!(Caller);

/// What an operation came by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Transport {
    /// `POST /graphql`, with its limits on rate and time.
    #[default]
    Post,
    /// A WebSocket, which carries subscriptions alone.
    Socket,
}

/// Refuses what may not come by the caller's transport.
pub fn check_transport(ctx: &ExtensionContext<'_>, document: &ExecutableDocument) -> ServerResult<()> {
    let Some(caller) = ctx.data_opt::<Caller>().filter(|caller| caller.transport == Transport::Socket) else { return Ok(()) };
    let stranger =
        document.operations.iter().map(|(_, operation)| operation).find(|operation| operation.node.ty != OperationType::Subscription);
    let Some(stranger) = stranger else { return Ok(()) };
    let error = match caller.viewer {
        Some(_) => ApiError::BadRequest("Sockets are for subscriptions: send queries and mutations by POST."),
        None => ApiError::Unauthenticated,
    };
    Err(Error::from(error).into_server_error(stranger.pos))
}

/// Everything of one request or socket that resolvers look up in the context.
#[must_use]
pub fn request_data(app: &App, caller: Caller) -> Data {
    context_data(app, caller, PageSources::default())
}

/// The same of an execution for everybody: nobody is signed in, and `sources` tells afterwards what the answer was made from.
#[must_use]
pub fn page_data(app: &App, sources: PageSources) -> Data {
    context_data(app, Caller::default(), sources)
}

fn context_data(app: &App, caller: Caller, sources: PageSources) -> Data {
    let mut data = Data::default();
    data.insert(DataLoader::new(StoreLoader::new(app.clone(), caller.viewer, sources.clone()), tokio::spawn));
    data.insert(caller);
    data.insert(sources);
    data
}

pub trait ContextExt<'a> {
    fn app(&self) -> &'a App;
    fn caller(&self) -> &'a Caller;
    fn loader(&self) -> &'a DataLoader<StoreLoader>;
    /// Told what is read for an answer that may be kept.
    fn sources(&self) -> &'a PageSources;

    fn viewer(&self) -> Option<Viewer> {
        self.caller().viewer
    }

    /// The signed-in customer; UNAUTHENTICATED for anybody else.
    fn signed_in(&self) -> Result<Viewer> {
        self.viewer().ok_or_else(|| Error::from(ApiError::Unauthenticated))
    }

    /// The signed-in member of staff; FORBIDDEN for customers.
    fn staff(&self) -> Result<Viewer> {
        let viewer = self.signed_in()?;
        if viewer.role.is_staff() { Ok(viewer) } else { Err(ApiError::Forbidden.into()) }
    }

    /// Counts a try that has a limit of its own; `RATE_LIMITED` when there were too many.
    fn limit(&self, limit: Limit, subject: impl Into<Subject>) -> Result<()> {
        rate_limit::check(self.app(), limit, subject).map_err(|retry_after| ApiError::RateLimited { retry_after }.into())
    }

    /// The same for an e-mail address as it was typed.
    fn limit_email(&self, limit: Limit, email: &str) -> Result<()> {
        Subject::of_email(self.app(), email).map_or(Ok(()), |subject| self.limit(limit, subject))
    }

    /// What stands in a sealed column of a row, which the caller may see.
    fn open(&self, column: SealedColumn, row: Uuid, sealed: &[u8]) -> Result<String> {
        Ok(self.app().sealing.open(column, row, sealed).map_err(ServiceError::from)?.to_string())
    }

    /// Whether the caller is staff.
    fn is_staff(&self) -> bool {
        self.viewer().is_some_and(|viewer| viewer.role.is_staff())
    }
}

impl<'a> ContextExt<'a> for Context<'a> {
    fn app(&self) -> &'a App {
        self.data_unchecked()
    }

    fn caller(&self) -> &'a Caller {
        self.data_unchecked()
    }

    fn loader(&self) -> &'a DataLoader<StoreLoader> {
        self.data_unchecked()
    }

    fn sources(&self) -> &'a PageSources {
        self.data_unchecked()
    }
}
