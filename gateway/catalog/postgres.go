package catalog

import (
	"cmp"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

// postgresConns is how many connections a gateway has to PostgreSQL at most.
const postgresConns = 10

// openPostgres prepares connections to a server; none is made yet.
func (c *Catalog) openPostgres(url string) error {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return err // without the password, which pgx leaves out
	}
	config.ConnectTimeout = cmp.Or(config.ConnectTimeout, 5*time.Second)
	for name, value := range map[string]string{
		"application_name": "helicon",
		// How frequent the words of a search are decides how it is done: it is planned anew
		// each time, and is over before it could be compiled.
		"plan_cache_mode": "force_custom_plan",
		"jit":             "off",
		// What is asked for is in memory or on a disk without a head to move.
		"random_page_cost": "1.1",
	} {
		if _, set := config.RuntimeParams[name]; !set {
			config.RuntimeParams[name] = value
		}
	}
	c.postgres = true
	c.db = stdlib.OpenDB(*config)
	c.db.SetMaxOpenConns(postgresConns)
	c.db.SetMaxIdleConns(postgresConns / 2)
	c.db.SetConnMaxIdleTime(5 * time.Minute)
	c.read = c.db
	return nil
}
