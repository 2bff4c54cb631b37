package gateway

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"regexp"

	"github.com/gin-gonic/gin"
	"github.com/goccy/go-yaml"

	"helicon/gateway/batch"
	"helicon/gateway/catalog"
	"helicon/gateway/garbage"
	"helicon/gateway/openai"
	"helicon/queue"
)

// openapiYAML is the part of the description of the API that is written by hand: the routes,
// and words on what they carry. The bodies are described from the types that they are made of
// and read into, and the input of jobs by the tasks' own schemas.
//
//go:embed openapi.yaml
var openapiYAML []byte

// object is a JSON object.
type object = map[string]any

// requestBodies are the bodies of requests by the name that the description has for them.
func requestBodies() map[string]any {
	bodies := openai.Requests()
	maps.Copy(bodies, map[string]any{
		"JobRequest":     jobRequest{},
		"LoginRequest":   loginRequest{},
		"BatchRequest":   batch.Request{},
		"WebhookRequest": webhookRequest{}, "NewWebhookRequest": newWebhookRequest{}, "GarbageRequest": garbageRequest{},
	})
	return bodies
}

// answerBodies are the bodies of answers, and the types that these consist of.
func answerBodies() map[string]any {
	bodies := openai.Answers()
	maps.Copy(bodies, map[string]any{
		"Problem": problem{}, "FieldError": queue.FieldError{}, "JobProblem": queue.Problem{},
		"Job": queue.Job{}, "Failure": queue.Failure{}, "Progress": queue.Progress{}, "Result": queue.Result{}, "Usage": queue.Usage{},
		"Event": queue.Event{}, "Delta": queue.Delta{}, "TokenLogprob": queue.TokenLogprob{},
		"State": queue.State(""), "Priority": queue.Priority(""), "EventType": queue.EventType(""),
		"Artifact": queue.Artifact{},
		"Batch":    batch.Batch{}, "BatchDryRun": batch.DryRun{}, "BatchList": batchList{}, "UsageSum": catalog.Usage{},
		"Webhook": catalog.Endpoint{}, "NewWebhook": newWebhook{}, "WebhookSecret": webhookSecret{},
		"Delivery": catalog.Delivery{}, "DeliveryDetail": deliveryDetail{}, "DeliveryState": catalog.DeliveryState(""), "DeliveryAttempt": catalog.Attempt{},
		"Task": queue.Task{}, "Model": model{}, "Worker": queue.Worker{}, "WorkerModel": queue.Model{},
		"Session": session{}, "GarbageReport": garbage.Report{},
		"Readiness": readiness{}, "ReadinessCheck": check{},
	})
	return bodies
}

// newDescription returns the document without the tasks' inputs. routes are those that there are.
func newDescription(routes gin.RoutesInfo) (object, error) {
	var document object
	if err := yaml.Unmarshal(openapiYAML, &document); err != nil {
		return nil, fmt.Errorf("gateway: openapi.yaml: %w", err)
	}
	names := map[reflect.Type]string{}
	for _, bodies := range []map[string]any{requestBodies(), answerBodies()} {
		for name, value := range bodies {
			names[reflect.TypeOf(value)] = name
		}
	}
	schemas := object{}
	for name, value := range requestBodies() {
		schemas[name] = describer{names: names, request: true}.define(reflect.TypeOf(value))
	}
	for name, value := range answerBodies() {
		schemas[name] = describer{names: names}.define(reflect.TypeOf(value))
	}
	overlay(schemas, members(members(document, "components"), "schemas"))
	members(document, "components")["schemas"] = schemas
	for path, item := range members(document, "paths") {
		complete(path, item.(object))
	}
	for _, r := range routes {
		if path := template(r.Path); r.Method == http.MethodHead && document["paths"].(object)[path] != nil {
			item := members(document, "paths", path)
			item["head"] = headOf(members(item, "get"))
		}
	}
	return document, nil
}

// members returns the object that is found along the names, making it where it is missing.
func members(o object, names ...string) object {
	for _, name := range names {
		next, ok := o[name].(object)
		if !ok {
			next = object{}
			o[name] = next
		}
		o = next
	}
	return o
}

// overlay writes the members of over into under, down to every value.
func overlay(under, over object) {
	for name, value := range over {
		below, both := under[name].(object)
		if above, ok := value.(object); ok && both {
			overlay(below, above)
			continue
		}
		under[name] = value
	}
}

// complete adds to the operations of a path what is the same for all: the path's parameters
// and how errors are told.
func complete(path string, item object) {
	for method, operation := range item {
		if method == "parameters" {
			continue
		}
		responses := members(operation.(object), "responses")
		if responses["default"] == nil {
			kind := "Problem"
			if openai.Owns(path) {
				kind = "OpenAIError"
			}
			responses["default"] = object{"$ref": "#/components/responses/" + kind}
		}
	}
	var parameters []any
	for _, name := range pathParameter.FindAllStringSubmatch(path, -1) {
		parameters = append(parameters, object{"name": name[1], "in": "path", "required": true, "schema": object{"type": "string"}})
	}
	if parameters != nil && item["parameters"] == nil {
		item["parameters"] = parameters
	}
}

var (
	pathParameter = regexp.MustCompile(`\{(\w+)\}`)
	ginParameter  = regexp.MustCompile(`[:*](\w+)`)
)

// template is a path of the router as OpenAPI writes it.
func template(path string) string { return ginParameter.ReplaceAllString(path, "{$1}") }

// headOf describes the HEAD of what a GET answers: the same without a body.
func headOf(get object) object {
	head := maps.Clone(get)
	head["summary"] = fmt.Sprint("Headers only: ", get["summary"])
	delete(head, "operationId")
	responses := object{}
	for status, response := range members(get, "responses") {
		r, ok := response.(object)
		if ok && r["description"] != nil {
			responses[status] = object{"description": r["description"]}
		} else {
			responses[status] = object{"description": "An error, without its body."}
		}
	}
	head["responses"] = responses
	return head
}

// withTasks returns the document with the inputs of the tasks that there are now: a job's
// input is described by the schema of its task.
func withTasks(base object, tasks []*task) object {
	document := maps.Clone(base)
	components := maps.Clone(members(base, "components"))
	schemas := maps.Clone(members(components, "schemas"))
	document["components"], components["schemas"] = components, schemas
	var inputs []any
	for _, t := range tasks {
		var schema object
		if err := json.Unmarshal(t.Schema, &schema); err != nil {
			continue // jobs of such a task are refused, with the reason
		}
		delete(schema, "$schema") // it is the document's own
		if schema["description"] == nil {
			schema["description"] = t.Description
		}
		name := "input." + t.Name
		schemas[name] = schema
		inputs = append(inputs, object{
			"title":      t.Title,
			"properties": object{"task": object{"const": t.Name}, "input": object{"$ref": "#/components/schemas/" + name}},
		})
	}
	if inputs != nil {
		request := maps.Clone(members(schemas, "JobRequest"))
		request["oneOf"] = inputs
		schemas["JobRequest"] = request
	}
	return document
}

// describeAPI answers GET /openapi.json.
func (g *Gateway) describeAPI(c *gin.Context) error {
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		l = &listing{} // the routes are known although the tasks are not
	}
	c.Writer.Header().Set("Cache-Control", "no-cache")
	writeJSON(c, http.StatusOK, withTasks(g.description, l.tasks))
	return nil
}
