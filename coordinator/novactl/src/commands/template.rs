//! Templates.

use super::{Context, segment};
use crate::{
    cli::TemplateVerb,
    error::CtlError,
    output::{self, Row},
};
use novacron_common::api::{ImageBody, TemplateCreate, TemplateView};
use std::{io::Read, path::Path};

impl Row for TemplateView {
    const TITLES: &'static [&'static str] = &["name", "boots", "disk", "id"];
    fn cells(&self) -> Vec<String> {
        let source = |image: &ImageBody| image.url.clone().or(image.path.clone()).unwrap_or_default();
        vec![
            self.name.clone(),
            if self.boot.is_some() { "kernel" } else { "disk" }.to_owned(),
            self.disk.as_ref().map_or_else(|| "-".into(), source),
            self.id.to_string(),
        ]
    }
}

pub async fn run(context: &Context, verb: TemplateVerb) -> Result<(), CtlError> {
    let client = &context.client;
    let path = |name: &str| format!("/api/v1/templates/{}", segment(name));
    match verb {
        TemplateVerb::Create { file } => {
            let body: TemplateCreate = serde_json::from_str(&read(&file)?)
                .map_err(|e| CtlError::Settings(format!("{}: {e}", file.display())))?;
            output::one(
                &client.post::<_, TemplateView>("/api/v1/templates", Some(&body)).await?,
                context.format,
                &[],
            )
        }
        TemplateVerb::List => {
            output::list(&client.all::<TemplateView>("/api/v1/templates", "").await?, context.format)
        }
        TemplateVerb::Show { template } => {
            output::one(&client.get::<TemplateView>(&path(&template)).await?, context.format, &[])
        }
        TemplateVerb::Delete { template } => {
            client.delete(&path(&template)).await?;
            output::line(&format!("{template} is gone"))
        }
    }
}

fn read(file: &Path) -> Result<String, CtlError> {
    let failed = || CtlError::local(format!("read {}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed())?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(failed())
}
