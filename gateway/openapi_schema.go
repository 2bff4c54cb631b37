package gateway

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"time"
)

// describer writes JSON Schemas (2020-12) of Go types as encoding/json writes and package
// strict reads them.
type describer struct {
	names   map[reflect.Type]string // components, which are referred to
	request bool                    // nothing is required, unknown members are refused
}

// schema describes a type, by reference if it is a component.
func (d describer) schema(t reflect.Type) object {
	if name, ok := d.names[t]; ok {
		return object{"$ref": "#/components/schemas/" + name}
	}
	return d.define(t)
}

// define describes a type itself.
func (d describer) define(t reflect.Type) object {
	switch {
	case t == reflect.TypeFor[json.RawMessage]():
		return object{}
	case t == reflect.TypeFor[time.Time]():
		return object{"type": "string", "format": "date-time"}
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return object{"type": "string"}
	}
	switch t.Kind() {
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float32, reflect.Float64:
		return object{"type": "number"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return object{"type": "integer"}
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return object{"type": "integer", "minimum": 0}
	case reflect.Pointer:
		return d.orNull(d.schema(t.Elem()))
	case reflect.Slice, reflect.Array:
		return d.orNull(object{"type": "array", "items": d.schema(t.Elem())})
	case reflect.Map:
		return d.orNull(object{"type": "object", "additionalProperties": d.schema(t.Elem())})
	case reflect.Struct:
		return d.structure(t)
	}
	return object{} // any value
}

// orNull admits null, which nil becomes.
func (d describer) orNull(schema object) object {
	if kind, ok := schema["type"].(string); ok {
		schema["type"] = []any{kind, "null"}
		return schema
	}
	if len(schema) == 0 {
		return schema
	}
	return object{"anyOf": []any{schema, object{"type": "null"}}}
}

// structure describes an object by the fields of a struct, those of embedded structs included.
func (d describer) structure(t reflect.Type) object {
	properties, required := object{}, []any{}
	for _, f := range reflect.VisibleFields(t) {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" || f.Anonymous && name == "" || !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		optional := slices.Contains(strings.Split(options, ","), "omitempty") || slices.Contains(strings.Split(options, ","), "omitzero")
		schema := d.schema(f.Type)
		if optional && !d.request {
			schema = present(schema)
		}
		if properties[name] == nil && !optional && !d.request {
			required = append(required, name)
		}
		if properties[name] == nil || len(f.Index) == 1 { // the outer field hides the inner one
			properties[name] = schema
		}
	}
	described := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		described["required"] = required
	}
	if d.request {
		described["additionalProperties"] = false
	}
	return described
}

// present takes null from a schema again: what is left out when it is nil is never null.
func present(schema object) object {
	if kinds, ok := schema["type"].([]any); ok {
		schema["type"] = kinds[0]
	}
	if either, ok := schema["anyOf"].([]any); ok {
		return either[0].(object)
	}
	return schema
}
