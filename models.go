package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/dustin/go-humanize"

	"helicon/generators/image"
	"helicon/generators/text"
	"helicon/models/hub"
)

// modelsCmd groups the commands about model bundles.
type modelsCmd struct {
	List listModelsCmd `cmd:"" help:"List the models that are embedded or in the models folder."`
	Info modelInfoCmd  `cmd:"" help:"Describe one model and print its card."`

	Quantize quantizeCmd `cmd:"" help:"Write a model as a GGUF file, with matrices in a type of choice."`
}

// modelsFlags say where models are looked for.
type modelsFlags struct {
	Models string `help:"Folder of model bundles; ${default} unless given." default:"${data}/models" placeholder:"DIR" type:"path"`
	JSON   bool   `help:"Print JSON." name:"json"`
}

func (f modelsFlags) open() (*hub.Hub, error) { return hub.Open(hub.Config{Dir: f.Models}) }

// bundleView is a bundle as the commands print it.
type bundleView struct {
	ID            string   `json:"id"`
	Architectures []string `json:"architectures"`
	Parameters    int64    `json:"parameters"`
	Bytes         int64    `json:"bytes"`
	Type          string   `json:"type"`
	Context       int      `json:"context"`
	Licence       string   `json:"licence"`
	Source        string   `json:"source"`
	Digest        string   `json:"digest,omitempty"`
	Problem       string   `json:"problem,omitempty"`
}

func viewBundle(b *hub.Bundle) bundleView {
	v := bundleView{
		ID: b.ID, Architectures: b.Architectures, Parameters: b.Parameters, Bytes: b.Bytes, Type: b.Type,
		Context: b.Context, Licence: b.Licence, Source: b.Source,
	}
	if err := checkModel(b); err != nil {
		v.Problem = err.Error()
	}
	return v
}

// checkModel says why a model cannot be used.
func checkModel(b *hub.Bundle) error {
	if image.Serves(b) {
		return image.Check(b)
	}
	return text.Check(b)
}

type listModelsCmd struct{ modelsFlags }

// Run prints one line a model.
func (c *listModelsCmd) Run(env *environment) error {
	h, err := c.open()
	if err != nil {
		return err
	}
	var views []bundleView
	for _, b := range h.Bundles() {
		views = append(views, viewBundle(b))
	}
	if c.JSON {
		return printJSON(env, views)
	}
	c.table(env, views)
	return nil
}

// table prints the models that can be used, then the others with the reason.
func (c *listModelsCmd) table(env *environment, views []bundleView) {
	table := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "MODEL\tARCHITECTURE\tPARAMETERS\tTYPE\tSIZE\tCONTEXT\tLICENCE\tSOURCE")
	for _, v := range views {
		if v.Problem != "" {
			continue
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", v.ID, strings.Join(v.Architectures, ","),
			humanize.SIWithDigits(float64(v.Parameters), 1, ""), v.Type, humanize.Bytes(uint64(v.Bytes)), window(v.Context, ""), v.Licence, v.Source)
	}
	table.Flush()
	for _, v := range views {
		if v.Problem != "" {
			fmt.Fprintf(env.stdout, "unusable: %s: %s\n", v.ID, v.Problem)
		}
	}
	if _, err := os.Stat(c.Models); errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintf(env.stderr, "There is no folder %s yet; model bundles in it would be listed here.\n", c.Models)
	}
}

type modelInfoCmd struct {
	modelsFlags
	ID string `arg:"" help:"Model to describe."`
}

// Run prints what is known of a model, its digest included, and its card.
func (c *modelInfoCmd) Run(ctx context.Context, env *environment) error {
	h, err := c.open()
	if err != nil {
		return err
	}
	b, err := h.Bundle(c.ID)
	if err != nil {
		return err
	}
	v := viewBundle(b)
	if v.Digest, err = b.Digest(ctx); err != nil {
		return err
	}
	if c.JSON {
		return printJSON(env, v)
	}
	fmt.Fprintf(env.stdout, "%s\n  architecture  %s\n  parameters    %s\n  type          %s\n  size          %s\n  context       %s\n  licence       %s\n  source        %s\n  digest        %s\n",
		v.ID, strings.Join(v.Architectures, ", "), humanize.Comma(v.Parameters), v.Type, humanize.Bytes(uint64(v.Bytes)), window(v.Context, " tokens"), v.Licence, v.Source, v.Digest)
	if v.Problem != "" {
		fmt.Fprintf(env.stdout, "  unusable      %s\n", v.Problem)
	}
	if card, err := fs.ReadFile(b.Files, "README.md"); err == nil {
		fmt.Fprintf(env.stdout, "\n%s\n", card)
	}
	return nil
}

// window writes how many tokens a model reads, where that is limited.
func window(tokens int, unit string) string {
	if tokens == 0 {
		return "-"
	}
	return fmt.Sprintf("%d%s", tokens, unit)
}

func printJSON(env *environment, value any) error {
	return indented(env.stdout, value)
}
