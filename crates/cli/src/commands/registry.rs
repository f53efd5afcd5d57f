//! `draught registry`: the embedded registry.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use draught_registry::{Registry, serve};
use serde::Serialize;
use tokio::net::TcpListener;

use crate::args::Format;
use crate::asynchronous::{Stop, block_on};
use crate::outcome::Outcome;
use crate::output;
use crate::settings::Settings;

/// Serve the embedded registry until it is told to stop
///
/// It speaks the OCI distribution API: pull with byte ranges, push, mounts across repositories, tag
/// lists, referrers, deletion. It has neither users nor TLS: let it listen on loopback, or put it
/// behind something that has. Its content is in `registry` below --root. The address is printed once it
/// listens.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  draught registry --listen 127.0.0.1:5000 &
  draught convert docker-archive:app.tar 127.0.0.1:5000/app:1")]
pub(crate) struct Args {
    /// Address and port to listen on; port 0 takes a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:5000")]
    listen: String,
}

/// What is printed for programs.
#[derive(Debug, Serialize)]
struct Listening {
    addr: String,
    data: PathBuf,
}

pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Outcome> {
    let data = settings.root.join("registry");
    block_on(async {
        // Before anybody can know the address, so that a signal never comes too early.
        let mut stop = Stop::new()?;
        let registry = Registry::open(&data)
            .with_context(|| format!("open the registry in {}", data.display()))?;
        let listener = TcpListener::bind(&args.listen)
            .await
            .with_context(|| format!("listen on {}", args.listen))?;
        let handle = serve(registry, listener).context("serve the registry")?;
        match settings.format {
            Format::Text => output::line(&handle.addr().to_string())?,
            Format::Json => {
                let addr = handle.addr().to_string();
                output::json(&Listening {
                    addr,
                    data: data.clone(),
                })?;
            }
        }
        stop.wait().await;
        handle.shutdown().await;
        Ok(Outcome::Done)
    })
}
