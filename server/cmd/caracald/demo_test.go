package main

import (
	"encoding/hex"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	var out strings.Builder
	auditKey, err := hex.DecodeString(servertest.AuditKey)
	if err != nil {
		t.Fatal(err)
	}
	d := demo{
		url: a.URL, token: servertest.Bootstrap, ownerURL: a.DB.OwnerURL(), redisURL: a.Config.RedisURL.Reveal(), auditKey: auditKey,
		file: filepath.Join(t.TempDir(), "demo-zone"),
	}
	for range 2 { // the second start creates nothing
		if _, err := d.seed(t.Context(), &out); err != nil {
			t.Fatal(err)
		}
	}
	_, after, _ := strings.Cut(out.String(), "export DEMO_ZONE=")
	zone, _, _ := strings.Cut(after, "\n")
	c, err := client.New(a.URL, servertest.Bootstrap)
	if err != nil {
		t.Fatal(err)
	}
	status := map[client.StepUpChallengeStatus]int{}
	for challenge, err := range c.StepUpChallenges(t.Context(), zone) {
		if err != nil {
			t.Fatal(err)
		}
		status[challenge.Status]++
		if challenge.Status == client.StepUpChallengeStatusPending {
			if _, err := c.SatisfyStepUpChallenge(t.Context(), zone, challenge.ID); err != nil {
				t.Errorf("the pending challenge cannot be satisfied: %v", err)
			}
		}
	}
	if len(status) != 2 || status[client.StepUpChallengeStatusPending] != 1 || status[client.StepUpChallengeStatusSatisfied] != 1 {
		t.Errorf("the challenges are %v", status)
	}
	explained, err := c.ExplainRequest(t.Context(), zone, "demo-denied")
	for deadline := time.Now().Add(10 * time.Second); err != nil && time.Now().Before(deadline); { // until it is ingested
		time.Sleep(10 * time.Millisecond)
		explained, err = c.ExplainRequest(t.Context(), zone, "demo-denied")
	}
	if err != nil || explained.FinalDecision != "deny" || len(explained.Denied) != 1 || explained.Denied[0].NotSimulatableReason != nil {
		t.Errorf("the denied request is %+v, %v", explained, err)
	}
}
