//! A node with containerd and one snapshotter, with nothing in it.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use draught_testkit::snapshots::{Snapshots, Target};
use draught_testkit::{Containerd, need};

use crate::bench::measure;
use crate::bench::node::Node;
use crate::bench::suite::bench::Bench;
use crate::run::shown;

/// The namespace that `ctr` is in.
const NAMESPACE: &str = "default";

/// Whose snapshotter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// Ours.
    Draught,
    /// Containerd's own.
    Overlayfs,
}

impl Whose {
    /// Both.
    pub(super) const BOTH: [Self; 2] = [Self::Draught, Self::Overlayfs];

    /// What it is called in containerd, and in tables.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Draught => "draught",
            Self::Overlayfs => "overlayfs",
        }
    }
}

/// The node. It ends with its guard.
pub(super) struct Side<'a> {
    whose: Whose,
    // Dropped in this order: containers, then what they stand on.
    containerd: Containerd,
    node: Option<Node<'a>>,
    socket: PathBuf,
    lease: String,
}

impl<'a> Side<'a> {
    /// Starts one in the empty directory `work`.
    pub(super) fn start(bench: &Bench<'a>, whose: Whose, work: &Path) -> Result<Self> {
        for program in ["containerd", "ctr", "ctr-remote", "runc"] {
            ensure!(need::find(program).is_some(), "{program} is not installed");
        }
        let socket = work.join("snapshotter.sock");
        let ours = whose == Whose::Draught;
        let node = ours
            .then(|| -> Result<Node<'a>> {
                let mut node = Node::new(bench.draught, &work.join("root"))?;
                node.snapshotter(&socket);
                node.start()?;
                Ok(node)
            })
            .transpose()?;
        let proxies: &[(&str, &Path)] = if ours { &[("draught", &socket)] } else { &[] };
        let containerd = Containerd::start(proxies).context("containerd is not to be had")?;
        let lease = containerd.lease(NAMESPACE);
        Ok(Self {
            whose,
            containerd,
            node,
            socket,
            lease,
        })
    }

    /// Pulls an image in its snapshotter's way: lazily, or whole.
    pub(super) fn pull(&self, reference: &str) -> Result<()> {
        let lazily = self.whose == Whose::Draught;
        let (client, verb) = if lazily {
            ("ctr-remote", "rpull")
        } else {
            ("ctr", "pull")
        };
        let mut pull = self.containerd.client(client);
        pull.args(["images", verb, "--plain-http", "--snapshotter"]);
        measure::output(pull.arg(self.whose.name()).arg(reference)).map(drop)
    }

    /// Runs a program of an image in a container; seconds until it printed something. It has to end well.
    pub(super) fn run(&self, reference: &str, id: &str, argv: &[&str]) -> Result<f64> {
        let mut run = self.containerd.ctr();
        run.args(["run", "--rm", "--snapshotter", self.whose.name()]);
        run.args([reference, id]).args(argv);
        run.stdin(Stdio::null());
        run.stdout(Stdio::piped()).stderr(Stdio::piped());
        let begun = Instant::now();
        let mut child = run.spawn()?;
        let mut first = [0];
        let mut out = child.stdout.take().context("there is no pipe")?;
        let read = out.read(&mut first)?;
        let first_s = begun.elapsed().as_secs_f64();
        out.read_to_end(&mut Vec::new())?;
        let ended = child.wait_with_output()?;
        if read == 0 || !ended.status.success() {
            let words = String::from_utf8_lossy(&ended.stderr);
            bail!(
                "run {}: it ended with {}: {words}",
                shown(&run),
                ended.status
            );
        }
        Ok(first_s)
    }

    /// The snapshotter as containerd hands it on, in a lease.
    pub(super) fn through_containerd(&self) -> Result<Snapshots> {
        let socket = self.containerd.socket();
        let target = Target::new(socket, self.whose.name(), NAMESPACE).leased(&self.lease);
        Snapshots::connect(&target)
    }

    /// The snapshotter itself, if it has a socket.
    pub(super) fn directly(&self) -> Result<Option<Snapshots>> {
        let ours = self.whose == Whose::Draught;
        ours.then(|| Snapshots::connect(&Target::new(&self.socket, "draught", NAMESPACE)))
            .transpose()
    }

    /// The highest layer of the only image that was pulled.
    pub(super) fn top(&self) -> Result<String> {
        let all = self.through_containerd()?.list(&[])?;
        let is_parent = |name: &str| all.iter().any(|info| info.parent == name);
        let mut tops = all.iter().filter(|info| !is_parent(&info.name));
        let top = tops.next().context("nothing was pulled")?;
        ensure!(tops.next().is_none(), "more than one image was pulled");
        Ok(top.name.clone())
    }

    /// Our daemon, if it is ours.
    pub(super) fn node(&self) -> Option<&Node<'a>> {
        self.node.as_ref()
    }
}
