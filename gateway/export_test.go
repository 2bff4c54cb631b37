package gateway

import "github.com/gin-gonic/gin"

// Routes lists the routes that a gateway serves.
func (g *Gateway) Routes() gin.RoutesInfo { return g.engine.Routes() }
