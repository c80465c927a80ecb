-- Step-up challenges, and the permission to satisfy and reject them.
--
-- The security token service (STS) inserts a challenge when a request requires an
-- approval or another proof, and consumes it when the request is repeated. This
-- service lists challenges, and satisfies or rejects them.

-- +goose Up
CREATE TABLE step_up_challenges (
    zone_id               text COLLATE "C" NOT NULL REFERENCES zones (id),
    id                    text COLLATE "C" NOT NULL,
    session_id            text COLLATE "C",                  -- null or '': the request named no session
    principal_id          text COLLATE "C" NOT NULL,         -- the requester: a user or an application
    challenge_type        text NOT NULL CHECK (challenge_type IN ('human_approval', 'mfa', 'software_attestation')),
    metadata_json         jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(metadata_json) = 'object'),
    resource_set_hash     bytea NOT NULL,
    challenge_secret_hash bytea,                             -- null for human_approval
    created_at            timestamptz NOT NULL DEFAULT now(),
    expires_at            timestamptz NOT NULL,
    satisfied_at          timestamptz,
    approver_subject_id   text,
    rejected_at           timestamptz,
    rejected_by           text,
    rejected_reason       text,
    consumed_at           timestamptz,
    -- Each of these times is set at most once. So their number is a version of the row, whichever service sets them.
    version               bigint NOT NULL GENERATED ALWAYS AS (1 + num_nonnulls(satisfied_at, rejected_at, consumed_at)) STORED,
    -- The status, except that an unused challenge expires with time.
    outcome               text COLLATE "C" NOT NULL GENERATED ALWAYS AS (
        CASE WHEN consumed_at IS NOT NULL THEN 'consumed' WHEN rejected_at IS NOT NULL THEN 'rejected'
             WHEN satisfied_at IS NOT NULL THEN 'satisfied' ELSE 'pending' END) STORED,
    PRIMARY KEY (zone_id, id),
    -- A rejected challenge stays unsatisfied, even for a service that does not know rejected_at.
    CONSTRAINT step_up_challenges_rejection_is_final CHECK (rejected_at IS NULL OR num_nonnulls(satisfied_at, consumed_at) = 0),
    CONSTRAINT step_up_challenges_rejection_complete CHECK (num_nonnulls(rejected_at, rejected_by, rejected_reason) IN (0, 3))
);
CREATE INDEX step_up_challenges_listed ON step_up_challenges (zone_id, created_at DESC, id DESC);
CREATE INDEX step_up_challenges_by_outcome ON step_up_challenges (zone_id, outcome, expires_at DESC, id DESC);
CREATE INDEX step_up_challenges_unused ON step_up_challenges (zone_id, expires_at DESC, id DESC) WHERE consumed_at IS NULL AND rejected_at IS NULL;
ALTER TABLE step_up_challenges ENABLE ROW LEVEL SECURITY;
ALTER TABLE step_up_challenges FORCE ROW LEVEL SECURITY;
CREATE POLICY own_zone ON step_up_challenges USING (current_setting('caracal.zone_id', true) IN (zone_id, '*'));
-- Without challenge_secret_hash and resource_set_hash: the service cannot read them.
GRANT SELECT (zone_id, id, session_id, principal_id, challenge_type, metadata_json, created_at, expires_at, satisfied_at,
    approver_subject_id, rejected_at, rejected_by, rejected_reason, consumed_at, version, outcome) ON step_up_challenges TO caracal_service;
GRANT UPDATE (satisfied_at, approver_subject_id, rejected_at, rejected_by, rejected_reason) ON step_up_challenges TO caracal_service;

ALTER TABLE admin_tokens ADD COLUMN can_approve boolean NOT NULL DEFAULT false;
GRANT UPDATE (can_approve) ON admin_tokens TO caracal_service;
SELECT set_config('caracal.zone_id', '*', true);
UPDATE admin_tokens SET can_approve = true WHERE created_by = 'env-bootstrap';

-- +goose Down
ALTER TABLE admin_tokens DROP COLUMN can_approve;
DROP TABLE step_up_challenges;
