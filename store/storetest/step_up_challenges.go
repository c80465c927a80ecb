package storetest

// StepUpChallenge inserts a pending challenge of a session, which is requested by the
// subject of the session.
func (d *DB) StepUpChallenge(zone, session string) string {
	d.tb.Helper()
	c := id("challenge")
	d.Exec(`INSERT INTO step_up_challenges (zone_id, id, session_id, principal_id, challenge_type, metadata_json, resource_set_hash, expires_at)
		SELECT $1, $2, $3, coalesce((SELECT subject_id FROM sessions WHERE zone_id = $1 AND id = $3), 'user-1'), 'human_approval',
			'{"resources": ["resource://invoices"], "requested_scopes": ["invoices:write"]}', sha256('x'), now() + interval '30 minutes'`, zone, c, session)
	return c
}

// MFAStepUpChallenge inserts a pending challenge with the hash of a secret.
func (d *DB) MFAStepUpChallenge(zone, session string, secretHash []byte) string {
	d.tb.Helper()
	c := d.StepUpChallenge(zone, session)
	d.Exec("UPDATE step_up_challenges SET challenge_type = 'mfa', metadata_json = '{}', challenge_secret_hash = $3 WHERE zone_id = $1 AND id = $2", zone, c, secretHash)
	return c
}

// SatisfiedStepUpChallenge inserts a challenge that another service has satisfied.
func (d *DB) SatisfiedStepUpChallenge(zone, session string) string {
	d.tb.Helper()
	c := d.StepUpChallenge(zone, session)
	d.Exec("UPDATE step_up_challenges SET satisfied_at = now(), approver_subject_id = 'user-2' WHERE zone_id = $1 AND id = $2", zone, c)
	return c
}

// ConsumedStepUpChallenge inserts a challenge that was satisfied and used.
func (d *DB) ConsumedStepUpChallenge(zone, session string) string {
	d.tb.Helper()
	c := d.SatisfiedStepUpChallenge(zone, session)
	d.Exec("UPDATE step_up_challenges SET consumed_at = now() WHERE zone_id = $1 AND id = $2", zone, c)
	return c
}

// RejectedStepUpChallenge inserts a rejected challenge.
func (d *DB) RejectedStepUpChallenge(zone, session string) string {
	d.tb.Helper()
	c := d.StepUpChallenge(zone, session)
	d.Exec("UPDATE step_up_challenges SET rejected_at = now(), rejected_by = 'admin:token-1', rejected_reason = 'Not today.' WHERE zone_id = $1 AND id = $2", zone, c)
	return c
}

// ExpiredStepUpChallenge inserts a challenge that expired before it was satisfied.
func (d *DB) ExpiredStepUpChallenge(zone, session string) string {
	d.tb.Helper()
	c := d.StepUpChallenge(zone, session)
	d.ExpireStepUpChallenge(zone, c)
	return c
}

// ExpireStepUpChallenge lets a challenge expire.
func (d *DB) ExpireStepUpChallenge(zone, challenge string) {
	d.tb.Helper()
	d.Exec("UPDATE step_up_challenges SET created_at = now() - interval '31 minutes', expires_at = now() - interval '1 minute' WHERE zone_id = $1 AND id = $2", zone, challenge)
}
