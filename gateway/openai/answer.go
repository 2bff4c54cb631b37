package openai

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"helicon/queue"
)

// whole writes the answer that the ended jobs make.
func (c *call) whole(ctx context.Context, d *delivery, w io.Writer) error {
	answer := c.header(ctx, d)
	answer.Object = c.dialect.whole
	var total usage
	for i, job := range d.jobs {
		answers, err := choices(job, c.n)
		if err != nil {
			return err
		}
		for _, one := range answers {
			answer.Choices = append(answer.Choices, c.dialect.choice(i*c.n+one.Index, one, c.logprobs))
		}
		total.add(job.Result.Usage)
	}
	answer.Usage = total
	return writeJSON(w, answer)
}

// header is the part that an answer and its chunks have in common.
func (c *call) header(ctx context.Context, d *delivery) completion {
	return completion{
		ID:                c.dialect.prefix + d.jobs[0].ID,
		Created:           d.jobs[0].Created.Unix(),
		Model:             c.model,
		SystemFingerprint: systemFingerprint(d.api.backend.Digest(ctx, c.model)),
		Choices:           []any{},
	}
}

// completion is an answer, or a chunk of one.
type completion struct {
	ID                string `json:"id"`
	Object            string `json:"object"`
	Created           int64  `json:"created"` // Unix seconds
	Model             string `json:"model"`
	SystemFingerprint string `json:"system_fingerprint,omitempty"`
	Choices           []any  `json:"choices"`
	Usage             any    `json:"usage,omitempty"`
}

type usage struct {
	PromptTokens     int `json:"prompt_tokens"`
	CompletionTokens int `json:"completion_tokens"`
	TotalTokens      int `json:"total_tokens"`
}

func (u *usage) add(of *queue.Usage) {
	if of != nil {
		u.PromptTokens += of.InputTokens
		u.CompletionTokens += of.OutputTokens
		u.TotalTokens = u.PromptTokens + u.CompletionTokens
	}
}

// choice is one answer of a job.
type choice struct {
	Index        int                  `json:"index"`
	Text         string               `json:"text"`
	FinishReason string               `json:"finish_reason"`
	Logprobs     []queue.TokenLogprob `json:"logprobs"`
	ToolCalls    []toolCall           `json:"tool_calls"`
}

// choices reads the n answers of a succeeded job, by index.
func choices(job *queue.Job, n int) ([]choice, error) {
	if job.Result == nil {
		return nil, fmt.Errorf("openai: job %s: succeeded without a result", job.ID)
	}
	var meta struct {
		FinishReason string     `json:"finish_reason"`
		Choices      []choice   `json:"choices"`
		ToolCalls    []toolCall `json:"tool_calls"`
	}
	if len(job.Result.Meta) > 0 {
		if err := json.Unmarshal(job.Result.Meta, &meta); err != nil {
			return nil, fmt.Errorf("openai: job %s: meta: %w", job.ID, err)
		}
	}
	if meta.Choices == nil {
		meta.Choices = []choice{{Text: job.Result.Text, FinishReason: meta.FinishReason, ToolCalls: meta.ToolCalls}}
	}
	if len(meta.Choices) != n {
		return nil, fmt.Errorf("openai: job %s: %d answers, want %d", job.ID, len(meta.Choices), n)
	}
	ordered := make([]choice, n)
	for _, c := range meta.Choices {
		if c.Index < 0 || c.Index >= n {
			return nil, fmt.Errorf("openai: job %s: answer %d of %d", job.ID, c.Index, n)
		}
		if c.FinishReason == "" {
			c.FinishReason = "stop"
		}
		ordered[c.Index] = c
	}
	return ordered, nil
}

// systemFingerprint is a short name for the weights that answered.
func systemFingerprint(digest string) string {
	hex := strings.TrimPrefix(digest, "sha256:")
	if hex == "" {
		return ""
	}
	return fmt.Sprintf("fp_%.12s", hex)
}

// dialect is how a route writes its answers. Offsets are in characters.
type dialect struct {
	prefix string // of ids
	whole  string // object of an answer
	chunk  string // object of a chunk of one
	opens  bool   // whether an answer opens with a chunk of its own

	open   func(index int) any
	delta  func(index int, text string, logprobs []queue.TokenLogprob, offset int) any
	call   func(index, number int, call toolCall) any // nil: answers call no tools
	finish func(index int, reason string) any
	choice func(index int, c choice, logprobs bool) any
}

var chatDialect = dialect{
	prefix: "chatcmpl-", whole: "chat.completion", chunk: "chat.completion.chunk", opens: true,
	open: func(index int) any {
		empty := ""
		return chatChunk{Index: index, Delta: chatDelta{Role: "assistant", Content: &empty}}
	},
	delta: func(index int, text string, logprobs []queue.TokenLogprob, _ int) any {
		return chatChunk{Index: index, Delta: chatDelta{Content: &text}, Logprobs: newChatLogprobs(logprobs)}
	},
	call: func(index, number int, call toolCall) any {
		return chatChunk{Index: index, Delta: chatDelta{ToolCalls: []callDelta{{number, call}}}}
	},
	finish: func(index int, reason string) any { return chatChunk{Index: index, FinishReason: &reason} },
	choice: func(index int, c choice, logprobs bool) any {
		answer := chatChoice{Index: index, Message: chatMessage{Role: "assistant", ToolCalls: c.ToolCalls}, FinishReason: c.FinishReason}
		if c.Text != "" || c.ToolCalls == nil {
			answer.Message.Content = &c.Text
		}
		if logprobs {
			answer.Logprobs = newChatLogprobs(c.Logprobs)
		}
		return answer
	},
}

var textDialect = dialect{
	prefix: "cmpl-", whole: "text_completion", chunk: "text_completion",
	delta: func(index int, text string, logprobs []queue.TokenLogprob, offset int) any {
		return textChoice{Index: index, Text: text, Logprobs: newTextLogprobs(logprobs, offset)}
	},
	finish: func(index int, reason string) any { return textChoice{Index: index, FinishReason: &reason} },
	choice: func(index int, c choice, logprobs bool) any {
		answer := textChoice{Index: index, Text: c.Text, FinishReason: &c.FinishReason}
		if logprobs {
			answer.Logprobs = newTextLogprobs(c.Logprobs, 0)
		}
		return answer
	},
}

type chatChoice struct {
	Index        int           `json:"index"`
	Message      chatMessage   `json:"message"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason string        `json:"finish_reason"`
}

type chatMessage struct {
	Role      string     `json:"role"`
	Content   *string    `json:"content"` // null where there are calls alone
	Refusal   *string    `json:"refusal"` // no model here refuses in a field of its own
	ToolCalls []toolCall `json:"tool_calls,omitempty"`
}

type chatChunk struct {
	Index        int           `json:"index"`
	Delta        chatDelta     `json:"delta"`
	Logprobs     *chatLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type chatDelta struct {
	Role      string      `json:"role,omitempty"`
	Content   *string     `json:"content,omitempty"`
	ToolCalls []callDelta `json:"tool_calls,omitempty"`
}

// callDelta is a call with its number in the answer.
type callDelta struct {
	Index int `json:"index"`
	toolCall
}

type chatLogprobs struct {
	Content []tokenLogprob `json:"content"`
	Refusal []tokenLogprob `json:"refusal"`
}

type tokenLogprob struct {
	likelyToken
	Top []likelyToken `json:"top_logprobs"`
}

type likelyToken struct {
	Token   string  `json:"token"`
	Logprob float64 `json:"logprob"`
	Bytes   []int   `json:"bytes"`
}

func newChatLogprobs(tokens []queue.TokenLogprob) *chatLogprobs {
	if tokens == nil {
		return nil
	}
	l := &chatLogprobs{Content: make([]tokenLogprob, len(tokens))}
	for i, t := range tokens {
		l.Content[i] = tokenLogprob{likelyToken: likely(t), Top: make([]likelyToken, len(t.Top))}
		for j, other := range t.Top {
			l.Content[i].Top[j] = likely(other)
		}
	}
	return l
}

func likely(t queue.TokenLogprob) likelyToken { return likelyToken{t.Token, t.Logprob, t.Bytes} }

type textChoice struct {
	Text         string        `json:"text"`
	Index        int           `json:"index"`
	Logprobs     *textLogprobs `json:"logprobs"`
	FinishReason *string       `json:"finish_reason"`
}

type textLogprobs struct {
	Tokens        []string             `json:"tokens"`
	TokenLogprobs []float64            `json:"token_logprobs"`
	TopLogprobs   []map[string]float64 `json:"top_logprobs"`
	TextOffset    []int                `json:"text_offset"`
}

func newTextLogprobs(tokens []queue.TokenLogprob, offset int) *textLogprobs {
	if tokens == nil {
		return nil
	}
	l := &textLogprobs{}
	for _, t := range tokens {
		top := make(map[string]float64, len(t.Top))
		for _, other := range t.Top {
			top[other.Token] = other.Logprob
		}
		l.Tokens = append(l.Tokens, t.Token)
		l.TokenLogprobs = append(l.TokenLogprobs, t.Logprob)
		l.TopLogprobs = append(l.TopLogprobs, top)
		l.TextOffset = append(l.TextOffset, offset)
		offset += utf8.RuneCountInString(t.Token)
	}
	return l
}
