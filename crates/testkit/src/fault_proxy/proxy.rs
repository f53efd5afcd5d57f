//! The proxy as a test holds it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use parking_lot::Mutex;
use tokio::sync::mpsc as commands;

use super::auth::{Auth, Tokens};
use super::counts::{Counts, Logged, Recorder};
use super::link::{Link, Pacer};
use super::listen::{self, Command};
use super::rules::{Rule, RuleId, Rules};

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) upstream: Mutex<SocketAddr>,
    pub(super) recorder: Mutex<Recorder>,
    pub(super) rules: Mutex<Rules>,
    pub(super) tokens: Mutex<Tokens>,
    pub(super) link: Mutex<Link>,
    pub(super) pacer: Pacer,
}

/// A proxy on loopback in front of one server, until it is dropped.
///
/// It runs on a thread of its own, so that tests with and without an asynchronous runtime can use
/// it.
#[derive(Debug)]
pub struct FaultProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    commands: commands::UnboundedSender<(Command, mpsc::Sender<()>)>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy in front of the server at `upstream`.
    ///
    /// # Panics
    ///
    /// If no port can be had.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream),
            recorder: Mutex::new(Recorder::new()),
            rules: Mutex::default(),
            tokens: Mutex::default(),
            link: Mutex::default(),
            pacer: Pacer::new(),
        });
        let (commands, queue) = commands::unbounded_channel();
        let (ready, started) = mpsc::channel();
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("fault-proxy".to_owned())
            .spawn(move || listen::run(for_thread, queue, &ready))
            .unwrap();
        Self {
            addr: started.recv().unwrap(),
            shared,
            commands,
            thread: Some(thread),
        }
    }

    /// Where clients reach the server through the proxy.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where the server is that the proxy stands for.
    #[must_use]
    pub fn upstream(&self) -> SocketAddr {
        *self.shared.upstream.lock()
    }

    /// Stands for another server from the next connection on.
    pub fn move_upstream(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock() = upstream;
    }

    /// What has passed so far, bytes of responses under way included.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.shared.recorder.lock().counts()
    }

    /// The requests so far, in the order in which they came.
    #[must_use]
    pub fn log(&self) -> Vec<Logged> {
        self.shared.recorder.lock().log()
    }

    /// Forgets what has passed.
    pub fn reset_counts(&self) {
        *self.shared.recorder.lock() = Recorder::new();
    }

    /// Lets `rule` meet the requests that come from now on.
    #[expect(
        clippy::must_use_candidate,
        reason = "most rules are lifted all at once or never"
    )]
    pub fn inject(&self, rule: Rule) -> RuleId {
        self.shared.rules.lock().inject(rule)
    }

    /// Ends a rule. Requests that it has met already keep their fault.
    pub fn lift(&self, id: RuleId) {
        self.shared.rules.lock().lift(|other| other == id);
    }

    /// Ends all rules.
    pub fn lift_all(&self) {
        self.shared.rules.lock().lift(|_| true);
    }

    /// How many requests a rule has met.
    #[must_use]
    pub fn hits(&self, id: RuleId) -> u64 {
        self.shared.rules.lock().hits(id)
    }

    /// Makes the network slow, or fast again with the default.
    pub fn set_link(&self, link: Link) {
        *self.shared.link.lock() = link;
    }

    /// Wants a bearer token with every request, or none any more. Tokens that were handed out
    /// before are void.
    pub fn require_tokens(&self, auth: Option<Auth>) {
        self.shared.tokens.lock().require(auth);
    }

    /// Makes all tokens void; clients can get new ones.
    pub fn expire_tokens(&self) {
        self.shared.tokens.lock().expire();
    }

    /// How many tokens were handed out.
    #[must_use]
    pub fn tokens_issued(&self) -> u64 {
        self.shared.tokens.lock().issued()
    }

    /// Stops listening and cuts all connections off: who connects is refused.
    pub fn go_down(&self) {
        self.command(Command::GoDown);
    }

    /// Listens again, at the same address.
    pub fn come_up(&self) {
        self.command(Command::ComeUp);
    }

    /// Cuts all connections off, and goes on listening.
    pub fn cut_connections(&self) {
        self.command(Command::CutConnections);
    }

    fn command(&self, command: Command) {
        let (done, wait) = mpsc::channel();
        self.commands.send((command, done)).unwrap();
        wait.recv().unwrap();
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let (done, _) = mpsc::channel();
        // Fails only if the thread has ended, and then there is nothing to stop.
        drop(self.commands.send((Command::Stop, done)));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}
