//! Binds the names in a drill to the services of its manifests. Pure.

use std::collections::BTreeMap;

use qm_api::admit::Candidate;
use qm_api::codes::Code;
use qm_api::field::Problem;
use qm_api::kinds::mini_service::KIND as SERVICE;
use qm_api::manifest::walk::{list_words, suggest};
use qm_api::meta::ObjectKey;
use serde_json::Value;

use super::format::{Act, Claim, Drill, Expected, Fault, Quality, Said, Spot, Step, Verb, What};

/// What a service is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Container,
    External,
    Logical,
    Job,
    /// A node of another kind: it can be expected of, and nothing can be done to it.
    Other,
}

/// Everything that the manifests put into the graph.
#[derive(Clone, Debug, Default)]
pub(crate) struct Nodes(BTreeMap<ObjectKey, Form>);

impl Nodes {
    /// The nodes among admitted objects.
    pub(crate) fn of(objects: &[Candidate]) -> Self {
        Self(objects.iter().filter(|o| o.key.kind != "Network").map(|o| (o.key.clone(), form(&o.key, &o.spec))).collect())
    }

    /// Who is meant.
    ///
    /// # Errors
    /// What is wrong with the name, and what to do.
    pub(crate) fn find(&self, name: &str) -> Result<(&ObjectKey, Form), (String, String)> {
        let fits = |key: &ObjectKey| match name.split_once('/') {
            Some((namespace, name)) => key.namespace == namespace && key.name == name,
            None => key.name == name,
        };
        let found: Vec<(&ObjectKey, Form)> = self.0.iter().filter(|(key, _)| fits(key)).map(|(key, form)| (key, *form)).collect();
        // A mini service is meant before its parent of the same name.
        let services: Vec<_> = found.iter().filter(|(key, _)| key.kind == SERVICE).copied().collect();
        match (services.as_slice(), found.as_slice()) {
            ([one], _) | ([], [one]) => Ok(*one),
            ([], []) => Err((format!("there is no service `{name}` in the manifests"), self.near(name))),
            (many, all) => {
                let many = if many.is_empty() { all } else { many };
                let names: Vec<String> = many.iter().map(|(key, _)| shown(key)).collect();
                let names = list_words(names.iter().map(String::as_str));
                Err((format!("`{name}` is the name of several services"), format!("write the namespace too: {names}")))
            }
        }
    }

    fn near(&self, name: &str) -> String {
        let full: Vec<String> = self.0.keys().map(shown).collect();
        let short = self.0.keys().map(|key| key.name.as_str());
        // Who writes the namespace may have it wrong as well.
        let bare = name.rsplit('/').next().unwrap_or(name);
        let near = match name.contains('/') {
            true => suggest(name, full.iter().map(String::as_str))
                .or_else(|| full.iter().map(String::as_str).find(|f| f.ends_with(&format!("/{bare}")))),
            false => suggest(name, short),
        };
        match near {
            Some(near) => format!("did you mean `{near}`?"),
            None if full.is_empty() => "the manifests have no services".to_owned(),
            None => {
                let some: Vec<&str> = full.iter().take(8).map(String::as_str).collect();
                let more = if full.len() > some.len() { format!(" and {} more", full.len() - some.len()) } else { String::new() };
                format!("there are {}{more}", some.join(", "))
            }
        }
    }
}

/// A node as people name it.
pub(crate) fn shown(key: &ObjectKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

fn form(key: &ObjectKey, spec: &Value) -> Form {
    let has = |form: &str| spec[form].is_object();
    match () {
        () if key.kind != SERVICE => Form::Other,
        () if has("external") => Form::External,
        () if has("logical") => Form::Logical,
        () if has("job") => Form::Job,
        () => Form::Container,
    }
}

/// Binds every name of a drill.
///
/// # Errors
/// Every name that means no service, or one with which that cannot be done.
pub(crate) fn bind(drill: Drill<Said>, nodes: &Nodes) -> Result<Drill<ObjectKey>, Vec<Fault>> {
    let mut binder = Binder { nodes, faults: Vec::new() };
    let steps: Vec<Step<ObjectKey>> = drill.steps.into_iter().map(|step| Step { at: step.at, what: binder.what(step.what) }).collect();
    if binder.faults.is_empty() { Ok(Drill { name: drill.name, given: drill.given, steps }) } else { Err(binder.faults) }
}

/// Whether something can be done to a node of this form.
///
/// # Errors
/// Why not, and what to do instead.
pub(crate) fn suits(verb: Verb, form: Form) -> Result<(), (&'static str, &'static str)> {
    const DOWN: &str = "`down SERVICE for TIME` makes it unavailable";
    match (verb, form) {
        (_, Form::Other) => Err(("is no mini service: nothing can be done to it", "name one of its services")),
        (Verb::Block { .. } | Verb::Unblock, _) => Ok(()),
        (Verb::Crash, Form::External | Form::Logical) => Err(("has no container that could crash", DOWN)),
        (Verb::Slow { .. }, Form::Logical) => Err(("is a part of an app, which reports: it has no answers that could be slow", DOWN)),
        (_, Form::Job) => Err(("is a job, which runs to its end", "`given.world` says how its container ends")),
        (Verb::Down { .. } | Verb::Up | Verb::Slow { .. }, Form::Container | Form::External | Form::Logical) => Ok(()),
        (Verb::Crash, Form::Container) => Ok(()),
    }
}

struct Binder<'a> {
    nodes: &'a Nodes,
    faults: Vec<Fault>,
}

impl Binder<'_> {
    fn fault(&mut self, code: Code, at: &Spot, message: String, help: String) {
        self.faults.push((Problem::error(code, at.path.clone(), message).help(help), at.span));
    }

    fn find(&mut self, said: &Said) -> Option<(ObjectKey, Form)> {
        match self.nodes.find(&said.text) {
            Ok((key, form)) => Some((key.clone(), form)),
            Err((message, help)) => {
                self.fault(Code::WrongValue, &said.at, message, help);
                None
            }
        }
    }

    fn all(&mut self, said: &[Said]) -> Vec<ObjectKey> {
        said.iter().filter_map(|said| self.find(said)).map(|(key, _)| key).collect()
    }

    fn what(&mut self, what: What<Said>) -> What<ObjectKey> {
        match what {
            What::Do(acts) => What::Do(acts.into_iter().filter_map(|act| self.act(act)).collect()),
            What::Expect(expected) => What::Expect(expected.into_iter().filter_map(|one| self.expected(one)).collect()),
        }
    }

    fn act(&mut self, act: Act<Said>) -> Option<Act<ObjectKey>> {
        let (on, form) = self.find(&act.on)?;
        if let Err((why, help)) = suits(act.verb, form) {
            self.fault(Code::BadCombination, &act.at, format!("{} {why}", shown(&on)), help.to_owned());
            return None;
        }
        Some(Act { verb: act.verb, on, text: act.text, at: act.at })
    }

    fn expected(&mut self, expected: Expected<Said>) -> Option<Expected<ObjectKey>> {
        let what = match expected.what {
            Claim::Of(said, quality) => {
                let quality = match quality {
                    Quality::Because(said) => Quality::Because(self.all(&said)),
                    Quality::Availability(a) => Quality::Availability(a),
                    Quality::Usable(usable) => Quality::Usable(usable),
                    Quality::Reason(reason) => Quality::Reason(reason),
                    Quality::Reloads(count) => Quality::Reloads(count),
                    Quality::Restarts(count) => Quality::Restarts(count),
                    Quality::Events(reasons) => Quality::Events(reasons),
                };
                // One name, one fault, however much is expected of it.
                let is_told = self.faults.iter().any(|(problem, span)| *span == said.at.span && problem.path == said.at.path);
                let (on, form) = if is_told { None } else { self.find(&said) }?;
                if form == Form::Other && matches!(quality, Quality::Restarts(_) | Quality::Reloads(_)) {
                    let message = format!("{} is no mini service: it has nothing that restarts or reloads", shown(&on));
                    self.fault(Code::BadCombination, &expected.at, message, "say it of its services".to_owned());
                    return None;
                }
                Claim::Of(on, quality)
            }
            Claim::All(together) => Claim::All(together),
            Claim::Restarts(count) => Claim::Restarts(count),
            Claim::Reloads(count) => Claim::Reloads(count),
            Claim::Order(said) => Claim::Order(self.all(&said)),
            Claim::Events(reasons) => Claim::Events(reasons),
        };
        Some(Expected { what, at: expected.at })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::drill::format::parse;

    fn nodes() -> Nodes {
        let node = |kind: &str, namespace: &str, name: &str, spec: Value| {
            let key = ObjectKey::new(kind, namespace, name);
            let form = form(&key, &spec);
            (key, form)
        };
        Nodes(BTreeMap::from([
            node(SERVICE, "notify", "vault", json!({ "external": {} })),
            node(SERVICE, "notify", "app-db", json!({ "logical": {} })),
            node(SERVICE, "notify", "app", json!({ "container": {} })),
            node(SERVICE, "notify", "init", json!({ "job": {} })),
            node(SERVICE, "shop", "app", json!({ "container": {} })),
            node("MiniContainer", "notify", "vault", json!({})),
            node("MiniContainer", "notify", "stores", json!({})),
        ]))
    }

    #[test]
    fn names_are_found_where_they_are_clear() {
        let nodes = nodes();
        let found = |name: &str| nodes.find(name).map(|(key, _)| key.to_string());
        assert_eq!(found("vault"), Ok("MiniService notify/vault".to_owned()), "a service is meant before its parent");
        assert_eq!(found("shop/app"), Ok("MiniService shop/app".to_owned()));
        assert_eq!(found("stores"), Ok("MiniContainer notify/stores".to_owned()));
        let wrong = |name: &str| nodes.find(name).map(|_| ()).unwrap_err();
        assert_eq!(
            wrong("app"),
            ("`app` is the name of several services".to_owned(), "write the namespace too: `notify/app` and `shop/app`".to_owned())
        );
        assert_eq!(wrong("vualt"), ("there is no service `vualt` in the manifests".to_owned(), "did you mean `vault`?".to_owned()));
        assert_eq!(wrong("shop/vault").1, "did you mean `notify/vault`?");
        assert!(wrong("quite-another").1.starts_with("there are notify/"), "{:?}", wrong("quite-another"));
    }

    #[test]
    fn what_cannot_be_done_is_refused_with_what_can() {
        let drill = |act: &str| {
            let drills = parse(&"x".into(), format!("drill: d\nsteps: [{{at: 0s, do: {act}}}]\n").as_bytes()).unwrap();
            bind(drills.into_iter().next().unwrap(), &nodes()).map(|_| ()).map_err(|faults| faults[0].0.message.clone())
        };
        for fine in ["down vault for 1m", "slow vault 5s", "down app-db", "block init", "crash shop/app", "up app-db", "unblock vault"] {
            assert_eq!(drill(fine), Ok(()), "{fine}");
        }
        for (act, why) in [
            ("crash vault", "notify/vault has no container that could crash"),
            ("slow app-db 5s", "notify/app-db is a part of an app, which reports: it has no answers that could be slow"),
            ("down init", "notify/init is a job, which runs to its end"),
            ("down stores", "notify/stores is no mini service: nothing can be done to it"),
            ("down nobody", "there is no service `nobody` in the manifests"),
        ] {
            assert_eq!(drill(act), Err(why.to_owned()), "{act}");
        }
    }

    #[test]
    fn a_wrong_name_is_told_once_and_every_wrong_name_is_told() {
        let text =
            "drill: d\nsteps: [{at: end, expect: {vualt: {usable: true, restarts: 0}, app-db: {because: redsi}, order: [vault, nope]}}]\n";
        let drills = parse(&"x".into(), text.as_bytes()).unwrap();
        let faults = bind(drills.into_iter().next().unwrap(), &nodes()).unwrap_err();
        let found: Vec<&str> = faults.iter().map(|(problem, _)| problem.message.as_str()).collect();
        let missing = |name: &str| format!("there is no service `{name}` in the manifests");
        assert_eq!(found, [missing("vualt"), missing("redsi"), missing("nope")]);
    }
}
