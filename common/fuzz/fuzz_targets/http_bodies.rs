//! Request bodies as strangers send them: no JSON panics the checks, and a specification that passes them is one that
//! the ledger can hold: it encodes within the wire's limit and reads back as itself.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use novacron_common::api::{JobCreate, JobUpdate, MigrateRequest, TemplateCreate, VmCreate};
use novacron_common::spec::{JobSpec, TemplateSpec};
use novacron_common::wire::codec;
use serde::{Serialize, de::DeserializeOwned};

fn body<T: DeserializeOwned>(text: &[u8]) -> Option<T> {
    serde_json::from_slice(text).ok()
}

fn kept_by_the_ledger<T: Serialize + DeserializeOwned + PartialEq>(spec: &T) {
    let bytes = codec::encode(spec).expect("what passed the checks fits a frame");
    let read: T = codec::decode(&bytes).expect("what we encoded we decode");
    assert!(read == *spec, "another specification came back");
}

static TEMPLATE: LazyLock<TemplateSpec> = LazyLock::new(|| {
    let text = include_bytes!("../seeds/http_bodies/template.json");
    let body: TemplateCreate = body(text).expect("the seed is a template");
    TemplateSpec::try_from(&body).expect("the seed passes the checks")
});

static JOB: LazyLock<JobSpec> = LazyLock::new(|| {
    let body: JobCreate = body(include_bytes!("../seeds/http_bodies/job.json")).expect("the seed is a job");
    JobSpec::try_from(&body).expect("the seed passes the checks")
});

fuzz_target!(|data: &[u8]| {
    if let Some(template) = body::<TemplateCreate>(data).and_then(|body| TemplateSpec::try_from(&body).ok()) {
        kept_by_the_ledger(&template);
    }
    if let Some(vm) = body::<VmCreate>(data).and_then(|body| body.to_spec(&TEMPLATE, None).ok()) {
        kept_by_the_ledger(&vm);
    }
    if let Some(job) = body::<JobCreate>(data).and_then(|body| JobSpec::try_from(&body).ok()) {
        kept_by_the_ledger(&job);
    }
    if let Some(job) = body::<JobUpdate>(data).and_then(|body| body.apply_to(&JOB).ok()) {
        kept_by_the_ledger(&job);
    }
    body::<MigrateRequest>(data);
});
