//go:build !amd64 || purego

package tensor

func (p *panels) multiply(Level) {
	p.check()
	p.multiplyGeneric()
}
