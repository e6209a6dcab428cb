//! The `quaymaster` program.

mod cli {
    pub(crate) mod run;
    pub(crate) fn duration(text: &str) -> Result<qm_api::spec::quantity::Duration, String> {
        text.parse().map_err(|e: qm_api::spec::quantity::QuantityError| e.to_string())
    }
}
mod client {
    pub(crate) const DEFAULT_SOCKET: &str = "/run/quaymaster/quaymaster.sock";
}
mod wiring;

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    run: cli::run::RunArgs,
}

fn main() -> anyhow::Result<std::process::ExitCode> {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).is_some_and(|a| a == "plan") {
        let (_, text) = wiring::offline_plan(&[args[2].clone().into()], "unix:///var/run/docker.sock")?;
        println!("{text}");
        return Ok(std::process::ExitCode::SUCCESS);
    }
    wiring::run(Cli::parse().run)
}
