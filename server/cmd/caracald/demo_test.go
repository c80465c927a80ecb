package main

import (
	"path/filepath"
	"strings"
	"testing"

	"caracal.run/management/gen/client"
	"caracal.run/management/server/servertest"
)

func TestDemoHasPendingAndSatisfiedStepUpChallenge(t *testing.T) {
	t.Parallel()
	a := servertest.New(t)
	var out strings.Builder
	file := filepath.Join(t.TempDir(), "demo-zone")
	for range 2 { // the second start creates nothing
		if _, err := seedDemo(t.Context(), &out, a.URL, servertest.Bootstrap, a.DB.OwnerURL(), file); err != nil {
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
}
