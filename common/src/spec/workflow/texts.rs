//! The texts of a target that may be templates.

use super::{
    reference::Values,
    template::{OPEN, Template},
};
use crate::{
    api::JobTargetBody,
    spec::{Faults, JobTarget, Program, VmVerb},
};

/// Longest text that a template may become: an argument, a variable, a header or a body.
const RENDERED_MAX: usize = 16 * 1024;

fn of_program(program: &mut Program) -> impl Iterator<Item = &mut String> {
    let env = program.env.iter_mut().map(|(_, value)| value);
    program.argv.iter_mut().chain(env).chain(&mut program.working_dir).chain(&mut program.stdin)
}

/// Each text of the target that may be a template.
pub fn texts(target: &mut JobTarget) -> Vec<&mut String> {
    match target {
        JobTarget::Noop | JobTarget::Record => Vec::new(),
        JobTarget::Command(c) => of_program(&mut c.program).collect(),
        JobTarget::VmCommand(c) => of_program(&mut c.program).chain(std::iter::once(&mut c.vm)).collect(),
        JobTarget::Vm(v) => {
            let host = match &mut v.verb {
                VmVerb::Migrate { target, .. } => target.as_mut(),
                VmVerb::Start | VmVerb::Stop { .. } | VmVerb::Restart => None,
            };
            std::iter::once(&mut v.vm).chain(host).collect()
        }
        JobTarget::Http(h) => {
            let headers = h.headers.iter_mut().map(|(_, value)| value);
            std::iter::once(&mut h.url).chain(headers).chain(&mut h.body).collect()
        }
    }
}

/// The target with its values, checked as if it had been written so.
///
/// # Errors
/// The reference that has no value, or what is wrong with what came out.
pub fn render(target: &JobTarget, values: &dyn Values) -> Result<JobTarget, String> {
    let mut target = target.clone();
    let mut rendered = false;
    for text in texts(&mut target) {
        if Template::is_one(text) {
            *text = Template::parse(text).map_err(|e| e.to_string())?.render(values, RENDERED_MAX)?;
            rendered = true;
        }
    }
    if !rendered {
        return Ok(target);
    }
    let mut faults = Faults::default();
    let checked = JobTargetBody::from(&target).check("config", &mut faults);
    faults.into_result(Some(checked)).map_err(|faults| format!("with its values: {faults}"))
}

/// `{{ x }}` as `{{x}}`: some texts (a machine's name, a URL) must not have spaces, and a reference has none.
pub fn squeeze(text: &str) -> String {
    let mut squeezed = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, inside)) = rest.split_once(OPEN) {
        squeezed.push_str(before);
        squeezed.push_str(OPEN);
        match inside.split_once("}}") {
            Some((inside, behind)) if !inside.contains('"') => {
                squeezed.push_str(inside.trim());
                squeezed.push_str("}}");
                rest = behind;
            }
            _ => rest = inside,
        }
    }
    squeezed + rest
}

#[cfg(test)]
mod tests {
    use super::squeeze;

    #[test]
    fn only_the_space_inside_braces_goes() {
        assert_eq!(squeeze("a {{ run.input.x }} b {{y}}"), "a {{run.input.x}} b {{y}}");
        assert_eq!(squeeze("{{ \"{{\" }} and {{ open"), "{{ \"{{\" }} and {{ open");
    }
}
