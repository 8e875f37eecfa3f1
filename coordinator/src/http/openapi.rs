//! The OpenAPI 3 document, generated from the handlers and the `common::api` types, and its page. A route is added
//! by its documentation (`utoipa_axum::routes!`), so one without the other does not exist.

use super::{
    App, cluster, console, events, exec, health, hosts, job_logs, jobs, metrics, migrations, networks,
    templates, tokens, vm_checkpoint, vm_logs, vm_stats, vms, volumes, workflows,
};
use axum::{Json, Router, routing::get};
use novacron_common::api::{ExecControl, ExecEvent, ExecRequest, OverdueView};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Components, ObjectBuilder, Type,
        path::{Operation, Parameter, ParameterBuilder, ParameterIn},
        security::{Http, HttpAuthScheme, SecurityScheme},
    },
};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::{Config, SwaggerUi};

/// Where the document is served.
pub const DOCUMENT_PATH: &str = "/api/v1/openapi.json";
/// Where its page is.
pub const PAGE_PATH: &str = "/docs";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "NovaCron",
        description = "Machines and jobs over one replicated ledger. Every error is an RFC 9457 problem with a \
                       stable `code`, its `cause` and a `fix`. Everything but `/health…` needs \
                       `Authorization: Bearer nva1.…`. `/api/jobs…` and `/api/workflows…` are aliases of `/api/v1/…`, `/ws/status` of \
                       `/api/v1/ws`, `/metrics` of `/api/v1/metrics`.",
    ),
    // Sent over WebSockets only: no route answers with them.
    components(schemas(ExecControl, ExecEvent, ExecRequest, OverdueView)),
    security(("token" = [])),
    modifiers(&TokenScheme),
)]
struct Document;

struct TokenScheme;

impl Modify for TokenScheme {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        document.components.get_or_insert_with(Components::new).add_security_scheme("token", scheme);
    }
}

/// Reads that are never stale: they ask nothing of the ledger, show what this coordinator has in any case, or always
/// want the newest.
const NEVER_STALE: &[&str] = &[
    "/health",
    "/metrics",
    "/api/v1/metrics",
    "/api/v1/ws",
    "/api/v1/cluster",
    "/api/v1/cluster/backup",
    "/api/v1/vms/{vm}/console",
    "/api/v1/vms/{vm}/exec",
];

/// What `request::serve` takes off every request before a handler sees it: no handler documents it.
fn common_parameters(document: &mut utoipa::openapi::OpenApi) {
    for (path, item) in &mut document.paths.paths {
        let never = NEVER_STALE.contains(&path.as_str()) || path.starts_with("/health/");
        if let Some(read) = item.get.as_mut().filter(|_| !never) {
            add(read, stale());
        }
        if let Some(change) = item.post.as_mut() {
            add(change, idempotency_key());
        }
    }
}

fn add(operation: &mut Operation, parameter: Parameter) {
    operation.parameters.get_or_insert_default().push(parameter.into());
}

fn text(name: &str, place: ParameterIn, about: &str) -> Parameter {
    let schema = ObjectBuilder::new().schema_type(Type::String).build();
    let text = ParameterBuilder::new().name(name).parameter_in(place).schema(Some(schema));
    text.description(Some(about)).build()
}

fn stale() -> Parameter {
    let about = "`true`, or the greatest age allowed such as `5s`: this coordinator answers from what it has, also \
                 without a majority, and says in the header `NovaCron-Stale-Age-Ms` how old that may be. Left out, \
                 the answer is as new as the request.";
    text("stale", ParameterIn::Query, about)
}

fn idempotency_key() -> Parameter {
    let about = "1 to 200 printable ASCII characters of the client's choice. The request is done once however often \
                 it is sent with its key, at any coordinator; a repetition is answered alike, with \
                 `Idempotency-Replayed: true`.";
    text("Idempotency-Key", ParameterIn::Header, about)
}

/// Every documented route.
pub fn routes() -> OpenApiRouter<App> {
    let mut routes = documented();
    common_parameters(routes.get_openapi_mut());
    routes
}

fn documented() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .merge(health::routes())
        .merge(metrics::routes())
        .merge(vms::routes())
        .merge(vm_checkpoint::routes())
        .merge(console::routes())
        .merge(exec::routes())
        .merge(vm_logs::routes())
        .merge(vm_stats::routes())
        .merge(hosts::routes())
        .merge(volumes::routes())
        .merge(templates::routes())
        .merge(networks::routes())
        .merge(migrations::routes())
        .merge(jobs::routes())
        .merge(job_logs::routes())
        .merge(workflows::routes())
        .merge(tokens::routes())
        .merge(cluster::routes())
        .merge(events::routes())
}

/// The document, without a server around it.
pub fn document() -> utoipa::openapi::OpenApi {
    routes().into_openapi()
}

/// The document and its page. They need a token as all else does (the document tells an attacker what there is);
/// a browser may give it as a password.
pub fn pages(document: utoipa::openapi::OpenApi) -> Router<App> {
    let page = SwaggerUi::new(PAGE_PATH).config(Config::from(DOCUMENT_PATH));
    Router::new()
        .route(DOCUMENT_PATH, get(async move || Json(document.clone())))
        .merge(Router::<App>::from(page))
}
