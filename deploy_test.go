package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// document is one YAML document of a deployment.
type document map[string]any

// documents reads a file strictly: a key that appears twice is an error.
func documents(t *testing.T, file string) []document {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var all []document
	for in := yaml.NewDecoder(bytes.NewReader(content), yaml.Strict()); ; {
		var d document
		err := in.Decode(&d)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		all = append(all, d)
	}
}

// at returns what lies along the names, or nil.
func (d document) at(names ...string) any {
	var value any = map[string]any(d)
	for _, name := range names {
		o, _ := value.(map[string]any)
		value = o[name]
	}
	return value
}

func objectAt(value any) document {
	o, _ := value.(map[string]any)
	return o
}

// list returns the objects of a list.
func (d document) list(names ...string) []document {
	values, _ := d.at(names...).([]any)
	var all []document
	for _, v := range values {
		all = append(all, objectAt(v))
	}
	return all
}

func words(value any) []string {
	if line, ok := value.(string); ok {
		return strings.Fields(line)
	}
	values, _ := value.([]any)
	var all []string
	for _, v := range values {
		all = append(all, fmt.Sprint(v))
	}
	return all
}

// checkCommand has the program's own parser read the arguments of a container, and the values
// of its HELICON_ variables as the settings that they stand for. What is known only when it is
// deployed has a $.
func checkCommand(t *testing.T, where string, args []string, env map[string]string) {
	t.Helper()
	args = slices.Clone(args)
	var later []string
	for name, value := range env {
		setting, ours := strings.CutPrefix(name, "HELICON_")
		flag := "--" + strings.ToLower(strings.ReplaceAll(setting, "_", "-"))
		switch {
		case !ours || slices.Contains(args, flag):
		case strings.Contains(value, "$"):
			later = append(later, name)
		default:
			args = append(args, flag+"="+value)
		}
	}
	var c cli
	parser, err := newParser(t.Context(), &c)
	if err != nil {
		t.Fatal(err)
	}
	command, err := parser.Parse(args)
	if err != nil {
		t.Errorf("%s: helicon %s: %v", where, strings.Join(args, " "), err)
		return
	}
	var settings []string
	for _, group := range command.Selected().AllFlags(false) {
		for _, flag := range group {
			settings = append(settings, flag.Tag.Envs...)
		}
	}
	for _, name := range later {
		if !slices.Contains(settings, name) {
			t.Errorf("%s: helicon %s has no setting %s", where, command.Selected().Name, name)
		}
	}
}

// TestComposeFile checks the services that run helicon, and that what services name exists.
func TestComposeFile(t *testing.T) {
	t.Parallel()
	file := documents(t, "docker-compose.yml")[0]
	services := objectAt(file.at("services"))
	helicons := 0
	for name, value := range services {
		service := objectAt(value)
		for _, volume := range words(service.at("volumes")) {
			source, _, _ := strings.Cut(volume, ":")
			if _, ok := objectAt(file.at("volumes"))[source]; !ok {
				t.Errorf("%s: the volume %q is not declared", name, source)
			}
		}
		needs := words(service.at("depends_on"))
		for need := range objectAt(service.at("depends_on")) {
			needs = append(needs, need)
		}
		for _, need := range needs {
			if services[need] == nil {
				t.Errorf("%s: depends on %q, which does not exist", name, need)
			}
		}
		if service.at("image") != "helicon" {
			continue
		}
		helicons++
		env := map[string]string{}
		for name, value := range objectAt(service.at("environment")) {
			env[name] = fmt.Sprint(value)
		}
		checkCommand(t, name, words(service.at("command")), env)
		test := words(service.at("healthcheck", "test"))
		if len(test) < 2 || test[1] != "/helicon" {
			t.Errorf("%s: health is asked for by %q", name, test)
			continue
		}
		checkCommand(t, name+": health", test[2:], nil)
	}
	if helicons < 4 {
		t.Errorf("%d services run helicon, want two gateways and workers of each kind", helicons)
	}
}

// TestDockerfile checks the commands in it.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{}
	for line := range strings.Lines(string(content)) {
		line = strings.TrimSpace(line)
		if setting, ok := strings.CutPrefix(line, "ENV "); ok {
			name, value, _ := strings.Cut(setting, "=")
			env[name] = value
		}
		if _, list, ok := strings.Cut(line, "CMD ["); ok {
			args := strings.Fields(strings.NewReplacer(`"`, "", ",", " ", "]", "").Replace(list))
			if args[0] == "/helicon" {
				checkCommand(t, "HEALTHCHECK", args[1:], nil)
				continue
			}
			checkCommand(t, "CMD", args, env)
		}
	}
	if len(env) == 0 {
		t.Error("no settings were found")
	}
}

// apiVersions are the kinds of objects that the manifests may have.
var apiVersions = map[string]string{
	"Namespace": "v1", "ConfigMap": "v1", "ServiceAccount": "v1", "PersistentVolumeClaim": "v1", "Service": "v1",
	"Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1", "NetworkPolicy": "networking.k8s.io/v1",
	"ScaledObject": "keda.sh/v1alpha1", "PodMonitor": "monitoring.coreos.com/v1",
}

// manifests are the objects of the deployment by kind and name.
type manifests map[string]map[string]document

func readManifests(t *testing.T) manifests {
	t.Helper()
	dir := filepath.Join("deploy", "kubernetes")
	objects := manifests{}
	listed := words(documents(t, filepath.Join(dir, "kustomization.yaml"))[0].at("resources"))
	files, err := filepath.Glob(filepath.Join(dir, "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if filepath.Base(file) == "kustomization.yaml" {
			continue
		}
		if !slices.Contains(listed, filepath.Base(file)) {
			t.Errorf("%s is not in kustomization.yaml", file)
		}
		for _, d := range documents(t, file) {
			kind, name := fmt.Sprint(d["kind"]), fmt.Sprint(d.at("metadata", "name"))
			if d["apiVersion"] != apiVersions[kind] {
				t.Errorf("%s: %v %s is not known", file, d["apiVersion"], kind)
			}
			if objects[kind] == nil {
				objects[kind] = map[string]document{}
			}
			if objects[kind][name] != nil {
				t.Errorf("%s: there are two %s %s", file, kind, name)
			}
			objects[kind][name] = d
		}
	}
	return objects
}

// TestKubernetesManifests checks the commands of the containers and that whatever an object
// names exists.
func TestKubernetesManifests(t *testing.T) {
	t.Parallel()
	objects := readManifests(t)
	for name, d := range objects["Deployment"] {
		labels := objectAt(d.at("spec", "template", "metadata", "labels"))
		if !selects(objectAt(d.at("spec", "selector")), labels) {
			t.Errorf("%s does not select its own pods", name)
		}
		pod := objectAt(d.at("spec", "template", "spec"))
		if account := fmt.Sprint(pod["serviceAccountName"]); objects["ServiceAccount"][account] == nil {
			t.Errorf("%s: there is no account %q", name, account)
		}
		checkPod(t, name, pod, objects)
	}
	for _, kind := range []string{"Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"} {
		for name, d := range objects[kind] {
			selector := objectAt(d.at("spec", "selector"))
			switch kind {
			case "Service":
				selector = document{"matchLabels": map[string]any(selector)}
			case "NetworkPolicy":
				selector = objectAt(d.at("spec", "podSelector"))
			}
			ports := objects.portsOf(selector)
			if len(ports) == 0 {
				t.Errorf("%s %s selects no pod", kind, name)
			}
			for _, port := range append(append(d.list("spec", "ports"), d.list("spec", "podMetricsEndpoints")...), ingressPorts(d)...) {
				want := port["targetPort"]
				if want == nil {
					want = port["port"]
				}
				if !slices.Contains(ports, fmt.Sprint(want)) {
					t.Errorf("%s %s: the pods have no port %v, only %v", kind, name, want, ports)
				}
			}
		}
	}
	for name, d := range objects["ScaledObject"] {
		target := fmt.Sprint(d.at("spec", "scaleTargetRef", "name"))
		if objects["Deployment"][target] == nil {
			t.Errorf("%s scales %q, which does not exist", name, target)
		}
		for _, trigger := range d.list("spec", "triggers") {
			if query := fmt.Sprint(trigger.at("metadata", "query")); !strings.Contains(query, "helicon_queue_jobs{") {
				t.Errorf("%s asks for %q", name, query)
			}
		}
	}
}

// checkPod checks the containers of a pod.
func checkPod(t *testing.T, name string, pod document, objects manifests) {
	t.Helper()
	volumes := map[string]bool{}
	for _, v := range pod.list("volumes") {
		volumes[fmt.Sprint(v["name"])] = true
		if claim := v.at("persistentVolumeClaim", "claimName"); claim != nil && objects["PersistentVolumeClaim"][fmt.Sprint(claim)] == nil {
			t.Errorf("%s: there is no claim %v", name, claim)
		}
	}
	for _, c := range pod.list("containers") {
		env := map[string]string{}
		for _, from := range c.list("envFrom") {
			config := objects["ConfigMap"][fmt.Sprint(from.at("configMapRef", "name"))]
			if config == nil {
				t.Errorf("%s: there are no settings %v", name, from)
			}
			for variable, value := range objectAt(config.at("data")) {
				env[variable] = fmt.Sprint(value)
			}
		}
		for _, variable := range c.list("env") {
			env[fmt.Sprint(variable["name"])] = "$" + fmt.Sprint(variable["value"])
			if variable.at("valueFrom", "secretKeyRef", "name") != "helicon" {
				t.Errorf("%s: %v is not from the secret", name, variable["name"])
			}
		}
		checkCommand(t, name, words(c["args"]), env)
		ports := portNames(c)
		for _, probe := range []string{"startupProbe", "livenessProbe", "readinessProbe"} {
			if port := c.at(probe, "httpGet", "port"); port != nil && !slices.Contains(ports, fmt.Sprint(port)) {
				t.Errorf("%s: %s asks the port %v, which there is not", name, probe, port)
			}
		}
		for _, m := range c.list("volumeMounts") {
			if !volumes[fmt.Sprint(m["name"])] {
				t.Errorf("%s: there is no volume %v", name, m["name"])
			}
		}
		if c.at("securityContext", "readOnlyRootFilesystem") != true || pod.at("securityContext", "runAsNonRoot") != true {
			t.Errorf("%s may do more than it has to", name)
		}
	}
}

func portNames(container document) []string {
	var names []string
	for _, p := range container.list("ports") {
		names = append(names, fmt.Sprint(p["name"]))
	}
	return names
}

func ingressPorts(d document) []document {
	var ports []document
	for _, rule := range d.list("spec", "ingress") {
		ports = append(ports, rule.list("ports")...)
	}
	return ports
}

// portsOf lists the names of the ports of the pods that a selector selects.
func (m manifests) portsOf(selector document) []string {
	var ports []string
	for _, d := range m["Deployment"] {
		if selects(selector, objectAt(d.at("spec", "template", "metadata", "labels"))) {
			for _, c := range d.list("spec", "template", "spec", "containers") {
				ports = append(ports, portNames(c)...)
			}
		}
	}
	return ports
}

// selects reports whether a selector selects what has the labels.
func selects(selector, labels document) bool {
	wanted := objectAt(selector["matchLabels"])
	for name, value := range wanted {
		if labels[name] != value {
			return false
		}
	}
	for _, e := range selector.list("matchExpressions") {
		values := words(e["values"])
		if e["operator"] != "In" || !slices.Contains(values, fmt.Sprint(labels[fmt.Sprint(e["key"])])) {
			return false
		}
	}
	return len(wanted) > 0
}
