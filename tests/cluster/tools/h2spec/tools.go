// Package tools pins h2spec, which tries our HTTP/2 listeners with every case of RFC 9113: the imports
// keep go.mod and go.sum to what it needs, and nothing compiles this file.

//go:build tools

package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
