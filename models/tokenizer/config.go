package tokenizer

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
)

// bundleConfig is what the files beside the vocabulary say.
type bundleConfig struct {
	// tokenizer_config.json
	AddBOS       *bool                 `json:"add_bos_token"`
	AddEOS       *bool                 `json:"add_eos_token"`
	LowerCase    *bool                 `json:"do_lower_case"`
	ChatTemplate templateField         `json:"chat_template"`
	AddedByID    map[string]addedToken `json:"added_tokens_decoder"`
	specialTokens

	added      map[string]int // added_tokens.json
	generation generationConfig
}

// specialTokens are the fields that tokenizer_config.json and
// special_tokens_map.json share.
type specialTokens struct {
	BOS        tokenField   `json:"bos_token"`
	EOS        tokenField   `json:"eos_token"`
	PAD        tokenField   `json:"pad_token"`
	UNK        tokenField   `json:"unk_token"`
	CLS        tokenField   `json:"cls_token"`
	SEP        tokenField   `json:"sep_token"`
	MASK       tokenField   `json:"mask_token"`
	Additional []tokenField `json:"additional_special_tokens"`
}

// all lists the spellings of the tokens that are present.
func (s *specialTokens) all() []string {
	var out []string
	for _, f := range append([]tokenField{s.BOS, s.EOS, s.PAD, s.UNK, s.CLS, s.SEP, s.MASK}, s.Additional...) {
		if f != "" && !slices.Contains(out, string(f)) {
			out = append(out, string(f))
		}
	}
	return out
}

// fill takes the fields of o that s lacks.
func (s *specialTokens) fill(o *specialTokens) {
	for _, f := range []struct{ to, from *tokenField }{
		{&s.BOS, &o.BOS}, {&s.EOS, &o.EOS}, {&s.PAD, &o.PAD}, {&s.UNK, &o.UNK},
		{&s.CLS, &o.CLS}, {&s.SEP, &o.SEP}, {&s.MASK, &o.MASK},
	} {
		if *f.to == "" {
			*f.to = *f.from
		}
	}
	s.Additional = append(s.Additional, o.Additional...)
}

// tokenField is a token written as a string, an object with content, or null.
type tokenField string

// UnmarshalJSON reads any of the three.
func (f *tokenField) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '{' {
		var object struct {
			Content string `json:"content"`
		}
		err := json.Unmarshal(data, &object)
		*f = tokenField(object.Content)
		return err
	}
	return json.Unmarshal(data, (*string)(f))
}

// templateField is a chat template written as a string or as a list of named
// templates, of which "default" is taken, and "tool_use" for conversations with tools.
type templateField struct{ usual, tools string }

// UnmarshalJSON reads either form.
func (f *templateField) UnmarshalJSON(data []byte) error {
	if len(data) == 0 || data[0] != '[' {
		return json.Unmarshal(data, &f.usual)
	}
	var named []struct {
		Name     string `json:"name"`
		Template string `json:"template"`
	}
	if err := json.Unmarshal(data, &named); err != nil {
		return err
	}
	for _, t := range named {
		switch t.Name {
		case "default":
			f.usual = t.Template
		case "tool_use":
			f.tools = t.Template
		}
	}
	return nil
}

// generationConfig is the part of generation_config.json about tokens.
type generationConfig struct {
	BOS *int   `json:"bos_token_id"`
	EOS idList `json:"eos_token_id"`
	PAD *int   `json:"pad_token_id"`
}

// idList is an id or a list of ids.
type idList []int

// UnmarshalJSON reads either, or null.
func (l *idList) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '[' {
		return json.Unmarshal(data, (*[]int)(l))
	}
	var id *int
	if err := json.Unmarshal(data, &id); err != nil || id == nil {
		return err
	}
	*l = idList{*id}
	return nil
}

// readBundleConfig reads the files that may be absent.
func readBundleConfig(fsys fs.FS) (*bundleConfig, error) {
	cfg := &bundleConfig{}
	var special specialTokens
	for _, f := range []struct {
		name string
		into any
	}{
		{"tokenizer_config.json", cfg},
		{"special_tokens_map.json", &special},
		{"added_tokens.json", &cfg.added},
		{"generation_config.json", &cfg.generation},
	} {
		data, err := readFile(fsys, f.name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if err := json.Unmarshal(data, f.into); err != nil {
			return nil, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	cfg.fill(&special)
	switch data, err := readFile(fsys, "chat_template.jinja"); {
	case err == nil:
		cfg.ChatTemplate = templateField{usual: string(data)}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	return cfg, nil
}

// extraTokens lists the added tokens that the configuration names, for
// vocabularies that do not hold them themselves. Special tokens that no file
// gives an id are looked up in ids.
func (cfg *bundleConfig) extraTokens(ids map[string]int32) ([]addedToken, error) {
	special := cfg.all()
	byID := map[int]addedToken{}
	for token, id := range cfg.added {
		byID[id] = addedToken{ID: id, Content: token, Special: slices.Contains(special, token)}
	}
	for key, token := range cfg.AddedByID {
		id, err := strconv.Atoi(key)
		if err != nil {
			return nil, fmt.Errorf("tokenizer_config.json: added_tokens_decoder: key %q is not an id", key)
		}
		token.ID = id
		byID[id] = token
	}
	for _, content := range special {
		if id, ok := ids[content]; ok {
			if _, known := byID[int(id)]; !known {
				byID[int(id)] = addedToken{ID: int(id), Content: content, Special: true}
			}
		}
	}
	out := make([]addedToken, 0, len(byID))
	for _, token := range byID {
		out = append(out, token)
	}
	slices.SortFunc(out, func(a, b addedToken) int { return a.ID - b.ID })
	return out, nil
}

// apply sets what the configuration says about a tokenizer that is otherwise
// complete: the roles of tokens, and the chat template.
func (t *Tokenizer) apply(cfg *bundleConfig) {
	for _, f := range []struct {
		role *int
		name tokenField
	}{
		{&t.roles.bos, cfg.BOS}, {&t.roles.eos, cfg.EOS}, {&t.roles.pad, cfg.PAD}, {&t.roles.unk, cfg.UNK},
	} {
		if id, ok := t.ids[string(f.name)]; ok && f.name != "" {
			*f.role = id
		}
	}
	g := cfg.generation
	for _, f := range []struct{ role, id *int }{{&t.roles.bos, g.BOS}, {&t.roles.pad, g.PAD}} {
		if f.id != nil && *f.role < 0 && *f.id >= 0 && *f.id < len(t.tokens) {
			*f.role = *f.id
		}
	}
	if t.roles.eos < 0 && len(g.EOS) > 0 {
		t.roles.eos = g.EOS[0]
	}
	for _, id := range append([]int{t.roles.eos}, g.EOS...) {
		if id >= 0 && !slices.Contains(t.roles.stop, id) {
			t.roles.stop = append(t.roles.stop, id)
		}
	}
	if t.prefix == nil && t.suffix == nil {
		if isTrue(cfg.AddBOS) && t.roles.bos >= 0 {
			t.prefix = []int{t.roles.bos}
		}
		if isTrue(cfg.AddEOS) && t.roles.eos >= 0 {
			t.suffix = []int{t.roles.eos}
		}
	}
	t.chatSource, t.toolSource = cfg.ChatTemplate.usual, cfg.ChatTemplate.tools
}

func isTrue(b *bool) bool { return b != nil && *b }
