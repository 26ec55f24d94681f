//! What a resolver may ask its context for: the program, the caller, the loaders.

use async_graphql::{Context, Error, Result, dataloader::DataLoader};

use super::{errors::ApiError, loaders::StoreLoader};
use crate::{app::App, auth::Viewer};

/// Who asks, and how; made by http for each request or socket.
#[derive(Clone, Debug, Default)]
pub struct Caller {
    /// `None` is an anonymous caller; a bad token never gets here.
    pub viewer: Option<Viewer>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
}

/// Everything of one request or socket that resolvers look up in the context.
#[must_use]
pub fn request_data(app: &App, caller: Caller) -> async_graphql::context::Data {
    let mut data = async_graphql::context::Data::default();
    data.insert(caller);
    // A loader's work is a task of its own, which does not end with the request that is cut off.
    let deadline = app.config.http.deadline;
    data.insert(DataLoader::new(StoreLoader::new(app.clone()), move |work| tokio::spawn(tokio::time::timeout(deadline, work))));
    data
}

pub trait ContextExt<'a> {
    fn app(&self) -> &'a App;
    fn caller(&self) -> &'a Caller;
    fn loader(&self) -> &'a DataLoader<StoreLoader>;

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
}
