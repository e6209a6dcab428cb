//! Small manifests: services that run from `busybox:local`, start in a moment and end in a moment.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Serves one page for ever.
const SERVE: &str = "mkdir -p /www; echo fine >/www/index.html; exec httpd -f -p 8080 -h /www";

/// A mini service in the making.
#[derive(Clone, Debug)]
pub struct Service {
    name: String,
    labels: Map<String, Value>,
    spec: Map<String, Value>,
    container: Map<String, Value>,
    edges: Vec<Value>,
}

/// A service that sleeps: running is healthy.
pub fn sleeper(name: &str) -> Service {
    Service::new(name, "busybox:local", &["sleep", "86400"])
}

/// A service that serves `fine` over HTTP and is asked for it often.
pub fn web(name: &str) -> Service {
    let health =
        json!({ "http": { "port": 8080, "path": "/index.html" }, "interval": "1s", "timeout": "2s", "retries": 3, "startPeriod": "20s" });
    Service::new(name, "busybox:local", &["sh", "-c", SERVE]).set("health", health)
}

/// Like [`web`], but it begins to serve only after some seconds.
pub fn slow_web(name: &str, seconds: f32) -> Service {
    let line = format!("sleep {seconds}; {SERVE}");
    web(name).set("command", json!(["sh", "-c", line]))
}

impl Service {
    fn new(name: &str, image: &str, command: &[&str]) -> Self {
        let mut container = Map::new();
        container.insert("image".to_owned(), image.into());
        container.insert("command".to_owned(), json!(command));
        container.insert("init".to_owned(), true.into());
        container.insert("stopGracePeriod".to_owned(), "2s".into());
        Self { name: name.to_owned(), labels: Map::new(), spec: Map::new(), container, edges: Vec::new() }
    }

    /// Sets a field of `spec.container`.
    #[must_use]
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.container.insert(field.to_owned(), value);
        self
    }

    /// Sets a field of `spec`.
    #[must_use]
    pub fn spec(mut self, field: &str, value: Value) -> Self {
        self.spec.insert(field.to_owned(), value);
        self
    }

    /// Is no container but something else: `external`, `logical`, `job`.
    #[must_use]
    pub fn only(mut self, form: &str, value: Value) -> Self {
        self.container.clear();
        self.spec(form, value)
    }

    /// Is a job, with these fields beside its container.
    #[must_use]
    pub fn job(mut self, fields: Value) -> Self {
        let mut job = fields.as_object().cloned().unwrap_or_default();
        let mut container = std::mem::take(&mut self.container);
        if job.contains_key("steps") {
            container.remove("command");
        }
        job.insert("container".to_owned(), container.into());
        self.spec("job", job.into())
    }

    /// Uses another image.
    #[must_use]
    pub fn image(self, reference: &str) -> Self {
        self.set("image", reference.into())
    }

    /// Depends on a service, in the default way.
    #[must_use]
    pub fn needs(self, service: &str) -> Self {
        self.edge(json!({ "service": service }))
    }

    /// Depends on something in a way of its own.
    #[must_use]
    pub fn edge(mut self, edge: Value) -> Self {
        self.edges.push(edge);
        self
    }

    /// The document.
    pub fn document(&self, namespace: &str) -> Value {
        let mut spec = self.spec.clone();
        if !self.container.is_empty() {
            spec.insert("container".to_owned(), self.container.clone().into());
        }
        if !self.edges.is_empty() {
            spec.insert("dependsOn".to_owned(), self.edges.clone().into());
        }
        json!({
            "apiVersion": "quaymaster.dev/v1alpha1", "kind": "MiniService",
            "metadata": { "name": self.name, "namespace": namespace, "labels": self.labels }, "spec": spec,
        })
    }
}

/// A network.
pub fn network(namespace: &str, name: &str) -> Value {
    json!({ "apiVersion": "quaymaster.dev/v1alpha1", "kind": "Network", "metadata": { "name": name, "namespace": namespace }, "spec": {} })
}

/// Documents as one file's text. JSON is YAML.
pub fn text(documents: &[Value]) -> String {
    let documents: Vec<String> = documents.iter().map(|d| format!("{d:#}\n")).collect();
    documents.join("---\n")
}

/// Puts a text in a file's place in one step, as a careful editor does.
pub fn put(path: &Path, text: &str) {
    let mut name = path.file_name().expect("a file has a name").to_os_string();
    name.push(".tmp~");
    let new = path.with_file_name(name);
    fs::write(&new, text).unwrap_or_else(|e| panic!("{}: {e}", new.display()));
    fs::rename(&new, path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
}
