//! Making a cluster, or completing and changing one that is there.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use model::Config;

use super::error::{Error, Result, at};
use super::plan::{NodePlan, Plan, Process, plan};
use super::process::{self, Programs};
use super::ready::{self, Awaited};
use super::spec::{ClusterSpec, Request};
use super::{address, cgroup, coredns, down, pki, preflight, state, underlay};
use crate::paths::ClusterPaths;

/// Where the API server of the first cluster listens on 127.0.0.1.
const FIRST_PORT: u16 = 6443;

/// What a caller hears while a cluster is made.
#[derive(Debug)]
pub enum Event {
    /// A step begins.
    Begin(&'static str),
    /// How far the step is.
    Progress(String),
    /// The step is done: its result in a few words, and how long it took.
    Done(String, Duration),
}

/// Hears of each step.
pub type Report<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// Everything that commands on one cluster need.
pub struct Site<'a> {
    /// Its folders.
    pub paths: ClusterPaths,
    /// The programs.
    pub programs: Programs,
    /// Hears of each step.
    pub report: Report<'a>,
}

/// How `up` went.
pub struct Outcome {
    /// The cluster.
    pub spec: ClusterSpec,
    /// True where it was not there before.
    pub fresh: bool,
    /// A client of its API.
    pub client: Client,
}

impl std::fmt::Debug for Site<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Site")
            .field("paths", &self.paths)
            .finish_non_exhaustive()
    }
}

impl Site<'_> {
    fn step<T>(&self, what: &'static str, work: impl FnOnce() -> Result<(T, String)>) -> Result<T> {
        (self.report)(Event::Begin(what));
        let start = Instant::now();
        let (value, words) = work()?;
        (self.report)(Event::Done(words, start.elapsed()));
        Ok(value)
    }

    /// Makes the cluster that is asked for, or completes and changes the one that is there.
    pub async fn up(&self, request: &Request) -> Result<Outcome> {
        // What is wrong with the request is found before anything is made, a lock included.
        let (draft, _) = self.specify(request)?;
        if let Some(file) = &request.resolv_conf {
            preflight::resolv_conf(file)?;
        }
        if !nix::unistd::geteuid().is_root() {
            preflight::check(&draft, &self.programs, &self.paths.run)?;
        }
        let _lock = self.lock()?;
        let before = state::load(&self.paths)?;
        let (mut spec, fresh) = self.specify(request)?;
        let mount = self.step("machine", || {
            preflight::check(&spec, &self.programs, &self.paths.run)?;
            Ok((cgroup::mount()?, "has all that is needed".into()))
        })?;
        if fresh && request.api_port.is_none() {
            // Two clusters made at once must not choose the same port.
            let _all = state::lock_all()?;
            spec.api_port = free_port()?;
            state::save(&self.paths, &spec)?;
        } else {
            state::save(&self.paths, &spec)?;
        }
        let plan = plan(&spec, &self.paths);
        self.step("network", || {
            underlay::make(&plan)?;
            let resolv = self.paths.resolv_conf();
            at("write", &resolv, fs::write(&resolv, &plan.resolv_conf))?;
            let segments = plan
                .bridges
                .iter()
                .filter_map(|bridge| bridge.addresses.first());
            let segments: Vec<String> = segments
                .map(|address| address.trunc().to_string())
                .collect();
            Ok(((), format!("{} and a client outside", segments.join(", "))))
        })?;
        self.step("certificates", || {
            pki::issue(&self.paths, &plan)?;
            Ok(((), self.paths.kubeconfig().display().to_string()))
        })?;
        if before.is_some_and(|before| before.resolv_conf != spec.resolv_conf) {
            cgroup::kill(&mount.join(&plan.resolver.cgroup))?;
        }
        self.ensure(&mount, &plan.resolver)?;
        let client = self.apiserver(&mount, &plan).await?;
        let asked = spec.config();
        // Side by side, so that one sync of the API server's disk serves many.
        let (config, (), ()) = futures::try_join!(
            configure(&client, &spec, request),
            balancer(&client, &spec),
            coredns::prepare(&client, &asked),
        )?;
        if (&spec.fabric, &spec.services) != (&config.fabric, &config.services) {
            (spec.fabric, spec.services) = (config.fabric, config.services);
            state::save(&self.paths, &spec)?;
        }
        self.ensure(&mount, &plan.controllers)?;
        self.nodes(&mount, &client, &plan.nodes.iter().collect::<Vec<_>>())
            .await?;
        coredns::deploy(&client).await?;
        Ok(Outcome {
            spec,
            fresh,
            client,
        })
    }

    /// What the cluster is to be, and whether it is new.
    fn specify(&self, request: &Request) -> Result<(ClusterSpec, bool)> {
        Ok(match state::load(&self.paths)? {
            Some(old) => (request.change(&old)?, false),
            None => (request.create(&self.paths.name, FIRST_PORT)?, true),
        })
    }

    fn lock(&self) -> Result<state::Lock> {
        state::lock(&self.paths, || {
            (self.report)(Event::Progress(
                "another command is changing this cluster; waiting for it".into(),
            ));
        })
    }

    /// Starts a process that does not run; true where it did not.
    fn ensure(&self, mount: &Path, process: &Process) -> Result<bool> {
        let runs = process::runs(mount, process);
        if !runs {
            process::start(mount, &self.programs, process)?;
        }
        Ok(!runs)
    }

    async fn apiserver(&self, mount: &Path, plan: &Plan) -> Result<Client> {
        (self.report)(Event::Begin("API server"));
        let start = Instant::now();
        self.ensure(mount, &plan.apiserver)?;
        let client = ready::apiserver(mount, &self.paths.kubeconfig(), &plan.apiserver).await?;
        let server = plan
            .identities
            .first()
            .map_or("", |admin| admin.server.as_str());
        (self.report)(Event::Done(server.to_owned(), start.elapsed()));
        Ok(client)
    }

    /// Starts what is missing of these nodes and waits until they are ready.
    async fn nodes(&self, mount: &Path, client: &Client, nodes: &[&NodePlan]) -> Result<()> {
        (self.report)(Event::Begin("nodes"));
        let start = Instant::now();
        let now = now();
        let mut awaited = Vec::new();
        for node in nodes {
            let files = self.paths.node(&node.name);
            for folder in [&files.run, &files.state] {
                at("make", folder, fs::create_dir_all(folder))?;
            }
            let (mut since, mut agent) = (0, None);
            for process in &node.processes {
                if !self.ensure(mount, process)? {
                    continue;
                }
                // The heartbeat is the kubelet's: one that runs on is not heard of anew.
                if process.name.ends_with("/kubelet") {
                    since = now;
                } else if process.name.ends_with("/agent") {
                    agent = Some(files.agent_socket());
                }
            }
            awaited.push(Awaited {
                name: &node.name,
                processes: &node.processes,
                since,
                agent,
            });
        }
        let all = awaited.len();
        ready::nodes(mount, client, &awaited, |ready| {
            (self.report)(Event::Progress(format!("{ready} of {all} ready")));
        })
        .await?;
        let names: Vec<&str> = awaited.iter().map(|node| node.name).collect();
        let words = if all > 5 {
            format!("{all} ready")
        } else {
            format!("{} ready", names.join(", "))
        };
        (self.report)(Event::Done(words, start.elapsed()));
        Ok(())
    }

    fn existing(&self) -> Result<(ClusterSpec, Plan)> {
        let spec = state::existing(&self.paths)?;
        let plan = plan(&spec, &self.paths);
        Ok((spec, plan))
    }

    fn node_of<'p>(&self, plan: &'p Plan, name: &str) -> Result<&'p NodePlan> {
        plan.nodes
            .iter()
            .find(|node| node.name == name)
            .ok_or_else(|| Error::NoNode {
                cluster: self.paths.name.clone(),
                name: name.to_owned(),
                nodes: plan.nodes.iter().map(|node| node.name.clone()).collect(),
            })
    }

    /// Ends everything on a node at once, as a power cut does: its processes, pods, links
    /// and all it kept in memory. Its disk stays.
    pub fn stop_node(&self, name: &str) -> Result<()> {
        let (_, plan) = self.existing()?;
        let node = self.node_of(&plan, name)?;
        let _lock = self.lock()?;
        self.power_off(&cgroup::mount()?, &plan, node)
    }

    fn power_off(&self, mount: &Path, plan: &Plan, node: &NodePlan) -> Result<()> {
        let folder = mount.join(&node.cgroup);
        cgroup::kill(&folder)?;
        cgroup::remove(&folder)?;
        let files = self.paths.node(&node.name);
        down::unmount_below(&files.state)?;
        down::unmount_below(&files.run)?;
        underlay::remove_node(plan, node)?;
        down::remove_folder(&files.run)
    }

    /// Starts a node that was stopped, plugs its cable in, and waits until it is ready.
    pub async fn start_node(&self, name: &str) -> Result<()> {
        let (_, plan) = self.existing()?;
        let node = self.node_of(&plan, name)?;
        let _lock = self.lock()?;
        let mount = cgroup::mount()?;
        underlay::make_node(&plan, node)?;
        let client = self.apiserver(&mount, &plan).await?;
        self.nodes(&mount, &client, &[node]).await
    }

    /// Pulls a node's cable, or plugs it in again.
    pub fn cable(&self, name: &str, up: bool) -> Result<()> {
        let (_, plan) = self.existing()?;
        let node = self.node_of(&plan, name)?;
        let _lock = self.lock()?;
        if linux::NetNs::named(&node.namespace.name).is_err() {
            return Err(Error::Off(name.to_owned()));
        }
        if up {
            // A link that goes down loses its routes: all is made again.
            underlay::make_node(&plan, node)?;
        }
        underlay::set_cable(&plan, node, up)
    }

    /// Adds a node to the live cluster and waits until it is ready; returns its name.
    pub async fn add_node(&self, name: Option<&str>) -> Result<String> {
        let _lock = self.lock_existing()?;
        let mut spec = state::existing(&self.paths)?;
        let added = spec.add_node(name)?;
        state::save(&self.paths, &spec)?;
        let plan = plan(&spec, &self.paths);
        let node = self.node_of(&plan, &added.name)?;
        underlay::make_node(&plan, node)?;
        pki::issue_node(&self.paths, node)?;
        let mount = cgroup::mount()?;
        let client = self.apiserver(&mount, &plan).await?;
        self.nodes(&mount, &client, &[node]).await?;
        Ok(added.name)
    }

    /// Takes a node out of the live cluster, with all that ran on it.
    pub async fn remove_node(&self, name: &str) -> Result<()> {
        let _lock = self.lock_existing()?;
        let (mut spec, plan) = self.existing()?;
        let node = self.node_of(&plan, name)?;
        if spec.nodes.len() == 1 {
            return Err(super::spec::SpecError {
                flag: "NAME",
                message: format!("{name} is the last node; flatnet down ends the cluster"),
            }
            .into());
        }
        let mount = cgroup::mount()?;
        self.power_off(&mount, &plan, node)?;
        let client = self.apiserver(&mount, &plan).await?;
        let nodes = Api::<k8s_openapi::api::core::v1::Node>::all(client);
        match nodes.delete(name, &DeleteParams::default()).await {
            Err(error) if !is_code(&error, 404) => {
                return Err(Error::api(
                    format!("delete node {name}"),
                    api::error::cause(&error),
                ));
            }
            _ => {}
        }
        spec.nodes.retain(|node| node.name != name);
        state::save(&self.paths, &spec)?;
        down::remove_folder(&self.paths.node(name).state)
    }

    /// The lock, but only where there is a cluster: a lock makes its folder.
    fn lock_existing(&self) -> Result<state::Lock> {
        state::existing(&self.paths)?;
        self.lock()
    }
}

fn is_code(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
    })
}

/// The first port from 6443 on that no cluster remembers and nobody listens on.
fn free_port() -> Result<u16> {
    let taken: Vec<u16> = state::clusters()
        .iter()
        .filter_map(|name| state::load(&ClusterPaths::new(name)).ok().flatten())
        .map(|spec| spec.api_port)
        .collect();
    let free = |port: &u16| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, *port));
        !taken.contains(port) && TcpListener::bind(address).is_ok()
    };
    (FIRST_PORT..FIRST_PORT + 1000).find(free).ok_or_else(|| {
        Error::kernel(
            "choose a port for the API server",
            "6443 to 7442 are all taken; give one with --api-port",
        )
    })
}

/// Writes the network's configuration where agents and controllers watch it. What somebody
/// edited there stays, except for what is asked for now; returns what is in force.
async fn configure(client: &Client, spec: &ClusterSpec, request: &Request) -> Result<Config> {
    use api::convert::{CONFIG_KEY, CONFIG_NAME, CONFIG_NAMESPACE};
    let what = format!("configmap {CONFIG_NAMESPACE}/{CONFIG_NAME}");
    let fail = |error: kube::Error| Error::api(what.clone(), api::error::cause(&error));
    let api = Api::<ConfigMap>::namespaced(client.clone(), CONFIG_NAMESPACE);
    let old = api.get_opt(CONFIG_NAME).await.map_err(fail)?;
    let live = old.as_ref().and_then(|map| api::convert::config(map).ok());
    let wanted = match &live {
        Some(live) => request.onto(live.clone()),
        None => spec.config(),
    };
    if live.as_ref() == Some(&wanted) {
        return Ok(wanted);
    }
    let text = serde_saphyr::to_string(&wanted).map_err(|error| Error::api(what.clone(), error))?;
    let fresh = old.is_none();
    let mut map = old.unwrap_or_default();
    map.metadata.name = Some(CONFIG_NAME.into());
    map.data
        .get_or_insert_default()
        .insert(CONFIG_KEY.into(), text);
    let written = if fresh {
        api.create(&PostParams::default(), &map).await
    } else {
        api.replace(CONFIG_NAME, &PostParams::default(), &map).await
    };
    written.map(|_| wanted).map_err(fail)
}

/// Makes LoadBalancerPools known, and with them a first pool of addresses on the nodes' own
/// segment. Whoever takes that pool away later does not find it again.
async fn balancer(client: &Client, spec: &ClusterSpec) -> Result<()> {
    let fail = |error: api::Error| Error::api("LoadBalancerPool default", error);
    if api::pool::define(client, "flatnet").await.map_err(fail)? {
        let families: &[bool] = if spec.has_v6() {
            &[false, true]
        } else {
            &[false]
        };
        let addresses: Vec<String> = families.iter().map(|v6| address::balancer(*v6)).collect();
        api::pool::create(client, "default", &addresses)
            .await
            .map_err(fail)?;
    }
    Ok(())
}

/// The programs next to the one that runs now.
pub fn programs() -> Result<Programs> {
    let flatnet = std::env::current_exe();
    let flatnet = at("find", Path::new("/proc/self/exe"), flatnet)?;
    let cni = flatnet
        .parent()
        .map(Path::to_owned)
        .unwrap_or_else(|| PathBuf::from("/"));
    Ok(Programs {
        flatnet,
        cni,
        log: std::env::var("FLATNET_LOG").unwrap_or_else(|_| "info".into()),
    })
}
