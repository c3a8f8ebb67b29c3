# Which requests pass on a connection.
#
# Of the inspected endpoints that grant the connection, those with the most precise path selector
# that matches govern. A deny rule of any of them beats every allow rule. A request that they refuse
# passes, recorded, if none of them enforces.
package openshell.sandbox

import rego.v1

preset_methods := {
	"read-only": {"GET", "HEAD", "OPTIONS"},
	"read-write": {"GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH"},
	"full": {"*"},
}

# A selector without patterns selects every path.
selects(endpoint) if count(data.patterns.selector[object.get(endpoint, "path", "")]) == 0

selects(endpoint) if {
	some pattern in data.patterns.selector[endpoint.path]
	regex.match(pattern, input.request.path)
}

# Its characters that are no stars.
specificity(endpoint) := count(replace(object.get(endpoint, "path", ""), "*", ""))

selecting contains [name, key, i] if {
	some [name, key, i] in inspected
	selects(at(key, i))
}

most_specific := max({specificity(at(key, i)) | some [_, key, i] in selecting})

governing contains [name, key, i] if {
	some [name, key, i] in selecting
	specificity(at(key, i)) == most_specific
}

method_matches(method) if method == "*"

method_matches(method) if method == input.request.method

method_matches("GET") if input.request.method == "HEAD"

# Method and path of an allow or deny rule.
speaks(rule) if {
	method_matches(object.get(rule, "method", "*"))
	regex.match(data.patterns.text[object.get(rule, "path", "**")], input.request.path)
}

globs(matcher) := [matcher] if is_string(matcher)

globs(matcher) := matcher.any if is_object(matcher)

value_matches(matcher, value) if {
	some glob in globs(matcher)
	regex.match(data.patterns.text[glob], value)
}

# For an allow rule the key is there and all its values match.
all_values_match(key, matcher) if {
	values := input.request.query_params[key]
	every value in values {
		value_matches(matcher, value)
	}
}

# For a deny rule one value that matches is enough.
some_value_matches(key, matcher) if {
	some value in input.request.query_params[key]
	value_matches(matcher, value)
}

# Rules as [name, key, place of the endpoint, place of the rule].
allowing contains [name, key, i, 0] if {
	some [name, key, i] in governing
	some method in preset_methods[at(key, i).access]
	method_matches(method)
}

allowing contains [name, key, i, j] if {
	some [name, key, i] in governing
	some j, rule in at(key, i).rules
	speaks(rule.allow)
	every parameter, matcher in object.get(rule.allow, "query", {}) {
		all_values_match(parameter, matcher)
	}
}

denying contains [name, key, i, j] if {
	some [name, key, i] in governing
	some j, rule in at(key, i).deny_rules
	speaks(rule)
	every parameter, matcher in object.get(rule, "query", {}) {
		some_value_matches(parameter, matcher)
	}
}

default refusal := "audit"

refusal := "deny" if {
	some [_, key, i] in governing
	object.get(at(key, i), "enforcement", "audit") == "enforce"
}

request := {"action": "deny", "cause": connect.cause, "policy": object.get(connect, "policy", null)} if {
	connect.action == "deny"
} else := {"action": "allow", "cause": "not_inspected", "policy": first_name(granted)} if {
	strictest != "http"
} else := {"action": "deny", "cause": "no_path", "policy": first_name(inspected)} if {
	count(selecting) == 0
} else := {"action": refusal, "cause": "denied", "policy": sort(denying)[0][0], "rule": sort(denying)[0]} if {
	count(denying) > 0
} else := {"action": "allow", "cause": "allowed", "policy": sort(allowing)[0][0], "rule": sort(allowing)[0]} if {
	count(allowing) > 0
} else := {"action": refusal, "cause": "not_allowed", "policy": first_name(governing)}
