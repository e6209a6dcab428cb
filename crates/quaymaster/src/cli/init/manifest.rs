//! Services and networks as the text of a manifest, with comments about what could not be said in it.

use std::collections::BTreeMap;

use qm_api::spec::container::Container;
use qm_api::spec::names;
use serde_json::{Map, Value, json};

use crate::cli::CliError;
use crate::output;

/// Parts of the names of variables that hold secrets, as people write them.
const SECRETS: [&str; 4] = ["PASSWORD", "SECRET", "TOKEN", "PRIVATE_KEY"];

/// What `init` writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Written {
    /// The manifests.
    pub(super) text: String,
    /// How many objects they are.
    pub(super) objects: usize,
    /// What has no counterpart, a line each.
    pub(super) listed: Vec<String>,
}

/// A network in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Network {
    pub(super) spec: Map<String, Value>,
    /// The engine name of the network to adopt.
    pub(super) adopt: Option<String>,
}

/// A service in the making.
#[derive(Clone, Debug, Default)]
pub(super) struct Service {
    pub(super) container: Container,
    /// The names of services that its start waits for.
    pub(super) waits_for: Vec<String>,
    /// Containers to adopt.
    pub(super) adopt: Vec<String>,
    /// What has no counterpart: it is kept until the container is replaced.
    pub(super) lost: Vec<String>,
}

/// Everything of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Draft {
    pub(super) namespace: String,
    pub(super) networks: BTreeMap<String, Network>,
    pub(super) services: BTreeMap<String, Service>,
    /// Services that cannot be taken over, with why.
    pub(super) left_out: BTreeMap<String, Vec<String>>,
    /// What else has no counterpart.
    pub(super) listed: Vec<String>,
}

/// A namespace, given or from a project's name.
pub(super) fn namespace(given: Option<&str>, project: &str) -> Result<String, CliError> {
    let namespace = given.map_or_else(|| project.to_owned(), str::to_owned);
    match names::label_error(&namespace) {
        None => Ok(namespace),
        Some(problem) if given.is_none() => {
            Err(CliError::Usage(format!("the project's name {project} cannot be a namespace ({problem}): give one with --namespace")))
        }
        Some(problem) => Err(CliError::Usage(format!("{namespace} cannot be a namespace: {problem}"))),
    }
}

/// A name as an object may have it: Compose allows more.
pub(super) fn object_name(name: &str) -> String {
    let clean: String = name.to_ascii_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    clean.trim_matches('-').to_owned()
}

impl Draft {
    pub(super) fn write(mut self) -> Written {
        self.share_volumes();
        let mut written = Written::default();
        for (name, why) in &self.left_out {
            let line = format!("{name} is left out and stays as it is; it has {}", why.join(", "));
            written.text.push_str(&format!("# {line}\n"));
            written.listed.push(line);
        }
        for line in &self.listed {
            written.text.push_str(&format!("# {line}\n"));
            written.listed.push(line.clone());
        }
        for (name, network) in &self.networks {
            let metadata = self.metadata(name, network.adopt.as_slice());
            written.push("Network", &metadata, &json!(network.spec), &[]);
        }
        for (name, service) in &self.services {
            let mut lost: Vec<String> = service.lost.iter().map(|what| format!("{name}: no field yet for {what}")).collect();
            let secret = |key: &&String| SECRETS.iter().any(|word| key.to_ascii_uppercase().contains(word));
            lost.extend(service.container.env.keys().filter(secret).map(|key| format!("{name}: {key} is written here in clear")));
            let mut spec = json!({ "container": service.container });
            let edges: Vec<Value> = service
                .waits_for
                .iter()
                .filter(|on| self.services.contains_key(*on))
                .map(|on| json!({ "service": on, "start": "Wait", "onDown": "Ignore" }))
                .collect();
            if !edges.is_empty() {
                spec["dependsOn"] = json!(edges);
            }
            written.push("MiniService", &self.metadata(name, &service.adopt), &spec, &lost);
        }
        written
    }

    /// A volume that several services write is said to be shared.
    fn share_volumes(&mut self) {
        let mut users: BTreeMap<String, u32> = BTreeMap::new();
        for service in self.services.values() {
            for volume in service.container.volumes.iter().filter_map(|m| m.name.clone()) {
                *users.entry(volume).or_default() += service.container.replicas.unwrap_or(1);
            }
        }
        let is_shared = |name: &Option<String>| name.as_ref().is_some_and(|name| users.get(name).is_some_and(|n| *n > 1));
        for service in self.services.values_mut() {
            for mount in service.container.volumes.iter_mut().filter(|m| is_shared(&m.name)) {
                mount.shared = Some(true);
            }
        }
    }

    fn metadata(&self, name: &str, adopt: &[String]) -> Value {
        let mut metadata = json!({ "name": name, "namespace": self.namespace });
        if !adopt.is_empty() {
            metadata["annotations"] = json!({ "quaymaster.dev/adopt": adopt.join(",") });
        }
        metadata
    }
}

impl Written {
    fn push(&mut self, kind: &str, metadata: &Value, spec: &Value, lost: &[String]) {
        self.text.push_str("---\n");
        for line in lost {
            self.text.push_str(&format!("# {line}\n"));
            self.listed.push(line.clone());
        }
        // The head first, as people write it.
        self.text.push_str(&format!("apiVersion: quaymaster.dev/v1alpha1\nkind: {kind}\n"));
        self.text.push_str(&output::yaml(&json!({ "metadata": metadata })));
        self.text.push_str(&output::yaml(&json!({ "spec": spec })));
        self.objects += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_objects() {
        for (given, name) in [("web", "web"), ("My_App.v2", "my-app-v2"), ("_x_", "x")] {
            assert_eq!(object_name(given), name);
        }
    }

    #[test]
    fn a_project_that_is_no_namespace_asks_for_one() {
        assert!(namespace(None, "my_shop").unwrap_err().to_string().contains("--namespace"));
        assert_eq!(namespace(Some("shop"), "my_shop").unwrap(), "shop");
    }
}
