package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"helicon/models/tokenizer/component"
	"helicon/models/tokenizer/words"
)

// jsonPostProcessor is the union of the post-processor types of
// tokenizer.json.
type jsonPostProcessor struct {
	Processors []json.RawMessage `json:"processors"`

	Single        []templatePart `json:"single"`
	SpecialTokens map[string]struct {
		IDs []int `json:"ids"`
	} `json:"special_tokens"`

	Sep *namedID `json:"sep"`
	Cls *namedID `json:"cls"`
}

// templatePart is an element of a template: a special token or the text.
type templatePart struct {
	SpecialToken *struct {
		ID string `json:"id"`
	} `json:"SpecialToken"`
	Sequence *struct {
		ID string `json:"id"`
	} `json:"Sequence"`
}

// namedID is a token written as [content, id].
type namedID struct{ id int }

// UnmarshalJSON keeps the id alone.
func (n *namedID) UnmarshalJSON(data []byte) error {
	var content string
	return json.Unmarshal(data, &[2]any{&content, &n.id})
}

// parsePostProcessor returns the ids that go before and after a text.
func parsePostProcessor(raw json.RawMessage) (prefix, suffix []int, err error) {
	if component.Absent(raw) {
		return nil, nil, nil
	}
	return parsePostProcessorAt(raw, 0)
}

func parsePostProcessorAt(raw json.RawMessage, depth int) (prefix, suffix []int, err error) {
	kind, err := component.Type(raw)
	if err != nil {
		return nil, nil, err
	}
	var p jsonPostProcessor
	if err := json.Unmarshal(raw, &p); err != nil {
		return nil, nil, err
	}
	switch kind {
	case "ByteLevel": // it corrects offsets, which are not kept here
		return nil, nil, nil
	case "TemplateProcessing":
		return p.template()
	case "BertProcessing", "RobertaProcessing":
		if p.Sep == nil || p.Cls == nil {
			return nil, nil, errors.New("sep or cls is missing")
		}
		return []int{p.Cls.id}, []int{p.Sep.id}, nil
	case "Sequence":
		if depth == component.MaxDepth {
			return nil, nil, component.ErrDepth
		}
		for i, raw := range p.Processors {
			before, after, err := parsePostProcessorAt(raw, depth+1)
			if err != nil {
				return nil, nil, fmt.Errorf("processors[%d]: %w", i, err)
			}
			prefix, suffix = slices.Concat(before, prefix), slices.Concat(suffix, after)
		}
		return prefix, suffix, nil
	}
	return nil, nil, fmt.Errorf("type %q is not supported", kind)
}

func (p *jsonPostProcessor) template() (prefix, suffix []int, err error) {
	seen := false
	for i, part := range p.Single {
		switch {
		case part.Sequence != nil && part.Sequence.ID == "A" && !seen:
			seen = true
		case part.SpecialToken != nil:
			token, ok := p.SpecialTokens[part.SpecialToken.ID]
			if !ok {
				return nil, nil, fmt.Errorf("single[%d]: %q is not in special_tokens", i, part.SpecialToken.ID)
			}
			if seen {
				suffix = append(suffix, token.IDs...)
			} else {
				prefix = append(prefix, token.IDs...)
			}
		default:
			return nil, nil, fmt.Errorf("single[%d]: neither a special token nor the first sequence A", i)
		}
	}
	if !seen {
		return nil, nil, errors.New("single: the sequence A is missing")
	}
	return prefix, suffix, nil
}

// jsonDecoder is the union of the decoder types of tokenizer.json.
type jsonDecoder struct {
	Decoders []json.RawMessage `json:"decoders"`

	Content string  `json:"content"`
	Start   int     `json:"start"`
	Stop    int     `json:"stop"`
	Prefix  *string `json:"prefix"`
	Cleanup *bool   `json:"cleanup"`
	Pattern struct {
		String string `json:"String"`
	} `json:"pattern"`
	component.Metaspace
}

// stepMaker makes the state of a decoder's stage for one text.
type stepMaker func() decodeStep

// parseDecoder returns a function that makes the stages for one text.
func parseDecoder(raw json.RawMessage) (func() []decodeStep, error) {
	makers := []stepMaker{func() decodeStep { return &spacedStep{} }}
	if !component.Absent(raw) {
		var p decoderParser
		if err := p.parse(raw, 0); err != nil {
			return nil, err
		}
		makers = p.makers
	}
	return func() []decodeStep {
		steps := make([]decodeStep, len(makers))
		for i, make := range makers {
			steps[i] = make()
		}
		return steps
	}, nil
}

type decoderParser struct {
	makers []stepMaker
	fused  bool // the stages after a Fuse see one token, in parts
}

func (p *decoderParser) parse(raw json.RawMessage, depth int) error {
	kind, err := component.Type(raw)
	if err != nil {
		return err
	}
	var d jsonDecoder
	if err := json.Unmarshal(raw, &d); err != nil {
		return err
	}
	var make stepMaker
	switch kind {
	case "Sequence":
		if depth == component.MaxDepth {
			return component.ErrDepth
		}
		for i, raw := range d.Decoders {
			if err := p.parse(raw, depth+1); err != nil {
				return fmt.Errorf("decoders[%d]: %w", i, err)
			}
		}
		return nil
	case "Fuse":
		p.fused = true
		return nil
	case "ByteLevel":
		alphabet := words.NewByteAlphabet()
		make = func() decodeStep { return &byteLevelStep{alphabet: alphabet} }
	case "ByteFallback":
		make = func() decodeStep { return newByteFallbackStep() }
	case "Metaspace":
		scheme, err := d.Scheme()
		if err != nil {
			return err
		}
		make = func() decodeStep { return &metaspaceStep{replacement: d.Replacement, dropFirst: scheme != "never"} }
	case "WordPiece":
		prefix := "##"
		if d.Prefix != nil {
			prefix = *d.Prefix
		}
		cleanup := d.Cleanup == nil || *d.Cleanup
		make = func() decodeStep { return &wordPieceStep{prefix: prefix, cleanup: cleanup} }
	case "Strip":
		if len([]rune(d.Content)) != 1 || d.Start < 0 || d.Stop < 0 {
			return fmt.Errorf("content %q, start %d, stop %d: want one character and counts", d.Content, d.Start, d.Stop)
		}
		fused := p.fused
		make = func() decodeStep {
			return &stripStep{content: d.Content, start: d.Start, stop: d.Stop, fused: fused}
		}
	case "Replace":
		if p.fused && len([]rune(d.Pattern.String)) != 1 {
			return errors.New("pattern: after Fuse only a String of one character is supported")
		}
		replace, err := words.ParseNormalizer(raw) // which it is, too
		if err != nil {
			return err
		}
		make = func() decodeStep { return stateless(replace.Normalize) }
	default:
		return fmt.Errorf("type %q is not supported", kind)
	}
	if p.fused && kind != "Strip" && kind != "Replace" {
		return fmt.Errorf("%s after Fuse is not supported", kind)
	}
	p.makers = append(p.makers, make)
	return nil
}
