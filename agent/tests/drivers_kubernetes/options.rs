//! What agent.yaml may say, and where it is wrong.

use crate::support::parse;

fn mistake(resource: &str) -> String {
    parse(&format!("kind: kubernetes\nnamespace: shop\n{resource}")).unwrap_err().to_string()
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (resource, part) in [
        ("workloads: []", "workloads is empty"),
        ("workloads: [{ deployment: a, cronJob: b }]", "one of deployment, statefulSet, cronJob and selector"),
        ("workloads: [{ cronJob: a, replicas: 2 }]", "a cronJob has no replicas"),
        ("workloads: [{ deployment: a, replicas: 1, atRest: 1 }]", "above atRest"),
        ("workloads: [{ deployment: a, replica: 1 }]", "replica"),
        ("workloads: [{ deployment: a }]\ncontext: b", "none is named"),
        ("workloads: [{ deployment: a }]\nkubeconfig: kube.yaml", "not an absolute path"),
        ("workloads: [{ deployment: a }]\nargocd: { application: a, by: helm }", "same parameters"),
        ("workloads: [{ deployment: a }]\nargocd: { application: a, by: kustomize }", "say replicas of Deployment a"),
        ("workloads: [{ cronJob: a }]\nargocd: { application: a, by: kustomize }", "not of CronJob a"),
        ("workloads: [{ deployment: a }]\nargocd: { application: a, by: pause }", "pause"),
    ] {
        let message = mistake(resource);
        assert!(message.contains(part), "{resource}: {message}");
        assert!(message.contains("line "), "{message}");
    }
}

#[test]
fn defaults_are_shown_by_check_config() {
    let config = parse("kind: kubernetes\nnamespace: shop\nworkloads: [{ deployment: a, replicas: 2 }]").unwrap();
    let shown = config.to_yaml_redacted().unwrap();
    for line in ["kind: kubernetes", "atRest: 0", "quarantine: rest", "timeout: 2m"] {
        assert!(shown.contains(line), "{line}: {shown}");
    }
}
