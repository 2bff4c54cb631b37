package diffusion

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"helicon/models/diffusion/scheduler"
	"helicon/models/dit"
	"helicon/models/tensor"
)

// classes is DiT (Peebles and Xie 2022), which draws by class: prompts are the names of
// classes, or their numbers.
type classes struct {
	config dit.DiTConfig
	names  map[int]string // as the bundle has them: synonyms with commas between them
	net    *dit.DiT
}

func (m *classes) configure(b *bundle) error {
	var err error
	if m.config, err = transformerConfig(b, dit.ParseDiTConfig); err != nil {
		return err
	}
	if _, err := learned(m.config.InChannels, m.config.OutChannels); err != nil {
		return err
	}
	m.names = map[int]string{}
	for number, name := range b.Index.Labels {
		class, err := strconv.Atoi(number)
		if err != nil || class < 0 || class >= m.config.Classes {
			return fmt.Errorf("diffusion: model_index.json: id2label of class %q, want 0 to %d: %w", number, m.config.Classes-1, ErrUnsupported)
		}
		m.names[class] = name
	}
	return nil
}

func (m *classes) load(ctx context.Context, b *bundle) error {
	var err error
	m.net, err = loadTransformer(ctx, b, m.config, dit.LoadDiT)
	return err
}

func (m *classes) describe(i *Info, _ scheduler.Config) {
	i.Height, i.Width = m.config.SampleSize, m.config.SampleSize
	i.Steps, i.Guidance, i.PromptTokens = 50, 4, 1
	for _, class := range slices.Sorted(maps.Keys(m.names)) {
		i.Classes = append(i.Classes, m.names[class])
	}
}

func (m *classes) traits() traits {
	return traits{channels: m.config.InChannels, input: m.config.InChannels, patch: m.config.PatchSize}
}

func (m *classes) workspace(s shape, batch int) (int64, error) {
	return m.config.Workspace(dit.Shape{Batch: batch, Height: s.height, Width: s.width})
}

func (m *classes) schedule(*scheduler.Options, scheduler.Config, shape) {}

func (m *classes) encode(_ context.Context, _ *tensor.Exec, p prompt) (*condition, error) {
	class, err := m.class(p.text)
	if err != nil {
		return nil, err
	}
	c := &condition{batch: 1, labels: []int{class}, width: p.width, height: p.height}
	if p.guided {
		c.batch, c.labels = 2, []int{m.config.Classes, class} // no class, and this
	}
	return c, nil
}

// class returns the class that a prompt names: by a number, by the whole name, or by one
// of its synonyms, of which the first class that has it counts.
func (m *classes) class(prompt string) (int, error) {
	text := strings.ToLower(strings.TrimSpace(prompt))
	if class, err := strconv.Atoi(text); err == nil && class >= 0 && class < m.config.Classes {
		return class, nil
	}
	for _, class := range slices.Sorted(maps.Keys(m.names)) {
		name := strings.ToLower(m.names[class])
		if text != "" && (name == text || slices.Contains(strings.Split(name, ", "), text)) {
			return class, nil
		}
	}
	return 0, bad("Prompt", "is %q, want one of the model's classes: a name, or a number up to %d", prompt, m.config.Classes-1)
}

func (m *classes) denoiser(e *tensor.Exec, c *condition, s shape) (denoiser, error) {
	return newTransformerDenoiser(e, m.net, c, s, m.config.OutChannels)
}
