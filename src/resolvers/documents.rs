//! Documents that are known already: clients send the same few operations a hundred thousand times, and parsing and validating
//! are most of what a small one costs. For HTTP and WebSocket alike.
//!
//! Owns: what is remembered of a document, for which requests a remembered validation holds (docs/adr/0010), and that clients
//! are told what their operation costs.

use std::{
    collections::HashMap,
    fmt::Write,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use async_graphql::{
    Request, Response, ServerError, ServerResult, ValidationResult, Value, Variables,
    extensions::{Extension, ExtensionContext, ExtensionFactory, NextParseQuery, NextPrepareRequest, NextRequest, NextValidation},
    parser::{parse_query, types::ExecutableDocument},
    value,
};
use moka::sync::Cache;

use super::{
    context::{Caller, check_transport},
    operation_limits, trusted_documents,
};
use crate::app::App;

const MAX_DOCUMENTS: u64 = 1_000;
/// Longer documents are parsed each time: a thousand of them would be too much memory.
const MAX_BYTES: usize = 16 * 1024;
/// Shapes remembered of a document; one of ours has a handful. When there are more, all are forgotten.
const MAX_SHAPES: usize = 64;
/// Larger variables are validated each time.
const MAX_SHAPE_BYTES: usize = 1024;
/// Errors that are told of one document, and how much of each.
const MAX_ERRORS: usize = 10;
const MAX_MESSAGE_CHARACTERS: usize = 1_000;

/// Remembers documents by their text.
pub struct KnownDocuments {
    documents: Cache<String, Arc<KnownDocument>>,
    only_trusted: bool,
}

struct KnownDocument {
    parsed: ExecutableDocument,
    /// What validation said about requests of a shape, where it had no objection.
    validated: RwLock<HashMap<String, ValidationResult>>,
}

impl KnownDocuments {
    /// With `only_trusted`, no document is run but those of our own clients.
    pub fn new(only_trusted: bool) -> Self {
        Self { documents: Cache::new(MAX_DOCUMENTS), only_trusted }
    }
}

impl ExtensionFactory for KnownDocuments {
    fn create(&self) -> Arc<dyn Extension> {
        // Clones of a cache are the same cache.
        Arc::new(OneRequest {
            documents: self.documents.clone(),
            only_trusted: self.only_trusted,
            shape: OnceLock::new(),
            document: OnceLock::new(),
            cost: OnceLock::new(),
        })
    }
}

/// The library calls its steps in order, once each.
struct OneRequest {
    documents: Cache<String, Arc<KnownDocument>>,
    only_trusted: bool,
    shape: OnceLock<String>,
    document: OnceLock<Arc<KnownDocument>>,
    cost: OnceLock<ValidationResult>,
}

#[async_trait::async_trait]
impl Extension for OneRequest {
    /// The answer says what the operation cost. (The library has an extension for that, but each one costs every field.)
    async fn request(&self, ctx: &ExtensionContext<'_>, next: NextRequest<'_>) -> Response {
        let response = next.run(ctx).await;
        match self.cost.get() {
            Some(cost) => response.extension("analyzer", value!({ "complexity": cost.complexity, "depth": cost.depth })),
            None => response,
        }
    }

    async fn prepare_request(&self, ctx: &ExtensionContext<'_>, request: Request, next: NextPrepareRequest<'_>) -> ServerResult<Request> {
        let mut request = next.run(ctx, request).await?;
        trusted_documents::resolve(&mut request, self.only_trusted)?;
        if let Some(shape) = shape(request.operation_name.as_deref(), &request.variables) {
            self.shape.get_or_init(|| shape);
        }
        Ok(request)
    }

    async fn parse_query(
        &self,
        ctx: &ExtensionContext<'_>,
        query: &str,
        _variables: &Variables,
        _next: NextParseQuery<'_>,
    ) -> ServerResult<ExecutableDocument> {
        if let (Some(app), Some(caller)) = (ctx.data_opt::<App>(), ctx.data_opt::<Caller>()) {
            caller.count_operation(app)?;
        }
        if let Some(known) = self.documents.get(query) {
            check_transport(ctx, &known.parsed)?;
            return Ok(self.document.get_or_init(|| known).parsed.clone());
        }
        operation_limits::check_text(query)?;
        // By ourselves: the library's own step then follows every spread of a fragment, before we could look.
        let parsed = parse_query(query).map_err(|error| brief(error.into()))?;
        operation_limits::check_document(&parsed)?;
        check_transport(ctx, &parsed)?;
        if query.len() <= MAX_BYTES {
            let known = Arc::new(KnownDocument { parsed: parsed.clone(), validated: RwLock::default() });
            self.documents.insert(query.to_owned(), known.clone());
            self.document.get_or_init(|| known);
        }
        Ok(parsed)
    }

    async fn validation(&self, ctx: &ExtensionContext<'_>, next: NextValidation<'_>) -> Result<ValidationResult, Vec<ServerError>> {
        let known = self.document.get().zip(self.shape.get());
        let remembered = known.and_then(|(document, shape)| document.validated(shape));
        let result = match remembered {
            Some(result) => result,
            None => next.run(ctx).await.map_err(first_errors)?,
        };
        operation_limits::check_cost(&result, ctx.data_opt::<Caller>()).map_err(|error| vec![error])?;
        if let Some((document, shape)) = known.filter(|_| remembered.is_none()) {
            document.remember(shape, result);
        }
        Ok(*self.cost.get_or_init(|| result))
    }
}

/// A document of nothing but mistakes must not make an answer that is longer than it.
fn first_errors(mut errors: Vec<ServerError>) -> Vec<ServerError> {
    errors.truncate(MAX_ERRORS);
    errors.into_iter().map(brief).collect()
}

/// Messages repeat names, and the line that is no GraphQL.
fn brief(mut error: ServerError) -> ServerError {
    if let Some((end, _)) = error.message.char_indices().nth(MAX_MESSAGE_CHARACTERS) {
        error.message.truncate(end);
    }
    error
}

impl KnownDocument {
    fn validated(&self, shape: &str) -> Option<ValidationResult> {
        self.validated.read().unwrap_or_else(PoisonError::into_inner).get(shape).copied()
    }

    fn remember(&self, shape: &str, result: ValidationResult) {
        let mut validated = self.validated.write().unwrap_or_else(PoisonError::into_inner);
        if validated.len() >= MAX_SHAPES {
            validated.clear();
        }
        validated.insert(shape.to_owned(), result);
    }
}

/// What validation looks at beside the document: the operation's name and the variables, without the content of strings that
/// cannot be the value of an enumeration. Everything else, numbers above all, is kept as it is: complexity depends on it.
/// `None` when it would be too long.
fn shape(operation: Option<&str>, variables: &Variables) -> Option<String> {
    let mut shape = Shape(String::with_capacity(128));
    shape.text(operation.unwrap_or_default())?;
    for (name, value) in &**variables {
        shape.text(name)?;
        shape.value(value)?;
    }
    Some(shape.0)
}

struct Shape(String);

impl Shape {
    /// Lengths stand before texts, so that no two shapes read alike.
    fn text(&mut self, text: &str) -> Option<()> {
        write!(self.0, "{}:{text}", text.len()).ok()?;
        (self.0.len() <= MAX_SHAPE_BYTES).then_some(())
    }

    fn value(&mut self, value: &Value) -> Option<()> {
        match value {
            Value::String(text) if could_be_enum(text) => self.text(text),
            Value::String(_) => self.text("$"),
            Value::List(values) => {
                write!(self.0, "[{}", values.len()).ok()?;
                values.iter().try_for_each(|value| self.value(value))
            }
            Value::Object(fields) => {
                write!(self.0, "{{{}", fields.len()).ok()?;
                fields.iter().try_for_each(|(name, value)| {
                    self.text(name)?;
                    self.value(value)
                })
            }
            // Variables of a request are JSON: what is left is null, true, false or a number.
            other => {
                self.0.push('=');
                self.text(&other.to_string())
            }
        }
    }
}

/// Values of our enumerations are written like `SOLD_OUT`.
fn could_be_enum(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shape_of(variables: serde_json::Value) -> Option<String> {
        shape(None, &Variables::from_json(variables))
    }

    #[test]
    fn keys_and_tokens_do_not_change_a_shape() {
        let input = |key: &str| json!({ "input": { "quantity": 1, "idempotencyKey": key, "phases": ["OPEN"] } });
        assert_eq!(shape_of(input("3c6f")), shape_of(input("another")));
    }

    #[test]
    fn whatever_validation_could_mind_does() {
        let shapes = [
            json!({ "input": { "quantity": 1 } }),
            json!({ "input": { "quantity": 2 } }),
            json!({ "input": { "quantity": "1" } }),
            json!({ "input": { "quantity": "x" } }),
            json!({ "input": { "quantity": 1, "surplus": 1 } }),
            json!({ "input": { "quantity": null } }),
            json!({ "input": { "quantity": [1] } }),
            json!({ "input": null }),
            json!({ "input": 1, "quantity": 1 }),
            json!({ "other": { "quantity": 1 } }),
            json!({ "phase": "OPEN" }),
            json!({ "phase": "SHUT" }),
            json!({ "phase": "open" }),
            json!({ "phase": true }),
            json!({}),
        ];
        let distinct: std::collections::HashSet<_> = shapes.iter().cloned().map(shape_of).collect();
        assert_eq!(distinct.len(), shapes.len());
    }

    #[test]
    fn names_cannot_be_mistaken_for_structure() {
        assert_ne!(shape_of(json!({ "a": "A1:$" })), shape_of(json!({ "a": "A", "$": "x" })));
        assert_ne!(shape_of(json!({ "a": [["A"], "B"] })), shape_of(json!({ "a": [["A", "B"]] })));
    }

    #[test]
    fn large_variables_have_no_shape() {
        assert_eq!(shape_of(json!({ "a": vec!["x"; 1_000] })), None);
        assert!(shape_of(json!({ "a": "x".repeat(10_000) })).is_some());
    }
}
