package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"

	"helicon/gateway/catalog"
	"helicon/queue"
)

// databaseFlags say where keys, webhooks and the record of jobs are kept.
type databaseFlags struct {
	DB string `help:"Keep keys and the record of jobs in this database, which several gateways may share: postgres://USER:PASSWORD@HOST/DATABASE; without it, in the file catalog.db of the data directory." name:"db" placeholder:"URL"`
}

// url is where the catalog of a data directory is.
func (f databaseFlags) url(data string) string {
	if f.DB != "" {
		return f.DB
	}
	return "sqlite:" + filepath.Join(data, "catalog.db")
}

// catalogFlags find the catalog of a server, whether it is running or not.
type catalogFlags struct {
	Data string `help:"Data directory of the server; ${default} unless given." default:"${data}" placeholder:"DIR" type:"path"`
	databaseFlags
	JSON bool `help:"Print JSON." name:"json"`
}

// use opens the catalog for one command.
func (f catalogFlags) use(ctx context.Context, env *environment, do func(*catalog.Catalog) error) error {
	c, err := catalog.Open(ctx, f.url(f.Data), catalog.Options{Log: env.warnings})
	if err != nil {
		return err
	}
	return errors.Join(do(c), c.Close())
}

// table prints rows of columns that are separated by tabs.
func table(w io.Writer, rows ...string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(t, row)
	}
	return t.Flush()
}

// keysCmd groups the commands about keys.
type keysCmd struct {
	Create createKeyCmd `cmd:"" help:"Make a key. It is printed this once; what is stored cannot bring it back."`
	List   listKeysCmd  `cmd:"" help:"List the keys, without their secrets."`
	Revoke revokeKeyCmd `cmd:"" help:"End keys for good, within seconds on all gateways."`
}

type createKeyCmd struct {
	catalogFlags
	Tenant  string        `help:"Who owns what is made with the key: 1 to 64 letters, digits, - or _. A tenant exists as soon as it has a key." default:"${tenant}" placeholder:"NAME"`
	Name    string        `help:"What the key is for, as a note to people." placeholder:"TEXT"`
	Scopes  []string      `help:"What the key allows: ${scopes}." default:"jobs:read,jobs:write,webhooks" placeholder:"SCOPE"`
	Expires time.Duration `help:"For how long the key is good; 0 is until it is revoked." default:"0" placeholder:"720h"`
}

// Run makes the key and prints it alone on the standard output, for scripts.
func (c *createKeyCmd) Run(ctx context.Context, env *environment) error {
	if c.Expires < 0 {
		return errors.New("--expires: want 0 or more")
	}
	key := &catalog.Key{Tenant: c.Tenant, Name: c.Name, Scopes: c.Scopes}
	if c.Expires > 0 {
		end := time.Now().Add(c.Expires).UTC()
		key.Expires = &end
	}
	return c.use(ctx, env, func(cat *catalog.Catalog) error {
		text, err := cat.CreateKey(ctx, key)
		if err != nil {
			return err
		}
		if c.JSON {
			return printJSON(env, struct {
				Text string `json:"key"`
				*catalog.Key
			}{text, key})
		}
		fmt.Fprintf(env.stderr, "Key %s of tenant %s (%s), good %s. It is shown this once:\n",
			key.ID, key.Tenant, strings.Join(key.Scopes, ", "), until(key.Expires))
		_, err = fmt.Fprintln(env.stdout, text)
		return err
	})
}

// until says when a key ends.
func until(end *time.Time) string {
	if end == nil {
		return "until it is revoked"
	}
	return "until " + end.Local().Format(time.DateTime)
}

type listKeysCmd struct {
	catalogFlags
	Tenant string `help:"Only the keys of this tenant." placeholder:"NAME"`
}

// Run prints one line a key.
func (c *listKeysCmd) Run(ctx context.Context, env *environment) error {
	return c.use(ctx, env, func(cat *catalog.Catalog) error {
		keys, err := cat.Keys(ctx, c.Tenant)
		if err != nil {
			return err
		}
		if c.JSON {
			if keys == nil {
				keys = []*catalog.Key{}
			}
			return printJSON(env, keys)
		}
		rows := []string{"ID\tTENANT\tSTATE\tCREATED\tEXPIRES\tLAST USED\tSCOPES\tNAME"}
		for _, k := range keys {
			rows = append(rows, strings.Join([]string{
				k.ID, k.Tenant, k.State(time.Now()), date(&k.Created), date(k.Expires), date(k.Used), strings.Join(k.Scopes, ","), k.Name,
			}, "\t"))
		}
		return table(env.stdout, rows...)
	})
}

// date is a time in a list.
func date(t *time.Time) string {
	if t == nil {
		return "never"
	}
	return t.Local().Format("2006-01-02 15:04")
}

type revokeKeyCmd struct {
	catalogFlags
	IDs []string `arg:"" name:"id" help:"Ids of the keys as helicon keys list shows them, or the keys themselves."`
}

// Run ends the keys.
func (c *revokeKeyCmd) Run(ctx context.Context, env *environment) error {
	return c.use(ctx, env, func(cat *catalog.Catalog) error {
		for _, id := range c.IDs {
			if of, _, err := catalog.ParseKey(id); err == nil {
				id = of
			}
			err := cat.RevokeKey(ctx, id)
			if errors.Is(err, catalog.ErrNoKey) {
				return fmt.Errorf("there is no key %q; helicon keys list shows the ids", id)
			}
			if err != nil {
				return err
			}
			fmt.Fprintf(env.stderr, "Key %s is revoked.\n", id)
		}
		return nil
	})
}

// tenantsCmd groups the commands about the limits of tenants.
type tenantsCmd struct {
	List  listTenantsCmd `cmd:"" help:"List the tenants that have limits of their own."`
	Set   setTenantCmd   `cmd:"" help:"Set limits of a tenant, which gateways apply within seconds. What is not given stays."`
	Unset unsetTenantCmd `cmd:"" help:"Give a tenant the limits of the gateways' settings again."`
}

type listTenantsCmd struct{ catalogFlags }

// Run prints one line a tenant.
func (c *listTenantsCmd) Run(ctx context.Context, env *environment) error {
	return c.use(ctx, env, func(cat *catalog.Catalog) error {
		tenants, err := cat.Tenants(ctx)
		if err != nil {
			return err
		}
		if c.JSON {
			if tenants == nil {
				tenants = []catalog.Tenant{}
			}
			return printJSON(env, tenants)
		}
		rows := []string{"TENANT\tREQUESTS/S\tAT ONCE\tUNFINISHED JOBS\tUPLOADS/DAY"}
		for _, t := range tenants {
			rows = append(rows, strings.Join([]string{
				t.Name, limitText(t.Rate, func(r float64) string { return strconv.FormatFloat(r, 'g', -1, 64) }),
				limitText(t.Burst, strconv.Itoa), limitText(t.Jobs, strconv.Itoa),
				limitText(t.Uploads, func(n int64) string { return humanize.IBytes(uint64(n)) }),
			}, "\t"))
		}
		return table(env.stdout, rows...)
	})
}

// limitText is a limit in a list.
func limitText[T comparable](limit *T, text func(T) string) string {
	var none T
	switch {
	case limit == nil:
		return "as set"
	case *limit == none:
		return "no limit"
	}
	return text(*limit)
}

type setTenantCmd struct {
	catalogFlags
	Name    string    `arg:"" help:"The tenant."`
	Rate    *float64  `help:"Requests a second; 0 is no limit." placeholder:"N"`
	Burst   *int      `help:"Requests at once before the rate holds; 0 is those of two seconds." placeholder:"N"`
	Jobs    *int      `help:"Jobs that have not ended; 0 is no limit." placeholder:"N"`
	Uploads *byteSize `help:"Bytes of uploads a day, such as 10GiB; 0 is no limit." placeholder:"SIZE"`
}

// Validate refuses limits that mean nothing.
func (c *setTenantCmd) Validate() error {
	if c.Rate == nil && c.Burst == nil && c.Jobs == nil && c.Uploads == nil {
		return errors.New("no limit is given: want some of --rate, --burst, --jobs and --uploads")
	}
	return limitFlags{LimitRate: c.Rate, LimitBurst: c.Burst, LimitJobs: c.Jobs, LimitUploads: c.Uploads}.validate()
}

// Run stores the limits.
func (c *setTenantCmd) Run(ctx context.Context, env *environment) error {
	return c.use(ctx, env, func(cat *catalog.Catalog) error {
		return cat.SetLimits(ctx, c.Name, catalog.Limits{Rate: c.Rate, Burst: c.Burst, Jobs: c.Jobs, Uploads: (*int64)(c.Uploads)})
	})
}

type unsetTenantCmd struct {
	catalogFlags
	Name string `arg:"" help:"The tenant."`
}

// Run forgets the limits.
func (c *unsetTenantCmd) Run(ctx context.Context, env *environment) error {
	return c.use(ctx, env, func(cat *catalog.Catalog) error { return cat.UnsetLimits(ctx, c.Name) })
}

// keyVars are what the help of these commands names.
func keyVars() kong.Vars {
	return kong.Vars{"tenant": queue.DefaultTenant, "scopes": strings.Join(catalog.Scopes(), ", ")}
}
