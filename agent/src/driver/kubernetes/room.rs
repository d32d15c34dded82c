//! Whether the nodes have room for the pods that would come: what those that are ready can give, less what the pods on them ask
//! for. Only where the agent may list nodes and pods of all namespaces; it is never needed, so its lack is not told.
//!
//! The largest pod first, each to the first node that has room and takes it (`nodeSelector`, taints). Not looked at: affinity,
//! spreading, volumes, priorities, pods that wait for a node, and nodes that an autoscaler would add.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod, PodSpec, Taint, Toleration};
use kube::api::ListParams;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use super::capacity::needs;
use super::failure::Request;
use super::quantity::{parse, shown};

/// Of one request.
const PAGE: u32 = 500;
/// A cluster of more objects than these pages hold is not looked at.
const PAGES: usize = 20;
/// Of the whole look: what else was found counts without it.
const LIMIT: Duration = Duration::from_secs(10);

/// Pods of a workload that would come.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    /// The workload, as messages name it.
    pub(super) shown: String,
    /// Each of them.
    pub(super) pod: PodSpec,
    /// How many.
    pub(super) count: i32,
}

/// What a pod takes, or a node has, in billionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Size {
    cpu: i128,
    memory: i128,
    pods: i128,
}

/// What is left on a node that takes new pods.
#[derive(Debug, Clone)]
struct Space {
    free: Size,
    labels: BTreeMap<String, String>,
    taints: Vec<Taint>,
}

/// What there is too little of, in words; nothing where it is not known.
pub(super) async fn short(client: &Client, wanted: &[Wanted]) -> Vec<String> {
    if wanted.is_empty() {
        return Vec::new();
    }
    let spaces = tokio::time::timeout(LIMIT, look(client)).await.ok().flatten();
    spaces.map(|spaces| lacking(spaces, wanted)).unwrap_or_default()
}

/// The nodes that are ready and not cordoned. None if they may not be listed, are too many, or there is no node at all: then
/// nodes come when they are needed.
async fn look(client: &Client) -> Option<Vec<Space>> {
    let mut nodes: Vec<Node> = Vec::new();
    each(client, "nodes", ListParams::default(), |node| nodes.push(node)).await?;
    if nodes.is_empty() {
        return None;
    }
    let mut taken: BTreeMap<String, Size> = BTreeMap::new();
    let live = ListParams::default().fields("status.phase!=Succeeded,status.phase!=Failed");
    each(client, "pods", live, |pod: Pod| {
        if let Some((node, size)) = on_node(&pod) {
            let so_far = taken.entry(node).or_default();
            *so_far = so_far.plus(size);
        }
    })
    .await?;
    Some(nodes.iter().filter_map(|node| Space::of(node, &taken)).collect())
}

/// Lists all of a kind, page by page; none if that may not be or takes too many.
async fn each<K>(client: &Client, resource: &'static str, params: ListParams, mut take: impl FnMut(K)) -> Option<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let api: Api<K> = Api::all(client.clone());
    let request = Request { verb: "list", resource, name: "", namespace: "" };
    let mut params = params.limit(PAGE);
    for _ in 0..PAGES {
        let page = request.send(api.list(&params)).await.ok()?;
        page.items.into_iter().for_each(&mut take);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params = params.continue_token(&token),
            None => return Some(()),
        }
    }
    None
}

/// Where a pod that has not ended runs, and what it takes there.
fn on_node(pod: &Pod) -> Option<(String, Size)> {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    let spec = pod.spec.as_ref().filter(|_| !matches!(phase, Some("Succeeded" | "Failed")))?;
    Some((spec.node_name.clone()?, Size::of(spec)))
}

impl Size {
    fn of(pod: &PodSpec) -> Self {
        let needs = needs(pod, 1);
        let of = |name: &str| needs.get(name).copied().unwrap_or_default();
        Self { cpu: of("requests.cpu"), memory: of("requests.memory"), pods: of("pods") }
    }

    fn plus(self, other: Self) -> Self {
        Self { cpu: self.cpu + other.cpu, memory: self.memory + other.memory, pods: self.pods + other.pods }
    }

    fn minus(self, other: Self) -> Self {
        Self { cpu: self.cpu - other.cpu, memory: self.memory - other.memory, pods: self.pods - other.pods }
    }

    fn times(self, count: i32) -> Self {
        let count = i128::from(count);
        Self { cpu: self.cpu * count, memory: self.memory * count, pods: self.pods * count }
    }

    /// By what quotas and pods call it.
    fn named(self) -> [(&'static str, i128); 3] {
        [("cpu", self.cpu), ("memory", self.memory), ("pods", self.pods)]
    }

    /// What asks for nothing of a kind finds room whatever is left of it.
    fn holds(self, other: Self) -> bool {
        self.named().into_iter().zip(other.named()).all(|((_, free), (_, asked))| asked == 0 || asked <= free)
    }
}

impl Space {
    fn of(node: &Node, taken: &BTreeMap<String, Size>) -> Option<Self> {
        let name = node.metadata.name.as_ref()?;
        let (spec, status) = (node.spec.clone().unwrap_or_default(), node.status.as_ref()?);
        let mut conditions = status.conditions.iter().flatten();
        let is_ready = conditions.any(|one| one.type_ == "Ready" && one.status == "True");
        if !is_ready || spec.unschedulable == Some(true) {
            return None;
        }
        let has = |name: &str| status.allocatable.as_ref()?.get(name).and_then(|quantity| parse(&quantity.0));
        let all = Size {
            cpu: has("cpu").unwrap_or_default(),
            memory: has("memory").unwrap_or_default(),
            pods: has("pods").unwrap_or_default(),
        };
        Some(Self {
            free: all.minus(taken.get(name).copied().unwrap_or_default()),
            labels: node.metadata.labels.clone().unwrap_or_default(),
            taints: spec.taints.unwrap_or_default(),
        })
    }

    /// The pod may run there, if there is room.
    fn takes(&self, pod: &PodSpec) -> bool {
        let mut selected = pod.node_selector.iter().flatten();
        let tolerations = pod.tolerations.as_deref().unwrap_or_default();
        let mut keeps_out =
            self.taints.iter().filter(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
        selected.all(|(key, value)| self.labels.get(key) == Some(value))
            && keeps_out.all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint)))
    }
}

fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let same_key = (key.is_empty() && exists) || key == taint.key;
    let value = |text: Option<&str>| text.unwrap_or_default().to_owned();
    let same_value = exists || value(toleration.value.as_deref()) == value(taint.value.as_deref());
    same_key && same_value && (effect.is_empty() || effect == taint.effect)
}

/// What of these pods finds no room, in words.
fn lacking(mut spaces: Vec<Space>, wanted: &[Wanted]) -> Vec<String> {
    let (some, none): (Vec<&Wanted>, Vec<&Wanted>) =
        wanted.iter().partition(|one| spaces.iter().any(|space| space.takes(&one.pod)));
    let mut short: Vec<String> = none
        .iter()
        .map(|one| {
            format!("no node that is ready takes the pods of {}: see its nodeSelector, and the taints", one.shown)
        })
        .collect();
    let over = beyond_all(&spaces, &some);
    if over.is_empty() {
        short.extend(unplaced(&mut spaces, some));
    } else {
        short.extend(over);
    }
    short
}

/// What all of the nodes together have too little of.
fn beyond_all(spaces: &[Space], wanted: &[&Wanted]) -> Vec<String> {
    let usable = spaces.iter().filter(|space| wanted.iter().any(|one| space.takes(&one.pod)));
    let free = usable.fold(Size::default(), |sum, space| sum.plus(space.free));
    let asked = wanted.iter().fold(Size::default(), |sum, one| sum.plus(Size::of(&one.pod).times(one.count)));
    let over = free.named().into_iter().zip(asked.named()).filter(|((_, free), (_, asked))| *asked > 0 && asked > free);
    over.map(|((name, free), (_, asked))| {
        format!("the nodes that are ready have {} {name} free, and starting takes {}", shown(free), shown(asked))
    })
    .collect()
}

/// What finds no single node, though all of them together have enough.
fn unplaced(spaces: &mut [Space], mut wanted: Vec<&Wanted>) -> Vec<String> {
    let all = spaces.iter().fold(Size::default(), |sum, space| sum.plus(space.free));
    // By its share of what there is.
    let share = |one: &&Wanted| {
        let size = Size::of(&one.pod);
        size.cpu.saturating_mul(all.memory.max(1)).max(size.memory.saturating_mul(all.cpu.max(1)))
    };
    wanted.sort_by_key(|one| std::cmp::Reverse(share(one)));
    let mut short = Vec::new();
    for one in wanted {
        let size = Size::of(&one.pod);
        let mut left = one.count;
        while left > 0 {
            let first = spaces.iter_mut().find(|space| space.takes(&one.pod) && space.free.holds(size));
            let Some(first) = first else { break };
            first.free = first.free.minus(size);
            left -= 1;
        }
        if left > 0 {
            let usable = || spaces.iter().filter(|space| space.takes(&one.pod)).map(|space| space.free);
            let most = |of: fn(Size) -> i128| shown(usable().map(of).max().unwrap_or_default());
            short.push(format!(
                "{left} of {} pods of {} find no node with room: each asks for {} cpu and {} memory, and the most that one \
                 node has left is {} cpu and {} memory",
                one.count,
                one.shown,
                shown(size.cpu),
                shown(size.memory),
                most(|free| free.cpu),
                most(|free| free.memory)
            ));
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn node(name: &str, cpu: &str, more: &Value) -> Node {
        let mut node = json!({
            "metadata": { "name": name },
            "spec": {},
            "status": {
                "allocatable": { "cpu": cpu, "memory": "4Gi", "pods": "10" },
                "conditions": [{ "type": "Ready", "status": "True" }],
            },
        });
        for (key, value) in more.as_object().unwrap() {
            node[key] = value.clone();
        }
        serde_json::from_value(node).unwrap()
    }

    fn pod(cpu: &str, more: &Value) -> PodSpec {
        let mut pod =
            json!({ "containers": [{ "name": "a", "resources": { "requests": { "cpu": cpu, "memory": "1Gi" } } }] });
        for (key, value) in more.as_object().unwrap() {
            pod[key] = value.clone();
        }
        serde_json::from_value(pod).unwrap()
    }

    fn wanted(shown: &str, cpu: &str, count: i32) -> Wanted {
        Wanted { shown: shown.to_owned(), pod: pod(cpu, &json!({})), count }
    }

    fn told(nodes: &[Node], taken: &[(&str, PodSpec)], wanted: &[Wanted]) -> Vec<String> {
        let taken = taken.iter().map(|(node, pod)| ((*node).to_owned(), Size::of(pod))).collect();
        lacking(nodes.iter().filter_map(|node| Space::of(node, &taken)).collect(), wanted)
    }

    #[test]
    fn what_runs_and_what_comes_may_not_be_more_than_there_is() {
        let nodes = [node("one", "2", &json!({})), node("two", "2", &json!({}))];
        let runs = [("one", pod("500m", &json!({}))), ("elsewhere", pod("64", &json!({})))];
        assert_eq!(told(&nodes, &runs, &[wanted("Deployment a", "1", 3)]), Vec::<String>::new());
        let sum = ["the nodes that are ready have 3.5 cpu free, and starting takes 4"];
        assert_eq!(told(&nodes, &runs, &[wanted("Deployment a", "1", 4)]), sum);
        // Memory, and places.
        let short = told(&nodes, &runs, &[wanted("Deployment a", "1m", 8)]);
        assert_eq!(short, ["the nodes that are ready have 7Gi memory free, and starting takes 8Gi"]);
        let nothing =
            Wanted { pod: serde_json::from_value(json!({ "containers": [] })).unwrap(), ..wanted("a", "0", 20) };
        assert_eq!(
            told(&nodes, &runs, &[nothing]),
            ["the nodes that are ready have 19 pods free, and starting takes 20"]
        );
    }

    #[test]
    fn each_pod_needs_a_node_of_its_own_size_and_the_largest_goes_first() {
        let nodes = [node("one", "2", &json!({})), node("two", "2", &json!({}))];
        let many = [wanted("Deployment small", "500m", 2), wanted("Deployment large", "1500m", 2)];
        assert_eq!(told(&nodes, &[], &many), Vec::<String>::new());
        let short = told(&nodes, &[], &[wanted("Deployment a", "1200m", 3)]);
        assert_eq!(
            short,
            [
                "1 of 3 pods of Deployment a find no node with room: each asks for 1.2 cpu and 1Gi memory, and the most that one \
              node has left is 0.8 cpu and 3Gi memory"
            ]
        );
    }

    #[test]
    fn a_node_that_takes_no_new_pod_has_no_room() {
        let cordoned = node("one", "64", &json!({ "spec": { "unschedulable": true } }));
        let down = json!({ "status": { "allocatable": { "cpu": "64" }, "conditions": [{ "type": "Ready", "status": "Unknown" }] } });
        let nodes = [cordoned, node("two", "64", &down), node("three", "1", &json!({}))];
        let short = told(&nodes, &[], &[wanted("Deployment a", "1", 2)]);
        assert_eq!(short, ["the nodes that are ready have 1 cpu free, and starting takes 2"]);
    }

    #[test]
    fn taints_and_selectors_are_heeded() {
        let taint = json!({ "spec": { "taints": [{ "key": "only", "value": "db", "effect": "NoSchedule" }] } });
        let labels = json!({ "metadata": { "name": "two", "labels": { "disk": "ssd" } } });
        let nodes = [node("one", "4", &taint), node("two", "1", &labels)];
        let short = |cpu: &str, more: Value| {
            let one = Wanted { pod: pod(cpu, &more), ..wanted("Deployment a", cpu, 1) };
            told(&nodes, &[], &[one])
        };
        let none = Vec::<String>::new();
        assert_eq!(short("2", json!({})).len(), 1);
        for toleration in [
            json!({ "operator": "Exists" }),
            json!({ "key": "only", "operator": "Exists", "effect": "NoSchedule" }),
            json!({ "key": "only", "value": "db" }),
        ] {
            assert_eq!(short("2", json!({ "tolerations": [toleration] })), none);
        }
        for toleration in [
            json!({ "key": "other", "operator": "Exists" }),
            json!({ "key": "only", "operator": "Exists", "effect": "NoExecute" }),
            json!({ "key": "only", "value": "web" }),
        ] {
            assert_eq!(short("2", json!({ "tolerations": [toleration] })).len(), 1);
        }
        assert_eq!(short("1", json!({ "nodeSelector": { "disk": "ssd" } })), none);
        let nowhere = short("1", json!({ "nodeSelector": { "disk": "tape" } }));
        assert_eq!(
            nowhere,
            ["no node that is ready takes the pods of Deployment a: see its nodeSelector, and the taints"]
        );
    }

    #[test]
    fn a_pod_that_has_ended_or_waits_takes_nothing() {
        let spec =
            json!({ "nodeName": "one", "containers": [{ "name": "a", "resources": { "requests": { "cpu": "1" } } }] });
        let on = |spec: &Value, phase: &str| {
            on_node(&serde_json::from_value(json!({ "spec": spec, "status": { "phase": phase } })).unwrap())
        };
        let taken = on(&spec, "Running").map(|(node, size)| (node, shown(size.cpu)));
        assert_eq!(taken, Some(("one".to_owned(), "1".to_owned())));
        assert_eq!(on(&spec, "Succeeded"), None);
        assert_eq!(on(&spec, "Failed"), None);
        assert_eq!(on(&json!({ "containers": [] }), "Pending"), None);
    }
}
