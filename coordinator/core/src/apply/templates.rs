//! Image definitions.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::TemplatePut,
    record::TemplateRecord,
    state::State,
};
use novacron_common::ids::TemplateId;

pub(super) fn put(state: &mut State, c: TemplatePut) -> Outcome {
    if state.index().template_named(&c.spec.name).is_some_and(|other| other != c.id) {
        return Err(Refusal::name_taken("template", &c.spec.name));
    }
    let created_at = state.template(c.id).map_or(state.now(), |old| old.created_at);
    let record = TemplateRecord { id: c.id, spec: c.spec, created_at };
    super::fits(&record, "boot.cmdline")?;
    state.write(record);
    Ok(Applied::TemplateStored(c.id))
}

pub(super) fn remove(state: &mut State, id: TemplateId) -> Outcome {
    if state.template(id).is_none() {
        return Err(Refusal::not_found("template", id));
    }
    state.erase::<TemplateRecord>(&id);
    Ok(Applied::Done)
}
