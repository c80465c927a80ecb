package server

import (
	"context"
	"errors"
	"fmt"

	"caracal.run/management/gen/code"
	"caracal.run/management/server/policy"
	"caracal.run/management/store"
)

const maxManifestEntries = 256

// compileManifest checks that the policy versions of a manifest can be used together
// (policy-sets.md, "Contract check") and compiles them. sources has those of the
// versions that the zone has, in any order. If the check fails, compileManifest returns
// the error code invalid with the reason. Compiled manifests are cached.
//
// It takes long, so do not call it in a transaction. Versions never change; whether a
// policy is archived must be checked again in the transaction that relies on it.
func (s *Server) compileManifest(ctx context.Context, zone string, invalid code.Code, schemaVersion string, manifest []string, sources []store.PolicySource) (*policy.Bundle, error) {
	ordered, detail := checkManifest(schemaVersion, manifest, sources)
	if detail != "" {
		return nil, invalid.With("detail", detail)
	}
	modules := mapSlice(ordered, func(s store.PolicySource) policy.Module {
		return policy.Module{ID: s.ID, Content: s.Content, SchemaVersion: s.SchemaVersion}
	})
	key := zone + " " + store.ManifestSHA256(manifest)
	bundle, err := s.bundles.Bundle(ctx, key, func(context.Context) ([]policy.Module, error) { return modules, nil })
	var compileErr *policy.CompileError
	if errors.As(err, &compileErr) {
		e := invalid.With("detail", contractDetail(compileErr))
		issues := mapSlice(compileErr.Issues, toPolicyIssue)
		if compileErr.ID != "" { // the issues of one policy version
			for i := range issues {
				issues[i].PolicyVersionID = &compileErr.ID
			}
		}
		e.Fields["issues"] = issues
		return nil, e
	}
	return bundle, err
}

// checkManifest returns the sources in the order of the manifest, or the detail of
// the first rule that the manifest violates. A policy version of another zone counts
// as missing, so that the error does not disclose that it exists.
func checkManifest(schemaVersion string, manifest []string, sources []store.PolicySource) (ordered []store.PolicySource, detail string) {
	switch {
	case !policy.SupportedSchemaVersion(schemaVersion):
		return nil, unsupportedSchemaVersion(schemaVersion)
	case len(manifest) == 0:
		return nil, "policy set manifest must reference at least one policy version"
	case len(manifest) > maxManifestEntries:
		return nil, fmt.Sprintf("policy set manifest exceeds maximum of %d entries", maxManifestEntries)
	}
	byID := make(map[string]store.PolicySource, len(sources))
	for _, s := range sources {
		byID[s.ID] = s
	}
	listed := make(map[string]bool, len(manifest))
	for _, id := range manifest {
		if listed[id] {
			return nil, "policy set manifest contains duplicate policy_version_id entries"
		}
		listed[id] = true
	}
	for _, id := range manifest {
		s, found := byID[id]
		if !found {
			return nil, "policy set manifest references missing policy versions"
		}
		ordered = append(ordered, s)
	}
	size := int64(0)
	for _, s := range ordered {
		size += s.Bytes
		switch {
		case s.Archived:
			return nil, fmt.Sprintf("policy version %s belongs to an archived policy", s.ID)
		case s.SchemaVersion != schemaVersion:
			return nil, fmt.Sprintf("policy version %s schema %s does not match policy set schema %s", s.ID, s.SchemaVersion, schemaVersion)
		}
	}
	if size > store.MaxManifestBytes {
		return nil, fmt.Sprintf("policy set manifest exceeds maximum of %d bytes of content", store.MaxManifestBytes)
	}
	return ordered, ""
}

// unsupportedSchemaVersion returns the detail of an error about a schema version.
func unsupportedSchemaVersion(v string) string { return "unsupported_schema_version:" + v }

// contractDetail returns the detail of the error of policy versions that are invalid.
func contractDetail(e *policy.CompileError) string {
	errCode := e.Issues[0].Code
	if e.ID == "" {
		return "policy set manifest failed validation: " + errCode
	}
	reason, known := map[string]string{
		"must_use_package_caracal_authz":       "must use package caracal.authz",
		"must_be_data_document":                "must be a data document marked # caracal:data-document",
		"data_document_must_not_define_result": "must not define result; the platform decision contract owns every decision",
	}[errCode]
	if !known {
		reason = "failed validation: " + errCode
	}
	return fmt.Sprintf("policy version %s %s", e.ID, reason)
}
