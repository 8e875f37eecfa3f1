//! API tokens.

use super::{Context, segment};
use crate::{
    cli::{Format, TokenVerb},
    error::CtlError,
    output::{self, Row, word},
};
use novacron_common::api::{TokenCreate, TokenCreated, TokenView};

impl Row for TokenView {
    const TITLES: &'static [&'static str] = &["name", "role", "created", "id"];
    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), word(&self.role), output::time(Some(self.created_at)), self.id.to_string()]
    }
}

pub async fn run(context: &Context, verb: TokenVerb) -> Result<(), CtlError> {
    let client = &context.client;
    match verb {
        TokenVerb::Create { name, reader } => {
            let body = TokenCreate { name, role: TokenVerb::role(reader) };
            let created: TokenCreated = client.post("/api/v1/tokens", Some(&body)).await?;
            match context.format {
                Format::Json => output::json(&created),
                Format::Table => output::line(&created.token),
            }
        }
        TokenVerb::List => {
            output::list(&client.all::<TokenView>("/api/v1/tokens", "").await?, context.format)
        }
        TokenVerb::Delete { token } => {
            client.delete(&format!("/api/v1/tokens/{}", segment(&token))).await?;
            output::line(&format!("{token} is worth nothing from now on"))
        }
    }
}
