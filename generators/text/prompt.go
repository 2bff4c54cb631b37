package text

import (
	"context"
	"errors"
	"sort"

	"helicon/models/tokenizer"
	"helicon/queue"
)

// prompt is what the model reads before it writes.
type prompt struct {
	tokens    []int
	continues bool   // the text goes on where the prompt ends, as against an answer to it
	echo      string // what the result begins with
	dropped   int    // messages left out
}

// read turns the input into a prompt that leaves room to write.
func (e *engine) read(ctx context.Context, r *request) (prompt, error) {
	if r.chat {
		return e.readChat(ctx, r)
	}
	p := prompt{continues: true}
	if r.input.Echo {
		p.echo = r.input.Prompt
	}
	var err error
	if p.tokens, err = e.tokenizer.Encode(r.input.Prompt, tokenizer.EncodeOptions{AddSpecial: true}); err != nil {
		return p, queue.Problemf("prompt_unreadable", "The model %s cannot read the prompt: %v.", e.bundle.ID, err)
	}
	return p, e.checkLength(len(p.tokens))
}

// checkLength refuses a prompt that leaves no room for a single token.
func (e *engine) checkLength(tokens int) error {
	window := e.model.Config().Context
	switch {
	case tokens == 0:
		return queue.Problemf("prompt_empty", "The prompt has no token that the model %s knows.", e.bundle.ID)
	case tokens >= window:
		return queue.Problemf("prompt_too_long", "The prompt has %d tokens; the model %s has room for %d, and one is needed to write.", tokens, e.bundle.ID, window)
	}
	return nil
}

// readChat renders a conversation by the model's chat template. While it leaves too
// little room for the answer, the oldest turns are left out.
func (e *engine) readChat(ctx context.Context, r *request) (prompt, error) {
	window := e.model.Config().Context
	room := window - min(r.params.MaxTokens, window/2)
	turns := droppable(r.input.Messages)
	var failed error
	render := func(drop int) []int {
		tokens, err := e.render(without(r.input.Messages, turns[:drop]), &r.input)
		if err != nil && failed == nil {
			failed = err
		}
		return tokens
	}
	// The fewest turns that have to go: a search by halves, as rendering takes time.
	drop := sort.Search(len(turns), func(n int) bool {
		return failed != nil || ctx.Err() != nil || len(render(n)) <= room
	})
	tokens := render(drop)
	var problem *queue.Problem
	switch {
	case ctx.Err() != nil:
		return prompt{}, context.Cause(ctx)
	case errors.As(failed, &problem):
		return prompt{}, problem
	case failed != nil:
		return prompt{}, queue.Problemf("chat_unreadable", "The chat template of the model %s refuses the conversation: %v.", e.bundle.ID, failed)
	}
	p := prompt{tokens: tokens}
	for _, t := range turns[:drop] {
		p.dropped += len(t)
	}
	return p, e.checkLength(len(tokens))
}

// turn is the indices of messages that belong together: a user's and the answers to it.
type turn []int

// droppable groups the messages that may be left out: all before the last one of the
// user but those of the system.
func droppable(messages []message) []turn {
	last := len(messages) - 1
	for i, m := range messages {
		if m.Role == user {
			last = i
		}
	}
	var turns []turn
	for i, m := range messages {
		switch {
		case i >= last:
			return turns
		case m.Role == system:
		case m.Role == user || turns == nil:
			turns = append(turns, turn{i})
		default:
			turns[len(turns)-1] = append(turns[len(turns)-1], i)
		}
	}
	return turns
}

// without returns the messages that are in none of the turns.
func without(messages []message, turns []turn) []message {
	gone := map[int]bool{}
	for _, t := range turns {
		for _, i := range t {
			gone[i] = true
		}
	}
	kept := make([]message, 0, len(messages))
	for i, m := range messages {
		if !gone[i] {
			kept = append(kept, m)
		}
	}
	return kept
}

// render writes messages as the model was taught to read them, up to where its
// answer begins. What messages say cannot become a special token. The tools are those
// of the input.
func (e *engine) render(messages []message, in *input) ([]int, error) {
	if e.chatErr != nil {
		return nil, e.chatErr
	}
	template, options := e.chat, tokenizer.ChatOptions{AddGenerationPrompt: true}
	var style *callStyle
	if in.usesTools() {
		var err error
		if style, err = e.callStyle(); err != nil {
			return nil, err
		}
		template, options.Tools = e.toolChat, in.offered()
	}
	conversation := make([]tokenizer.Message, len(messages))
	called := map[string]string{} // names of tools by the ids of calls
	for i, m := range messages {
		conversation[i] = m.render(style)
		conversation[i].Name = called[m.ToolCallID]
		for _, c := range m.ToolCalls {
			called[c.ID] = c.Function.Name
		}
	}
	rendered, err := template.Render(conversation, options)
	if err != nil {
		return nil, err
	}
	return e.tokenizer.EncodePrompt(rendered)
}
