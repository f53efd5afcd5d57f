//! A client that waits for each answer.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use draught_containerd::connect;
use tonic::Status;
use tonic::transport::Channel;

use super::messages as m;
use super::messages::image_service_client::ImageServiceClient;
use super::messages::runtime_service_client::RuntimeServiceClient;
use crate::background::Background;

/// Seconds that a container gets to end by itself: what tests run has nothing to put in order.
const STOP_S: i64 = 1;

/// Seconds that a command in a container may take.
const EXEC_MAX_S: i64 = 120;

/// How often is looked at what can't be waited for.
const POLL: Duration = Duration::from_millis(10);

/// A client of a container runtime.
#[derive(Debug, Clone)]
pub struct Cri {
    channel: Channel,
    background: Arc<Background>,
}

/// A pod that was made.
#[derive(Debug, Clone)]
pub struct Pod {
    /// Its id.
    pub id: String,
    config: m::PodSandboxConfig,
}

impl Pod {
    /// What the container `name` has printed to both of its outputs.
    ///
    /// # Panics
    ///
    /// If it has no log.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let file = Path::new(&self.config.log_directory).join(format!("{name}.log"));
        let text = fs_err::read_to_string(file).unwrap();
        // A time, the stream, whether the line is whole, and what was printed.
        let printed = text.lines().filter_map(|line| {
            let mut fields = line.splitn(4, ' ');
            let whole = fields.nth(2)? == "F";
            let words = fields.next()?;
            Some(format!("{words}{}", if whole { "\n" } else { "" }))
        });
        printed.collect()
    }

    /// The directory of its logs.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        PathBuf::from(&self.config.log_directory)
    }
}

/// What a command in a container did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Executed {
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
    /// How it ended.
    pub exit_code: i32,
}

/// Calls a method of one of the services and waits.
macro_rules! call {
    ($self:ident, $client:ident, $method:ident, $message:expr) => {{
        let mut client = $client::new($self.channel.clone());
        let message = $message;
        let answer = $self
            .background
            .wait(async move { client.$method(message).await });
        answer.map(tonic::Response::into_inner)
    }};
}

fn image_spec(image: &str) -> Option<m::ImageSpec> {
    Some(m::ImageSpec {
        image: image.to_owned(),
        ..m::ImageSpec::default()
    })
}

/// The node's network, so that no plugins are needed; else as pods are.
fn namespaces() -> Option<m::NamespaceOption> {
    Some(m::NamespaceOption {
        network: m::NamespaceMode::Node.into(),
        pid: m::NamespaceMode::Container.into(),
        ipc: m::NamespaceMode::Pod.into(),
    })
}

impl Cri {
    /// Connects to a runtime's socket.
    ///
    /// # Errors
    ///
    /// If nobody listens there.
    pub fn connect(socket: &Path) -> anyhow::Result<Self> {
        let background = Background::start("cri");
        let socket = socket.to_owned();
        let channel = background.wait(async move { connect(&socket).await })?;
        Ok(Self {
            channel,
            background: Arc::new(background),
        })
    }

    /// The name and the version of the runtime.
    ///
    /// # Errors
    ///
    /// What the runtime answers, as of all calls.
    pub fn version(&self) -> Result<(String, String), Status> {
        let message = m::VersionRequest::default();
        let answer = call!(self, RuntimeServiceClient, version, message)?;
        Ok((answer.runtime_name, answer.runtime_version))
    }

    /// Pulls an image, with credentials if there are any; gives its id.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn pull(&self, image: &str, auth: Option<m::AuthConfig>) -> Result<String, Status> {
        let message = m::PullImageRequest {
            image: image_spec(image),
            auth,
            sandbox_config: None,
        };
        let answer = call!(self, ImageServiceClient, pull_image, message)?;
        Ok(answer.image_ref)
    }

    /// All images.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn images(&self) -> Result<Vec<m::Image>, Status> {
        let message = m::ListImagesRequest::default();
        let answer = call!(self, ImageServiceClient, list_images, message)?;
        Ok(answer.images)
    }

    /// An image, if there is one of that name.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn image(&self, image: &str) -> Result<Option<m::Image>, Status> {
        let message = m::ImageStatusRequest {
            image: image_spec(image),
        };
        let answer = call!(self, ImageServiceClient, image_status, message)?;
        Ok(answer.image)
    }

    /// Removes an image.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn remove_image(&self, image: &str) -> Result<(), Status> {
        let message = m::RemoveImageRequest {
            image: image_spec(image),
        };
        call!(self, ImageServiceClient, remove_image, message).map(drop)
    }

    /// Makes and starts a pod with the node's network. Logs of its containers are in `logs`, which is made.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    ///
    /// # Panics
    ///
    /// If the directory can't be made.
    pub fn run_pod(&self, name: &str, logs: &Path) -> Result<Pod, Status> {
        fs_err::create_dir_all(logs).unwrap();
        let config = m::PodSandboxConfig {
            metadata: Some(m::PodSandboxMetadata {
                name: name.to_owned(),
                uid: format!("uid-{name}"),
                namespace: "draught-test".to_owned(),
                attempt: 0,
            }),
            log_directory: logs.to_string_lossy().into_owned(),
            linux: Some(m::LinuxPodSandboxConfig {
                security_context: Some(m::LinuxSandboxSecurityContext {
                    namespace_options: namespaces(),
                }),
                ..m::LinuxPodSandboxConfig::default()
            }),
            ..m::PodSandboxConfig::default()
        };
        let message = m::RunPodSandboxRequest {
            config: Some(config.clone()),
            runtime_handler: String::new(),
        };
        let answer = call!(self, RuntimeServiceClient, run_pod_sandbox, message)?;
        Ok(Pod {
            id: answer.pod_sandbox_id,
            config,
        })
    }

    /// Makes a container in a pod, from an image that was pulled; gives its id.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn create(
        &self,
        pod: &Pod,
        name: &str,
        image: &str,
        command: &[&str],
    ) -> Result<String, Status> {
        let config = m::ContainerConfig {
            metadata: Some(m::ContainerMetadata {
                name: name.to_owned(),
                attempt: 0,
            }),
            image: image_spec(image),
            command: command.iter().map(|it| (*it).to_owned()).collect(),
            log_path: format!("{name}.log"),
            linux: Some(m::LinuxContainerConfig {
                security_context: Some(m::LinuxContainerSecurityContext {
                    namespace_options: namespaces(),
                }),
            }),
            ..m::ContainerConfig::default()
        };
        let message = m::CreateContainerRequest {
            pod_sandbox_id: pod.id.clone(),
            config: Some(config),
            sandbox_config: Some(pod.config.clone()),
        };
        let answer = call!(self, RuntimeServiceClient, create_container, message)?;
        Ok(answer.container_id)
    }

    /// Starts a container.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn start(&self, container: &str) -> Result<(), Status> {
        let message = m::StartContainerRequest {
            container_id: container.to_owned(),
        };
        call!(self, RuntimeServiceClient, start_container, message).map(drop)
    }

    /// Runs a command in a container that runs.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn exec(&self, container: &str, command: &[&str]) -> Result<Executed, Status> {
        let message = m::ExecSyncRequest {
            container_id: container.to_owned(),
            cmd: command.iter().map(|it| (*it).to_owned()).collect(),
            timeout: EXEC_MAX_S,
        };
        let answer = call!(self, RuntimeServiceClient, exec_sync, message)?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Ok(Executed {
            stdout: text(&answer.stdout),
            stderr: text(&answer.stderr),
            exit_code: answer.exit_code,
        })
    }

    /// What is known of a container.
    ///
    /// # Errors
    ///
    /// What the runtime answers, or an internal error if it answers with nothing.
    pub fn status(&self, container: &str) -> Result<m::ContainerStatus, Status> {
        let message = m::ContainerStatusRequest {
            container_id: container.to_owned(),
        };
        let answer = call!(self, RuntimeServiceClient, container_status, message)?;
        answer.status.ok_or_else(|| Status::internal("no status"))
    }

    /// Waits until a container has ended; gives its exit code.
    ///
    /// # Errors
    ///
    /// What the runtime answers; that time is up after `patience`.
    pub fn wait(&self, container: &str, patience: Duration) -> Result<i32, Status> {
        let begun = Instant::now();
        loop {
            let status = self.status(container)?;
            if status.state() == m::ContainerState::ContainerExited {
                return Ok(status.exit_code);
            }
            if begun.elapsed() > patience {
                return Err(Status::deadline_exceeded(format!("it is {status:?}")));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Stops a container, with force after a second.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn stop(&self, container: &str) -> Result<(), Status> {
        let message = m::StopContainerRequest {
            container_id: container.to_owned(),
            timeout: STOP_S,
        };
        call!(self, RuntimeServiceClient, stop_container, message).map(drop)
    }

    /// Removes a container.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn remove(&self, container: &str) -> Result<(), Status> {
        let message = m::RemoveContainerRequest {
            container_id: container.to_owned(),
        };
        call!(self, RuntimeServiceClient, remove_container, message).map(drop)
    }

    /// All containers.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn containers(&self) -> Result<Vec<m::Container>, Status> {
        let message = m::ListContainersRequest::default();
        let answer = call!(self, RuntimeServiceClient, list_containers, message)?;
        Ok(answer.containers)
    }

    /// Stops a pod and what runs in it.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn stop_pod(&self, pod: &Pod) -> Result<(), Status> {
        let message = m::StopPodSandboxRequest {
            pod_sandbox_id: pod.id.clone(),
        };
        call!(self, RuntimeServiceClient, stop_pod_sandbox, message).map(drop)
    }

    /// Removes a pod and what is in it.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn remove_pod(&self, pod: &Pod) -> Result<(), Status> {
        let message = m::RemovePodSandboxRequest {
            pod_sandbox_id: pod.id.clone(),
        };
        call!(self, RuntimeServiceClient, remove_pod_sandbox, message).map(drop)
    }

    /// All pods.
    ///
    /// # Errors
    ///
    /// What the runtime answers.
    pub fn pods(&self) -> Result<Vec<m::PodSandbox>, Status> {
        let message = m::ListPodSandboxRequest::default();
        let answer = call!(self, RuntimeServiceClient, list_pod_sandbox, message)?;
        Ok(answer.items)
    }
}
