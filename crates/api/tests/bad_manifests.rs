//! Bad manifests and what their authors are told, as one reviewed text.

mod common;

use std::fmt::Write as _;

use common::{admit, render_all, service};

fn head(rest: &str) -> String {
    format!("apiVersion: quaymaster.dev/v1alpha1\nkind: MiniService\n{rest}")
}

fn network(name: &str, spec: &str) -> String {
    format!("apiVersion: quaymaster.dev/v1alpha1\nkind: Network\nmetadata: {{name: {name}, namespace: n}}\nspec: {spec}\n")
}

fn check(cases: &[(&str, String)]) -> String {
    let mut out = String::new();
    for (title, text) in cases {
        let files = [("m.yaml", text.as_str())];
        let _ = writeln!(out, "== {title}\n{}", render_all(&admit(&files), &files));
    }
    out
}

fn in_container(title: &'static str, lines: &str) -> (&'static str, String) {
    let indented: String = lines.lines().map(|line| format!("    {line}\n")).collect();
    (title, service("n", "a", &indented))
}

fn in_spec(title: &'static str, lines: &str) -> (&'static str, String) {
    let indented: String = lines.lines().map(|line| format!("  {line}\n")).collect();
    (title, service("n", "a", &indented))
}

#[test]
fn texts_and_headers() {
    let cases = [
        ("not closed", head("metadata: {name: a, namespace: n\nspec: {}\n")),
        ("a tab", head("metadata:\n\tname: a\n")),
        ("unknown anchor", head("metadata: *m\n")),
        ("duplicate key", head("metadata: {name: a, name: b}\nspec: {container: {image: a}}\n")),
        ("a tag", head("metadata: {name: a}\nspec: {container: {image: !env IMAGE}}\n")),
        ("a list as key", head("metadata: {name: a}\nspec: {[a]: b}\n")),
        ("NUL", head("metadata: {name: \"a\0\"}\n")),
        ("foreign and unparsable", "a: [\n".to_owned()),
        ("foreign", "services: {web: {image: x}}\n---\napiVersion: v1\nkind: Service\n".to_owned()),
        ("version", "apiVersion: quaymaster.dev/v1\nkind: MiniService\nmetadata: {name: a}\nspec: {}\n".to_owned()),
        ("group with a typo", "apiVersion: quaymaster.de/v1alpha1\nkind: MiniService\nmetadata: {name: a}\nspec: {}\n".to_owned()),
        ("no version", "kind: MiniService\nmetadata: {name: a}\nspec: {}\n".to_owned()),
        ("kind", "apiVersion: quaymaster.dev/v1alpha1\nkind: Miniservice\nmetadata: {name: a}\nspec: {}\n".to_owned()),
        ("kind of the operator", "apiVersion: quaymaster.dev/v1alpha1\nkind: Intent\nmetadata: {name: a}\nspec: {}\n".to_owned()),
        ("nothing else", "apiVersion: quaymaster.dev/v1alpha1\n".to_owned()),
        ("no spec", head("metadata: {name: a}\n")),
        ("empty spec", head("metadata: {name: a}\nspec: {}\n")),
        (
            "metadata",
            head(
                "metadata: {Name: a, labels: {'a b': c, ok: 'x y', v: 1.10}, uid: u, finalizers: [x]}\nspec: {container: {image: a}}\nstatus: {}\nextra: 1\n",
            ),
        ),
        ("names", head("metadata: {name: My_App, namespace: 5}\nspec: {container: {image: a}}\n")),
        (
            "reserved",
            head(
                "metadata: {name: a, labels: {quaymaster.dev/uid: x}, annotations: {quaymaster.dev/adopt: old, quaymaster.dev/x: y}}\nspec: {container: {image: a}}\n",
            ),
        ),
    ];
    insta::assert_snapshot!(check(&cases));
}

#[test]
fn schema() {
    let cases = [
        in_container("unknown field", "replica: 2\nrestart_policy: Always\nenv_file: [a]"),
        in_container(
            "types",
            "replicas: two\nreadOnly: yes\ncommand: echo hi\nenv: [A=b]\nworkingDir: 5\nconfigs: [{name: c, target: /c, content: x, mode: 0444}]",
        ),
        in_container("quoted number", "replicas: \"2\""),
        in_container("enums", "restart: unless-stopped\npullPolicy: always\nports: [{target: 1, protocol: TCP}]"),
        in_container("ranges", "replicas: 100000\nports: [{target: 0}, {target: 70000}]\nimage2: x"),
        in_container("formats", "stopGracePeriod: 10 sec\nresources: {memory: 12Q, cpus: many}\nhealth: {tcp: {port: 80}, interval: 5}"),
        in_container("empty", "ports: [null]\nenv: {A: }\nhealth: {}"),
        in_container("required", "ports: [{published: 80}]\nvolumes: [{name: x}]"),
        in_spec("edge", "dependsOn: [{service: a, onDown: block, start: 5}, redis]"),
        ("no image", head("metadata: {name: a}\nspec:\n  container:\n    image:\n    replicas: 1\n")),
    ];
    insta::assert_snapshot!(check(&cases));
}

#[test]
fn rules() {
    let cases = [
        ("two forms", service("n", "a", "  external: {probe: {tcp: {host: h, port: 1}}}\n")),
        ("logical", head("metadata: {name: a}\nspec: {logical: {reportedBy: x}}\n")),
        ("job", head("metadata: {name: a}\nspec: {job: {container: {image: x}, steps: [{name: a, command: [x]}], retries: 0}}\n")),
        (
            "job that runs for ever",
            head(
                "metadata: {name: a}\nspec:\n  job:\n    container: {image: x, replicas: 2, restart: Always, health: {tcp: {port: 1}}, update: {}, command: [y]}\n    steps: [{name: a, command: [x]}, {name: a, command: [x]}, {name: A_b, command: []}]\n    timeZone: Europe/Zurich\n    concurrency: Allow\n    retries: -1\n    activeDeadline: 0s\n  dependsOn: [{service: b, onDown: Stop, onUp: Restart, onChange: Signal}]\n",
            ),
        ),
        (
            "job with steps that clash",
            head(
                "metadata: {name: a}\nspec:\n  job:\n    container: {image: x, replicas: 2, restart: Always, health: {tcp: {port: 1}}, update: {}, command: [y]}\n    steps: [{name: a, command: [x]}, {name: a, command: [x]}, {name: A_b, command: [x]}]\n    timeZone: Europe/Zurich\n    concurrency: Allow\n    activeDeadline: 0s\n  dependsOn: [{service: b, onDown: Stop, onUp: Restart, onChange: Signal}]\n",
            ),
        ),
        (
            "job with a bad schedule",
            head(
                "metadata: {name: a}\nspec:\n  job:\n    container: {image: x, ports: [{target: 1, published: 80}], networkOptions: {default: {ipv4: 10.0.0.2}}}\n    schedule: 61 * * * *\n    timeZone: Europe/Zuerich\n    concurrency: Allow\n    missedRuns: Skip\n",
            ),
        ),
        ("probe command", head("metadata: {name: a}\nspec: {external: {probe: {command: {image: 'No Image', command: []}}}}\n")),
        ("external", head("metadata: {name: a}\nspec: {external: {probe: {http: {url: 'ftp://x'}, redis: {url: x}}, interval: 0s}}\n")),
        in_container("image", "").into_with("busybox:1", "Example/App"),
        in_container("env", "env: {'A=B': x, '': y}"),
        in_container("networks", "networks: [data, data]\nnetworkOptions: {edge: {aliases: [A_b, 'x y'], ipv4: 300.1.1.1}}"),
        in_container("ports", "replicas: 2\nports: [{target: 80, published: 80, host: localhost}]"),
        in_container(
            "volumes",
            "volumes:\n- {name: a, bind: /x, target: /a}\n- {target: b}\n- {bind: x/y, target: /c}\n- {name: 'a/b', target: /c/}\n- {tmpfs: {mode: '888'}, target: /}\nconfigs: [{name: c, target: //c, content: x}, {name: d, target: /d, content: x, file: y}]",
        ),
        in_container("health", "health: {tcp: {port: 1}, command: [x]}"),
        in_container("health grpc", "health: {grpc: {port: 1}}"),
        in_container("health http", "health: {http: {port: 1, path: x, scheme: https, headers: {'a b': c}}, timeout: 0s}"),
        in_container("resources", "resources: {memory: 4Mi, cpus: 0, reservations: {memory: 1Gi, cpus: 2}}"),
        in_container(
            "process",
            "workingDir: x\nuser: ''\ncapAdd: [CAP_NET_ADMIN, net]\nstopSignal: SIGFOO\nulimits: {nofile: {soft: 2, hard: 1}}",
        ),
        in_container("host", "extraHosts: {a: b}\ndns: [x]\nlabels: {com.docker.compose.project: x}\nlogging: {driver: ''}"),
        in_container("start first", "ports: [{target: 1, published: 1}]\nvolumes: [{name: d, target: /d}]\nupdate: {order: StartFirst}"),
        in_container(
            "not in effect",
            "follow: Tag\nsecrets: [{name: s}]\nstatusSocket: true\nupdate: {order: StartFirst, delay: 1s, monitor: 1s, timeout: 1m, onFailure: Pause}",
        ),
        in_spec(
            "service not in effect",
            "critical: true\ndrift: {mode: Report}\ndependsOn: [{service: a, start: Skip, onDown: Degrade, tolerate: 5s, onUp: Rebuild, stage: Credentials}]",
        ),
        in_spec(
            "edges",
            "dependsOn:\n- {}\n- {service: b, name: c}\n- {kind: SecretStore, name: v}\n- {service: B}\n- {service: b, onUp: Restart, stage: Create}\n- {service: c, tolerate: Lease}\n- {service: c}",
        ),
        ("network", network("x", "{subnet: 10.0.0.1/8, gateway: g, zone: DMZ, encrypted: true, labels: {com.docker.stack.namespace: x}}")),
        ("gateway", network("x", "{subnet: 10.0.0.0/24, gateway: 10.0.1.1}")),
        ("gateway alone", network("x", "{gateway: 10.0.1.1}")),
    ];
    insta::assert_snapshot!(check(&cases));
}

fn parent(name: &str, spec: &str) -> String {
    format!("apiVersion: quaymaster.dev/v1alpha1\nkind: MiniContainer\nmetadata: {{name: {name}, namespace: n}}\nspec: {spec}\n")
}

fn labelled(name: &str, labels: &str, spec: &str) -> String {
    service("n", name, spec).replace("namespace: n}", &format!("namespace: n, labels: {labels}}}"))
}

/// A parent that makes services from a template with these lines and items.
fn maker(template: &str, items: &str) -> String {
    parent("made", &format!("\n  template:\n    spec:\n      container:\n        image: busybox:1\n{template}  items: {items}"))
}

#[test]
fn mini_containers() {
    let all = |texts: &[String]| texts.join("---\n");
    let cases = [
        ("neither", parent("p", "{}")),
        ("both", parent("p", "{selector: {matchLabels: {a: b}}, template: {spec: {container: {image: x}}}}")),
        ("an empty selector", parent("p", "{selector: {}}")),
        ("items without a template", parent("p", "{selector: {matchLabels: {a: b}}, items: [{name: x}]}")),
        (
            "bad requirements",
            parent("p", "{selector: {matchExpressions: [{key: a, operator: In}, {key: b, operator: Exists, values: [c]}]}}"),
        ),
        (
            "two owners",
            all(&[
                parent("p", "{selector: {matchLabels: {a: b}}}"),
                labelled("x", "{a: b}", ""),
                parent("q", "{selector: {matchExpressions: [{key: a, operator: Exists}]}}"),
            ]),
        ),
        ("the same item twice", maker("", "[{name: x}, {name: x}]")),
        ("an item that cannot be called so", maker("", "[{name: X_}]")),
        (
            "a value that is not there",
            maker("        env: {A: \"{{values.queue}}\"}\n", "[{name: x, values: {queue: q}}, {name: y, values: {que: q}}]"),
        ),
        ("a field of the template", maker("        replica: 2\n", "[{name: x}]")),
        ("a rule of the template", maker("        ports: [{target: 0}]\n", "[{name: x}, {name: y}]")),
        ("a network of the template", maker("        networks: [dta]\n", "[{name: x}, {name: y}]")),
        ("a name twice", all(&[maker("", "[{name: x}]"), service("n", "made-x", "")])),
        (
            "a cycle over a child",
            all(&[
                parent("p", "{selector: {matchLabels: {a: b}}}"),
                labelled("x", "{a: b}", "  dependsOn: [{kind: MiniContainer, name: p}]\n"),
            ]),
        ),
        (
            "no such parent",
            all(&[
                parent("shop", "{selector: {matchLabels: {a: b}}}"),
                service("n", "x", "  dependsOn: [{kind: MiniContainer, name: shp}]\n"),
            ]),
        ),
        (
            "a reload for a parent",
            all(&[
                parent("p", "{selector: {matchLabels: {a: b}}}"),
                service("n", "x", "  dependsOn: [{kind: MiniContainer, name: p, onUp: Restart}]\n"),
            ]),
        ),
    ];
    insta::assert_snapshot!(check(&cases));
}

trait IntoWith {
    fn into_with(self, from: &str, to: &str) -> Self;
}

impl IntoWith for (&'static str, String) {
    fn into_with(self, from: &str, to: &str) -> Self {
        (self.0, self.1.replace(from, to))
    }
}

#[test]
fn the_whole_set() {
    let two = |a: String, b: String| format!("{a}---\n{b}");
    let cases = [
        ("duplicate", two(service("n", "a", ""), service("n", "a", ""))),
        ("same container name", two(service("a-b", "c", ""), service("a", "b-c", ""))),
        ("network", two(service("n", "a", "    networks: [dta]\n"), network("data", "{}"))),
        ("network anywhere else", service("n", "a", "    networks: [data]\n")),
        ("dependency", two(service("n", "a", "  dependsOn: [{service: postgre}]\n"), service("n", "postgres", ""))),
        ("dependency in another namespace", two(service("n", "a", "  dependsOn: [{service: b}]\n"), service("m", "b", ""))),
        (
            "cycle",
            two(
                service("n", "a", "  dependsOn: [{service: b, namespace: m}]\n"),
                service("m", "b", "  dependsOn:\n  - {service: a, namespace: n}\n"),
            ),
        ),
        ("itself", service("n", "a", "  dependsOn: [{service: a}]\n")),
        (
            "no cycle",
            two(service("n", "a", "  dependsOn: [{service: b}]\n"), service("n", "b", "  dependsOn: [{service: a, onDown: Ignore}]\n")),
        ),
        (
            "host port",
            two(
                service("n", "a", "    ports: [{target: 1, published: 80}]\n"),
                service("m", "b", "    ports: [{target: 2, published: 80, host: 127.0.0.1}]\n"),
            ),
        ),
        (
            "host port elsewhere",
            two(
                service("n", "a", "    ports: [{target: 1, published: 80, host: 127.0.0.2}]\n"),
                service("m", "b", "    ports: [{target: 2, published: 80, host: 127.0.0.1}]\n"),
            ),
        ),
        (
            "volume",
            two(
                service("n", "a", "    replicas: 2\n    volumes: [{name: v, target: /v}]\n"),
                service("n", "b", "    volumes: [{name: v, target: /v, readOnly: true}]\n"),
            ),
        ),
        ("subnets", two(network("x", "{subnet: 10.1.0.0/16}"), network("y", "{subnet: 10.1.2.0/24}"))),
        (
            "addresses",
            format!(
                "{}---\n{}---\n{}",
                network("x", "{subnet: 10.1.0.0/16}"),
                service("n", "a", "    networks: [x]\n    networkOptions: {x: {ipv4: 10.2.0.5}}\n"),
                service("n", "b", "    networkOptions: {default: {ipv4: 10.2.0.5}}\n")
            ),
        ),
        ("files", service("n", "a", "    envFile: [gone.env, ../up.env]\n")),
        (
            "list",
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret}\n- apiVersion: quaymaster.dev/v1alpha1\n  kind: MiniService\n  metadata: {name: a}\n  spec: {container: {image: x, foo: 1}}\n".to_owned(),
        ),
    ];
    insta::assert_snapshot!(check(&cases));
}
