//! The acts of a person: `reconcile`, `suspend`, `resume`, `block`, `unblock`, `approve`, `retry`, `restart`, `rollback`. Each is one POST, answered with the `Intent` that
//! was recorded. Start at [`post`].

use clap::Args;
use qm_api::kinds::intent::{Act, Scope};
use qm_api::spec::quantity::Duration;
use serde_json::{Map, Value, json};

use super::target::{BASE, Target, namespace_name, namespace_or_default, object_path, target};
use super::{CliError, Connect, Done, End, duration};
use crate::client::Client;
use crate::output::{self, cell};

/// What an act is about: one object, a namespace, a source, or all.
#[derive(Clone, Debug, Args)]
#[group(id = "about")]
struct Wide {
    /// One object, KIND/NAME
    #[arg(value_name = "KIND/NAME", value_parser = target)]
    target: Option<Target>,
    /// The namespace of the object; without an object, the whole namespace
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// Everything
    #[arg(long, conflicts_with_all = ["target", "namespace"])]
    all: bool,
}

/// Why, for those who look later.
#[derive(Clone, Debug, Args)]
pub(super) struct Why {
    /// Why, for those who look later
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Plan again now, without waiting for a change
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster reconcile msvc/app -n notify
  quaymaster reconcile -n notify
  quaymaster reconcile --all")]
pub(crate) struct ReconcileArgs {
    #[command(flatten)]
    about: Wide,
    #[command(flatten)]
    connect: Connect,
}

/// Observe and report, but write nothing
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster suspend msvc/app -n notify --for 1h --reason debugging
  quaymaster suspend -n notify
  quaymaster suspend --source /srv/manifests")]
pub(crate) struct SuspendArgs {
    #[command(flatten)]
    about: Wide,
    /// All objects of one source, by its id (see `status`)
    #[arg(long, value_name = "ID", conflicts_with_all = ["target", "namespace", "all"])]
    source: Option<String>,
    /// Resume by itself after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasting: Option<Duration>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// End a suspension
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster resume msvc/app -n notify
  quaymaster resume --all")]
pub(crate) struct ResumeArgs {
    #[command(flatten)]
    about: Wide,
    /// All objects of one source, by its id (see `status`)
    #[arg(long, value_name = "ID", conflicts_with_all = ["target", "namespace", "all"])]
    source: Option<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// Say that a service is not to be used
///
/// It is TemporarilyUnavailable for everybody, and those that depend on it follow their edges, until it is unblocked. Its containers go on
/// running and being looked after. Nobody is stopped because of it; when it is over it counts as changed, and not as returned.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster block msvc/db -n notify --for 30m --reason restore
  quaymaster block -n notify")]
pub(crate) struct BlockArgs {
    #[command(flatten)]
    about: Wide,
    /// Unblock by itself after this time
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    lasting: Option<Duration>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// Let a blocked service be used again
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster unblock msvc/db -n notify
  quaymaster unblock --all")]
pub(crate) struct UnblockArgs {
    #[command(flatten)]
    about: Wide,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// Forget spent budgets and failures, and try again
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster retry msvc/app -n notify
  quaymaster retry --all")]
pub(crate) struct RetryArgs {
    #[command(flatten)]
    about: Wide,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// Stop and start the containers of a service
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster restart msvc/app -n notify
  quaymaster restart msvc/app -n notify --reason 'new-certificate'")]
pub(crate) struct RestartArgs {
    /// The service, msvc/NAME or NAME
    #[arg(value_name = "SERVICE", value_parser = super::target::service)]
    service: Target,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// Go back to an older revision of a service
///
/// The manifest stays as it is. The older revision runs until the manifest changes, or until `quaymaster retry`. `quaymaster describe` lists
/// the revisions; only one whose rollout was complete once can be gone back to. What can change in place, such as limits, networks and the
/// number of replicas, stays as the manifest says.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster rollback msvc/app -n notify
  quaymaster rollback msvc/app -n notify --to 3 --reason 'lost-orders'")]
pub(crate) struct RollbackArgs {
    /// The service, msvc/NAME or NAME
    #[arg(value_name = "SERVICE", value_parser = super::target::service)]
    service: Target,
    /// The namespace [default: default]
    #[arg(short, long, value_name = "NS", value_parser = namespace_name)]
    namespace: Option<String>,
    /// The revision to go back to [default: the newest good one before that which runs]
    #[arg(long, value_name = "REVISION")]
    to: Option<u64>,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

/// Let a step go on that waits for approval
///
/// `quaymaster plan` and `quaymaster status` print the hashes of what waits. A plan that changes asks again.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster approve 3f9a1c
  quaymaster approve 3f9a1c --reason decommissioned")]
pub(crate) struct ApproveArgs {
    /// The hash of the step, or its beginning
    #[arg(value_name = "HASH", value_parser = hash_prefix)]
    hash: String,
    #[command(flatten)]
    why: Why,
    #[command(flatten)]
    connect: Connect,
}

fn hash_prefix(text: &str) -> Result<String, String> {
    let text = text.trim_start_matches("sha256:").to_ascii_lowercase();
    let is_hex = text.chars().all(|c| c.is_ascii_hexdigit());
    if (4..=64).contains(&text.len()) && is_hex {
        Ok(text)
    } else {
        Err("give 4 to 64 hexadecimal digits, as `plan` prints them".to_owned())
    }
}

/// Everything that an act may say.
#[derive(Debug)]
struct Request<'a> {
    act: Act,
    /// Of one object; of its namespace, or wider, without one.
    target: Option<&'a Target>,
    namespace: Option<&'a str>,
    source: Option<&'a str>,
    reason: Option<&'a str>,
    lasting: Option<Duration>,
    step_hash: Option<&'a str>,
    to: Option<u64>,
}

impl<'a> Request<'a> {
    const fn of(act: Act) -> Self {
        Self { act, target: None, namespace: None, source: None, reason: None, lasting: None, step_hash: None, to: None }
    }

    /// # Errors
    /// When nothing says what it is about: nobody means "everything" by saying nothing.
    fn about(act: Act, wide: &'a Wide, source: Option<&'a str>) -> Result<Self, CliError> {
        if wide.target.is_none() && wide.namespace.is_none() && source.is_none() && !wide.all {
            let word = act.word();
            return Err(CliError::Usage(format!("say what to {word}: KIND/NAME, -n NS for a namespace, or --all")));
        }
        Ok(Self { target: wide.target.as_ref(), namespace: wide.namespace.as_deref(), source, ..Self::of(act) })
    }

    fn path(&self) -> String {
        match self.target {
            Some(target) => format!("{}/{}", object_path(target, namespace_or_default(self.namespace)), self.act.word()),
            None => format!("{BASE}/actions/{}", self.act.word()),
        }
    }

    fn body(&self, actor: &str) -> Value {
        let mut body = Map::new();
        let mut put = |key: &str, value: Option<String>| drop(value.map(|value| body.insert(key.to_owned(), Value::String(value))));
        put("actor", Some(actor.to_owned()));
        put("reason", self.reason.map(str::to_owned));
        put("for", self.lasting.map(|lasting| lasting.to_string()));
        put("stepHash", self.step_hash.map(str::to_owned));
        if let Some(to) = self.to {
            body.insert("to".to_owned(), json!(to));
        }
        if self.target.is_none() {
            let own = |text: Option<&str>| text.map(str::to_owned);
            let scope = Scope { kind: None, namespace: own(self.namespace), name: None, source: own(self.source) };
            body.insert("scope".to_owned(), json!(scope));
        }
        Value::Object(body)
    }

    /// What it was about, for the line that is printed.
    fn subject(&self) -> String {
        match (self.target, self.namespace, self.source) {
            (Some(target), namespace, _) => format!("{} in namespace {}", target.label(), namespace_or_default(namespace)),
            (None, Some(namespace), _) => format!("namespace {namespace}"),
            (None, None, Some(source)) => format!("source {source}"),
            (None, None, None) => "everything".to_owned(),
        }
    }
}

async fn post(client: &Client, request: &Request<'_>, done: &str) -> Done {
    let intent = client.post(&request.path(), &request.body(&actor())).await?;
    let until = cell(&intent["spec"]["until"]);
    let until = if until.is_empty() { until } else { format!(" until {until}") };
    output::print(&format!("{} {done}{until}\n", request.subject()))?;
    Ok(End::Fine)
}

/// The person, as far as the system knows: `user@host`.
fn actor() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|key| std::env::var(key).ok().filter(|user| !user.is_empty()));
    let user = user.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}

/// Asks for an act on one service, with a reason.
pub(super) async fn ask_for(connect: &Connect, act: Act, service: &Target, namespace: Option<&str>, why: &Why, done: &str) -> Done {
    let request = Request { target: Some(service), namespace, reason: why.reason.as_deref(), ..Request::of(act) };
    post(&connect.client(), &request, done).await
}

pub(crate) async fn reconcile(args: &ReconcileArgs) -> Done {
    post(&args.connect.client(), &Request::about(Act::Reconcile, &args.about, None)?, "is planned again").await
}

pub(crate) async fn suspend(args: &SuspendArgs) -> Done {
    let request = Request::about(Act::Suspend, &args.about, args.source.as_deref())?;
    let request = Request { lasting: args.lasting, reason: args.why.reason.as_deref(), ..request };
    post(&args.connect.client(), &request, "is suspended").await
}

pub(crate) async fn resume(args: &ResumeArgs) -> Done {
    let request = Request::about(Act::Resume, &args.about, args.source.as_deref())?;
    post(&args.connect.client(), &Request { reason: args.why.reason.as_deref(), ..request }, "is resumed").await
}

pub(crate) async fn block(args: &BlockArgs) -> Done {
    let request = Request::about(Act::Block, &args.about, None)?;
    let request = Request { lasting: args.lasting, reason: args.why.reason.as_deref(), ..request };
    post(&args.connect.client(), &request, "is blocked").await
}

pub(crate) async fn unblock(args: &UnblockArgs) -> Done {
    let request = Request::about(Act::Unblock, &args.about, None)?;
    post(&args.connect.client(), &Request { reason: args.why.reason.as_deref(), ..request }, "may be used again").await
}

pub(crate) async fn retry(args: &RetryArgs) -> Done {
    let request = Request::about(Act::Retry, &args.about, None)?;
    post(&args.connect.client(), &Request { reason: args.why.reason.as_deref(), ..request }, "is tried again").await
}

pub(crate) async fn restart(args: &RestartArgs) -> Done {
    ask_for(&args.connect, Act::Restart, &args.service, args.namespace.as_deref(), &args.why, "is restarted").await
}

pub(crate) async fn rollback(args: &RollbackArgs) -> Done {
    let (namespace, reason) = (args.namespace.as_deref(), args.why.reason.as_deref());
    let request = Request { target: Some(&args.service), namespace, reason, to: args.to, ..Request::of(Act::Rollback) };
    let done = args.to.map_or_else(|| "goes back to its last good revision".to_owned(), |to| format!("goes back to revision {to}"));
    post(&args.connect.client(), &request, &done).await
}

pub(crate) async fn approve(args: &ApproveArgs) -> Done {
    let client = args.connect.client();
    let (plan, overview) = (client.post("/quaymaster/v1/plan", &json!({})).await?, client.get("/quaymaster/v1/overview").await?);
    let waiting = waiting(&plan["plan"], &overview);
    let step = pick(&waiting, &args.hash).map_err(CliError::failed)?;
    let request = Request { step_hash: Some(&step.hash), reason: args.why.reason.as_deref(), ..Request::of(Act::Approve) };
    client.post(&request.path(), &request.body(&actor())).await?;
    output::print(&format!("approved {}: {}\n", short(&step.hash), step.text))?;
    Ok(End::Fine)
}

/// A step that waits for approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    pub(crate) hash: String,
    pub(crate) text: String,
}

/// As much of a hash as is printed.
pub(crate) fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

/// All that waits for approval: steps of the plan, and removals that are held.
pub(crate) fn waiting(plan: &Value, overview: &Value) -> Vec<Step> {
    let steps = plan["steps"].as_array().into_iter().flatten().filter(|step| step["needsApproval"] == true).map(|step| {
        let object = &step["object"];
        let cause = step["causeText"].as_str().map(output::clean).unwrap_or_default();
        let text =
            format!("{} {} {}/{}  {cause}", cell(&step["verb"]), cell(&object["kind"]), cell(&object["namespace"]), cell(&object["name"]));
        Step { hash: cell(&step["hash"]), text: text.trim_end().to_owned() }
    });
    let held =
        overview["sources"].as_array().into_iter().flatten().filter(|source| source["pruneHeld"]["stepHash"].is_string()).map(|source| {
            let prune = &source["pruneHeld"];
            Step {
                hash: cell(&prune["stepHash"]),
                text: format!("removal held for source {}: {}", cell(&source["id"]), cell(&prune["message"])),
            }
        });
    let mut all: Vec<Step> = Vec::new();
    for step in steps.chain(held) {
        if !step.hash.is_empty() && all.iter().all(|known| known.hash != step.hash) {
            all.push(step);
        }
    }
    all
}

/// The one step with this prefix, or what to say.
fn pick<'a>(waiting: &'a [Step], prefix: &str) -> Result<&'a Step, String> {
    let list = |steps: &[&Step]| steps.iter().map(|step| format!("\n  {}  {}", short(&step.hash), step.text)).collect::<String>();
    let matching: Vec<&Step> = waiting.iter().filter(|step| step.hash.starts_with(prefix)).collect();
    match matching.as_slice() {
        [step] => Ok(step),
        [] if waiting.is_empty() => Err("nothing waits for approval".to_owned()),
        [] => Err(format!(
            "no step that waits for approval has a hash beginning with {prefix}; these wait:{}",
            list(&waiting.iter().collect::<Vec<_>>())
        )),
        several => Err(format!("{prefix} is the beginning of {} hashes; give more of it:{}", several.len(), list(several))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests() {
        let app = target("msvc/app").unwrap();
        let one = Request {
            target: Some(&app),
            namespace: Some("notify"),
            lasting: Some("1h".parse().unwrap()),
            reason: Some("why"),
            ..Request::of(Act::Suspend)
        };
        assert_eq!(one.path(), "/apis/quaymaster.dev/v1alpha1/namespaces/notify/miniservices/app/suspend");
        assert_eq!(one.body("ann@host"), json!({"actor": "ann@host", "reason": "why", "for": "1h"}));
        assert_eq!(one.subject(), "miniservice/app in namespace notify");
        let wide = Request { namespace: Some("notify"), ..Request::of(Act::Reconcile) };
        assert_eq!(wide.path(), "/apis/quaymaster.dev/v1alpha1/actions/reconcile");
        assert_eq!(wide.body("a"), json!({"actor": "a", "scope": {"namespace": "notify"}}));
        assert_eq!(Request::of(Act::Retry).body("a"), json!({"actor": "a", "scope": {}}));
        let source = Request { source: Some("/srv"), ..Request::of(Act::Suspend) };
        assert_eq!((source.body("a"), source.subject()), (json!({"actor": "a", "scope": {"source": "/srv"}}), "source /srv".to_owned()));
    }

    #[test]
    fn prefixes() {
        let plan = json!({"steps": [
            {"hash": "aaaa1111aaaa1111", "verb": "remove", "needsApproval": true, "object": {"kind": "Network", "namespace": "n", "name": "x"}, "causeText": "orphan"},
            {"hash": "aaaa2222aaaa2222", "verb": "remove", "needsApproval": true, "object": {"kind": "Network", "namespace": "n", "name": "y"}, "causeText": "orphan"},
            {"hash": "aaaa3333", "verb": "create", "needsApproval": false, "object": {}},
        ]});
        let overview =
            json!({"sources": [{"id": "s", "pruneHeld": {"stepHash": "bbbb", "message": "all is gone"}}, {"id": "t", "pruneHeld": null}]});
        let waiting = waiting(&plan, &overview);
        assert_eq!(pick(&waiting, "aaaa1").unwrap().text, "remove Network n/x  orphan");
        assert_eq!(pick(&waiting, "bbbb").unwrap().text, "removal held for source s: all is gone");
        insta::assert_snapshot!("approve_ambiguous", pick(&waiting, "aaaa").unwrap_err());
        insta::assert_snapshot!("approve_unknown", pick(&waiting, "cccc").unwrap_err());
        assert_eq!(pick(&[], "cccc").unwrap_err(), "nothing waits for approval");
        assert_eq!(hash_prefix("sha256:AAAA").unwrap(), "aaaa");
        assert!(hash_prefix("abc").is_err() && hash_prefix("zzzz").is_err());
    }
}
