//go:build !amd64 || purego

package tensor

func detect() features { return features{level: Generic} }
