package upscale

import "fmt"

// grid divides a picture into cells: tiles of about the same size, which overlap.
type grid struct {
	height, width int // of the picture, multiples of the unit
	rows, columns int
	overlap, unit int
}

// cell is a tile of a grid, and the inner part of it that is kept.
type cell struct {
	top, left, bottom, right                     int
	innerTop, innerLeft, innerBottom, innerRight int
}

func (c cell) height() int { return c.bottom - c.top }
func (c cell) width() int  { return c.right - c.left }

// grid divides a picture of a size.
func (n Info) grid(height, width int, o Options) (grid, error) {
	if min(height, width) < 1 || max(height, width) > maxSide {
		return grid{}, fmt.Errorf("upscale: picture of %d×%d, want 1 to %d on a side", width, height, maxSide)
	}
	if o.Tile < 0 || o.Tile > maxSide || o.Overlap < 0 || o.Overlap > maxSide {
		return grid{}, fmt.Errorf("upscale: tiles of %d with an overlap of %d", o.Tile, o.Overlap)
	}
	g := grid{overlap: o.Overlap, unit: n.shuffle}
	if o.Overlap == 0 {
		g.overlap = n.Overlap
	}
	g.overlap = roundUp(g.overlap, g.unit)
	if o.Tile == 0 {
		o.Tile = n.tile(g.overlap)
	}
	tile := roundUp(o.Tile, g.unit)
	g.height, g.width = roundUp(height, g.unit), roundUp(width, g.unit)
	g.rows, g.columns = (g.height+tile-1)/tile, (g.width+tile-1)/tile
	return g, nil
}

// tile returns the side of a tile without overlap whose activations take tileBytes.
func (n Info) tile(overlap int) int {
	side := minTile
	for n.workspace((side+1+2*overlap)*(side+1+2*overlap)) <= tileBytes {
		side++
	}
	return side
}

// cell returns a cell, by rows.
func (g grid) cell(i int) cell {
	c := cell{}
	c.innerTop, c.innerBottom = g.cut(i/g.columns, g.rows, g.height)
	c.innerLeft, c.innerRight = g.cut(i%g.columns, g.columns, g.width)
	c.top, c.bottom = max(0, c.innerTop-g.overlap), min(g.height, c.innerBottom+g.overlap)
	c.left, c.right = max(0, c.innerLeft-g.overlap), min(g.width, c.innerRight+g.overlap)
	return c
}

// cut returns piece i of so many, of a length that is a multiple of the unit.
func (g grid) cut(i, pieces, length int) (from, to int) {
	units := length / g.unit
	return i * units / pieces * g.unit, (i + 1) * units / pieces * g.unit
}

// pixels returns the size of the largest cell.
func (g grid) pixels() int {
	high := (g.height/g.unit + g.rows - 1) / g.rows * g.unit
	wide := (g.width/g.unit + g.columns - 1) / g.columns * g.unit
	return min(g.height, high+2*g.overlap) * min(g.width, wide+2*g.overlap)
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }

// Workspace returns the memory that Upscale takes beside the pictures. The error says what
// is wrong with the size.
func (n Info) Workspace(height, width int, o Options) (int64, error) {
	g, err := n.grid(height, width, o)
	if err != nil {
		return 0, err
	}
	return n.workspace(g.pixels()), nil
}
