package openai

import (
	"context"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"helicon/queue"
)

// flow returns what streams the answer in chunks.
func (c *call) flow(ctx context.Context, d *delivery, out *events) flow {
	s := &stream{call: c, header: c.header(ctx, d), out: out, sent: make([]position, len(d.jobs)*c.n)}
	s.header.Object = c.dialect.chunk
	if c.usage {
		s.header.Usage = json.RawMessage("null")
	}
	return s
}

// position is how far the text of one answer has been sent.
type position struct{ bytes, characters int }

// behind returns what a delta adds to the text of which so much was sent. A job that runs
// again writes the same text again, from its beginning: only what is new counts.
func (p *position) behind(d *queue.Delta) (text string, logprobs []queue.TokenLogprob, err error) {
	if d.Offset > p.bytes {
		return "", nil, fmt.Errorf("openai: text is missing from byte %d to %d", p.bytes, d.Offset)
	}
	known := p.bytes - d.Offset
	if known >= len(d.Text) {
		return "", nil, nil
	}
	text, logprobs = d.Text[known:], d.Logprobs
	for len(logprobs) > 0 && known > 0 { // tokens that lie within what was sent
		known -= len(logprobs[0].Bytes)
		logprobs = logprobs[1:]
	}
	return text, logprobs, nil
}

// advance counts a text as sent.
func (p *position) advance(text string) {
	p.bytes += len(text)
	p.characters += utf8.RuneCountInString(text)
}

// stream is the state of one streamed answer.
type stream struct {
	call   *call
	header completion
	out    *events
	sent   []position // by choice
	usage  usage
}

// open implements flow.
func (s *stream) open() error {
	if !s.call.dialect.opens {
		return nil
	}
	for index := range s.sent {
		if err := s.chunk(s.call.dialect.open(index)); err != nil {
			return err
		}
	}
	return nil
}

// take implements flow.
func (s *stream) take(_ context.Context, job int, e *queue.Event) error {
	switch {
	case e.Type == queue.EventToken && e.Delta != nil:
		if e.Delta.Choice < 0 || e.Delta.Choice >= s.call.n {
			return fmt.Errorf("openai: job %s: answer %d of %d", e.JobID, e.Delta.Choice, s.call.n)
		}
		return s.text(job*s.call.n+e.Delta.Choice, e.Delta)
	case e.Terminal():
		return s.finish(job, e.Job)
	}
	return nil
}

// text sends what a delta adds to a choice.
func (s *stream) text(index int, d *queue.Delta) error {
	at := &s.sent[index]
	text, logprobs, err := at.behind(d)
	if err != nil || text == "" {
		return err
	}
	if !s.call.logprobs {
		logprobs = nil
	}
	if err := s.chunk(s.call.dialect.delta(index, text, logprobs, at.characters)); err != nil {
		return err
	}
	at.advance(text)
	return nil
}

// finish ends the answers of a job, with whatever of their text no event brought.
func (s *stream) finish(job int, ended *queue.Job) error {
	answers, err := choices(ended, s.call.n)
	if err != nil {
		return err
	}
	for _, one := range answers {
		index := job*s.call.n + one.Index
		if err := s.text(index, &queue.Delta{Text: one.Text, Logprobs: one.Logprobs}); err != nil {
			return err
		}
		if call := s.call.dialect.call; call != nil {
			for number, c := range one.ToolCalls {
				if err := s.chunk(call(index, number, c)); err != nil {
					return err
				}
			}
		}
		if err := s.chunk(s.call.dialect.finish(index, one.FinishReason)); err != nil {
			return err
		}
	}
	s.usage.add(ended.Result.Usage)
	return nil
}

// chunk sends a chunk of one choice.
func (s *stream) chunk(choice any) error {
	c := s.header
	c.Choices = []any{choice}
	return s.out.event("", c)
}

// fail implements flow.
func (s *stream) fail(e *Error) error { return s.out.event("", ErrorBody{e}) }

// close implements flow.
func (s *stream) close() error {
	if s.call.usage {
		c := s.header
		c.Usage = s.usage
		if err := s.out.event("", c); err != nil {
			return err
		}
	}
	return s.out.write([]byte("data: [DONE]\n\n"))
}
