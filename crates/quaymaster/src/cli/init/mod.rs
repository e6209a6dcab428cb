//! `init`: manifests of what runs already, or of a Compose file.

mod compose;
mod manifest;
mod running;

use std::path::PathBuf;

use clap::Args;

use super::run::DEFAULT_DOCKER_HOST;
use super::{CliError, Done, End, block_on};
use crate::output;
use manifest::Written;

/// Write manifests of a running Compose project, or of a Compose file
///
/// With --from-running the manifests name the containers and networks that are there, so that they are adopted: nothing is restarted, and
/// `quaymaster plan` says that there is nothing to do. What no manifest can say yet is listed, as comments and on standard error.
/// With --from-compose the file is read by Docker Compose itself, which must be there.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  quaymaster init --from-running shop > manifests/shop.yaml
  quaymaster init --from-running shop --output manifests/shop.yaml
  quaymaster init --from-compose compose.yaml --namespace shop")]
#[command(group(clap::ArgGroup::new("from").required(true)))]
pub(crate) struct InitArgs {
    /// The Compose project whose containers are adopted
    #[arg(long, value_name = "PROJECT", group = "from")]
    from_running: Option<String>,
    /// The Compose file to translate
    #[arg(long, value_name = "FILE", group = "from")]
    from_compose: Option<PathBuf>,
    /// The namespace; the project's name by default
    #[arg(short, long, value_name = "NAMESPACE")]
    namespace: Option<String>,
    /// The file to write instead of standard output; it must not be there yet
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The Docker engine to read
    #[arg(long, value_name = "URL", env = "DOCKER_HOST", default_value = DEFAULT_DOCKER_HOST, help_heading = "Connection")]
    docker_host: String,
    /// The command that is Docker Compose, for --from-compose
    #[arg(long, value_name = "COMMAND", env = "COMPOSE", default_value = "docker compose")]
    compose: String,
}

pub(crate) fn init(args: &InitArgs) -> Done {
    let written = match (&args.from_running, &args.from_compose) {
        (Some(project), _) => block_on(running::from_running(project, args.namespace.as_deref(), &args.docker_host))?,
        (None, Some(file)) => compose::from_compose(file, args.namespace.as_deref(), &args.compose)?,
        (None, None) => return Err(CliError::Usage("say what to start from: --from-running PROJECT or --from-compose FILE".to_owned())),
    };
    deliver(args, &written)
}

fn deliver(args: &InitArgs, written: &Written) -> Done {
    for line in &written.listed {
        output::note(&format!("note: {line}"));
    }
    let Some(path) = &args.output else {
        output::print(&written.text)?;
        return Ok(End::Fine);
    };
    let new = std::fs::OpenOptions::new().write(true).create_new(true).open(path);
    new.and_then(|mut file| std::io::Write::write_all(&mut file, written.text.as_bytes()))
        .map_err(|error| CliError::because(format!("cannot write {}", path.display()), error))?;
    output::note(&format!(
        "{}: {} objects; `quaymaster plan {}` says what they would change",
        path.display(),
        written.objects,
        path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(std::path::Path::new(".")).display()
    ));
    Ok(End::Fine)
}
