//! `/api/v1/templates`: named, checksummed image definitions.

use super::{
    App,
    extract::{Body, Params},
    lookup,
    problem::ApiResult,
};
use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use novacron_common::{
    api::{Page, PageQuery, Problem, TemplateCreate, TemplateView},
    ids::TemplateId,
    spec::TemplateSpec,
};
use novacron_core::{Applied, CommandBody, command::TemplatePut, lists, views};
use utoipa_axum::{router::OpenApiRouter, routes};

pub fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(show, delete))
}

/// List templates.
#[utoipa::path(get, path = "/api/v1/templates", tag = "templates", operation_id = "list_templates",
    params(PageQuery),
    responses((status = 200, body = Page<TemplateView>), (status = "default", body = Problem)))]
async fn list(
    State(app): State<App>,
    Params(query): Params<PageQuery>,
) -> ApiResult<Json<Page<TemplateView>>> {
    Ok(Json(app.read(|state| lists::templates(state, &query)).await??))
}

/// Make a template. Its images are fetched by the first host that needs them.
#[utoipa::path(post, path = "/api/v1/templates", tag = "templates", operation_id = "create_template",
    request_body = TemplateCreate,
    responses((status = 201, body = TemplateView), (status = "default", body = Problem)))]
async fn create(
    State(app): State<App>,
    Body(body): Body<TemplateCreate>,
) -> ApiResult<(StatusCode, Json<TemplateView>)> {
    let put = TemplatePut { id: TemplateId::generate(), spec: TemplateSpec::try_from(&body)? };
    let id = put.id;
    let id = match app.propose(CommandBody::TemplatePut(Box::new(put))).await? {
        Applied::TemplateStored(id) => id,
        _ => id,
    };
    let view = show(State(app), Path(id.to_string())).await?;
    Ok((StatusCode::CREATED, view))
}

/// Show a template.
#[utoipa::path(get, path = "/api/v1/templates/{template}", tag = "templates", operation_id = "show_template",
    params(("template" = String, Path, description = "Id or name")),
    responses((status = 200, body = TemplateView), (status = "default", body = Problem)))]
async fn show(State(app): State<App>, Path(key): Path<String>) -> ApiResult<Json<TemplateView>> {
    app.read(|state| lookup::template(state, &key).map(|t| Json(views::template(t)))).await?
}

/// Delete a template. Machines made from it keep what they were made from.
#[utoipa::path(delete, path = "/api/v1/templates/{template}", tag = "templates", operation_id = "delete_template",
    params(("template" = String, Path, description = "Id or name")),
    responses((status = 204), (status = "default", body = Problem)))]
async fn delete(State(app): State<App>, Path(key): Path<String>) -> ApiResult<StatusCode> {
    let id = app.read(|state| lookup::template(state, &key).map(|t| t.id)).await??;
    app.propose(CommandBody::TemplateRemove { id }).await?;
    Ok(StatusCode::NO_CONTENT)
}
