# Who may connect where.
#
# data.policy    the policy file, normalised (one spelling for every value)
# data.patterns  every wildcard and glob of the file as an anchored regular expression:
#                {host: {…}, text: {…}, selector: {…}}
# data.binaries  who may use each policy: {paths: […], patterns: […]}
# input          {exec: {path, ancestors}, network: {host, port, address},
#                 request: {method, path, query_params}}
package openshell.sandbox

import rego.v1

policies := object.get(data.policy, "network_policies", {})

# The name that a policy goes by in decisions.
display_name(key) := object.get(policies[key], "name", key)

ports(endpoint) := {endpoint.port} if endpoint.port

ports(endpoint) := {port | some port in endpoint.ports} if not endpoint.port

networks(endpoint) := object.get(endpoint, "allowed_ips", [])

# An endpoint with a host covers the hosts of its pattern; one without covers every name (which has
# to resolve into its networks) and every address in its networks.
host_covered(endpoint) if endpoint.host == input.network.host

host_covered(endpoint) if {
	contains(endpoint.host, "*")
	regex.match(data.patterns.host[endpoint.host], input.network.host)
}

host_covered(endpoint) if {
	not endpoint.host
	not input.network.address
}

host_covered(endpoint) if {
	not endpoint.host
	input.network.address
	some network in networks(endpoint)
	net.cidr_contains(network, input.network.host)
}

# An empty list of executables grants to any; else the process or one it descends from is listed.
binary_granted(key) if {
	count(data.binaries[key].paths) == 0
	count(data.binaries[key].patterns) == 0
}

binary_granted(key) if {
	some path in array.concat([input.exec.path], input.exec.ancestors)
	path in data.binaries[key].paths
}

binary_granted(key) if {
	some path in array.concat([input.exec.path], input.exec.ancestors)
	some pattern in data.binaries[key].patterns
	regex.match(pattern, path)
}

# Endpoints as [name, key, place]: sorted, the first is the one that a decision names.
covering contains [display_name(key), key, i] if {
	some key, policy in policies
	some i, endpoint in policy.endpoints
	input.network.port in ports(endpoint)
	host_covered(endpoint)
}

granted contains [name, key, i] if {
	some [name, key, i] in covering
	binary_granted(key)
}

first_name(endpoints) := sort([name | some [name, _, _] in endpoints])[0]

at(key, i) := policies[key].endpoints[i]

# What is looked at: the strictest that any granting endpoint asks for.
inspection(endpoint) := "http" if {
	endpoint.protocol
	endpoint.protocol != "tcp"
}

inspection(endpoint) := "server_name" if {
	object.get(endpoint, "protocol", "tcp") == "tcp"
	object.get(endpoint, "tls", "") == "skip"
}

inspection(endpoint) := "connection" if {
	object.get(endpoint, "protocol", "tcp") == "tcp"
	object.get(endpoint, "tls", "") != "skip"
}

inspections contains inspection(at(key, i)) if some [_, key, i] in granted

strictest := "http" if "http" in inspections

strictest := "server_name" if {
	not "http" in inspections
	"server_name" in inspections
}

strictest := "connection" if {
	not "http" in inspections
	not "server_name" in inspections
}

inspected contains [name, key, i] if {
	some [name, key, i] in granted
	inspection(at(key, i)) == "http"
}

exact(endpoint) if {
	endpoint.host
	not contains(endpoint.host, "*")
}

default exact_host := false

exact_host if {
	some [_, key, i] in granted
	exact(at(key, i))
}

default encoded_slash := false

encoded_slash if {
	count(inspected) > 0
	every e in inspected {
		at(e[1], e[2]).allow_encoded_slash == true
	}
}

default uninspected_credentials := false

uninspected_credentials if {
	every e in granted {
		at(e[1], e[2]).allow_uninspected_credentials == true
	}
}

connect := {"action": "deny", "cause": "no_policies"} if {
	count(policies) == 0
} else := {"action": "deny", "cause": "no_endpoint"} if {
	count(covering) == 0
} else := {"action": "deny", "cause": "wrong_binary", "policy": first_name(covering)} if {
	count(granted) == 0
} else := {
	"action": "allow",
	"policy": first_name(granted),
	"plan": {
		"inspection": strictest,
		"allowed_ips": networks(at(sort(granted)[0][1], sort(granted)[0][2])),
		"exact_host": exact_host,
		"allow_encoded_slash": encoded_slash,
		"allow_uninspected_credentials": uninspected_credentials,
	},
}
