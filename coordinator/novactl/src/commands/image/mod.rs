//! Images for namespace machines: what a user has becomes one archive that goes by its content, and a template of it.
//!
//! What is in the archive is the agents' to judge: they check every digest that an image states when they unpack it. Here only what
//! would lead somebody astray before that is refused.

mod archive;
mod source;

use super::Context;
use crate::{
    cli::{ImageImportArgs, ImageVerb},
    error::CtlError,
    output,
};
use novacron_common::api::{ImageBody, TemplateCreate, TemplateView};
use source::Source;
use std::path::Path;

pub async fn run(context: &Context, verb: ImageVerb) -> Result<(), CtlError> {
    match verb {
        ImageVerb::Import(args) => import(context, args).await,
    }
}

async fn import(context: &Context, args: ImageImportArgs) -> Result<(), CtlError> {
    let name = args.name.map_or_else(|| usual_name(&args.source), Ok)?;
    let source = Source::of(&args.source)?;
    let (sha256, path) = archive::put(&source, &args.folder)?;
    let image = ImageBody {
        url: None,
        path: Some(path.display().to_string()),
        sha256: sha256.to_string(),
        format: source.format(),
    };
    let body = TemplateCreate { name, disk: Some(image), boot: None };
    let made: TemplateView = context.client.post("/api/v1/templates", Some(&body)).await?;
    output::one(&made, context.format, &[])
}

/// That of the file or folder, up to the first dot.
fn usual_name(source: &Path) -> Result<String, CtlError> {
    let whole = source.canonicalize().map_err(CtlError::local(format!("find {}", source.display())))?;
    let name = whole.file_name().and_then(|name| name.to_str()).and_then(|name| name.split('.').next());
    let name = name.filter(|name| !name.is_empty());
    name.map(str::to_lowercase)
        .ok_or_else(|| CtlError::Settings("give the template a name with --name".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_template_is_called_as_the_file_is() {
        let folder = tempfile::tempdir().unwrap();
        for (file, name) in [("Alpine.tar.gz", "alpine"), ("bookworm", "bookworm")] {
            std::fs::write(folder.path().join(file), "").unwrap();
            assert_eq!(usual_name(&folder.path().join(file)).unwrap(), name);
        }
        std::fs::write(folder.path().join(".hidden"), "").unwrap();
        assert!(usual_name(&folder.path().join(".hidden")).unwrap_err().to_string().contains("--name"));
        assert!(usual_name(Path::new("/")).is_err() && usual_name(&folder.path().join("none")).is_err());
    }
}
