package main

import (
	"context"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"helicon/gateway/catalog"
	"helicon/gateway/webhook"
)

// webhookFlags say where messages may be sent.
type webhookFlags struct {
	WebhookAllow []netip.Prefix `help:"Networks that webhooks may be sent to although they are not public, by plain http too." placeholder:"CIDR"`
}

func (f webhookFlags) policy() webhook.Policy { return webhook.Policy{Allow: f.WebhookAllow} }

// deliver sends what the catalog has to send until ctx ends.
func (f webhookFlags) deliver(ctx context.Context, env *environment, c *catalog.Catalog) error {
	attempts := promauto.With(env.metrics).NewCounterVec(prometheus.CounterOpts{
		Name: "helicon_webhook_attempts_total", Help: "Attempts to deliver webhooks, by how the delivery stands then: delivered, undelivered for good, or pending.",
	}, []string{"state"})
	d, err := webhook.New(webhook.Config{
		Catalog: c, Policy: f.policy(), Log: env.log,
		Attempted: func(s catalog.DeliveryState) { attempts.WithLabelValues(string(s)).Inc() },
	})
	if err != nil {
		return err
	}
	return d.Run(ctx)
}
