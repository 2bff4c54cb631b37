package openai

import (
	"encoding/json"
	"fmt"
	"time"

	"helicon/queue"
)

// response is the object that a response is, as far as it has come.
type response struct {
	ID                string             `json:"id"`
	Object            string             `json:"object"`
	CreatedAt         int64              `json:"created_at"` // Unix seconds
	CompletedAt       *int64             `json:"completed_at"`
	Status            string             `json:"status"`
	Background        bool               `json:"background"`
	Error             *responseError     `json:"error"`
	Incomplete        *incompleteDetails `json:"incomplete_details"`
	Instructions      *string            `json:"instructions"`
	MaxOutputTokens   *int               `json:"max_output_tokens"`
	Model             string             `json:"model"`
	Output            []any              `json:"output"`
	ParallelToolCalls bool               `json:"parallel_tool_calls"`
	Previous          *string            `json:"previous_response_id"`
	Reasoning         map[string]any     `json:"reasoning"`
	Store             bool               `json:"store"`
	Temperature       *float64           `json:"temperature"` // null: as the model recommends
	Text              map[string]any     `json:"text"`
	ToolChoice        any                `json:"tool_choice"`
	Tools             []function         `json:"tools"`
	TopLogprobs       int                `json:"top_logprobs"`
	TopP              *float64           `json:"top_p"` // null: as the model recommends
	Truncation        string             `json:"truncation"`
	Usage             *responseUsage     `json:"usage"`
	Metadata          map[string]string  `json:"metadata"`
}

type responseError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

type incompleteDetails struct {
	Reason string `json:"reason"`
}

type responseUsage struct {
	InputTokens  int `json:"input_tokens"`
	InputDetails struct {
		CachedTokens int `json:"cached_tokens"`
	} `json:"input_tokens_details"`
	OutputTokens  int `json:"output_tokens"`
	OutputDetails struct {
		ReasoningTokens int `json:"reasoning_tokens"`
	} `json:"output_tokens_details"`
	TotalTokens int `json:"total_tokens"`
}

// Statuses of responses and their items.
const (
	inProgress = "in_progress"
	completed  = "completed"
	incomplete = "incomplete"
)

// responseStatus names a job's state as that of a response.
func responseStatus(job *queue.Job) string {
	switch job.State {
	case queue.Queued:
		return "queued"
	case queue.Running:
		return inProgress
	case queue.Succeeded:
		return completed
	case queue.Canceled:
		return "cancelled"
	default:
		return "failed"
	}
}

// newResponse tells what the job of a response was asked for and what it has made.
func newResponse(job *queue.Job) (*response, error) {
	about, err := recall(job)
	if err != nil {
		return nil, err
	}
	var in input
	if err := json.Unmarshal(job.Input, &in); err != nil {
		return nil, fmt.Errorf("openai: job %s: input: %w", job.ID, err)
	}
	r := &response{
		ID: responsePrefix + job.ID, Object: "response", CreatedAt: job.Created.Unix(), Status: responseStatus(job),
		Background: about.Background, MaxOutputTokens: in.MaxTokens, Model: job.Model, Output: []any{},
		ParallelToolCalls: in.Parallel == nil || *in.Parallel, Store: !about.Unstored, Truncation: "auto",
		Temperature: in.Temperature, TopP: in.TopP, Metadata: about.Metadata, Reasoning: map[string]any{"effort": nil, "summary": nil},
	}
	if r.Metadata == nil {
		r.Metadata = map[string]string{}
	}
	if about.Previous != "" {
		r.Previous = &about.Previous
	}
	if about.Instructed && len(in.Messages) > 0 {
		r.Instructions = &in.Messages[0].Content
	}
	if in.Logprobs != nil {
		r.TopLogprobs = *in.Logprobs
	}
	if err := r.forms(&in); err != nil {
		return nil, fmt.Errorf("openai: job %s: input: %w", job.ID, err)
	}
	return r, r.ending(job, about)
}

// forms tells the form of the answer and the tools as they were asked for.
func (r *response) forms(in *input) error {
	r.Text = map[string]any{"format": format{Type: "text"}}
	if len(in.ResponseFormat) > 0 {
		var f chatFormat
		if err := json.Unmarshal(in.ResponseFormat, &f); err != nil {
			return err
		}
		told := format{Type: f.Type}
		if f.Schema != nil {
			told.jsonSchema = *f.Schema
		}
		r.Text["format"] = told
	}
	r.Tools, r.ToolChoice = []function{}, "auto"
	if len(in.Tools) > 0 {
		var tools []chatFunction
		if err := json.Unmarshal(in.Tools, &tools); err != nil {
			return err
		}
		for _, t := range tools {
			r.Tools = append(r.Tools, function{t.Type, t.Function})
		}
	}
	if len(in.ToolChoice) == 0 {
		return nil
	}
	r.ToolChoice = in.ToolChoice
	var one chatFunction
	if json.Unmarshal(in.ToolChoice, &one) == nil {
		r.ToolChoice = map[string]string{"type": one.Type, "name": one.Function.Name}
	}
	return nil
}

// ending tells what came of the job.
func (r *response) ending(job *queue.Job, about *responseMemo) error {
	switch job.State {
	case queue.Failed:
		r.Error = &responseError{Code: "server_error", Message: "The job failed."}
		if p := job.Problem; p != nil {
			r.Error = &responseError{p.Code, p.Detail}
		}
	case queue.Succeeded:
		answers, err := choices(job, 1)
		if err != nil {
			return err
		}
		r.Output = outputItems(job.ID, &answers[0], about.Logprobs)
		if answers[0].FinishReason == "length" {
			r.Status, r.Incomplete = incomplete, &incompleteDetails{"max_output_tokens"}
		}
		if u := job.Result.Usage; u != nil {
			r.Usage = &responseUsage{InputTokens: u.InputTokens, OutputTokens: u.OutputTokens, TotalTokens: u.InputTokens + u.OutputTokens}
		}
	}
	if job.Finished != nil && r.Status == completed {
		at := job.Finished.Unix()
		r.CompletedAt = &at
	}
	return nil
}

// outputMessage is the item that a text is.
type outputMessage struct {
	ID      string       `json:"id"`
	Type    string       `json:"type"`
	Status  string       `json:"status"`
	Role    string       `json:"role"`
	Content []outputText `json:"content"`
}

type outputText struct {
	Type        string         `json:"type"`
	Text        string         `json:"text"`
	Annotations []any          `json:"annotations"`
	Logprobs    []tokenLogprob `json:"logprobs"`
}

// outputCall is the item that a call of a function is.
type outputCall struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Status    string `json:"status"`
	CallID    string `json:"call_id"`
	Name      string `json:"name"`
	Arguments string `json:"arguments"`
}

// newMessage is the message of a job as it begins.
func newMessage(job string) outputMessage {
	return outputMessage{ID: "msg_" + job, Type: "message", Status: inProgress, Role: "assistant", Content: []outputText{}}
}

func newText(text string, logprobs []queue.TokenLogprob) outputText {
	out := outputText{Type: "output_text", Text: text, Annotations: []any{}, Logprobs: []tokenLogprob{}}
	if logprobs != nil {
		out.Logprobs = newChatLogprobs(logprobs).Content
	}
	return out
}

// newCall is the call of a given number of a job.
func newCall(job string, number int, c toolCall) outputCall {
	return outputCall{
		ID: fmt.Sprintf("fc_%s_%d", job, number), Type: "function_call", Status: completed,
		CallID: c.ID, Name: c.Function.Name, Arguments: c.Function.Arguments,
	}
}

// finished is the message with its whole text.
func (m outputMessage) finished(c *choice, logprobs bool) outputMessage {
	m.Status = completed
	if c.FinishReason == "length" {
		m.Status = incomplete
	}
	if !logprobs {
		c.Logprobs = nil
	}
	m.Content = []outputText{newText(c.Text, c.Logprobs)}
	return m
}

// outputItems are the items of an answer: its text, unless it consists of calls alone, and its
// calls.
func outputItems(job string, c *choice, logprobs bool) []any {
	items := []any{}
	if c.Text != "" || len(c.ToolCalls) == 0 {
		items = append(items, newMessage(job).finished(c, logprobs))
	}
	for number, call := range c.ToolCalls {
		items = append(items, newCall(job, number, call))
	}
	return items
}

// pollAfter is the pause after which a client may ask for an unfinished response again.
const pollAfter = time.Second
