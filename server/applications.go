package server

import (
	"context"

	"caracal.run/management/gen/api"
	"caracal.run/management/gen/code"
	"caracal.run/management/gen/db"
	"caracal.run/management/server/timestamp"
	"caracal.run/management/store"
)

const (
	registrationsPerSecond        = 10 // per zone and token
	anonymousRegistrationsPerHour = 60 // per zone and address, of clients without a registration token

	defaultRegistrationSeconds = 3600 // default lifetime of a registered application

	defaultOverlapSeconds = 24 * 3600 // for which the other client secrets stay valid after a rotation
)

// ListApplications handles GET /v1/zones/{zoneId}/applications.
func (s *Server) ListApplications(ctx context.Context, req api.ListApplicationsRequestObject) (api.ListApplicationsResponseObject, error) {
	scope := "applications of " + req.ZoneID
	page, err := parsePage(ctx, req.Params.Cursor, req.Params.Limit, scope)
	if err != nil {
		return nil, err
	}
	filter := store.ApplicationFilter{Name: req.Params.Name, RegistrationMethod: (*string)(req.Params.RegistrationMethod)}
	applications, err := s.storeFor(ctx).Applications(ctx, req.ZoneID, filter, page)
	if err != nil {
		return nil, err
	}
	applications, link := paginate(ctx, applications, page, scope, func(a db.ListApplicationsRow) store.Position { return store.Position{Time: a.CreatedAt, ID: a.ID} })
	body := make([]api.Application, len(applications))
	global := cause(ctx).Actor.Global()
	for i := range applications {
		body[i] = toListedApplication(&applications[i], global)
	}
	return api.ListApplications200JSONResponse{Body: body, Headers: api.ListApplications200ResponseHeaders{Link: link}}, nil
}

// CreateApplication handles POST /v1/zones/{zoneId}/applications.
func (s *Server) CreateApplication(ctx context.Context, req api.CreateApplicationRequestObject) (api.CreateApplicationResponseObject, error) {
	var a db.Application
	var secret string
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		a, secret, err = tx.CreateApplication(ctx, req.ZoneID, store.NewApplication{Name: req.Body.Name, Traits: valueOr(req.Body.Traits, nil)})
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.CreateApplication201JSONResponse{
		Body: toRegisteredApplication(a, secret), Headers: api.CreateApplication201ResponseHeaders{ETag: etag(a.Version)},
	}, nil
}

// RegisterApplication handles POST /v1/zones/{zoneId}/applications/dcr.
func (s *Server) RegisterApplication(ctx context.Context, req api.RegisterApplicationRequestObject) (api.RegisterApplicationResponseObject, error) {
	cause := cause(ctx)
	if !s.limits.registrations.Allow(req.ZoneID + ":" + cause.Actor.ID) {
		return nil, code.DCRRateLimitExceeded
	}
	registration := store.Registration{Name: req.Body.Name, ExpiresIn: valueOr(req.Body.ExpiresIn, defaultRegistrationSeconds)}
	var a db.Application
	var secret string
	err := s.store.InTx(ctx, cause, func(tx *store.Tx) (err error) {
		a, secret, err = tx.RegisterApplication(ctx, req.ZoneID, registration)
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.RegisterApplication201JSONResponse{
		Body: toRegisteredApplication(a, secret), Headers: api.RegisterApplication201ResponseHeaders{ETag: etag(a.Version)},
	}, nil
}

// GetApplication handles GET /v1/zones/{zoneId}/applications/{id}.
func (s *Server) GetApplication(ctx context.Context, req api.GetApplicationRequestObject) (api.GetApplicationResponseObject, error) {
	a, err := s.storeFor(ctx).Application(ctx, req.ZoneID, req.ID)
	if err != nil {
		return nil, err
	}
	return api.GetApplication200JSONResponse{Body: toApplication(a, cause(ctx).Actor.Global()), Headers: api.GetApplication200ResponseHeaders{ETag: etag(a.Version)}}, nil
}

// UpdateApplication handles PATCH /v1/zones/{zoneId}/applications/{id}.
func (s *Server) UpdateApplication(ctx context.Context, req api.UpdateApplicationRequestObject) (api.UpdateApplicationResponseObject, error) {
	patch := store.ApplicationPatch{
		Name: req.Body.Name, Traits: valueOr(req.Body.Traits, nil),
		Verify: func(present store.Application) error { return checkReadOnly(ctx, toApplication(present, true)) },
	}
	if secret := req.Body.ClientSecret; secret != nil {
		// Check existence first, so that callers cannot trigger Argon2 for unknown ids.
		if _, err := s.storeFor(ctx).Application(ctx, req.ZoneID, req.ID); err != nil {
			return nil, err
		}
		hash, err := store.HashChosenSecret(ctx, *secret)
		if err != nil {
			return nil, err
		}
		patch.ClientSecret = &hash
	}
	a, err := inTx(ctx, s, func(tx *store.Tx) (store.Application, error) {
		return tx.UpdateApplication(ctx, req.ZoneID, req.ID, precondition(ctx), patch)
	})
	if err != nil {
		return nil, err
	}
	return api.UpdateApplication200JSONResponse{Body: toApplication(a, cause(ctx).Actor.Global()), Headers: api.UpdateApplication200ResponseHeaders{ETag: etag(a.Version)}}, nil
}

// DeleteApplication handles DELETE /v1/zones/{zoneId}/applications/{id}.
func (s *Server) DeleteApplication(ctx context.Context, req api.DeleteApplicationRequestObject) (api.DeleteApplicationResponseObject, error) {
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) error {
		return tx.DeleteApplication(ctx, req.ZoneID, req.ID, precondition(ctx))
	})
	if err != nil {
		return nil, err
	}
	return api.DeleteApplication204Response{}, nil
}

// RotateApplicationSecret handles POST /v1/zones/{zoneId}/applications/{id}/rotate-secret.
func (s *Server) RotateApplicationSecret(ctx context.Context, req api.RotateApplicationSecretRequestObject) (api.RotateApplicationSecretResponseObject, error) {
	rotation := store.SecretRotation{Overlap: valueOr(req.Body.OverlapSeconds, defaultOverlapSeconds)}
	var a store.Application
	var secret string
	err := s.store.InTx(ctx, cause(ctx), func(tx *store.Tx) (err error) {
		a, secret, err = tx.RotateApplicationSecret(ctx, req.ZoneID, req.ID, precondition(ctx), rotation)
		return err
	})
	if err != nil {
		return nil, err
	}
	return api.RotateApplicationSecret201JSONResponse{
		Body:    api.RotatedSecret{ID: a.ID, ClientSecret: secret, Secrets: toApplicationSecrets(a.Secrets)},
		Headers: api.RotateApplicationSecret201ResponseHeaders{ETag: etag(a.Version)},
	}, nil
}

// toApplication converts an application. Only a global caller may see its traits.
func toApplication(a store.Application, global bool) api.Application {
	result := toListedApplication(&db.ListApplicationsRow{
		ZoneID: a.ZoneID, ID: a.ID, Name: a.Name, RegistrationMethod: a.RegistrationMethod, Traits: a.Traits,
		CreatedAt: a.CreatedAt, ExpiresAt: a.ExpiresAt,
	}, global)
	result.Secrets = new(toApplicationSecrets(a.Secrets))
	return result
}

func toApplicationSecrets(secrets []store.ApplicationSecret) []api.ApplicationSecret {
	return mapSlice(secrets, func(s store.ApplicationSecret) api.ApplicationSecret {
		return api.ApplicationSecret{ID: s.ID, CreatedAt: timestamp.Time(s.CreatedAt), ExpiresAt: timestamp.Optional(s.ExpiresAt)}
	})
}

// toListedApplication converts a row of a list. The result points to the row's
// traits.
func toListedApplication(a *db.ListApplicationsRow, global bool) api.Application {
	result := api.Application{
		ID: a.ID, ZoneID: a.ZoneID, Name: a.Name, RegistrationMethod: api.RegistrationMethod(a.RegistrationMethod),
		ExpiresAt: timestamp.Optional(a.ExpiresAt), CreatedAt: timestamp.Time(a.CreatedAt),
	}
	if global {
		result.Traits = &a.Traits
	}
	return result
}

func toRegisteredApplication(a db.Application, secret string) api.RegisteredApplication {
	return api.RegisteredApplication{
		ID: a.ID, ZoneID: a.ZoneID, Name: a.Name, RegistrationMethod: api.RegistrationMethod(a.RegistrationMethod),
		ExpiresAt: timestamp.Optional(a.ExpiresAt), CreatedAt: timestamp.Time(a.CreatedAt), ClientSecret: secret,
	}
}
