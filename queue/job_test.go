package queue

import (
	"encoding/json"
	"testing"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	valid := func() Job { return Job{Task: "text.complete", Tenant: "t", Priority: Normal} }
	for name, c := range map[string]struct {
		change  func(*Job)
		pointer string
	}{
		"valid":         {func(*Job) {}, ""},
		"no task":       {func(j *Job) { j.Task = "" }, "/task"},
		"subject task":  {func(j *Job) { j.Task = "text.*" }, "/task"},
		"priority":      {func(j *Job) { j.Priority = "urgent" }, "/priority"},
		"seed":          {func(j *Job) { j.Seed = MaxSeed + 1 }, "/seed"},
		"tenant":        {func(j *Job) { j.Tenant = "a.b" }, "/tenant"},
		"tenant case":   {func(j *Job) { j.Tenant = "Ab" }, "/tenant"},
		"need":          {func(j *Job) { j.Needs = []string{NewID(), "nope"} }, "/needs/1"},
		"needs":         {func(j *Job) { j.Needs = make([]string, MaxNeeds+1) }, "/needs"},
		"tag":           {func(j *Job) { j.Tags = []string{""} }, "/tags/0"},
		"too many tags": {func(j *Job) { j.Tags = make([]string, MaxTags+1) }, "/tags"},
	} {
		job := valid()
		c.change(&job)
		problem := job.Validate()
		switch {
		case c.pointer == "" && problem != nil:
			t.Errorf("%s: %v", name, problem)
		case c.pointer != "" && (problem == nil || problem.Errors[0].Pointer != c.pointer):
			t.Errorf("%s: %+v, want an error at %s", name, problem, c.pointer)
		}
	}
}

// FuzzJob feeds foreign JSON to the decoder of stored jobs and checks that what
// Validate lets pass keeps its meaning through another round.
func FuzzJob(f *testing.F) {
	f.Add([]byte(`{"id":"01JD0000000000000000000000","task":"text.complete","tenant":"t","priority":"normal","input":{"a":1}}`))
	f.Add([]byte(`{"seed":9007199254740992,"needs":["x"],"tags":[""]}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, body []byte) {
		job, err := decodeJob(body)
		if err != nil || job.Validate() != nil {
			return
		}
		again, err := json.Marshal(job)
		if err != nil {
			t.Fatalf("a valid job does not encode: %v", err)
		}
		back, err := decodeJob(again)
		if err != nil {
			t.Fatalf("%s does not decode: %v", again, err)
		}
		if back.Task != job.Task || back.Seed != job.Seed || back.Tenant != job.Tenant || len(back.Needs) != len(job.Needs) {
			t.Fatalf("%+v became %+v", job, back)
		}
	})
}
