package gateway

import (
	"net/http"
	"strings"

	"github.com/gin-gonic/gin"

	"helicon/queue"
)

// listTasks answers GET /v1/tasks.
func (g *Gateway) listTasks(c *gin.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	tasks := make([]queue.Task, len(l.tasks))
	for i, t := range l.tasks {
		tasks[i] = t.Task
	}
	writeJSON(c, http.StatusOK, listOf(tasks))
	return nil
}

// listModels answers GET /v1/models.
func (g *Gateway) listModels(c *gin.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, listOf(l.models))
	return nil
}

// showModel answers GET /v1/models/{id}; an id may contain slashes.
func (g *Gateway) showModel(c *gin.Context) error {
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	id := strings.TrimPrefix(c.Param("id"), "/")
	m := l.model(id)
	if m == nil {
		return queue.Problemf("model_not_found", "No worker serves the model %q.", id)
	}
	writeJSON(c, http.StatusOK, m)
	return nil
}

// listWorkers answers GET /v1/workers.
func (g *Gateway) listWorkers(c *gin.Context) error {
	if err := onlyQuery(c); err != nil {
		return err
	}
	l, err := g.directory.list(c.Request.Context())
	if err != nil {
		return err
	}
	writeJSON(c, http.StatusOK, listOf(l.workers))
	return nil
}
