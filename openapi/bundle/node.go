package main

import (
	"iter"
	"strings"

	"go.yaml.in/yaml/v3"
)

// pairs yields the keys and values of a mapping, in order.
func pairs(n *yaml.Node) iter.Seq2[string, *yaml.Node] {
	return func(yield func(string, *yaml.Node) bool) {
		if n == nil || n.Kind != yaml.MappingNode {
			return
		}
		for i := 0; i+1 < len(n.Content); i += 2 {
			if !yield(n.Content[i].Value, n.Content[i+1]) {
				return
			}
		}
	}
}

// get returns the value of a key, or nil.
func get(n *yaml.Node, key string) *yaml.Node {
	for k, v := range pairs(n) {
		if k == key {
			return v
		}
	}
	return nil
}

func set(n *yaml.Node, key string, value *yaml.Node) {
	n.Content = append(n.Content, scalar(key), value)
}

func remove(n *yaml.Node, key string) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			n.Content = append(n.Content[:i], n.Content[i+2:]...)
			return
		}
	}
}

// child returns the mapping under a key, and adds it if it does not exist.
func child(n *yaml.Node, key string) *yaml.Node {
	if value := get(n, key); value != nil {
		return value
	}
	added := mapping()
	set(n, key, added)
	return added
}

// valueOf returns the value of a scalar, or "" if there is none.
func valueOf(n *yaml.Node) string {
	if n == nil {
		return ""
	}
	return n.Value
}

// deref returns the component that a node refers to with $ref, the node itself
// if it is not a reference, or nil if there is no such component.
func deref(spec, n *yaml.Node) *yaml.Node {
	for range 10 { // a longer chain of references is a cycle
		to := get(n, "$ref")
		if to == nil {
			return n
		}
		path, local := strings.CutPrefix(to.Value, "#/")
		if !local {
			return nil
		}
		n = spec
		for key := range strings.SplitSeq(path, "/") {
			n = get(n, key)
		}
	}
	return nil
}

// list returns the strings of a sequence.
func list(n *yaml.Node) []string {
	if n == nil {
		return nil
	}
	var all []string
	for _, c := range n.Content {
		all = append(all, c.Value)
	}
	return all
}

func clone(n *yaml.Node) *yaml.Node {
	c := *n
	c.Content = make([]*yaml.Node, len(n.Content))
	for i := range n.Content {
		c.Content[i] = clone(n.Content[i])
	}
	return &c
}

func mapping(alternating ...any) *yaml.Node {
	n := &yaml.Node{Kind: yaml.MappingNode}
	for i := 0; i+1 < len(alternating); i += 2 {
		set(n, alternating[i].(string), node(alternating[i+1]))
	}
	return n
}

func node(v any) *yaml.Node {
	if n, ok := v.(*yaml.Node); ok {
		return n
	}
	var n yaml.Node
	if err := n.Encode(v); err != nil {
		panic(err) // cannot happen: callers pass strings, booleans and lists of strings
	}
	return &n
}

func scalar(s string) *yaml.Node {
	return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s}
}

func ref(to string) *yaml.Node { return mapping("$ref", to) }
