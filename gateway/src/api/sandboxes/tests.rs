use openshell_proto::value::object_to_wire;
use serde_json::json;
use tonic_types::StatusExt as _;

use super::*;

fn request(template: v1::SandboxTemplate) -> v1::CreateSandboxRequest {
    let spec = v1::SandboxSpec { template: Some(template), ..v1::SandboxSpec::default() };
    v1::CreateSandboxRequest { name: "demo".to_owned(), spec: Some(spec), ..v1::CreateSandboxRequest::default() }
}

#[test]
fn in_a_cluster_a_template_is_a_pod() {
    let resources = json!({"limits": {"cpu": "500m"}}).as_object().cloned().map(object_to_wire);
    let template =
        v1::SandboxTemplate { image: "debian:12".to_owned(), runtime_class_name: "crun".to_owned(), resources, ..Default::default() };
    let object = wanted(&request(template), &Placement::Operator).unwrap();
    assert_eq!((object.spec.image.as_deref(), object.spec.runtime_class_name.as_deref()), (Some("debian:12"), Some("crun")));
    assert_eq!(object.spec.resources.unwrap().limits["cpu"].0, "500m");
}

#[test]
fn what_no_pod_can_be_is_refused_in_the_words_of_its_driver() {
    let mut asked = request(v1::SandboxTemplate {
        agent_socket: "/run/a".to_owned(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        annotations: [("a".to_owned(), "b".to_owned())].into(),
        environment: [("A".to_owned(), "b".to_owned())].into(),
        user_namespaces: Some(true),
        image: " ".to_owned(),
        ..v1::SandboxTemplate::default()
    });
    let gpu = Some(v1::GpuResourceRequirements { count: Some(65) });
    asked.spec.as_mut().unwrap().resource_requirements = Some(v1::ResourceRequirements { gpu });
    let refused = wanted(&asked, &Placement::Operator).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::InvalidArgument);
    let details = refused.get_error_details();
    let found = &details.bad_request().unwrap().field_violations;
    for field in ["agent_socket", "labels", "annotations", "environment", "user_namespaces", "image"] {
        assert!(found.iter().any(|v| v.field == format!("spec.template.{field}")), "{field} is not among {found:?}");
    }
    assert!(found.iter().any(|v| v.field == "spec.resource_requirements.gpu" && v.description.contains("1 to 64")), "{found:?}");
    assert!(found.iter().any(|v| v.description.contains("the kubernetes driver")), "{found:?}");
    assert!(!found.iter().any(|v| v.description.contains("process driver")), "{found:?}");
}

#[test]
fn what_the_api_server_refuses_is_the_request_s_fault_in_the_request_s_words() {
    let status: kube::core::Status = serde_json::from_value(json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": "Invalid", "code": 422,
        "message": "OpenShellSandbox.openshell.ai \"demo\" is invalid: spec.nodeSelector: Too many: 33: must have at most 32 items",
        "details": {"name": "demo", "causes": [
            {"reason": "FieldValueTooMany", "message": "Too many: 33: must have at most 32 items", "field": "spec.nodeSelector"},
        ]},
    }))
    .unwrap();
    let answer = refused("demo", kube::Error::Api(Box::new(status)));
    assert_eq!(answer.code(), tonic::Code::InvalidArgument);
    let wanted = "spec.template.driver_config.kubernetes.pod.node_selector: Too many: 33: must have at most 32 items";
    assert_eq!(answer.message(), wanted);
}
