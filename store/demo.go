package store

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"caracal.run/management/gen/db"
)

// DemoUsers are users that have a session with an application.
type DemoUsers struct {
	Application string
	Names       []string
}

// Demo inserts rows that other services write. For each of a zone's applications,
// it inserts a session, a child session, an agent session and a child agent
// session, and a delegation edge from its agent session to that of the next
// application; and a session of each user. It also inserts two pending step-up
// challenges of the session of the first application. It connects as the owner role
// and writes no audit entries.
func Demo(ctx context.Context, ownerURL, zone string, applications []string, users DemoUsers) error {
	conn, err := pgx.Connect(ctx, ownerURL)
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, "SELECT set_config('caracal.zone_id', $1, true)", zone); err != nil {
			return err
		}
		q := db.New(tx)
		for _, name := range users.Names {
			if err := q.InsertSession(ctx, db.InsertSessionParams{ZoneID: zone, ID: newID(), SessionType: "user", SubjectID: &name, ApplicationID: &users.Application}); err != nil {
				return err
			}
		}
		var agents []string
		for i, application := range applications {
			session, agent, err := demoApplication(ctx, q, zone, application)
			if err != nil {
				return err
			}
			agents = append(agents, agent)
			if i > 0 {
				continue
			}
			for _, scope := range []string{"invoices:read", "invoices:write"} {
				if err := demoChallenge(ctx, q, zone, application, session, scope); err != nil {
					return err
				}
			}
		}
		for i := 1; i < len(agents); i++ {
			if err := q.InsertDelegationEdge(ctx, db.InsertDelegationEdgeParams{
				ZoneID: zone, ID: newID(), SourceSessionID: agents[i-1], TargetSessionID: agents[i],
				IssuerApplicationID: applications[i-1], ReceiverApplicationID: applications[i], Scopes: []string{"invoices:read"},
			}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("demo: %w", err)
	}
	return nil
}

// demoChallenge inserts a challenge for a scope, as the STS does.
func demoChallenge(ctx context.Context, q *db.Queries, zone, application, session, scope string) error {
	const resource = "resource://invoices"
	metadata, err := json.Marshal(map[string][]string{"requested_scopes": {scope}, "resources": {resource}})
	if err != nil {
		return err
	}
	requested := sha256.Sum256([]byte("resources\x00" + resource + "\x00scopes\x00" + scope))
	return q.InsertStepUpChallenge(ctx, db.InsertStepUpChallengeParams{
		ZoneID: zone, ID: newID(), SessionID: session, PrincipalID: application, MetadataJSON: metadata, ResourceSetHash: requested[:],
	})
}

func demoApplication(ctx context.Context, q *db.Queries, zone, application string) (session, agent string, err error) {
	session, childSession, agent := newID(), newID(), newID()
	for _, s := range []db.InsertSessionParams{
		{ZoneID: zone, ID: session, SessionType: "application", SubjectID: &application},
		{ZoneID: zone, ID: childSession, SessionType: "application", SubjectID: &application, ParentID: &session},
	} {
		if err := q.InsertSession(ctx, s); err != nil {
			return "", "", err
		}
	}
	for _, a := range []db.InsertAgentSessionParams{
		{ZoneID: zone, ID: agent, ApplicationID: application, SubjectSessionID: session, Labels: []string{"planner"}, ChildCount: 1},
		{ZoneID: zone, ID: newID(), ApplicationID: application, SubjectSessionID: session, Labels: []string{"helper"}, ParentID: &agent, Depth: 1},
	} {
		if err := q.InsertAgentSession(ctx, a); err != nil {
			return "", "", err
		}
	}
	return session, agent, nil
}
