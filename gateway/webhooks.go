package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gin-gonic/gin"

	"helicon/gateway/catalog"
	"helicon/gateway/strict"
	"helicon/gateway/webhook"
	"helicon/queue"
)

// webhookRequest is the body of POST and PATCH /v1/webhooks.
type webhookRequest struct {
	URL         *string  `json:"url"`
	Events      []string `json:"events"`
	Description *string  `json:"description"`
	Enabled     *bool    `json:"enabled"`
}

// newWebhookRequest is the body of POST /v1/webhooks.
type newWebhookRequest struct {
	webhookRequest
	Secret string `json:"secret"` // whsec_…; empty: one is drawn
}

// webhookSecret is what signs messages.
type webhookSecret struct {
	Secret string `json:"secret"`
}

// newWebhook is an endpoint with its secret, which is shown once.
type newWebhook struct {
	*catalog.Endpoint
	webhookSecret
}

// deliveryDetail is a delivery with its message.
type deliveryDetail struct {
	*catalog.Delivery
	Body string     `json:"body"`
	Next *time.Time `json:"next_attempt,omitempty"`
}

const (
	maxDescription = 256            // bytes
	secretOverlap  = 24 * time.Hour // in which the secret before the last rotation signs, too
)

// check reports what is wrong with a request; what is absent is not.
func (r *webhookRequest) check(policy webhook.Policy) error {
	if r.URL != nil {
		if err := policy.CheckURL(*r.URL); err != nil {
			return strict.Invalid("/url", "%v", err)
		}
	}
	if err := checkEvents("/events", r.Events, catalog.EventTypes()); err != nil {
		return err
	}
	if r.Description != nil && len(*r.Description) > maxDescription {
		return strict.Invalid("/description", "at most %d bytes, got %d", maxDescription, len(*r.Description))
	}
	return nil
}

// checkEvents refuses types of events that are none of known, or appear twice.
func checkEvents(pointer string, events, known []string) error {
	for i, name := range events {
		at := pointer + "/" + strconv.Itoa(i)
		if !slices.Contains(known, name) {
			return strict.Invalid(at, "there is no event %q; want %s", name, strings.Join(known, ", "))
		}
		if slices.Index(events, name) < i {
			return strict.Invalid(at, "%s appears twice", name)
		}
	}
	return nil
}

// webhooks returns the catalog, which has the endpoints; a problem if there is none.
func (g *Gateway) webhooks() (*catalog.Catalog, error) {
	if g.config.Catalog == nil {
		return nil, queue.Problemf("not_implemented", "This server has no catalog, and so no webhooks.")
	}
	return g.config.Catalog, nil
}

// createWebhook answers POST /v1/webhooks.
func (g *Gateway) createWebhook(c *gin.Context) error {
	endpoints, err := g.webhooks()
	if err != nil {
		return err
	}
	var request newWebhookRequest
	if err := g.readSmall(c, &request); err != nil {
		return err
	}
	if request.URL == nil {
		return strict.Invalid("/url", "missing: where the messages go")
	}
	if err := request.check(g.config.Webhooks); err != nil {
		return err
	}
	secret, err := chosen(request.Secret)
	if err != nil {
		return err
	}
	e := &catalog.Endpoint{
		Tenant: principalOf(c.Request.Context()).Tenant, URL: *request.URL, Events: request.Events,
		Enabled: request.Enabled == nil || *request.Enabled,
	}
	if len(e.Events) == 0 {
		e.Events = catalog.FinalEvents()
	}
	if request.Description != nil {
		e.Description = *request.Description
	}
	if err := endpoints.CreateEndpoint(c.Request.Context(), e, secret); err != nil {
		return err
	}
	c.Writer.Header().Set("Location", "/v1/webhooks/"+e.ID)
	writeJSON(c, http.StatusCreated, newWebhook{e, webhookSecret{secret}})
	return nil
}

// maxSmall is how many bytes the body of a request may have that carries no input.
const maxSmall = 64 << 10

// readSmall reads such a body.
func (g *Gateway) readSmall(c *gin.Context, into any) error {
	c.Request.Body = http.MaxBytesReader(c.Writer, c.Request.Body, maxSmall)
	_, err := strict.Read(c.Request, into)
	return err
}

// chosen is the secret that a client chose, or a fresh one.
func chosen(secret string) (string, error) {
	if secret == "" {
		return webhook.NewSecret(), nil
	}
	if err := webhook.CheckSecret(secret); err != nil {
		return "", strict.Invalid("/secret", "%v", err)
	}
	return secret, nil
}

// listWebhooks answers GET /v1/webhooks.
func (g *Gateway) listWebhooks(c *gin.Context) error {
	endpoints, err := g.webhooks()
	if err != nil {
		return err
	}
	if err := onlyQuery(c); err != nil {
		return err
	}
	found, err := endpoints.Endpoints(c.Request.Context(), principalOf(c.Request.Context()).Tenant)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, listOf(found))
	return nil
}

// endpointOf returns the endpoint that the path names.
func (g *Gateway) endpointOf(c *gin.Context) (*catalog.Endpoint, error) {
	endpoints, err := g.webhooks()
	if err != nil {
		return nil, err
	}
	if c.Param("id") == catalog.JobsEndpoint {
		return nil, catalog.ErrNoEndpoint // it is the server's
	}
	return endpoints.Endpoint(c.Request.Context(), principalOf(c.Request.Context()).Tenant, c.Param("id"))
}

// showWebhook answers GET /v1/webhooks/{id}.
func (g *Gateway) showWebhook(c *gin.Context) error {
	e, err := g.endpointOf(c)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, e)
	return nil
}

// changeWebhook answers PATCH /v1/webhooks/{id}.
func (g *Gateway) changeWebhook(c *gin.Context) error {
	e, err := g.endpointOf(c)
	if err != nil {
		return err
	}
	var request webhookRequest
	if err := g.readSmall(c, &request); err != nil {
		return err
	}
	if err := request.check(g.config.Webhooks); err != nil {
		return err
	}
	if request.Events != nil && len(request.Events) == 0 {
		return strict.Invalid("/events", "want at least one; to be told nothing, disable the webhook")
	}
	e, err = g.config.Catalog.ChangeEndpoint(c.Request.Context(), e.Tenant, e.ID, catalog.EndpointChange(request))
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, e)
	return nil
}

// deleteWebhook answers DELETE /v1/webhooks/{id}.
func (g *Gateway) deleteWebhook(c *gin.Context) error {
	e, err := g.endpointOf(c)
	if err != nil {
		return err
	}
	if err := g.config.Catalog.DeleteEndpoint(c.Request.Context(), e.Tenant, e.ID); err != nil {
		return err
	}
	c.Status(http.StatusNoContent)
	c.Writer.WriteHeaderNow()
	return nil
}

// rotateWebhook answers POST /v1/webhooks/{id}/rotate.
func (g *Gateway) rotateWebhook(c *gin.Context) error {
	e, err := g.endpointOf(c)
	if err != nil {
		return err
	}
	return g.rotate(c, e)
}

// rotate gives an endpoint another secret: the one that the body names, if it has one.
func (g *Gateway) rotate(c *gin.Context, e *catalog.Endpoint) error {
	var request webhookSecret
	if c.Request.ContentLength != 0 {
		if err := g.readSmall(c, &request); err != nil {
			return err
		}
	}
	secret, err := chosen(request.Secret)
	if err != nil {
		return err
	}
	if _, err := g.config.Catalog.RotateSecret(c.Request.Context(), e.Tenant, e.ID, secret, secretOverlap); err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, webhookSecret{secret})
	return nil
}

// jobsEndpoint is the caller's endpoint of the webhooks that jobs name themselves.
func (g *Gateway) jobsEndpoint(ctx context.Context) (*catalog.Endpoint, error) {
	endpoints, err := g.webhooks()
	if err != nil {
		return nil, err
	}
	return endpoints.EnsureJobsEndpoint(ctx, principalOf(ctx).Tenant, webhook.NewSecret())
}

// showWebhookSecret answers GET /v1/webhooks/secret.
func (g *Gateway) showWebhookSecret(c *gin.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	e, err := g.jobsEndpoint(c.Request.Context())
	if err != nil {
		return err
	}
	c.Writer.Header().Set("Cache-Control", "no-store")
	writeJSON(c, http.StatusOK, webhookSecret{e.Secrets(time.Now())[0]})
	return nil
}

// rotateWebhookSecret answers POST /v1/webhooks/secret/rotate.
func (g *Gateway) rotateWebhookSecret(c *gin.Context) error {
	e, err := g.jobsEndpoint(c.Request.Context())
	if err != nil {
		return err
	}
	return g.rotate(c, e)
}

// testWebhook answers POST /v1/webhooks/{id}/test.
func (g *Gateway) testWebhook(c *gin.Context) error {
	e, err := g.endpointOf(c)
	if err != nil {
		return err
	}
	if !e.Enabled {
		return queue.Problemf("webhook_disabled", "The webhook is disabled; enable it first.")
	}
	d, err := g.config.Catalog.TestDelivery(c.Request.Context(), e)
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusAccepted, d)
	return nil
}

// logOf returns whose log the path names: an endpoint, or jobs for the webhooks that
// jobs name themselves.
func (g *Gateway) logOf(c *gin.Context) (tenant, endpoint string, err error) {
	if c.Param("id") != catalog.JobsEndpoint {
		e, err := g.endpointOf(c)
		if err != nil {
			return "", "", err
		}
		return e.Tenant, e.ID, nil
	}
	_, err = g.webhooks()
	return principalOf(c.Request.Context()).Tenant, catalog.JobsEndpoint, err
}

// listDeliveries answers GET /v1/webhooks/{id}/deliveries.
func (g *Gateway) listDeliveries(c *gin.Context) error {
	tenant, endpoint, err := g.logOf(c)
	if err != nil {
		return err
	}
	if err := onlyQuery(c, "state", "limit", "after"); err != nil {
		return err
	}
	f := catalog.DeliveryFilter{State: catalog.DeliveryState(c.Query("state")), Limit: 50, After: c.Query("after")}
	if states := []catalog.DeliveryState{"", catalog.Pending, catalog.Delivered, catalog.Undelivered}; !slices.Contains(states, f.State) {
		return queue.Problemf("invalid_request", "There is no state %q; want pending, delivered or undelivered.", f.State)
	}
	if text := c.Query("limit"); text != "" {
		if f.Limit, err = strconv.Atoi(text); err != nil || f.Limit < 1 || f.Limit > maxPage {
			return queue.Problemf("invalid_request", "limit=%q: want 1 to %d.", text, maxPage)
		}
	}
	found, more, err := g.config.Catalog.Deliveries(c.Request.Context(), tenant, endpoint, f)
	if errors.Is(err, catalog.ErrNoDelivery) {
		return queue.Problemf("invalid_request", "after=%q is not a delivery of this webhook.", f.After)
	}
	if err != nil {
		return err
	}
	answer := listOf(found)
	if answer.HasMore = more; more {
		answer.Next = found[len(found)-1].ID
	}
	writeJSON(c, http.StatusOK, answer)
	return nil
}

// showDelivery answers GET /v1/webhooks/{id}/deliveries/{delivery}.
func (g *Gateway) showDelivery(c *gin.Context) error {
	tenant, endpoint, err := g.logOf(c)
	if err != nil {
		return err
	}
	d, err := g.config.Catalog.Delivery(c.Request.Context(), tenant, endpoint, c.Param("delivery"))
	if err != nil {
		return err
	}
	detail := deliveryDetail{Delivery: d, Body: d.Body}
	if d.State == catalog.Pending {
		detail.Next = &d.Due
	}
	writeJSON(c, http.StatusOK, detail)
	return nil
}

// redeliver answers POST /v1/webhooks/{id}/deliveries/{delivery}/redeliver.
func (g *Gateway) redeliver(c *gin.Context) error {
	tenant, endpoint, err := g.logOf(c)
	if err != nil {
		return err
	}
	d, err := g.config.Catalog.Redeliver(c.Request.Context(), tenant, endpoint, c.Param("delivery"))
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusAccepted, d)
	return nil
}

// admitWebhook checks where a job wants to be reported to, and sees to it that there is
// a secret to sign with.
func (g *Gateway) admitWebhook(ctx context.Context, job *queue.Job) error {
	if job.Webhook == "" {
		if len(job.WebhookEvents) > 0 {
			return strict.Invalid("/webhook_events_filter", "there is no webhook to filter for")
		}
		return nil
	}
	if err := g.config.Webhooks.CheckURL(job.Webhook); err != nil {
		return strict.Invalid("/webhook", "%v", err)
	}
	kind := "job."
	if job.Modality() == "batch" {
		kind = "batch."
	}
	known := slices.DeleteFunc(catalog.EventTypes(), func(name string) bool { return !strings.HasPrefix(name, kind) })
	if err := checkEvents("/webhook_events_filter", job.WebhookEvents, known); err != nil {
		return err
	}
	_, err := g.jobsEndpoint(ctx)
	if err != nil {
		return fmt.Errorf("gateway: webhook: %w", err)
	}
	return nil
}
