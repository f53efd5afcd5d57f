//! `draught daemon`: the keeper, the worker, and what is asked of them.

use anyhow::{Context as _, Result};
use draught_node::{Client, Layout, PlannerSettings, adopt, guard, keeper, worker};

use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;
use crate::units::Span;

/// Serve mounts: a keeper that holds what must outlive a crash, and a worker that does the work
///
/// Runs in the foreground. `draught mount` starts one in the background if none runs for --root.
/// SIGTERM and SIGINT stop it like --stop.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Unmount everything and stop the daemon of --root; refused while a mount is in use
    #[arg(long, conflicts_with = "upgrade")]
    stop: bool,

    /// Let this program take over from the worker that runs; readers wait some milliseconds
    #[arg(long)]
    upgrade: bool,

    /// How long a read is tried for while its registry does not answer, before it fails
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30s",
        env = "DRAUGHT_READ_DEADLINE"
    )]
    read_deadline: Span,

    /// Be the worker of the keeper at the other end of the standard input
    #[arg(long, hide = true)]
    worker: bool,

    /// Be the guard of the keeper at the other end of the standard input
    #[arg(long, hide = true)]
    guard: bool,

    /// Be the keeper with what this descriptor says
    #[arg(long, hide = true, value_name = "FD")]
    adopt: Option<i32>,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let layout = Layout::new(&settings.root);
    let client = Client::new(layout.clone());
    if args.stop {
        client.stop().context("stop the daemon")?;
    } else if args.upgrade {
        let executable = std::env::current_exe().context("find this program")?;
        let status = client.upgrade(&executable).context("replace the worker")?;
        output::say(&format!(
            "worker {} serves, version {}",
            status.worker_pid, status.version
        ));
    } else if args.worker {
        let planner = PlannerSettings {
            deadline_ms: args.read_deadline.millis(),
            ..PlannerSettings::default()
        };
        worker::run(&layout, planner).context("serve as a worker")?;
    } else if args.guard {
        guard::run(&layout).context("guard the mounts")?;
    } else if let Some(will) = args.adopt {
        adopt(&layout, will, &environment(args, settings)).context("take over as the keeper")?;
    } else {
        keeper::run(&layout, &environment(args, settings)).context("serve as the keeper")?;
    }
    Ok(Outcome::Done)
}

/// What the keeper's workers are to know of this command line.
fn environment(args: &Args, settings: &Settings) -> [(&'static str, String); 2] {
    [
        ("DRAUGHT_READ_DEADLINE", args.read_deadline.to_string()),
        ("DRAUGHT_LOG", settings.log.clone()),
    ]
}
