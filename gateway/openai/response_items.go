package openai

import (
	"encoding/json"
	"fmt"
	"strings"

	"helicon/gateway/strict"
)

// item is an element of a response's input, of whichever type. Status and ID come with items
// of earlier answers that are sent back.
type item struct {
	Type   string          `json:"type"`
	ID     json.RawMessage `json:"id"`
	Status json.RawMessage `json:"status"`

	// message
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
	Phase   json.RawMessage `json:"phase"`

	// function_call and function_call_output
	CallID    string          `json:"call_id"`
	Name      string          `json:"name"`
	Arguments string          `json:"arguments"`
	Output    json.RawMessage `json:"output"`
}

// readItems reads the input of a response: a text, or items.
func readItems(value json.RawMessage) ([]message, error) {
	if absent(value) {
		return nil, strict.Invalid("/input", "required, but missing")
	}
	var text string
	if json.Unmarshal(value, &text) == nil {
		return []message{{Role: "user", Content: text}}, nil
	}
	var items []json.RawMessage
	if json.Unmarshal(value, &items) != nil {
		return nil, strict.Invalid("/input", "want a string or an array of items")
	}
	if len(items) == 0 {
		return nil, strict.Invalid("/input", "want at least one item")
	}
	var said []message
	for i, text := range items {
		at := fmt.Sprintf("/input/%d", i)
		var in item
		if err := json.Unmarshal(text, &struct{ Type *string }{&in.Type}); err != nil {
			return nil, strict.Invalid(at, "want an item: an object with a role and a content")
		}
		if in.Type != "" && in.Type != "message" && in.Type != "function_call" && in.Type != "function_call_output" {
			return nil, strict.Invalid(at+"/type", "items of the type %.64q are not supported; want message, function_call or function_call_output", in.Type)
		}
		if err := strict.Object(text, at, &in); err != nil {
			return nil, err
		}
		var err error
		if said, err = in.join(at, said); err != nil {
			return nil, err
		}
	}
	return said, nil
}

// join adds the item to what was said before.
func (in *item) join(at string, said []message) ([]message, error) {
	switch in.Type {
	case "function_call":
		if in.CallID == "" || in.Name == "" {
			return nil, strict.Invalid(at, "a function_call has a call_id, a name and arguments")
		}
		call := toolCall{ID: in.CallID, Type: "function"}
		call.Function.Name, call.Function.Arguments = in.Name, in.Arguments
		// Calls that follow each other, or a text of the assistant, are of one answer.
		if last := len(said) - 1; last >= 0 && said[last].Role == "assistant" {
			said[last].ToolCalls = append(said[last].ToolCalls, call)
			return said, nil
		}
		return append(said, message{Role: "assistant", ToolCalls: []toolCall{call}}), nil
	case "function_call_output":
		if in.CallID == "" {
			return nil, strict.Invalid(at+"/call_id", "want the call_id of the call that the output is of")
		}
		text, err := readParts(at+"/output", in.Output)
		return append(said, message{Role: "tool", Content: text, ToolCallID: in.CallID}), err
	}
	m := message{Role: in.Role}
	switch in.Role {
	case "user", "assistant", "system":
	case "developer": // OpenAI's newer word for system
		m.Role = "system"
	default:
		return nil, strict.Invalid(at+"/role", "want user, assistant, system or developer")
	}
	var err error
	m.Content, err = readParts(at+"/content", in.Content)
	return append(said, m), err
}

// part is an element of an item's content.
type part struct {
	Type        string          `json:"type"`
	Text        *string         `json:"text"`
	Annotations json.RawMessage `json:"annotations"`
	Logprobs    json.RawMessage `json:"logprobs"`
}

// readParts reads a text, or the parts of one.
func readParts(at string, value json.RawMessage) (string, error) {
	if absent(value) {
		return "", strict.Invalid(at, "required, but missing")
	}
	var text string
	if json.Unmarshal(value, &text) == nil {
		return text, nil
	}
	var parts []json.RawMessage
	if json.Unmarshal(value, &parts) != nil {
		return "", strict.Invalid(at, "want a string or an array of text parts")
	}
	texts := make([]string, len(parts))
	for i, p := range parts {
		where := fmt.Sprintf("%s/%d", at, i)
		var in part
		if err := json.Unmarshal(p, &struct{ Type *string }{&in.Type}); err != nil {
			return "", strict.Invalid(where, `want {"type":"input_text","text":…}`)
		}
		switch in.Type {
		case "input_text", "output_text", "text":
		case "input_image":
			return "", strict.Invalid(where+"/type", "pictures cannot be read by this route; want input_text")
		default:
			return "", strict.Invalid(where+"/type", "parts of the type %.64q are not supported; want input_text", in.Type)
		}
		if err := strict.Object(p, where, &in); err != nil {
			return "", err
		}
		if in.Text == nil {
			return "", strict.Invalid(where+"/text", "required, but missing")
		}
		texts[i] = *in.Text
	}
	return strings.Join(texts, "\n"), nil
}
