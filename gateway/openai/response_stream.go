package openai

import (
	"context"

	"helicon/queue"
)

// responseFlow is a streamed response. Its events depend on those of the job alone, so that
// whoever asks for the stream again is given the same ones by the same numbers.
type responseFlow struct {
	job   *queue.Job // as accepted
	out   *events
	after int // number of the last event that the client has; -1: none

	next    int  // number of the next event
	started bool // the job has begun to run
	writing bool // the message has begun
	sent    position
	about   *responseMemo
}

// responseEvent is an event of a stream. Which members it has depends on its type.
type responseEvent struct {
	Type     string    `json:"type"`
	Number   int       `json:"sequence_number"`
	Response *response `json:"response,omitempty"`

	OutputIndex  *int            `json:"output_index,omitempty"`
	Item         any             `json:"item,omitempty"`
	ItemID       string          `json:"item_id,omitempty"`
	ContentIndex *int            `json:"content_index,omitempty"`
	Part         *outputText     `json:"part,omitempty"`
	Delta        *string         `json:"delta,omitempty"`
	Text         *string         `json:"text,omitempty"`
	Logprobs     *[]tokenLogprob `json:"logprobs,omitempty"`
	Name         string          `json:"name,omitempty"`
	Arguments    *string         `json:"arguments,omitempty"`
}

// emit sends an event under the next number, unless the client has it.
func (f *responseFlow) emit(e responseEvent) error {
	e.Number = f.next
	f.next++
	if e.Number <= f.after {
		return f.out.begin()
	}
	return f.out.event(e.Type, e)
}

// stage sends an event that carries the whole response.
func (f *responseFlow) stage(kind, status string, job *queue.Job) error {
	r, err := newResponse(job)
	if err != nil {
		return err
	}
	if status != "" {
		r.Status = status
	}
	return f.emit(responseEvent{Type: "response." + kind, Response: r})
}

// before is the job as it was accepted, however far it has come.
func (f *responseFlow) before() *queue.Job {
	early := *f.job
	early.State, early.Result, early.Problem, early.Finished = queue.Queued, nil, nil, nil
	return &early
}

// open implements flow.
func (f *responseFlow) open() error {
	about, err := recall(f.job)
	if err != nil {
		return err
	}
	f.about = about
	if !about.Background {
		return f.stage("created", inProgress, f.before())
	}
	if err := f.stage("created", "", f.before()); err != nil {
		return err
	}
	return f.stage("queued", "", f.before())
}

// take implements flow.
func (f *responseFlow) take(_ context.Context, _ int, e *queue.Event) error {
	if err := f.out.begin(); err != nil {
		return err
	}
	switch {
	case e.Type == queue.EventStarted:
		return f.start()
	case e.Type == queue.EventToken && e.Delta != nil:
		return f.text(e.Delta)
	case e.Terminal():
		return f.finish(e.Job)
	}
	return nil
}

// start tells once that the job runs.
func (f *responseFlow) start() error {
	if f.started {
		return nil
	}
	f.started = true
	return f.stage(inProgress, inProgress, f.before())
}

// write begins the message.
func (f *responseFlow) write() error {
	if err := f.start(); err != nil || f.writing {
		return err
	}
	f.writing = true
	m := newMessage(f.job.ID)
	if err := f.emit(responseEvent{Type: "response.output_item.added", OutputIndex: new(int), Item: m}); err != nil {
		return err
	}
	text := newText("", nil)
	return f.emit(responseEvent{Type: "response.content_part.added", ItemID: m.ID, OutputIndex: new(int), ContentIndex: new(int), Part: &text})
}

// text sends what a delta adds.
func (f *responseFlow) text(d *queue.Delta) error {
	added, logprobs, err := f.sent.behind(d)
	if err != nil || added == "" {
		return err
	}
	if err := f.write(); err != nil {
		return err
	}
	if !f.about.Logprobs {
		logprobs = nil
	}
	told := newText(added, logprobs)
	f.sent.advance(added)
	return f.emit(responseEvent{
		Type: "response.output_text.delta", ItemID: newMessage(f.job.ID).ID, OutputIndex: new(int), ContentIndex: new(int),
		Delta: &told.Text, Logprobs: &told.Logprobs,
	})
}

// finish sends whatever of the answer no event brought, and the response as it ended.
func (f *responseFlow) finish(ended *queue.Job) error {
	answers, err := choices(ended, 1)
	if err != nil {
		return err
	}
	answer := &answers[0]
	if err := f.text(&queue.Delta{Text: answer.Text, Logprobs: answer.Logprobs}); err != nil {
		return err
	}
	index := 0
	if f.writing || len(answer.ToolCalls) == 0 {
		if err := f.message(answer); err != nil {
			return err
		}
		index++
	}
	for number, call := range answer.ToolCalls {
		if err := f.call(index, newCall(f.job.ID, number, call)); err != nil {
			return err
		}
		index++
	}
	r, err := newResponse(ended)
	if err != nil {
		return err
	}
	return f.emit(responseEvent{Type: "response." + r.Status, Response: r})
}

// message ends the message.
func (f *responseFlow) message(answer *choice) error {
	if err := f.write(); err != nil { // a text without a character
		return err
	}
	m := newMessage(f.job.ID).finished(answer, f.about.Logprobs)
	text := &m.Content[0]
	for _, e := range []responseEvent{
		{Type: "response.output_text.done", ItemID: m.ID, ContentIndex: new(int), Text: &text.Text, Logprobs: &text.Logprobs},
		{Type: "response.content_part.done", ItemID: m.ID, ContentIndex: new(int), Part: text},
		{Type: "response.output_item.done", Item: m},
	} {
		e.OutputIndex = new(int)
		if err := f.emit(e); err != nil {
			return err
		}
	}
	return nil
}

// call sends a call of a function.
func (f *responseFlow) call(index int, c outputCall) error {
	if err := f.start(); err != nil {
		return err
	}
	begun := c
	begun.Status, begun.Arguments = inProgress, ""
	for _, e := range []responseEvent{
		{Type: "response.output_item.added", Item: begun},
		{Type: "response.function_call_arguments.delta", ItemID: c.ID, Delta: &c.Arguments},
		{Type: "response.function_call_arguments.done", ItemID: c.ID, Name: c.Name, Arguments: &c.Arguments},
		{Type: "response.output_item.done", Item: c},
	} {
		e.OutputIndex = &index
		if err := f.emit(e); err != nil {
			return err
		}
	}
	return nil
}

// close implements flow.
func (f *responseFlow) close() error { return nil }

// fail implements flow.
func (f *responseFlow) fail(e *Error) error {
	r, err := newResponse(f.before())
	if err != nil {
		return err
	}
	r.Status, r.Error = "failed", &responseError{e.Code, e.Message}
	return f.emit(responseEvent{Type: "response.failed", Response: r})
}
