use openshell_crds::OpenShellSandbox;
use serde_json::json;

use super::*;

fn template(image: &str, class: &str, resources: &Value, driver_config: &Value) -> v1::SandboxTemplate {
    let object = |value: &Value| value.as_object().cloned().map(object_to_wire);
    v1::SandboxTemplate {
        image: image.to_owned(),
        runtime_class_name: class.to_owned(),
        resources: object(resources),
        driver_config: object(driver_config),
        ..v1::SandboxTemplate::default()
    }
}

fn wrong(template: &v1::SandboxTemplate) -> Vec<String> {
    use tonic_types::StatusExt as _;
    let mut v = Violations::default();
    from_wire(template, &mut v);
    let Err(status) = v.into_result() else { return Vec::new() };
    let mut fields: Vec<String> =
        status.get_error_details().bad_request().unwrap().field_violations.iter().map(|v| v.field.clone()).collect();
    fields.sort();
    fields
}

#[test]
fn what_a_request_asks_for_is_in_the_object_and_comes_back() {
    let wire = template(
        "registry.example.com/agents/base:1@sha256:abc",
        "crun",
        &json!({"limits": {"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"}, "requests": {"cpu": "100m"}}),
        &json!({"kubernetes": {"pod": {
            "node_selector": {"kubernetes.io/arch": "amd64"},
            "tolerations": [
                {"key": "gpu", "operator": "Exists", "effect": "NoExecute", "toleration_seconds": 60},
                {"key": "team", "value": "a"},
            ],
        }}}),
    );
    let mut v = Violations::default();
    let pod = from_wire(&wire, &mut v);
    v.into_result().unwrap();
    let request = v1::SandboxSpec { template: Some(wire.clone()), ..v1::SandboxSpec::default() };
    let object = OpenShellSandbox::new("s", crate::convert::sandbox::spec_from_wire(&request, None, pod));
    let stored = serde_json::to_value(&object).unwrap();
    assert_eq!(stored["spec"]["image"], "registry.example.com/agents/base:1@sha256:abc");
    assert_eq!(stored["spec"]["runtimeClassName"], "crun");
    assert_eq!(stored["spec"]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi", "nvidia.com/gpu": "1"}));
    assert_eq!(stored["spec"]["nodeSelector"], json!({"kubernetes.io/arch": "amd64"}));
    assert_eq!(stored["spec"]["tolerations"][0]["tolerationSeconds"], 60);
    let back: OpenShellSandbox = serde_json::from_value(stored).unwrap();
    assert_eq!(to_wire(&back.spec), Some(wire));
    assert_eq!(to_wire(&OpenShellSandboxSpec::default()), None);
}

#[test]
fn gpus_of_a_request_are_in_the_object_and_come_back() {
    let asked = |count| v1::ResourceRequirements { gpu: Some(v1::GpuResourceRequirements { count }) };
    let of = |count| {
        let (mut pod, mut v) = (Pod::default(), Violations::default());
        gpu_from_wire(Some(&asked(count)), &mut pod, &mut v);
        v.into_result().map(|()| crate::convert::sandbox::spec_from_wire(&v1::SandboxSpec::default(), None, pod))
    };
    for (count, stored) in [(None, 1), (Some(2), 2)] {
        let spec = of(count).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap()["resources"], json!({"gpu": {"count": stored}}));
        assert_eq!(gpu_to_wire(&spec), Some(asked(u32::try_from(stored).ok())));
        assert_eq!(to_wire(&spec), None, "nothing else was asked for");
    }
    for count in [0, 65, u32::MAX] {
        assert_eq!(of(Some(count)).unwrap_err().code(), tonic::Code::InvalidArgument);
    }
    assert_eq!(gpu_to_wire(&OpenShellSandboxSpec::default()), None);
    assert_eq!(field("spec.resources.gpu.count"), "spec.resource_requirements.gpu.count");
}

#[test]
fn the_driver_s_own_places_mean_the_same() {
    let wire = template(
        "",
        "",
        &Value::Null,
        &json!({"kubernetes": {
            "pod": {"runtime_class_name": "crun"},
            "containers": {"agent": {"resources": {"limits": {"cpu": 2, "memory": 0.5}}}},
        }}),
    );
    let mut v = Violations::default();
    let pod = from_wire(&wire, &mut v);
    v.into_result().unwrap();
    assert_eq!(pod.runtime_class_name.as_deref(), Some("crun"));
    let limits = pod.resources.unwrap().limits;
    assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("2", "0.5"));
}

#[test]
fn what_is_wrong_has_its_path() {
    let kubernetes = |config: Value| template("", "", &Value::Null, &json!({ "kubernetes": config }));
    let root = "spec.template.driver_config";
    let long = "x".repeat(1025);
    for (template, fields) in [
        (template("-x", "", &Value::Null, &Value::Null), vec!["spec.template.image".to_owned()]),
        (template(&long, "", &Value::Null, &Value::Null), vec!["spec.template.image".to_owned()]),
        (
            template("a b", "X", &Value::Null, &Value::Null),
            vec!["spec.template.image".to_owned(), "spec.template.runtime_class_name".to_owned()],
        ),
        (
            template("", "", &json!({"limits": {"cpu": "lots", "memory": -1}, "claims": []}), &Value::Null),
            vec![
                "spec.template.resources.claims".to_owned(),
                "spec.template.resources.limits[\"cpu\"]".to_owned(),
                "spec.template.resources.limits[\"memory\"]".to_owned(),
            ],
        ),
        (template("", "", &json!({"limits": "2"}), &Value::Null), vec!["spec.template.resources.limits".to_owned()]),
        (template("", "", &Value::Null, &json!({"docker": {}})), vec![format!("{root}.docker")]),
        (kubernetes(json!([])), vec![format!("{root}.kubernetes")]),
        (
            kubernetes(json!({"volumes": [], "pod": {"priority_class_name": "high", "node_selector": {"a": 1}}})),
            vec![
                format!("{root}.kubernetes.pod.node_selector[\"a\"]"),
                format!("{root}.kubernetes.pod.priority_class_name"),
                format!("{root}.kubernetes.volumes"),
            ],
        ),
        (
            kubernetes(json!({"pod": {"tolerations": [{"operator": "Like", "effect": "Never", "toleration_seconds": "1", "x": 1}]}})),
            ["effect", "operator", "toleration_seconds", "x"].map(|f| format!("{root}.kubernetes.pod.tolerations[0].{f}")).to_vec(),
        ),
        (
            kubernetes(json!({"containers": {"agent": {"volume_mounts": []}, "other": {}}})),
            vec![format!("{root}.kubernetes.containers.agent.volume_mounts"), format!("{root}.kubernetes.containers.other")],
        ),
        (
            template(
                "",
                "a",
                &json!({"limits": {"cpu": "1"}}),
                &json!({"kubernetes": {
                "pod": {"runtime_class_name": "b"}, "containers": {"agent": {"resources": {"limits": {"cpu": "2"}}}}}}),
            ),
            vec![format!("{root}.kubernetes.containers.agent.resources"), format!("{root}.kubernetes.pod.runtime_class_name")],
        ),
    ] {
        assert_eq!(wrong(&template), fields, "{template:?}");
    }
}

#[test]
fn amounts_are_those_of_the_definition() {
    for good in ["1", "500m", "0.5", ".5", "1.", "1Gi", "+2", "1e3", "1E+3", "10k", "100n"] {
        assert!(is_quantity(good), "{good}");
    }
    for bad in ["", "-1", "1.2.3", "1gi", "Gi", "1 Gi", "1e", "1e123", "m", "1Zi", "10K", ".", "1e+", &"1".repeat(33)] {
        assert!(!is_quantity(bad), "{bad}");
    }
}

#[test]
fn paths_of_objects_are_those_of_requests() {
    for (object, request) in [
        ("spec.image", "spec.template.image"),
        ("spec.resources.limits.cpu", "spec.template.resources.limits.cpu"),
        ("spec.tolerations[0].operator", "spec.template.driver_config.kubernetes.pod.tolerations[0].operator"),
        ("spec.env[0].name", "spec.environment[0].name"),
        ("spec.imagePullSecrets", "spec.imagePullSecrets"),
        ("spec", "spec"),
        ("metadata.name", "name"),
    ] {
        assert_eq!(field(object), request);
    }
}

#[test]
fn the_bounds_are_those_of_the_definition() {
    use kube::CustomResourceExt as _;
    let definition = serde_json::to_value(OpenShellSandbox::crd()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"];
    let amount = &spec["resources"]["properties"]["limits"]["additionalProperties"];
    // What is checked here by hand has to change when one of these does.
    for (field, length, pattern) in [
        (&spec["image"], 1024, r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$"),
        (&spec["runtimeClassName"], 253, r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"),
        (amount, 32, r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$"),
    ] {
        assert_eq!((field["maxLength"].as_i64(), field["pattern"].as_str()), (Some(length), Some(pattern)));
    }
}
