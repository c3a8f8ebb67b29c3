// Package health shows what Argo CD and the tools that follow kstatus (Flux, helm --wait, kubectl apply --wait) make of
// the objects in objects/, which `capture` took from a cluster, or in the directory OBJECTS. The Lua interpreter is the one that Argo CD has, the rules
// are kstatus' own.
package health

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
	"sigs.k8s.io/yaml"
)

// What each object is to be to Argo CD and to kstatus, by the name of its file.
var expected = map[string][2]string{
	"gateway-ready":          {"Healthy", "Current"},
	"gateway-image-missing":  {"Degraded", "Failed"},
	"gateway-new":            {"Progressing", "InProgress"},
	"policy-pending":         {"Progressing", "InProgress"},
	"policy-accepted":        {"Healthy", "Current"},
	"policy-refused":         {"Degraded", "Failed"},
	"provider-accepted":      {"Healthy", "Current"},
	"provider-refused":       {"Degraded", "Failed"},
	"sandbox-ready":          {"Healthy", "Current"},
	"sandbox-new":            {"Progressing", "InProgress"},
	"sandbox-suspended":      {"Suspended", "Current"},
	"sandbox-completed":      {"Healthy", "Current"},
	"sandbox-failed":         {"Degraded", "Failed"},
	"sandbox-image-missing":  {"Progressing", "InProgress"},
	"sandbox-policy-missing": {"Degraded", "Failed"},
	"sandbox-changed":        {"Progressing", "InProgress"},
	"sandbox-deleted":        {"", "Terminating"},
}

func TestEveryObjectIsWhatItIs(t *testing.T) {
	scripts := scripts(t)
	directory := os.Getenv("OBJECTS")
	if directory == "" {
		directory = "objects"
	}
	files, err := filepath.Glob(filepath.Join(directory, "*.json"))
	if err != nil || len(files) != len(expected) {
		t.Fatalf("%d objects, and %d are expected (%v)", len(files), len(expected), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			wanted, ok := expected[name]
			if !ok {
				t.Fatalf("nobody says what %s is", file)
			}
			object := read(t, file)
			result, err := status.Compute(object)
			if err != nil {
				t.Fatal(err)
			}
			if string(result.Status) != wanted[1] {
				t.Errorf("kstatus: %s (%s), not %s", result.Status, result.Message, wanted[1])
			}
			if wanted[0] == "" {
				return // Argo CD asks no script of an object that is being deleted.
			}
			health, message := run(t, scripts[object.GetKind()], object)
			if health != wanted[0] {
				t.Errorf("Argo CD: %s (%s), not %s", health, message, wanted[0])
			}
			if health == "Degraded" && message == "" {
				t.Error("Argo CD: Degraded without a message")
			}
		})
	}
}

func scripts(t *testing.T) map[string]string {
	t.Helper()
	var patch struct {
		Data map[string]string `json:"data"`
	}
	text, err := os.ReadFile("../../charts/argocd/argocd-cm.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(text, &patch); err != nil {
		t.Fatal(err)
	}
	scripts := map[string]string{}
	for key, script := range patch.Data {
		kind, ok := strings.CutPrefix(key, "resource.customizations.health.openshell.ai_")
		if !ok {
			t.Fatalf("no health check: %s", key)
		}
		scripts[kind] = script
	}
	return scripts
}

func read(t *testing.T, file string) *unstructured.Unstructured {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(text); err != nil {
		t.Fatal(err)
	}
	return object
}

// As Argo CD runs a script: `obj` is the object, the result is a table with status and message.
func run(t *testing.T, script string, object *unstructured.Unstructured) (health, message string) {
	t.Helper()
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []lua.LGFunction{lua.OpenBase, lua.OpenTable} {
		state.Push(state.NewFunction(library))
		state.Call(0, 0)
	}
	state.SetGlobal("obj", value(state, object.Object))
	if err := state.DoString(script); err != nil {
		t.Fatal(err)
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		t.Fatalf("the script returned %s", state.Get(-1).Type())
	}
	return table.RawGetString("status").String(), table.RawGetString("message").String()
}

func value(state *lua.LState, from any) lua.LValue {
	switch from := from.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, item := range from {
			table.RawSetString(key, value(state, item))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, item := range from {
			table.Append(value(state, item))
		}
		return table
	case string:
		return lua.LString(from)
	case bool:
		return lua.LBool(from)
	case int64:
		return lua.LNumber(from)
	case float64:
		return lua.LNumber(from)
	default:
		return lua.LNil
	}
}
