package main

import (
	"slices"
	"testing"
)

func TestPostAndPatchTakeIdempotencyKey(t *testing.T) {
	for _, tt := range []struct {
		method, op  string
		parameters  []string
		replayed    bool
		description string
	}{
		{"post", "responses: {'201': {}}", []string{"#/components/parameters/idempotencyKey"}, true, "Does something."},
		{"patch", "parameters: [{$ref: '#/x'}]\nresponses: {'200': {headers: {}}}", []string{"#/x", "#/components/parameters/idempotencyKey"}, true, "Does something."},
		{"post", "x-no-idempotency-key: it changes nothing\nresponses: {'200': {}}", nil, false, "Does something.\n\nTakes no `Idempotency-Key`: it changes nothing."},
		{"get", "responses: {'200': {}}", nil, false, "Does something."},
		{"put", "responses: {'200': {}}", nil, false, "Does something."},
		{"delete", "responses: {'204': {}}", nil, false, "Does something."},
	} {
		op := operation(t, tt.op+"\ndescription: Does something.")
		if err := addIdempotencyKey(tt.method, op); err != nil {
			t.Fatal(err)
		}
		var parameters []string
		if declared := get(op, "parameters"); declared != nil {
			for _, p := range declared.Content {
				parameters = append(parameters, get(p, "$ref").Value)
			}
		}
		replayed := false
		for _, response := range pairs(get(op, "responses")) {
			replayed = get(get(response, "headers"), "Idempotency-Replayed") != nil
		}
		if !slices.Equal(parameters, tt.parameters) || replayed != tt.replayed || get(op, "description").Value != tt.description {
			t.Errorf("%s %s: got %q, %t, %q", tt.method, tt.op, parameters, replayed, get(op, "description").Value)
		}
	}
}

func TestInvalidIdempotencyKeyExtensionIsAnError(t *testing.T) {
	for _, tt := range []struct{ method, op, want string }{
		{"get", "x-no-idempotency-key: it reads", "x-no-idempotency-key must be set only on POST and PATCH operations"},
		{"post", "x-no-idempotency-key: ''", "x-no-idempotency-key must give a reason"},
		{"post", "responses: {}", "a success response is required"},
	} {
		err := addIdempotencyKey(tt.method, operation(t, tt.op+"\ndescription: Does something."))
		if err == nil || err.Error() != tt.want {
			t.Errorf("%s %s: error %v, want %s", tt.method, tt.op, err, tt.want)
		}
	}
}
